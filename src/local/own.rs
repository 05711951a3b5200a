//! Detects the program's own files under any name, even if the name is a link or a hard link or is in a bind mount.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use rustix::fs::Stat;

use crate::settings::OwnFiles;

/// How long the identities of the program's own files remain valid after a lookup.
const FRESH: Duration = Duration::from_secs(1);

/// How far, in nanoseconds, the kernel's clock for files may lag behind the system clock: two of its ticks (HZ = 100).
const CLOCK_LAG: i128 = 20_000_000;

/// The program's own files, and their identities on the disk.
#[derive(Debug)]
pub(super) struct Own {
    files: Arc<OwnFiles>,
    known: Mutex<Known>,
}

/// Devices and inodes of the program's own files, looked up again after `FRESH`. Those in `changing` are also looked
/// up again if the file to be checked has changed since the lookup: that file may be a new file of the program.
#[derive(Debug, Default)]
struct Known {
    fixed: Vec<(u64, u64)>,
    changing: Vec<(u64, u64)>,
    asked: Option<Instant>,
    /// Time of the lookup in nanoseconds since 1970, comparable to a file's ctime.
    at: i128,
}

impl Own {
    pub(super) fn new(files: Arc<OwnFiles>) -> Self {
        Self { files, known: Mutex::default() }
    }

    /// Returns whether a file is one of the program's own.
    pub(super) fn holds(&self, path: &Path, stat: &Stat) -> bool {
        if self.files.fixed.contains(path) || self.files.changing.contains(path) {
            return true;
        }
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.asked.is_none_or(|asked| asked.elapsed() >= FRESH) {
            let mut fixed = identities(&self.files.fixed);
            fixed.extend(identities(&upgrade_copies(self.files.ledger.as_deref())));
            *known = Known { fixed, asked: Some(Instant::now()), ..Known::default() };
        }
        let changed = i128::from(stat.st_ctime) * 1_000_000_000 + i128::from(stat.st_ctime_nsec);
        if known.at == 0 || changed + CLOCK_LAG >= known.at {
            known.at = SystemTime::now()
                .duration_since(SystemTime::UNIX_EPOCH)
                .map_or(1, |since| since.as_nanos().cast_signed());
            known.changing = identities(&self.files.changing);
        }
        let identity = (stat.st_dev, stat.st_ino);
        known.fixed.contains(&identity) || known.changing.contains(&identity)
    }
}

/// Returns the copies of the ledger that were made before upgrades. The directory is listed, because the settings don't
/// tell how many copies exist. The copies count as fixed files, because all of them are made before anything is read
/// from a `Location`.
fn upgrade_copies(ledger: Option<&Path>) -> BTreeSet<PathBuf> {
    let Some((ledger, directory)) = ledger.and_then(|ledger| Some((ledger.file_name()?, ledger.parent()?))) else {
        return BTreeSet::new();
    };
    let mut start = ledger.to_owned();
    start.push(".schema-");
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let copies = entries.filter(|entry| entry.file_name().as_bytes().starts_with(start.as_bytes()));
    copies.map(|entry| entry.path()).collect()
}

fn identities(files: &BTreeSet<PathBuf>) -> Vec<(u64, u64)> {
    files.iter().filter_map(|file| fs::metadata(file).ok()).map(|meta| (meta.dev(), meta.ino())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_file_of_our_own_is_known_under_every_name() {
        let dir = tempfile::tempdir().unwrap();
        let place = |name: &str| dir.path().join(name);
        fs::create_dir(place("real")).unwrap();
        symlink("real", place("link")).unwrap();
        fs::write(place("real/settings.ini"), "secret").unwrap();
        fs::hard_link(place("real/settings.ini"), place("real/other name")).unwrap();
        fs::write(place("real/cargo"), "cargo").unwrap();
        let files = OwnFiles {
            fixed: [place("real/settings.ini"), place("no such key")].into(),
            changing: [place("real/ledger"), place("real/ledger-wal")].into(),
            ledger: Some(place("real/ledger")),
        };
        fs::write(place("real/ledger.schema-12"), "a copy made before an upgrade").unwrap();
        fs::write(place("real/ledger.schemes"), "another file").unwrap();
        let own = Own::new(Arc::new(files));
        let holds = |name: &str| own.holds(&place(name), &rustix::fs::stat(place(name)).unwrap());
        for name in ["real/settings.ini", "link/settings.ini", "real/other name"] {
            assert!(holds(name), "{name}");
        }
        assert!(holds("real/ledger.schema-12") && holds("link/ledger.schema-12"));
        assert!(!holds("real/cargo") && !holds("real/ledger.schemes"));
        fs::write(place("real/ledger-wal"), "").unwrap();
        assert!(holds("real/ledger-wal") && holds("link/ledger-wal"), "one that was made just now");
    }
}
