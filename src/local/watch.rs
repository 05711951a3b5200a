//! Hints from the kernel that something in a directory changed. The only file that knows `notify`.
//!
//! Hints are only that: one may be lost, doubled or late, and a scan finds what they missed. Nothing is opened here and
//! nobody is waited for, least of all on `notify`'s own thread. Which names are left alone is the receiver's business.

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

/// A writer makes an event with every `write`; of a path that is only being written to, one hint in this time is enough.
const TOUCH_INTERVAL: Duration = Duration::from_millis(100);

/// What may have happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hint {
    /// Closed after writing, or moved in: as finished as a file gets.
    Finished(RelPath),
    /// Made, written to, or its attributes changed.
    Touched(RelPath),
    /// A directory was made or moved in; it is not watched yet.
    Directory(RelPath),
    /// Deleted or moved away.
    Gone(RelPath),
    /// Events were lost, or the location itself was changed, moved or deleted: look through it.
    Rescan,
}

/// Watches one directory, and those below it that it is told of, for as long as it lives.
///
/// `notify` can watch whole trees by itself, but adds a new directory after it has told of it: what is made there in between
/// would be missed by whoever looks at once. So each directory is added here, and listed after that.
///
/// A clone is the same watcher: a scan enters directories while others ask.
#[derive(Clone, Debug)]
pub struct Watcher {
    location: PathBuf,
    identity: (u64, u64),
    missed: Arc<AtomicBool>,
    witness: Witness,
    watches: Arc<Mutex<Watches>>,
}

#[derive(Debug)]
struct Watches {
    inner: RecommendedWatcher,
    /// The directories below the location that are watched, with their inodes.
    below: BTreeMap<PathBuf, u64>,
}

impl Watcher {
    /// Starts watching; hints go into `hints` for as long as there is room, and what is seen of writers into `witness`, which
    /// forgets what it saw before. With `deep`, directories below are to be
    /// watched too, each from when it is [entered](Self::enter).
    ///
    /// # Errors
    /// [`DiskError::Location`] when the location is no directory that can be read, [`DiskError::WatchLimit`] when the
    /// kernel grants no more watches: go on with periodic scans alone, and try again later.
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
        let watches = Arc::new(Mutex::new(Watches { inner, below: BTreeMap::new() }));
        Ok(Self { location, identity, missed, witness, watches })
    }

    /// Watches a directory below the location, unless it does so already. `again` is for one that an event told of: the
    /// path may stand for another directory by now, or be watched no more.
    ///
    /// # Errors
    /// As [`start`](Self::start). That there is no such directory any more is none: an event will tell.
    pub fn enter(&self, directory: &Path, inode: u64, again: bool) -> Result<(), DiskError> {
        let mut watches = self.watches();
        if !again && watches.below.get(directory) == Some(&inode) {
            return Ok(());
        }
        match watches.inner.watch(directory, RecursiveMode::NonRecursive).map_err(|error| refused(directory, error)) {
            Ok(()) => drop(watches.below.insert(directory.to_owned(), inode)),
            Err(DiskError::Location { source, .. }) if gone(&source) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Forgets that a directory and those below it were watched: they were moved or deleted, and `notify` let them go.
    pub fn leave(&self, path: &RelPath) {
        self.witness.left(path);
        let directory = self.location.join(path.as_path());
        let mut watches = self.watches();
        let below = watches.below.range(directory.clone()..).map(|(path, _)| path);
        let left: Vec<_> = below.take_while(|path| path.starts_with(&directory)).cloned().collect();
        for path in left {
            watches.below.remove(&path);
        }
    }

    /// Forgets what is watched below: events were lost, and with them the news of which directories are still there.
    pub fn forget(&self) {
        self.watches().below.clear();
    }

    fn watches(&self) -> MutexGuard<'_, Watches> {
        // What a thread that panicked left of it is watched twice at the worst.
        self.watches.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a hint found no room since this was last asked, so that a rescan is due.
    ///
    /// Ask whenever hints were received. The next hint that finds room is preceded by [`Hint::Rescan`] too, but a
    /// directory that falls quiet just then has no next hint.
    pub fn missed(&self) -> bool {
        self.missed.swap(false, Ordering::AcqRel)
    }

    /// Whether the location is not the directory any more that is being watched: deleted, moved, replaced, mounted over
    /// or unmounted. Ask after [`Hint::Rescan`] and with every periodic scan (no event tells of an unmount), and start
    /// a new watcher then.
    pub fn is_stale(&self) -> bool {
        !matches!(identity(&self.location), Ok(now) if now == self.identity)
    }
}

/// What tells the directory at a path from another that takes its place.
fn identity(location: &Path) -> io::Result<(u64, u64)> {
    let meta = fs::metadata(location)?;
    if meta.is_dir() { Ok((meta.dev(), meta.ino())) } else { Err(Errno::NOTDIR.into()) }
}

/// Lives on `notify`'s thread and must never wait.
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
                tracing::debug!(location = %self.location.display(), %error, "Events may have been lost; rescanning");
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

    /// Makes a hint of an event, if it is one of interest.
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

    /// Enters what an event tells of those who write.
    fn bear_witness(&self, event: &Event) {
        let path = |number: usize| {
            let below = event.paths.get(number)?.strip_prefix(&self.location).ok()?;
            RelPath::new(below.as_os_str().as_bytes()).ok()
        };
        let Some(first) = path(0) else { return };
        match event.kind {
            EventKind::Create(CreateKind::File) => self.witness.made(&first),
            // A change of mode or time needs no open file.
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
        // What was missed goes first; if that finds no room, the hint wouldn't either.
        if hint != Hint::Rescan && self.missed.load(Ordering::Acquire) && self.hints.try_send(Hint::Rescan).is_ok() {
            self.missed.store(false, Ordering::Release);
        }
        if let Err(TrySendError::Full(_)) = self.hints.try_send(hint) {
            self.missed.store(true, Ordering::Release);
            self.last_touch = None;
        }
    }
}

/// Whether an event tells of a directory that was made or moved in. Of a move it doesn't say what was moved.
fn is_new_directory(kind: EventKind, path: &Path) -> bool {
    match kind {
        EventKind::Create(CreateKind::Folder) => true,
        EventKind::Modify(ModifyKind::Name(RenameMode::To)) => fs::metadata(path).is_ok_and(|meta| meta.is_dir()),
        _ => false,
    }
}

/// What kind of hint an event makes; `None` for what doesn't matter, such as our own reading.
fn hint_of(kind: EventKind) -> Option<fn(RelPath) -> Hint> {
    match kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => Some(Hint::Finished),
        EventKind::Modify(ModifyKind::Name(RenameMode::To)) => Some(Hint::Finished),
        EventKind::Modify(ModifyKind::Name(RenameMode::From)) => Some(Hint::Gone),
        // Tells both ends of a rename again that From and To have told.
        EventKind::Modify(ModifyKind::Name(_)) => None,
        EventKind::Create(CreateKind::Folder) => None,
        EventKind::Create(_) | EventKind::Modify(_) => Some(Hint::Touched),
        // Of the location itself too: that makes a rescan.
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

        /// All hints up to one, which must come.
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

        /// All hints up to now: a file is made and awaited as a mark.
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
