use crate::local::own_names::PROCESSED;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use super::*;
use crate::local::Rules;
use crate::local::relocate::{Changed, Moved, discard, put_back, sweep};
use crate::local::{Intake, SourceCache, TakeIn, Writers};
use crate::names::DirectoryName;
use crate::records::{Entry, VersionId};

/// A directory with files to retire, and optionally a `processed/` on another file system.
struct Shore {
    dir: tempfile::TempDir,
    _elsewhere: Option<tempfile::TempDir>,
}

impl Shore {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), _elsewhere: None }
    }

    fn across() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let elsewhere = tempfile::tempdir_in("/dev/shm").unwrap();
        let device = |path: &Path| fs::metadata(path).unwrap().dev();
        assert_ne!(device(dir.path()), device(elsewhere.path()), "this test needs two file systems");
        symlink(elsewhere.path(), dir.path().join(PROCESSED)).unwrap();
        Self { dir, _elsewhere: Some(elsewhere) }
    }

    fn both() -> [Self; 2] {
        [Self::new(), Self::across()]
    }

    fn at(&self, name: impl AsRef<[u8]>) -> PathBuf {
        self.dir.path().join(OsStr::from_bytes(name.as_ref()))
    }

    /// Creates a file and takes it in.
    fn version(&self, name: impl AsRef<[u8]>, bytes: &[u8]) -> Version {
        fs::write(self.at(&name), bytes).unwrap();
        self.taken_in(name)
    }

    /// Takes in an existing file.
    fn taken_in(&self, name: impl AsRef<[u8]>) -> Version {
        let (rules, source_cache) = (Rules::of(self.dir.path(), ""), SourceCache::new(8 << 20));
        let intake =
            Intake { rules, chunk_size: 1 << 30, source_cache, readers: 0, writers: Writers::new(Duration::ZERO) };
        match intake.take_in(&RelPath::new(name.as_ref()).unwrap(), &|| false).unwrap() {
            TakeIn::Version(new) => {
                Version { id: VersionId(1), directory: DirectoryName::new("docs"), entry: new.entry }
            }
            other => panic!("{other:?}"),
        }
    }

    fn retire(&self, version: &Version) -> Result<Retired, DiskError> {
        let mut outcomes = retire(self.dir.path(), std::slice::from_ref(version), at_once(&writers()), &|| false);
        assert_eq!(outcomes.len(), 1);
        outcomes.remove(0).1
    }

    /// Retires several versions and returns the results by path.
    fn retire_all(&self, versions: &[Version], stopped: &dyn Fn() -> bool) -> Vec<(String, Retired)> {
        let outcomes = retire(self.dir.path(), versions, at_once(&writers()), stopped);
        outcomes.into_iter().map(|(version, outcome)| (version.path.to_string(), outcome.unwrap())).collect()
    }

    /// Retires a version and calls `happens` at the given moment.
    fn retire_while(&self, version: &Version, moment: Moment, happens: impl Fn()) -> Retired {
        self.retire_during(version, |now| {
            if now == moment {
                happens()
            }
        })
    }

    fn retire_during(&self, version: &Version, pause: impl Fn(Moment)) -> Retired {
        let mut outcomes = retire_with(
            self.dir.path(),
            (std::slice::from_ref(version), PROCESSED),
            at_once(&writers()),
            &|| false,
            &pause,
        );
        outcomes.remove(0).1.unwrap()
    }

    fn names(&self, below: &str) -> Vec<String> {
        let entries = fs::read_dir(self.at(below)).unwrap();
        let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name().to_string_lossy().into_owned()).collect();
        names.retain(|name| name != PROCESSED);
        names.sort();
        names
    }

    fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.at(name)).unwrap()
    }
}

fn writers() -> Writers {
    Writers::new(Duration::ZERO)
}

/// Returns a check that requires no minimum age: every file that is not open for writing may be moved.
fn at_once(writers: &Writers) -> MayRetire<'_> {
    MayRetire { writers, wait: &|_, _| Duration::ZERO }
}

fn moved(name: impl AsRef<[u8]>) -> Retired {
    Retired::Moved(RelPath::new(name.as_ref()).unwrap())
}

fn already(name: &str) -> Retired {
    Retired::AlreadyThere(RelPath::new(name).unwrap())
}

