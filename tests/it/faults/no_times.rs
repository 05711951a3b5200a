//! Servers that keep no times, or times of their own: what a mirror delivered is known by what it looked like there.

use std::fs;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use contentmonster::embedded_vessel::{Faults, InjectedFault, Request};

use super::bay::{BY_SFTP, Bay, Berth};

/// Answers whoever sets attributes that it can't.
#[derive(Debug)]
struct NoAttributes;

impl Faults for NoAttributes {
    fn decide(&self, request: Request<'_>) -> InjectedFault {
        // SETSTAT and FSETSTAT; SSH_FX_OP_UNSUPPORTED without a text.
        match request {
            Request::Packet(packet) if matches!(packet.first(), Some(9 | 10)) => {
                InjectedFault::Answer(Bytes::from_static(&[101, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0]))
            }
            _ => InjectedFault::Serve,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_mirror_deletes_where_times_do_not_stick_what_it_delivered_and_nothing_else() {
    for shell in [true, false] {
        let bay = Bay::open(vec![Berth { name: "vessel", shell, policy: Arc::new(NoAttributes) }], BY_SFTP);
        let settings = bay.path("settings.ini");
        let text = fs::read_to_string(&settings).unwrap();
        fs::write(&settings, text.replacen("SettleTime", "Mode = mirror\nDelete = yes\nSettleTime", 1)).unwrap();
        let large = crate::fleet::content::content(5, 300_000);
        for (name, bytes) in [("keep", &b"keep"[..]), ("small", b"small"), ("large", &large), ("changed", b"was this")]
        {
            bay.put(name, bytes);
        }
        let report = bay.once(Duration::from_secs(10)).await.unwrap();
        assert!(report.is_all_delivered(), "{report:?}");
        let there = bay.path("vessel/in");
        let is_recent = |name: &str| {
            let modified = fs::metadata(there.join(name)).unwrap().modified().unwrap();
            SystemTime::now().duration_since(modified).unwrap_or_default() < Duration::from_secs(50)
        };
        assert!(is_recent("small") && is_recent("large"), "the vessel keeps no times");
        let changed = fs::File::options().write(true).open(there.join("changed")).unwrap();
        changed.set_modified(SystemTime::now() - Duration::from_secs(9)).unwrap();
        for name in ["small", "large", "changed"] {
            fs::remove_file(bay.source(name)).unwrap();
        }
        let report = bay.once(Duration::from_secs(10)).await.unwrap();
        assert!(report.is_all_delivered(), "{report:?}");
        let mut left: Vec<_> = fs::read_dir(&there).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["changed", "keep"], "shell: {shell}");
        assert_eq!(bay.broken_promises(), Vec::<String>::new());
        bay.close().await;
    }
}
