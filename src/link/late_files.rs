//! Temporary files that may still appear on the vessel after they were removed.
//!
//! Small files are sent to a loop in the vessel's shell. When the connection is lost, bytes that are still on the way
//! reach the loop after another connection has removed its files and delivered the file again. The loop then begins the
//! file, waits for the rest until the server notices that the connection is gone, which may take hours, and only then
//! removes what it has.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use crate::names::RemotePath;
use crate::records::DeliveryId;

/// After this time, no bytes of a lost connection can still arrive, even on a slow link with a long queue.
const ON_THE_WAY: Duration = Duration::from_secs(30);
/// Maximum number of files that are remembered. Further files are left to the loop.
const MOST: usize = 4096;

/// A temporary file of an earlier attempt of a delivery.
#[derive(Clone)]
pub(crate) struct LateFile {
    pub(crate) delivery: DeliveryId,
    pub(crate) path: RemotePath,
    due: Instant,
}

/// The files that are to be removed once more, in the order in which they are due.
#[derive(Default)]
pub(crate) struct LateFiles {
    files: Mutex<Vec<LateFile>>,
    added: Notify,
}

impl LateFiles {
    fn files(&self) -> MutexGuard<'_, Vec<LateFile>> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds the temporary files of an earlier attempt of a delivery.
    pub(crate) fn add(&self, delivery: DeliveryId, paths: impl IntoIterator<Item = RemotePath>) {
        let mut files = self.files();
        for path in paths {
            files.retain(|known| known.path != path);
            if files.len() < MOST {
                files.push(LateFile { delivery, path, due: Instant::now() + ON_THE_WAY });
            }
        }
        self.added.notify_one();
    }

    /// Waits until a file is due, and takes it.
    pub(crate) async fn due(&self) -> LateFile {
        loop {
            let first = self.files().first().map(|file| file.due);
            match first {
                None => self.added.notified().await,
                Some(due) => {
                    sleep_until(due).await;
                    let mut files = self.files();
                    if files.first().is_some_and(|file| file.due <= Instant::now()) {
                        return files.remove(0);
                    }
                }
            }
        }
    }

    /// Takes over the files of an earlier connection to the same host.
    pub(crate) fn take_over(&self, earlier: &Self) {
        let mut files = self.files();
        files.extend(std::mem::take(&mut *earlier.files()));
        files.sort_by_key(|file| file.due);
        drop(files);
        self.added.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(name: &str) -> RemotePath {
        RemotePath::new(name)
    }

    #[tokio::test(start_paused = true)]
    async fn files_are_due_half_a_minute_after_they_were_last_added() {
        let files = LateFiles::default();
        files.add(DeliveryId(1), [path("/a"), path("/b")]);
        tokio::time::advance(ON_THE_WAY / 2).await;
        files.add(DeliveryId(2), [path("/a")]);
        let began = Instant::now();
        let first = files.due().await;
        assert_eq!((first.path, first.delivery, began.elapsed()), (path("/b"), DeliveryId(1), ON_THE_WAY / 2));
        let next = LateFiles::default();
        next.take_over(&files);
        let second = next.due().await;
        assert_eq!((second.path, second.delivery, began.elapsed()), (path("/a"), DeliveryId(2), ON_THE_WAY));
        assert!(files.files().is_empty() && next.files().is_empty());
    }
}