#[test]
fn a_file_moves_with_its_mode_and_mtime_whatever_it_is_called() {
    // A move within one file system keeps the whole mode; a copy to another file system loses the set-user-id bit.
    for (shore, mode) in Shore::both().into_iter().zip([0o4751, 0o751]) {
        for name in [&b"plain"[..], b"-rf", b"caf\xe9\n", &[b'x'; 255]] {
            fs::write(shore.at(name), name).unwrap();
            fs::set_permissions(shore.at(name), fs::Permissions::from_mode(0o4751)).unwrap();
            let time = SystemTime::UNIX_EPOCH + Duration::new(1_600_000_000, 123_456_789);
            fs::File::options().write(true).open(shore.at(name)).unwrap().set_modified(time).unwrap();
            assert_eq!(shore.retire(&shore.taken_in(name)).unwrap(), moved(name));
            let there = fs::metadata(shore.at([b"processed/", name].concat())).unwrap();
            assert_eq!((there.mode() & 0o7777, there.modified().unwrap()), (mode, time));
        }
        assert_eq!(shore.names(""), [""; 0]);
        assert_eq!(shore.names(PROCESSED).len(), 4);
    }
}

#[test]
fn processed_is_made_with_the_mode_of_the_location() {
    let shore = Shore::new();
    fs::set_permissions(shore.dir.path(), fs::Permissions::from_mode(0o2775)).unwrap();
    let version = shore.version("f", b"x");
    assert_eq!(shore.retire(&version).unwrap(), moved("f"));
    assert_eq!(fs::metadata(shore.at(PROCESSED)).unwrap().mode() & 0o7777, 0o2775);
}

#[test]
fn a_file_in_a_directory_below_goes_to_the_same_place_below_processed() {
    for shore in Shore::both() {
        fs::create_dir_all(shore.at("a/b")).unwrap();
        let version = shore.version("a/b/f", b"x");
        assert_eq!(shore.retire(&version).unwrap(), moved("a/b/f"));
        assert_eq!(shore.read("processed/a/b/f"), b"x");
        assert_eq!(shore.names("processed/a/b"), ["f"]);
    }
}

#[test]
fn a_taken_name_is_not_overwritten_but_numbered() {
    for shore in Shore::both() {
        for (bytes, name) in [(b"one", "f"), (b"two", "f.1"), (b"333", "f.2")] {
            let version = shore.version("f", bytes);
            assert_eq!(shore.retire(&version).unwrap(), moved(name));
        }
        assert_eq!(shore.read("processed/f"), b"one");
        assert_eq!(shore.read("processed/f.1"), b"two");
        assert_eq!(shore.names(PROCESSED), ["f", "f.1", "f.2"]);
    }
}

#[test]
fn the_same_bytes_are_kept_once() {
    for shore in Shore::both() {
        let version = shore.version("f", b"same");
        shore.retire(&version).unwrap();
        let again = shore.version("f", b"same");
        assert_eq!(shore.retire(&again).unwrap(), already("f"));
        assert_eq!((shore.names(""), shore.names(PROCESSED)), (vec![], vec!["f".to_owned()]));
    }
}

#[test]
fn a_crash_after_the_move_or_after_the_copy_is_settled_by_repeating() {
    for shore in Shore::both() {
        shore.retire(&shore.version("f", b"older")).unwrap();
        let version = shore.version("f", b"newer");
        assert_eq!(shore.retire(&version).unwrap(), moved("f.1"));
        assert_eq!(shore.retire(&version).unwrap(), already("f.1"));
        // Restores the state after a crash between the copy and the removal: both files exist.
        fs::write(shore.at("f"), b"newer").unwrap();
        let time = fs::metadata(shore.at("processed/f.1")).unwrap().modified().unwrap();
        fs::File::options().write(true).open(shore.at("f")).unwrap().set_modified(time).unwrap();
        assert_eq!(shore.retire(&shore.taken_in("f")).unwrap(), already("f.1"));
        assert_eq!((shore.names(""), shore.names(PROCESSED).len()), (vec![], 2));
    }
}

#[test]
fn a_source_that_is_gone_or_changed_is_said_so_and_left_alone() {
    for shore in Shore::both() {
        let version = shore.version("f", b"x");
        fs::write(shore.at("f"), b"yy").unwrap();
        assert_eq!(shore.retire(&version).unwrap(), Retired::SourceChanged);
        assert_eq!(shore.read("f"), b"yy");
        fs::remove_file(shore.at("f")).unwrap();
        assert_eq!(shore.retire(&version).unwrap(), Retired::SourceGone);
        symlink("/etc/passwd", shore.at("f")).unwrap();
        assert_eq!(shore.retire(&version).unwrap(), Retired::SourceChanged);
        let entry = Entry { path: RelPath::new("no/f").unwrap(), ..version.entry.clone() };
        let below = Version { entry, ..version };
        assert_eq!(shore.retire(&below).unwrap(), Retired::SourceGone);
        assert_eq!(shore.names(PROCESSED), [""; 0]);
    }
}

