//! Watches directories for changes with the kernel's file events. No other module uses the crate `notify`.
//!
//! Events are hints only: they can be lost, doubled or late, and a scan finds the changes that they missed. This module
//! opens no files. On `notify`'s own thread it never waits for the receiver of the hints; it only reads the status of
//! paths that were moved in, which may block on a mount that hangs. It drops events of our own temporary files and of
//! paths that are too deep; the receiver of the hints applies the directory's other rules.

mod refusal;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use notify::event::{AccessKind, AccessMode, CreateKind, ModifyKind, RemoveKind, RenameMode};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use rustix::io::Errno;
use tokio::sync::mpsc::Sender;
use tokio::sync::mpsc::error::TrySendError;

use super::DiskError;
use super::error::gone;
use super::own_names::{PROCESSED, is_ours};
use super::witness::Witness;
use crate::names::RelPath;
use refusal::refused;

/// Minimum time between two [`Hint::Touched`] for the same path, because every `write` raises an event.
const TOUCH_INTERVAL: Duration = Duration::from_millis(100);

/// A change that may have happened in a watched directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hint {
    /// The file was closed after writing, or moved in. This is the strongest sign that a file is finished.
    Finished(RelPath),
    /// The file was created or written to, or its attributes changed.
    Touched(RelPath),
    /// A directory was created or moved in; it is not watched yet.
    Directory(RelPath),
    /// The file was deleted or moved away.
    Gone(RelPath),
    /// Events were lost, or the location itself was changed, moved or deleted: rescan the location.
    Rescan,
}

/// The watch of one directory and of the directories below it that were [entered](Self::enter). Dropping the last clone
/// ends the watch.
///
/// `notify` can watch whole trees, but it reports a new directory before it watches that directory, so files created in
/// between would be missed. Therefore each directory is entered here before it is listed.
///
/// Clones share one watcher, because other tasks query it while a scan enters directories.
#[derive(Clone, Debug)]
pub struct Watcher {
    location: PathBuf,
    identity: (u64, u64),
    missed: Arc<AtomicBool>,
    witness: Witness,
    /// Locked while `notify` adds a watch, which may take long if `notify`'s thread is busy. So only scans may lock it.
    inner: Arc<Mutex<RecommendedWatcher>>,
    entered: Arc<Mutex<Entered>>,
}

/// The watched directories below the location.
#[derive(Debug, Default)]
struct Entered {
    /// Their paths and inodes.
    inodes: BTreeMap<PathBuf, u64>,
    /// Number of removals from this list so far. If this number changes while a directory is being added, that
    /// directory may have been removed meanwhile, and is not added to the list.
    removals: u64,
}

impl Watcher {
    /// Starts watching. Sends hints to `hints` while the channel has room, and records writer events in `witness`,
    /// whose earlier records are cleared. With `deep`, also reports new directories below the location, and changes in
    /// those that were [entered](Self::enter).
    ///
    /// # Errors
    /// [`DiskError::Location`] when the location is not a readable directory, [`DiskError::WatchLimit`] when the kernel
    /// grants no more watches. The caller should then rely on periodic scans and try again later.
    pub fn start(location: &Path, deep: bool, hints: Sender<Hint>, witness: &Witness) -> Result<Self, DiskError> {
        let unwatched = |source| DiskError::Location { act: "watch", path: location.into(), source };
        let identity = identity(location).map_err(unwatched)?;
        let missed = Arc::new(AtomicBool::new(false));
        witness.forget();
        let mut listener = Listener {
            location: location.into(),
            deep,
            hints,
            witness: witness.clone(),
            missed: Arc::clone(&missed),
            last_touch: None,
        };
        let start = || {
            let mut inner = notify::recommended_watcher(move |event| listener.hear(event))?;
            inner.watch(location, RecursiveMode::NonRecursive)?;
            Ok(inner)
        };
        let inner = start().map_err(|error| refused(location, error))?;
        let (location, witness) = (location.into(), witness.clone());
        let (inner, entered) = (Arc::new(Mutex::new(inner)), Arc::default());
        Ok(Self { location, identity, missed, witness, inner, entered })
    }

