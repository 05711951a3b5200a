//! How much room is left on disks, asked so that one that doesn't answer holds up nobody.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

/// How long a disk is waited for. One that takes longer is shown as it was when it answered last.
const PATIENCE: Duration = Duration::from_millis(300);

/// How old an answer may be that is as good as a new one.
const FRESH: Duration = Duration::from_secs(2);

/// The room on the file system of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// The bytes that this program may still write.
    pub free: u64,
    /// The number that the kernel knows the file system by.
    pub disk: u64,
    /// When that was so.
    at: Instant,
}

impl Room {
    /// Whether that was so a moment ago, and not when the disk answered last.
    pub fn is_fresh(&self) -> bool {
        self.at.elapsed() < FRESH
    }
}

/// What is known of the room on disks. Cheap to clone; all clones are one.
#[derive(Clone, Default)]
pub struct Rooms(Arc<Mutex<HashMap<PathBuf, Asked>>>);

/// A path, and what was heard of it last.
#[derive(Default)]
struct Asked {
    last: Option<Room>,
    /// Closed once the question that is under way is answered.
    under_way: Option<watch::Receiver<()>>,
}

impl Rooms {
    /// The room at each of these paths, now or when it was last heard of; `None`: nothing is there, or it never answered.
    /// Each path has at most one thread that waits for its disk.
    pub async fn at(&self, paths: &[PathBuf]) -> Vec<Option<Room>> {
        let asked: Vec<_> = paths.iter().map(|path| self.ask(path)).collect();
        let all = async {
            for mut answered in asked {
                while answered.changed().await.is_ok() {}
            }
        };
        // Whoever has not answered by then is known from before.
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
        let (rooms, place) = (self.clone(), path.to_owned());
        let look = move || {
            let room = room_at(&place).ok();
            rooms.known().entry(place).or_default().last = room;
            drop(answer);
        };
        // A thread of its own: those of the runtime are for what moves.
        if std::thread::Builder::new().name("room on a disk".into()).spawn(look).is_ok() {
            asked.under_way = Some(answered.clone());
        }
        answered
    }

    fn known(&self) -> MutexGuard<'_, HashMap<PathBuf, Asked>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn room_at(path: &Path) -> io::Result<Room> {
    let room = rustix::fs::statvfs(path)?;
    let disk = rustix::fs::stat(path)?.st_dev;
    Ok(Room { free: room.f_bavail.saturating_mul(room.f_frsize), disk, at: Instant::now() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_room_of_what_is_there_is_known() {
        let dir = tempfile::tempdir().unwrap();
        let rooms = Rooms::default();
        let found = rooms.at(&[dir.path().to_owned(), dir.path().join("nothing")]).await;
        assert!(found[0].is_some_and(|room| room.free > 0), "{found:?}");
        assert_eq!(found[1], None);
    }
}
