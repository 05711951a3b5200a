//! Temporary files that may still appear on the vessel after they were removed.
//!
//! A loop in the vessel's shell receives small files. When the connection is lost, bytes that are still on the way may
//! reach the loop after another connection has removed the loop's files and delivered the file again. The loop then
//! creates the temporary file once more and waits for the missing bytes. It removes the file only after the server has
//! noticed that the connection is gone, which may take hours. A request to create an assembly by SFTP may also arrive
//! late, after another connection has published the file. This assembly stays empty, because data is sent only after
//! the reply to this request.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use crate::names::RemotePath;
use crate::records::DeliveryId;

/// This long after a connection was given up, none of its bytes can still arrive, even on a slow link with a long
/// queue.
pub(crate) const ON_THE_WAY: Duration = Duration::from_secs(30);
/// Maximum number of files that are remembered. Further files are left for the loop to remove.
const MOST: usize = 4096;

/// A temporary file of an earlier attempt of a delivery.
#[derive(Clone)]
pub(crate) struct LateFile {
    pub(crate) delivery: DeliveryId,
    pub(crate) path: RemotePath,
    pub(crate) which: Which,
    due: Instant,
}

/// Whether a late file is removed only if it is empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Which {
    /// Any file: no attempt continues with it.
    Any,
    /// Only an empty file: a later attempt may continue with a file that is not empty.
    Empty,
}

/// The files that are to be removed once more, in the order in which they are due.
pub(crate) struct LateFiles {
    files: Mutex<Vec<LateFile>>,
    added: Notify,
    /// When the session began.
    began: Instant,
}

impl Default for LateFiles {
    fn default() -> Self {
        Self { files: Mutex::default(), added: Notify::new(), began: Instant::now() }
    }
}

impl LateFiles {
    fn files(&self) -> MutexGuard<'_, Vec<LateFile>> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds the temporary files of an earlier attempt of a delivery.
    pub(crate) fn add(&self, delivery: DeliveryId, which: Which, paths: impl IntoIterator<Item = RemotePath>) {
        let mut files = self.files();
        for path in paths {
            files.retain(|known| known.path != path);
            if files.len() < MOST {
                files.push(LateFile { delivery, path, which, due: Instant::now() + ON_THE_WAY });
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

    /// Adds the assemblies of a superseded delivery. Like [`Self::add_empty`], does nothing once [`ON_THE_WAY`] has
    /// passed since the session began.
    pub(crate) fn add_superseded(&self, delivery: DeliveryId, assembly: RemotePath, loop_assembly: RemotePath) {
        if self.began.elapsed() < ON_THE_WAY {
            self.add(delivery, Which::Empty, [assembly]);
            self.add(delivery, Which::Any, [loop_assembly]);
        }
    }

    /// Adds the assembly of an earlier attempt of a delivery. When it is due, it is removed if it is empty. Does
    /// nothing once [`ON_THE_WAY`] has passed since the session began, because requests of earlier connections can no
    /// longer arrive then.
    pub(crate) fn add_empty(&self, delivery: DeliveryId, assembly: RemotePath) {
        if self.began.elapsed() < ON_THE_WAY {
            self.add(delivery, Which::Empty, [assembly]);
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
    async fn assemblies_are_added_only_while_requests_of_an_earlier_connection_may_arrive() {
        let files = LateFiles::default();
        files.add_empty(DeliveryId(1), path("/a"));
        tokio::time::advance(ON_THE_WAY).await;
        files.add_empty(DeliveryId(2), path("/b"));
        let first = files.due().await;
        assert_eq!((first.path, first.which), (path("/a"), Which::Empty));
        assert!(files.files().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn files_are_due_half_a_minute_after_they_were_last_added() {
        let files = LateFiles::default();
        files.add(DeliveryId(1), Which::Any, [path("/a"), path("/b")]);
        tokio::time::advance(ON_THE_WAY / 2).await;
        files.add(DeliveryId(2), Which::Empty, [path("/a")]);
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