/// Replaces a file as editors and downloads do: moves a new file over the old one.
fn replace(shore: &Shore, bytes: &[u8]) {
    fs::write(shore.at("new"), bytes).unwrap();
    fs::rename(shore.at("new"), shore.at("f")).unwrap();
}

#[test]
fn a_file_replaced_just_before_the_move_goes_back() {
    for shore in Shore::both() {
        let version = shore.version("f", b"old");
        let outcome = shore.retire_while(&version, Moment::Checked, || replace(&shore, b"new"));
        assert_eq!(outcome, Retired::SourceChanged);
        assert_eq!((shore.names(""), shore.names(PROCESSED)), (vec!["f".to_owned()], vec![]));
        assert_eq!(shore.read("f"), b"new");
    }
}

#[test]
fn a_file_replaced_twice_during_the_move_loses_neither() {
    let shore = Shore::new();
    let version = shore.version("f", b"old");
    let outcome = shore.retire_during(&version, |moment| match moment {
        Moment::Checked => replace(&shore, b"second"),
        Moment::Mistaken => replace(&shore, b"third"),
        Moment::Copied => {}
    });
    assert_eq!(outcome, Retired::SourceChanged);
    assert_eq!((shore.names(""), shore.names(PROCESSED)), (vec!["f".to_owned(), "f.1".to_owned()], vec![]));
    assert_eq!((shore.read("f"), shore.read("f.1")), (b"third".to_vec(), b"second".to_vec()));
}

#[test]
fn a_file_replaced_after_the_copy_stays() {
    let shore = Shore::across();
    let version = shore.version("f", b"old");
    let outcome = shore.retire_while(&version, Moment::Copied, || replace(&shore, b"new"));
    assert_eq!(outcome, Retired::SourceChanged);
    assert_eq!((shore.read("f"), shore.read("processed/f")), (b"new".to_vec(), b"old".to_vec()));
    let fresh = shore.version("g", b"x");
    let outcome = shore.retire_while(&fresh, Moment::Copied, || fs::remove_file(shore.at("g")).unwrap());
    assert_eq!(outcome, moved("g"));
}

#[test]
fn bytes_that_are_not_the_versions_are_not_copied() {
    let shore = Shore::across();
    let mut version = shore.version("f", b"bytes");
    version.entry.digest = Some(Digest::of(b"other"));
    assert_eq!(shore.retire(&version).unwrap(), Retired::SourceChanged);
    assert_eq!((shore.names(""), shore.names(PROCESSED)), (vec!["f".to_owned()], vec![]));
}

#[test]
fn a_processed_that_can_take_nothing_is_explained() {
    let shore = Shore::new();
    let version = shore.version("f", b"x");
    let refused = |shore: &Shore| {
        let fault = shore.retire(&version).unwrap_err().fault();
        assert_eq!(shore.read("f"), b"x");
        assert!(fault.remedy.contains("processed away, and create a directory"), "{fault}");
        fs::remove_file(shore.at(PROCESSED)).unwrap();
        fault.reason
    };
    fs::write(shore.at(PROCESSED), "").unwrap();
    assert!(refused(&shore).contains("it is a file"));
    symlink("nowhere", shore.at(PROCESSED)).unwrap();
    assert!(refused(&shore).contains("target does not exist"));
    symlink(".", shore.at(PROCESSED)).unwrap();
    assert!(refused(&shore).contains("the directory that contains it"));
}

