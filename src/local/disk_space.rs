//! Queries the free space of disks, without blocking on a disk that doesn't answer.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

/// How long to wait for the disks. A disk that takes longer is reported with its last answer.
const PATIENCE: Duration = Duration::from_millis(300);

/// Maximum age of an answer that still counts as current.
const FRESH: Duration = Duration::from_secs(2);

/// Free space on the file system of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FreeSpace {
    /// Bytes that this program may still write.
    pub free: u64,
    /// The file system's device number.
    pub disk: u64,
    /// When the free space was measured.
    at: Instant,
}

impl FreeSpace {
    /// Returns whether the answer is less than 2 s old. Older answers come from a disk that no longer responds.
    pub fn is_fresh(&self) -> bool {
        self.at.elapsed() < FRESH
    }
}

/// Last known free space of disks. Clones are cheap and share their state.
#[derive(Clone, Default)]
pub struct FreeSpaces(Arc<Mutex<HashMap<PathBuf, Asked>>>);

/// The last answer for one path, and its pending query.
#[derive(Default)]
struct Asked {
    last: Option<FreeSpace>,
    /// A channel that closes when the last query is answered; `None` before the first query.
    under_way: Option<watch::Receiver<()>>,
}

impl FreeSpaces {
    /// Returns the free space at each of these paths, current or as last known; `None` if the last query failed, for
    /// example because the path does not exist, or if the disk never answered. Each path has at most one thread that
    /// waits for its disk.
    pub async fn at(&self, paths: &[PathBuf]) -> Vec<Option<FreeSpace>> {
        let asked: Vec<_> = paths.iter().map(|path| self.ask(path)).collect();
        let all = async {
            for mut answered in asked {
                while answered.changed().await.is_ok() {}
            }
        };
        // Disks that have not answered in time are reported with their last answer.
        let _ = tokio::time::timeout(PATIENCE, all).await;
        let known = self.known();
        paths.iter().map(|path| known.get(path)?.last).collect()
    }

    fn ask(&self, path: &Path) -> watch::Receiver<()> {
        let mut known = self.known();
        let asked = known.entry(path.to_owned()).or_default();
        if let Some(under_way) = asked.under_way.as_ref().filter(|answered| answered.has_changed().is_ok()) {
            return under_way.clone();
        }
        let (answer, answered) = watch::channel(());
        let (free_spaces, place) = (self.clone(), path.to_owned());
        let look = move || {
            let space = measure(&place).ok();
            free_spaces.known().entry(place).or_default().last = space;
            drop(answer);
        };
        // Uses a separate thread, to keep the runtime's threads free for transfers.
        if std::thread::Builder::new().name("space on a disk".into()).spawn(look).is_ok() {
            asked.under_way = Some(answered.clone());
        }
        answered
    }

    fn known(&self) -> MutexGuard<'_, HashMap<PathBuf, Asked>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn measure(path: &Path) -> io::Result<FreeSpace> {
    let space = rustix::fs::statvfs(path)?;
    let disk = rustix::fs::stat(path)?.st_dev;
    Ok(FreeSpace { free: space.f_bavail.saturating_mul(space.f_frsize), disk, at: Instant::now() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_free_space_of_an_existing_path_is_known() {
        let dir = tempfile::tempdir().unwrap();
        let free_spaces = FreeSpaces::default();
        let found = free_spaces.at(&[dir.path().to_owned(), dir.path().join("nothing")]).await;
        assert!(found[0].is_some_and(|space| space.free > 0), "{found:?}");
        assert_eq!(found[1], None);
    }
}
