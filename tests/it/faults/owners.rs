//! Somebody who may write where files go puts files and links of his own in the place of ours.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use contentmonster::embedded_vessel::{Faults, InjectedFault, Request};

use super::bay::{BY_SFTP, Bay, Berth, names_in};
use super::policy::status;
use crate::fleet::content::content;

/// Packet types that matter here.
const OPEN: u8 = 3;
const SETSTAT: u8 = 9;
const FSETSTAT: u8 = 10;

/// A user that nobody is.
const THIEF: u32 = 54_321;

/// Makes our unfinished files his own, so that their mode can't be set.
#[derive(Debug, Default)]
struct Thief {
    place: OnceLock<PathBuf>,
    refused: AtomicUsize,
}

impl Faults for Thief {
    fn decide(&self, request: Request<'_>) -> InjectedFault {
        let Request::Packet([SETSTAT | FSETSTAT, ..]) = request else { return InjectedFault::Serve };
        // By its handle, and by its path.
        if self.refused.fetch_add(1, Ordering::Relaxed) >= 2 {
            return InjectedFault::Serve;
        }
        let place = self.place.get().expect("it is set before the program runs");
        for name in names_in(place).into_iter().filter(|name| name.starts_with(".contentmonster")) {
            chown(place.join(name), Some(THIEF), Some(THIEF)).unwrap();
        }
        InjectedFault::Answer(status(3))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_whose_mode_only_another_user_can_set_is_not_published() {
    for size in [3_000, 300_000] {
        let thief = Arc::new(Thief::default());
        let bay = Bay::open(vec![Berth { name: "vessel", shell: true, policy: thief.clone() }], BY_SFTP);
        let there = bay.path("vessel/in");
        thief.place.set(there.clone()).unwrap();
        let bytes = content(1, size);
        bay.put("payroll", &bytes);
        assert!(bay.once(Duration::from_secs(5)).await.unwrap().is_all_delivered());
        let published = fs::metadata(there.join("payroll")).unwrap();
        assert_eq!((published.uid(), published.mode() & 0o7777), (0, 0o640), "{size} bytes");
        assert_eq!(fs::read(there.join("payroll")).unwrap(), bytes);
        assert_eq!(bay.leftovers(), Vec::<String>::new());
        bay.close().await;
    }
}

/// Puts a link to a file of ours in the place of what is about to be made to see whose TempDir is.
#[derive(Debug, Default)]
struct Planter {
    victim: OnceLock<PathBuf>,
    planted: AtomicUsize,
}

impl Faults for Planter {
    fn decide(&self, request: Request<'_>) -> InjectedFault {
        let Request::Packet(packet @ [OPEN, ..]) = request else { return InjectedFault::Serve };
        let length = u32::from_be_bytes(packet[5..9].try_into().unwrap()) as usize;
        let path = Path::new(OsStr::from_bytes(&packet[9..9 + length]));
        if path.extension() == Some(OsStr::new("probe")) && self.planted.fetch_add(1, Ordering::Relaxed) == 0 {
            symlink(self.victim.get().expect("it is set before the program runs"), path).unwrap();
        }
        InjectedFault::Serve
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_that_somebody_plants_in_temp_dir_is_not_followed() {
    let planter = Arc::new(Planter::default());
    let bay = Bay::open(vec![Berth { name: "vessel", shell: true, policy: planter.clone() }], BY_SFTP);
    let victim = bay.path("nologin");
    planter.victim.set(victim.clone()).unwrap();
    fs::create_dir(bay.path("vessel/temp")).unwrap();
    fs::set_permissions(bay.path("vessel/temp"), fs::Permissions::from_mode(0o700)).unwrap();
    bay.put("cargo", &content(1, 300_000));
    assert!(bay.once(Duration::from_secs(5)).await.unwrap().is_all_delivered());
    assert!(planter.planted.load(Ordering::Relaxed) > 0, "TempDir was not asked for");
    assert!(!victim.exists(), "a file was made where the link leads");
    assert_eq!(bay.leftovers(), Vec::<String>::new());
    bay.close().await;
}

/// What an earlier run left is another user's by now.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_belongs_to_another_user_is_not_gone_on_with() {
    for shell in [true, false] {
        let cutter = Arc::new(Cutter::default());
        let bay = Bay::open(
            vec![Berth { name: "vessel", shell, policy: cutter.clone() }],
            &format!("{BY_SFTP}\nConnections = 1"),
        );
        let there = bay.path("vessel/in");
        let bytes = content(1, 300_000);
        bay.put("payroll", &bytes);
        // It fails: nothing gets its name.
        let _ = bay.once(Duration::from_secs(2)).await;
        let left: Vec<_> = names_in(&there);
        assert!(left.len() == 1 && left[0].starts_with(".contentmonster"), "{left:?}");
        assert!(fs::metadata(there.join(&left[0])).unwrap().len() > 0);
        chown(there.join(&left[0]), Some(THIEF), Some(THIEF)).unwrap();
        cutter.over.store(1, Ordering::Relaxed);
        assert!(bay.once(Duration::from_secs(5)).await.unwrap().is_all_delivered());
        assert_eq!(fs::metadata(there.join("payroll")).unwrap().uid(), 0, "shell {shell}");
        assert_eq!(fs::read(there.join("payroll")).unwrap(), bytes);
        assert_eq!(bay.leftovers(), Vec::<String>::new());
        bay.close().await;
    }
}

/// Refuses modes for good until it is over, so that a file stays unfinished.
#[derive(Debug, Default)]
struct Cutter {
    over: AtomicUsize,
}

impl Faults for Cutter {
    fn decide(&self, request: Request<'_>) -> InjectedFault {
        match request {
            Request::Packet([SETSTAT | FSETSTAT, ..]) if self.over.load(Ordering::Relaxed) == 0 => {
                InjectedFault::CutBefore
            }
            _ => InjectedFault::Serve,
        }
    }
}