#[test]
fn what_a_crash_left_is_swept_and_a_leaving_source_comes_back() {
    for shore in Shore::both() {
        let version = shore.version("f", b"x");
        fs::create_dir_all(shore.at(PROCESSED)).ok();
        fs::write(shore.at("processed/.contentmonster-retiring.0123.tmp"), "half").unwrap();
        fs::write(shore.at("processed/.contentmonster-retiring.held.tmp"), "half").unwrap();
        fs::write(shore.at("processed/theirs.tmp"), "x").unwrap();
        let held = fs::File::open(shore.at("processed/.contentmonster-retiring.held.tmp")).unwrap();
        held.lock().unwrap();
        fs::rename(shore.at("f"), shore.at(".contentmonster-leaving.f")).unwrap();
        sweep(shore.dir.path(), false).unwrap();
        assert_eq!(shore.names(PROCESSED), [".contentmonster-retiring.held.tmp", "theirs.tmp"]);
        assert_eq!(shore.retire(&version).unwrap(), moved("f"));
    }
    let shore = Shore::new();
    fs::write(shore.at(".contentmonster-leaving.f"), "x").unwrap();
    fs::write(shore.at("f"), "newer").unwrap();
    sweep(shore.dir.path(), false).unwrap();
    assert_eq!((shore.read("f"), shore.read("f.1")), (b"newer".to_vec(), b"x".to_vec()));
}

#[test]
fn many_move_together_and_each_is_judged_by_itself() {
    for shore in Shore::both() {
        fs::create_dir(shore.at("below")).unwrap();
        shore.retire(&shore.version("kept", b"same")).unwrap();
        shore.retire(&shore.version("taken", b"older")).unwrap();
        let names = ["a", "below/b", "kept", "taken", "changed", "gone", "z"];
        let versions = names.map(|name| shore.version(name, b"same"));
        fs::write(shore.at("changed"), b"other").unwrap();
        fs::remove_file(shore.at("gone")).unwrap();
        let outcomes = [
            moved("a"),
            moved("below/b"),
            already("kept"),
            moved("taken.1"),
            Retired::SourceChanged,
            Retired::SourceGone,
            moved("z"),
        ];
        let expected: Vec<_> = names.map(str::to_owned).into_iter().zip(outcomes).collect();
        assert_eq!(shore.retire_all(&versions, &|| false), expected);
        assert_eq!(shore.names(""), ["below", "changed"]);
        assert_eq!(shore.names(PROCESSED), ["a", "below", "kept", "taken", "taken.1", "z"]);
        let again = shore.retire_all(&versions[..4], &|| false);
        assert!(again.iter().all(|(_, outcome)| matches!(outcome, Retired::AlreadyThere(_))), "{again:?}");
    }
}

#[test]
fn a_stop_comes_between_two_files_and_leaves_the_rest() {
    for shore in Shore::both() {
        let versions = ["a", "b", "c"].map(|name| shore.version(name, b"x"));
        let one_is_there = || shore.at("processed/a").exists();
        assert_eq!(shore.retire_all(&versions, &one_is_there), [("a".to_owned(), moved("a"))]);
        assert_eq!(shore.names(""), ["b", "c"]);
        assert_eq!(shore.retire_all(&versions, &|| true), []);
    }
}

#[test]
fn a_directory_that_can_not_be_used_is_said_once_and_keeps_no_other_waiting() {
    let shore = Shore::new();
    fs::create_dir(shore.at("below")).unwrap();
    let versions = ["below/a", "below/b", "c"].map(|name| shore.version(name, b"x"));
    fs::create_dir(shore.at(PROCESSED)).unwrap();
    fs::write(shore.at("processed/below"), "in the way").unwrap();
    let outcomes = retire(shore.dir.path(), &versions, at_once(&writers()), &|| false);
    let told: Vec<_> = outcomes.iter().map(|(version, outcome)| (version.path.to_string(), outcome.is_ok())).collect();
    assert_eq!(told, [("below/a".to_owned(), false), ("c".to_owned(), true)]);
}

#[test]
fn only_the_version_that_was_delivered_is_discarded() {
    let shore = Shore::new();
    fs::create_dir(shore.at("below")).unwrap();
    let names = ["same", "below/same", "written to", "replaced", "gone", "unread"];
    let mut versions: Vec<_> = names.into_iter().map(|name| shore.version(name, b"delivered")).collect();
    versions[5].entry.digest = None;
    fs::write(shore.at("written to"), "delivered, and more").unwrap();
    fs::write(shore.at("other"), "delivered").unwrap();
    fs::rename(shore.at("other"), shore.at("replaced")).unwrap();
    fs::remove_file(shore.at("gone")).unwrap();
    let outcomes = discard(shore.dir.path(), &versions, at_once(&writers()), &|| false);
    let outcomes: Vec<_> = outcomes.into_iter().map(|(_, outcome)| outcome.unwrap()).collect();
    let [deleted, changed] = [Retired::Deleted, Retired::SourceChanged];
    assert_eq!(outcomes, [deleted.clone(), deleted, changed.clone(), changed.clone(), Retired::SourceGone, changed]);
    assert!(!shore.at("same").exists() && !shore.at("below/same").exists() && !shore.at(PROCESSED).exists());
    assert_eq!(fs::read(shore.at("written to")).unwrap(), b"delivered, and more");
    assert!(shore.at("replaced").exists() && shore.at("unread").exists());
}