    /// Watches a directory below the location, unless it is already watched. Set `again` for a directory that an event
    /// reported: its path may belong to another directory by now, or its watch may have ended.
    ///
    /// # Errors
    /// As [`start`](Self::start). A directory that no longer exists is not an error, because an event will report its
    /// removal.
    pub fn enter(&self, directory: &Path, inode: u64, again: bool) -> Result<(), DiskError> {
        let removals = {
            let entered = self.entered();
            if !again && entered.inodes.get(directory) == Some(&inode) {
                return Ok(());
            }
            entered.removals
        };
        let added = locked(&self.inner).watch(directory, RecursiveMode::NonRecursive);
        match added.map_err(|error| refused(directory, error)) {
            Ok(()) => {
                let mut entered = self.entered();
                if entered.removals == removals {
                    entered.inodes.insert(directory.to_owned(), inode);
                }
            }
            Err(DiskError::Location { source, .. }) if gone(&source) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Removes a directory and its subdirectories from the list of watched directories, and drops the witness's records
    /// of their files. Call this when the directory was moved or deleted, because `notify` has then dropped the
    /// watches.
    pub fn leave(&self, path: &RelPath) {
        self.witness.left(path);
        let directory = self.location.join(path.as_path());
        let mut entered = self.entered();
        let below = entered.inodes.range(directory.clone()..).map(|(path, _)| path);
        let left: Vec<_> = below.take_while(|path| path.starts_with(&directory)).cloned().collect();
        for path in left {
            entered.inodes.remove(&path);
        }
        entered.removals += 1;
    }

    /// Clears the list of watched directories below the location. Call this when events were lost, because they may
    /// include the removal of a directory.
    pub fn forget(&self) {
        let mut entered = self.entered();
        entered.inodes.clear();
        entered.removals += 1;
    }

    fn entered(&self) -> MutexGuard<'_, Entered> {
        locked(&self.entered)
    }

    /// Returns whether a hint was dropped since the last call because the channel was full. A rescan is then due.
    ///
    /// Call this whenever hints were received. If the channel has room again, [`Hint::Rescan`] is also sent before the
    /// next hint, but there is no next hint if nothing more happens in the directory.
    pub fn missed(&self) -> bool {
        self.missed.swap(false, Ordering::AcqRel)
    }

    /// Returns whether the location is no longer the watched directory, because it was deleted, moved, replaced,
    /// mounted over or unmounted. Check this after [`Hint::Rescan`] and with every periodic scan, because an unmount
    /// raises no event. If the result is `true`, start a new watcher.
    pub fn is_stale(&self) -> bool {
        !matches!(identity(&self.location), Ok(now) if now == self.identity)
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // The worst consequence of a panic in another thread is that a directory is watched twice.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns the device and inode, which distinguish a directory from another one at the same path.
fn identity(location: &Path) -> io::Result<(u64, u64)> {
    let meta = fs::metadata(location)?;
    if meta.is_dir() { Ok((meta.dev(), meta.ino())) } else { Err(Errno::NOTDIR.into()) }
}

/// Receives the events. `notify` calls the listener on `notify`'s own thread, so the listener must not wait for the
/// receiver of the hints.
struct Listener {
    location: PathBuf,
    deep: bool,
    hints: Sender<Hint>,
    witness: Witness,
    missed: Arc<AtomicBool>,
    last_touch: Option<(RelPath, Instant)>,
}

impl Listener {
    fn hear(&mut self, event: notify::Result<Event>) {
        let hint = match event {
            Ok(event) => self.read(&event),
            Err(error) => {
                tracing::debug!(
                    location = %self.location.display(), %error,
                    "Kernel events may have been lost; rescanning the directory"
                );
                self.witness.forget();
                Some(Hint::Rescan)
            }
        };
        if let Some(hint) = hint
            && !self.said_just_now(&hint)
        {
            self.say(hint);
        }
    }

    /// Converts an event to a hint; `None` if the event is irrelevant.
    fn read(&self, event: &Event) -> Option<Hint> {
        if event.need_rescan() {
            self.witness.forget();
            return Some(Hint::Rescan);
        }
        self.bear_witness(event);
        let whole = event.paths.first()?;
        let below = whole.strip_prefix(&self.location).ok()?;
        let hint =
            if self.deep && is_new_directory(event.kind, whole) { Hint::Directory } else { hint_of(event.kind)? };
        if below.as_os_str().is_empty() {
            return Some(Hint::Rescan);
        }
        let path = RelPath::new(below.as_os_str().as_bytes()).ok()?;
        let too_deep = !self.deep && (path.as_bytes().contains(&b'/') || path.as_bytes() == PROCESSED.as_bytes());
        let passed_over = too_deep || is_ours(path.file_name().as_bytes());
        if passed_over { None } else { Some(hint(path)) }
    }

    /// Records an event in the witness, if the event reports that a file was created, written, closed, moved or
    /// deleted.
    fn bear_witness(&self, event: &Event) {
        let path = |number: usize| {
            let below = event.paths.get(number)?.strip_prefix(&self.location).ok()?;
            RelPath::new(below.as_os_str().as_bytes()).ok()
        };
        let Some(first) = path(0) else { return };
        match event.kind {
            EventKind::Create(CreateKind::File) => self.witness.made(&first),
            // Changes of mode or times are not recorded, because they need no open file.
            EventKind::Modify(ModifyKind::Data(_)) => self.witness.wrote(&first),
            EventKind::Access(AccessKind::Close(AccessMode::Write)) => self.witness.closed(&first),
            EventKind::Modify(ModifyKind::Name(RenameMode::To)) => self.witness.moved_in(&first),
            EventKind::Modify(ModifyKind::Name(RenameMode::From)) => self.witness.moved_away(&first),
            EventKind::Modify(ModifyKind::Name(RenameMode::Both)) => {
                if let Some(to) = path(1) {
                    self.witness.renamed(&first, &to);
                }
            }
            EventKind::Remove(_) => self.witness.deleted(&first),
            _ => {}
        }
    }

    fn said_just_now(&mut self, hint: &Hint) -> bool {
        let Hint::Touched(path) = hint else {
            self.last_touch = None;
            return false;
        };
        let now = Instant::now();
        if matches!(&self.last_touch, Some((last, at)) if last == path && now - *at < TOUCH_INTERVAL) {
            return true;
        }
        self.last_touch = Some((path.clone(), now));
        false
    }

    fn say(&mut self, hint: Hint) {
        // Sends a pending rescan before the hint. If the channel is full, the rescan stays pending.
        if hint != Hint::Rescan && self.missed.load(Ordering::Acquire) && self.hints.try_send(Hint::Rescan).is_ok() {
            self.missed.store(false, Ordering::Release);
        }
        if let Err(TrySendError::Full(_)) = self.hints.try_send(hint) {
            self.missed.store(true, Ordering::Release);
            self.last_touch = None;
        }
    }
}

/// Returns whether an event reports a directory that was created or moved in. Events of moves do not say whether a
/// directory or a file was moved, so the path is checked.
fn is_new_directory(kind: EventKind, path: &Path) -> bool {
    match kind {
        EventKind::Create(CreateKind::Folder) => true,
        EventKind::Modify(ModifyKind::Name(RenameMode::To)) => fs::metadata(path).is_ok_and(|meta| meta.is_dir()),
        _ => false,
    }
}

/// Returns the kind of hint for an event; `None` for irrelevant events, for example of this program's own reads.
fn hint_of(kind: EventKind) -> Option<fn(RelPath) -> Hint> {
    match kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => Some(Hint::Finished),
        EventKind::Modify(ModifyKind::Name(RenameMode::To)) => Some(Hint::Finished),
        EventKind::Modify(ModifyKind::Name(RenameMode::From)) => Some(Hint::Gone),
        // `RenameMode::Both` repeats the preceding events with `From` and `To`.
        EventKind::Modify(ModifyKind::Name(_)) => None,
        EventKind::Create(CreateKind::Folder) => None,
        EventKind::Create(_) | EventKind::Modify(_) => Some(Hint::Touched),
        // The removal of the location itself is reported here too; the caller then sends a rescan instead.
        EventKind::Remove(RemoveKind::Folder | RemoveKind::File | RemoveKind::Other | RemoveKind::Any) => {
            Some(Hint::Gone)
        }
        EventKind::Access(_) | EventKind::Any | EventKind::Other => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsStr;
    use std::fs::File;
    use std::io::Write;
    use tokio::sync::mpsc::{self, Receiver};

    const DEADLINE: Duration = Duration::from_secs(20);

    struct Watched {
        dir: tempfile::TempDir,
        hints: Receiver<Hint>,
        watcher: Watcher,
    }

    impl Watched {
        fn new(room: usize) -> Self {
            let dir = tempfile::tempdir().unwrap();
            fs::create_dir(dir.path().join(PROCESSED)).unwrap();
            fs::create_dir(dir.path().join("place")).unwrap();
            let location = dir.path().join("place");
            let (sender, hints) = mpsc::channel(room);
            let watcher = Watcher::start(&location, false, sender, &Witness::default()).unwrap();
            Self { dir, hints, watcher }
        }

        fn at(&self, name: &[u8]) -> PathBuf {
            self.dir.path().join("place").join(OsStr::from_bytes(name))
        }

        /// Returns all hints before the hint `last`; fails if `last` does not arrive.
        async fn until(&mut self, last: Hint) -> Vec<Hint> {
            let mut heard = Vec::new();
            loop {
                let next = tokio::time::timeout(DEADLINE, self.hints.recv()).await;
                let next = next.unwrap_or_else(|_| panic!("no {last:?} after {heard:?}")).unwrap();
                if next == last {
                    return heard;
                }
                heard.push(next);
            }
        }

        /// Returns all hints so far. To know where they end, creates a marker file and waits for its hint.
        async fn so_far(&mut self) -> Vec<Hint> {
            fs::write(self.at(b"mark"), "").unwrap();
            let mut heard = self.until(Hint::Finished(path(b"mark"))).await;
            heard.retain(|hint| *hint != Hint::Touched(path(b"mark")));
            heard
        }
    }

    fn path(name: &[u8]) -> RelPath {
        RelPath::new(name).unwrap()
    }

    #[tokio::test]
    async fn a_file_is_finished_when_it_is_closed_not_before() {
        let mut watched = Watched::new(100);
        let name = b"caf\xe9\n";
        let mut file = File::create(watched.at(name)).unwrap();
        (0..50).for_each(|_| file.write_all(b"x").unwrap());
        let heard = watched.so_far().await;
        assert!(!heard.is_empty() && heard.len() < 50, "{heard:?}");
        assert!(heard.iter().all(|hint| *hint == Hint::Touched(path(name))), "{heard:?}");
        drop(file);
        watched.until(Hint::Finished(path(name))).await;
    }

    #[tokio::test]
    async fn moving_in_finishes_and_moving_out_or_deleting_is_gone() {
        let mut watched = Watched::new(100);
        fs::write(watched.dir.path().join("a"), "a").unwrap();
        fs::rename(watched.dir.path().join("a"), watched.at(b"b")).unwrap();
        watched.until(Hint::Finished(path(b"b"))).await;
        fs::rename(watched.at(b"b"), watched.at(b"c")).unwrap();
        watched.until(Hint::Gone(path(b"b"))).await;
        watched.until(Hint::Finished(path(b"c"))).await;
        fs::rename(watched.at(b"c"), watched.dir.path().join("out")).unwrap();
        watched.until(Hint::Gone(path(b"c"))).await;
        fs::write(watched.at(b"d"), "").unwrap();
        fs::remove_file(watched.at(b"d")).unwrap();
        watched.until(Hint::Gone(path(b"d"))).await;
    }

    #[tokio::test]
    async fn reading_listing_and_what_lies_deeper_make_no_hints() {
        let mut watched = Watched::new(100);
        fs::write(watched.at(b"f"), "abc").unwrap();
        watched.until(Hint::Finished(path(b"f"))).await;
        fs::read(watched.at(b"f")).unwrap();
        fs::read_dir(watched.at(b"")).unwrap().for_each(drop);
        fs::create_dir(watched.at(b"processed")).unwrap();
        fs::write(watched.at(b"processed/f"), "abc").unwrap();
        assert_eq!(watched.so_far().await, []);
    }

    #[tokio::test]
    async fn hints_without_room_become_a_rescan() {
        let mut watched = Watched::new(1);
        for name in [b"a", b"b", b"c"] {
            fs::write(watched.at(name), "").unwrap();
        }
        let missed = async {
            while !watched.watcher.missed() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(DEADLINE, missed).await.unwrap();
        assert!(matches!(watched.hints.recv().await, Some(Hint::Touched(_))));
    }

    #[test]
    fn a_missed_hint_is_made_up_for_before_the_next() {
        let (sender, mut hints) = mpsc::channel(2);
        let missed = Arc::new(AtomicBool::new(true));
        let mut listener = Listener {
            location: "/srv".into(),
            deep: false,
            hints: sender,
            witness: Witness::default(),
            missed: Arc::clone(&missed),
            last_touch: None,
        };
        listener.hear(Ok(Event::new(EventKind::Create(CreateKind::File)).add_path("/srv/a".into())));
        assert_eq!(hints.try_recv(), Ok(Hint::Rescan));
        assert_eq!(hints.try_recv(), Ok(Hint::Touched(path(b"a"))));
        assert!(!missed.load(Ordering::Acquire));
        listener.hear(Ok(Event::new(EventKind::Other).set_flag(notify::event::Flag::Rescan)));
        listener.hear(Err(notify::Error::generic("lost")));
        assert_eq!((hints.try_recv(), hints.try_recv()), (Ok(Hint::Rescan), Ok(Hint::Rescan)));
    }

    /// A mount that hangs may block `notify`'s thread, and with it every caller that adds a watch.
    #[test]
    fn a_watch_that_is_being_added_holds_up_nothing_but_its_scan() {
        let watched = Watched::new(1);
        let _adding = watched.watcher.inner.lock().unwrap();
        let (watcher, (done, is_done)) = (watched.watcher.clone(), std::sync::mpsc::channel());
        std::thread::spawn(move || {
            watcher.leave(&RelPath::new("below").unwrap());
            watcher.forget();
            done.send(()).unwrap();
        });
        is_done.recv_timeout(DEADLINE).expect("it waits");
        assert_eq!(watched.watcher.entered().removals, 2);
    }

    #[tokio::test]
    async fn a_location_that_is_moved_or_deleted_asks_for_a_rescan_and_is_stale() {
        let mut watched = Watched::new(100);
        assert!(!watched.watcher.is_stale());
        fs::rename(watched.at(b""), watched.dir.path().join("elsewhere")).unwrap();
        watched.until(Hint::Rescan).await;
        assert!(watched.watcher.is_stale());
        fs::create_dir(watched.at(b"")).unwrap();
        assert!(watched.watcher.is_stale());

        let mut watched = Watched::new(100);
        fs::remove_dir(watched.at(b"")).unwrap();
        watched.until(Hint::Rescan).await;
        assert!(watched.watcher.is_stale());
    }

    #[test]
    fn what_is_no_directory_is_not_watched() {
        let (sender, _hints) = mpsc::channel(1);
        let started = Watcher::start(Path::new("/dev/null"), false, sender, &Witness::default());
        assert!(matches!(started, Err(DiskError::Location { .. })));
    }
}
