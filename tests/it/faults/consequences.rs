//! What follows from each kind of failure: the file waits, or the vessel does, and somebody is told why.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};
use contentmonster::embedded_vessel::{Faults, InjectedFault, Request};

use super::bay::{BY_SFTP, Bay, Berth};
use super::policy::{Kind, rename_of};
use crate::fleet::content::content;

const PATIENT: Duration = Duration::from_secs(10);
/// Packet types.
const INIT: u8 = 1;
const WRITE: u8 = 6;

/// What this says befalls every request that it names, until it is calm.
struct Always<F> {
    befalls: F,
    calm: AtomicBool,
    times: AtomicUsize,
}

impl<F> std::fmt::Debug for Always<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Always").finish_non_exhaustive()
    }
}

impl<F: Fn(Request<'_>) -> Option<InjectedFault> + Send + Sync> Faults for Always<F> {
    fn decide(&self, request: Request<'_>) -> InjectedFault {
        let fault = if self.calm.load(Ordering::Relaxed) { None } else { (self.befalls)(request) };
        self.times.fetch_add(usize::from(fault.is_some()), Ordering::Relaxed);
        fault.unwrap_or(InjectedFault::Serve)
    }
}

fn always<F: Fn(Request<'_>) -> Option<InjectedFault> + Send + Sync + 'static>(befalls: F) -> Arc<Always<F>> {
    Arc::new(Always { befalls, calm: AtomicBool::new(false), times: AtomicUsize::new(0) })
}

fn is_write(request: Request<'_>) -> bool {
    matches!(request, Request::Packet([WRITE, ..]))
}

fn is_rename(request: Request<'_>) -> bool {
    matches!(request, Request::Packet(packet) if rename_of(packet).is_some())
}

fn says(code: u32, words: &str) -> InjectedFault {
    let mut packet = BytesMut::new();
    packet.put_u8(101);
    packet.put_u32(0);
    packet.put_u32(code);
    for text in [words, ""] {
        packet.put_u32(u32::try_from(text.len()).unwrap());
        packet.extend_from_slice(text.as_bytes());
    }
    InjectedFault::Answer(packet.freeze())
}

fn files() -> Vec<(String, Vec<u8>)> {
    vec![("small".to_owned(), content(5, 2_000)), ("large".to_owned(), content(6, 200_000))]
}

/// Has it befall one vessel beside one to which nothing happens: the one waits and says so with these words, the other is
/// served; when it is over, the first is too.
async fn waits<F>(shell: bool, policy: Arc<Always<F>>, words: &[&str])
where
    F: Fn(Request<'_>) -> Option<InjectedFault> + Send + Sync + 'static,
{
    let good = always(|_| None);
    let berths =
        vec![Berth { name: "bad", shell, policy: policy.clone() }, Berth { name: "good", shell, policy: good }];
    let bay = Bay::open(berths, BY_SFTP);
    files().iter().for_each(|(name, bytes)| bay.put(name, bytes));
    let report = bay.once(PATIENT).await.unwrap();
    assert!(!report.is_all_delivered());
    bay.must_have_said(words);
    for (name, bytes) in &files() {
        assert_eq!(fs::read(bay.source(name)).unwrap(), *bytes, "the source waits");
        assert_eq!(fs::read(bay.path("good/in").join(name)).unwrap(), *bytes, "the other vessel is served");
        assert!(!bay.path("bad/in").join(name).exists());
    }
    policy.calm.store(true, Ordering::Relaxed);
    bay.once(PATIENT).await.unwrap();
    assert_eq!(bay.unfinished(&files()), Vec::<String>::new());
    bay.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_always_arrives_damaged_is_parked_after_a_few_repairs() {
    for shell in [true, false] {
        let policy = always(|request| is_write(request).then(|| Kind::Corrupt.fault(request)));
        waits(shell, policy, &["arrived damaged 4 times", "check the vessel's disk"]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quota_that_is_used_up_parks_the_vessel_though_its_disk_has_room() {
    let policy = always(|request| is_write(request).then(|| says(4, "write: Disk quota exceeded")));
    waits(true, policy, &["Disk quota exceeded", "raise the account's quota"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vessel_that_says_in_words_that_it_is_full_is_parked() {
    let policy = always(|request| is_write(request).then(|| says(4, "No space left on device")));
    waits(false, policy, &["No space left on device", "free some space there"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_the_vessel_does_not_take_parks_the_file_with_a_word_on_names() {
    let policy = always(|request| is_rename(request).then(|| says(5, "Bad message")));
    waits(true, policy, &["renaming", "give the file a name"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_was_removed_for_want_of_room_when_it_was_to_get_its_name_counts_as_not_delivered() {
    let policy = always(|request| is_rename(request).then(|| says(4, "No space left on device")));
    waits(true, policy, &["renaming", "No space left"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_permitted_parks_the_file() {
    let policy = always(|request| is_rename(request).then(|| says(3, "Permission denied")));
    waits(true, policy, &["renaming", "permission"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rename_that_was_only_said_to_be_done_is_not_believed() {
    let policy = always(|request| {
        // The first time for each of the files.
        is_rename(request).then(|| says(0, ""))
    });
    let limited = AtomicUsize::new(0);
    let lying = always(move |request| {
        let lie = (policy.befalls)(request)?;
        (limited.fetch_add(1, Ordering::Relaxed) < 2).then_some(lie)
    });
    let bay = Bay::open(vec![Berth { name: "liar", shell: true, policy: lying.clone() }], BY_SFTP);
    files().iter().for_each(|(name, bytes)| bay.put(name, bytes));
    let report = bay.once(PATIENT).await.unwrap();
    assert!(report.is_all_delivered(), "{report:?}");
    assert_eq!(lying.times.load(Ordering::Relaxed), 2);
    assert_eq!(bay.unfinished(&files()), Vec::<String>::new());
    bay.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vessel_without_any_extension_is_served_and_its_files_replaced() {
    let plain = || {
        always(|request| {
            let version = InjectedFault::Answer(Bytes::from_static(&[2, 0, 0, 0, 3]));
            matches!(request, Request::Packet([INIT, ..])).then_some(version)
        })
    };
    for shell in [true, false] {
        let bay = Bay::open(vec![Berth { name: "plain", shell, policy: plain() }], BY_SFTP);
        fs::write(bay.path("plain/in/small"), "an older one").unwrap();
        files().iter().for_each(|(name, bytes)| bay.put(name, bytes));
        let report = bay.once(PATIENT).await.unwrap();
        assert!(report.is_all_delivered(), "{report:?}");
        assert_eq!(bay.unfinished(&files()), Vec::<String>::new());
        bay.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_vessel_is_served_slowly() {
    let slow = always(|_| Some(InjectedFault::Delay(Duration::from_millis(30))));
    let bay = Bay::open(vec![Berth { name: "slow", shell: true, policy: slow }], &format!("{BY_SFTP}\nTimeout = 1s"));
    files().iter().for_each(|(name, bytes)| bay.put(name, bytes));
    let report = bay.once(Duration::from_secs(1)).await.unwrap();
    assert!(report.is_all_delivered(), "{report:?}");
    bay.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vessel_that_breaks_off_every_login_is_tried_as_often_as_the_settings_say() {
    let policy = always(|request| (request == Request::Login).then_some(InjectedFault::CutBefore));
    let bay = Bay::open(
        vec![Berth { name: "bad", shell: true, policy: policy.clone() }],
        &format!("{BY_SFTP}\nReconnectWait = 1s"),
    );
    files().iter().for_each(|(name, bytes)| bay.put(name, bytes));
    let mut program = bay.spawn(&[]);
    let (started, tries) = (Instant::now(), || policy.times.load(Ordering::Relaxed));
    // Without the setting the waits would be 1, 2, 4, 8, 16 and 32 s by now, half of them on the average.
    while tries() < 8 {
        assert!(started.elapsed() < Duration::from_secs(20), "{} tries", tries());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(started.elapsed() > Duration::from_millis(800), "8 tries in {:?}", started.elapsed());
    policy.calm.store(true, Ordering::Relaxed);
    while !bay.unfinished(&files()).is_empty() {
        assert!(started.elapsed() < Duration::from_secs(40), "{:?}", bay.unfinished(&files()));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    program.kill().unwrap();
    program.wait().unwrap();
    bay.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vessel_that_keeps_eight_files_open_and_no_more_gets_hundreds_without_a_warning() {
    const OPEN: u8 = 3;
    const CLOSE: u8 = 4;
    let open = AtomicUsize::new(0);
    let limited = always(move |request| match request {
        // Those that are written; a listing may fail for another reason, and is not counted.
        Request::Packet([OPEN, rest @ ..]) => {
            let path = u32::from_be_bytes(rest[4..8].try_into().unwrap()) as usize;
            let flags = u32::from_be_bytes(rest[8 + path..12 + path].try_into().unwrap());
            if flags & 2 == 0 {
                return None;
            }
            let is_too_many = open.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| (n < 8).then_some(n + 1));
            is_too_many.is_err().then(|| says(4, "Too many open files"))
        }
        Request::Packet([CLOSE, ..]) => {
            let _ = open.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1));
            None
        }
        _ => None,
    });
    let bay = Bay::open(vec![Berth { name: "few", shell: true, policy: limited.clone() }], BY_SFTP);
    let files: Vec<_> = (0..400).map(|n| (format!("file{n}"), content(n, 3_000))).collect();
    files.iter().for_each(|(name, bytes)| bay.put(name, bytes));
    let report = bay.once(PATIENT).await.unwrap();
    assert_eq!(bay.said(), Vec::<String>::new(), "no file was postponed");
    assert!(report.is_all_delivered(), "{report:?}");
    assert_eq!(bay.unfinished(&files), Vec::<String>::new());
    println!("refused {} times", limited.times.load(Ordering::Relaxed));
    bay.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_exist_already_are_not_taken_for_too_many_open_ones() {
    const OPEN: u8 = 3;
    let (seen, opens) = (Mutex::new(HashSet::new()), Arc::new(AtomicUsize::new(0)));
    let counted = opens.clone();
    let taken = always(move |request| {
        let Request::Packet([OPEN, rest @ ..]) = request else { return None };
        let (path, flags) = rest[8..].split_at(u32::from_be_bytes(rest[4..8].try_into().unwrap()) as usize);
        let is_new = u32::from_be_bytes(flags[..4].try_into().unwrap()) & 0x20 != 0;
        if is_new && path.ends_with(b".tmp") {
            counted.fetch_add(1, Ordering::Relaxed);
            let path = Path::new(OsStr::from_bytes(path));
            if seen.lock().unwrap().insert(path.to_owned()) {
                fs::write(path, b"by somebody else").unwrap();
            }
            // As OpenSSH says it.
            return path.exists().then(|| says(4, "Failure"));
        }
        None
    });
    let bay = Bay::open(vec![Berth { name: "taken", shell: false, policy: taken }], "");
    let files: Vec<_> = (0..200).map(|n| (format!("file{n}"), content(n, 3_000))).collect();
    files.iter().for_each(|(name, bytes)| bay.put(name, bytes));
    let report = bay.once(PATIENT).await.unwrap();
    assert!(report.is_all_delivered(), "{report:?}");
    assert_eq!(bay.unfinished(&files), Vec::<String>::new());
    // The file there is removed after the first attempt.
    assert_eq!(opens.load(Ordering::Relaxed), 2 * files.len());
    bay.close().await;
}