#[test]
fn a_sweep_finds_what_a_crash_left_below_too() {
    let shore = Shore::new();
    fs::create_dir_all(shore.at("a/b")).unwrap();
    let hidden = leaving_name(&RelPath::new("a/b/file").unwrap());
    fs::write(shore.at("a/b").join(&hidden), "x").unwrap();
    sweep(shore.dir.path(), false).unwrap();
    assert!(!shore.at("a/b/file").exists());
    sweep(shore.dir.path(), true).unwrap();
    assert_eq!(fs::read(shore.at("a/b/file")).unwrap(), b"x");
}

#[test]
fn a_file_that_somebody_has_open_for_writing_stays() {
    for shore in Shore::both() {
        let version = shore.version("f", b"begun");
        let writer = fs::File::options().append(true).open(shore.at("f")).unwrap();
        assert_eq!(shore.retire(&version).unwrap(), Retired::InUse);
        let discarded = discard(shore.dir.path(), std::slice::from_ref(&version), at_once(&writers()), &|| false);
        assert_eq!(discarded[0].1.as_ref().unwrap(), &Retired::InUse);
        drop(writer);
        assert_eq!(shore.retire(&version).unwrap(), moved("f"));
    }
}

#[test]
fn a_file_that_is_opened_for_writing_just_before_it_is_moved_is_put_back() {
    for shore in Shore::both() {
        let version = shore.version("f", b"begun");
        let writer = std::cell::RefCell::new(None);
        let open = || drop(writer.replace(fs::File::options().append(true).open(shore.at("f")).ok()));
        assert_eq!(shore.retire_while(&version, Moment::Checked, open), Retired::SourceChanged);
        std::io::Write::write_all(writer.borrow_mut().as_mut().unwrap(), b" and ended").unwrap();
        assert_eq!(shore.read("f"), b"begun and ended");
    }
}

#[test]
fn a_file_whose_mode_changed_after_it_was_taken_in_stays() {
    for shore in Shore::both() {
        let version = shore.version("f", b"bytes");
        fs::set_permissions(shore.at("f"), fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(shore.retire(&version).unwrap(), Retired::SourceChanged);
        let version = shore.taken_in("f");
        let change = || fs::set_permissions(shore.at("f"), fs::Permissions::from_mode(0o640)).unwrap();
        assert_eq!(shore.retire_while(&version, Moment::Checked, change), Retired::SourceChanged);
    }
}

#[test]
fn a_file_that_was_not_left_alone_for_long_enough_stays() {
    let shore = Shore::new();
    let version = shore.version("f", b"bytes");
    let writers = writers();
    let wait = |_: &Version, changed: Changed| Duration::from_secs(60).saturating_sub(changed.ago().unwrap());
    let may_retire = MayRetire { writers: &writers, wait: &wait };
    let outcomes = retire(shore.dir.path(), std::slice::from_ref(&version), may_retire, &|| false);
    assert!(matches!(outcomes[0].1, Ok(Retired::NotYet(left)) if left > Duration::from_secs(50)), "{outcomes:?}");
}

#[test]
fn a_file_that_is_written_to_in_processed_is_put_back() {
    let shore = Shore::new();
    let version = shore.version("f", b"begun");
    let writer = fs::File::options().append(true).open(shore.at("f")).unwrap();
    fs::create_dir_all(shore.at(PROCESSED)).unwrap();
    fs::rename(shore.at("f"), shore.at("processed/f")).unwrap();
    let moved = Moved { path: version.path.clone(), to: version.path.clone(), stamp: version.stamp };
    assert!(!put_back(shore.dir.path(), &moved).unwrap());
    std::io::Write::write_all(&mut &writer, b" and ended").unwrap();
    assert!(put_back(shore.dir.path(), &moved).unwrap());
    assert_eq!((shore.read("f"), shore.names(PROCESSED)), (b"begun and ended".to_vec(), Vec::<String>::new()));
}
