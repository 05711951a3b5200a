//! A target on this host, where the kernel takes the role of an SFTP server.
//!
//! [`Disk`] accepts the same requests as [`Sftp`](super::sftp::Sftp), and answers like OpenSSH's server, with the same
//! status codes. As in an SFTP server, one thread handles the requests in the order in which they were sent: even if a
//! caller stops waiting for its rename, the rename happens before any later request. A disk that hangs blocks only this
//! thread. Flushing takes long and needs no order, so it runs on other threads.

mod act;
mod hung;
mod mount_roots;

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::error::ConnectError;
use super::sftp::{Attrs, OpenFlags, SftpError, Space};
use crate::settings::LocalTarget;
use hung::{Hung, does_not_answer};
use mount_roots::MountRoots;

/// The maximum number of queued requests; each holds at most one write.
const QUEUE: usize = 32;
/// The minimum time without an answer after which a disk counts as hung. The time is long enough that a busy disk does
/// not count as hung.
const LONGEST_SILENCE: Duration = Duration::from_secs(30);
/// The interval at which the target's directories are checked.
const LOOK: Duration = Duration::from_secs(2);

type Job = Box<dyn FnOnce(&MountRoots) + Send>;

/// A target on this host; cheap to clone.
#[derive(Clone)]
pub(crate) struct Disk {
    queue: Queue,
    _watch: Arc<AbortOnDropHandle<()>>,
    _leaving: Arc<Leaving>,
}

/// A guard that stops the target's thread when the last [`Disk`] is dropped. A request in progress finishes before any
/// request of the next connection to the target; queued requests are not started.
struct Leaving {
    end: Arc<End>,
    hung: Hung,
}

impl Drop for Leaving {
    fn drop(&mut self) {
        self.hung.is_given_up();
        self.end.over.cancel();
    }
}

/// A handle to the queue of the thread that handles all requests. The thread exits when the last handle is dropped.
#[derive(Clone)]
struct Queue {
    jobs: mpsc::Sender<Job>,
    places: Arc<MountRoots>,
    end: Arc<End>,
}

#[derive(Default)]
struct End {
    over: CancellationToken,
    why: OnceLock<String>,
}

impl End {
    fn why(&self) -> SftpError {
        SftpError::Lost(self.why.get().cloned().unwrap_or_else(|| "the request was abandoned".into()))
    }
}

/// A request whose answer is pending.
pub(crate) struct Asked<T> {
    answer: oneshot::Receiver<Result<T, SftpError>>,
    end: Arc<End>,
}

impl<T> Asked<T> {
    /// Waits until the request is done or the target is no longer usable.
    pub(crate) async fn wait(self) -> Result<T, SftpError> {
        tokio::select! {
            biased;
            answer = self.answer => answer.unwrap_or_else(|_| Err(self.end.why())),
            () = self.end.over.cancelled() => Err(self.end.why()),
        }
    }
}

impl Queue {
    /// Sends a request. Requests are handled in the order in which the calls return.
    async fn send<T: Send + 'static>(
        &self,
        act: impl FnOnce(&MountRoots) -> Result<T, SftpError> + Send + 'static,
    ) -> Result<Asked<T>, SftpError> {
        let (reply, answer) = oneshot::channel();
        let end = self.end.clone();
        let job: Job = Box::new(move |places| {
            let done = act(places);
            if let Err(SftpError::Lost(why)) = &done {
                let _ = end.why.set(why.clone());
                end.over.cancel();
            }
            // Sending fails only if the caller has stopped waiting.
            let _ = reply.send(done);
        });
        match self.end.over.run_until_cancelled(self.jobs.send(job)).await {
            Some(Ok(())) => {}
            Some(Err(_)) | None => return Err(self.end.why()),
        }
        Ok(Asked { answer, end: self.end.clone() })
    }

    async fn ask<T: Send + 'static>(
        &self,
        act: impl FnOnce(&MountRoots) -> Result<T, SftpError> + Send + 'static,
    ) -> Result<T, SftpError> {
        self.send(act).await?.wait().await
    }
}

/// Converts an error of the kernel to an SFTP status, by the table of OpenSSH's server (`errno_to_portable`).
fn refused(error: io::Error) -> SftpError {
    use rustix::io::Errno;
    let code = match Errno::from_io_error(&error) {
        Some(Errno::NOENT | Errno::NOTDIR | Errno::BADF | Errno::LOOP) => 2,
        Some(Errno::PERM | Errno::ACCESS) => 3,
        Some(Errno::NAMETOOLONG | Errno::INVAL) => 5,
        Some(Errno::NOSYS) => 8,
        _ => 4,
    };
    SftpError::Status { code, message: error.to_string() }
}

/// Runs a blocking operation on another thread than the one that handles the queue.
async fn beside<T: Send + 'static>(
    act: impl FnOnce() -> Result<T, SftpError> + Send + 'static,
) -> Result<T, SftpError> {
    let done = tokio::task::spawn_blocking(act).await;
    done.unwrap_or_else(|e| Err(SftpError::Lost(format!("a disk task failed: {e}"))))
}

impl Disk {
    /// Opens the directories of a target. Waits at most `patience` for abandoned system calls on the target to return,
    /// and then at most `patience` for the directories. From then on, a background task logs a warning when the disk
    /// does not answer for longer than `patience`.
    ///
    /// # Errors
    /// [`ConnectError::Away`] when a directory is missing or the disk does not answer.
    pub(crate) async fn open(target: &LocalTarget, patience: Duration) -> Result<Self, ConnectError> {
        let away = |why: String| ConnectError::Away { why, remedy: String::new() };
        let (hung, searching) = (Hung::new(target), Hung::new(target));
        hung.wait(patience).await?;
        let (target, given_up) = (target.clone(), searching.clone());
        let found = tokio::task::spawn_blocking(move || {
            let found = MountRoots::find(&target);
            searching.is_over();
            found
        });
        let Ok(found) = tokio::time::timeout(patience, found).await else {
            given_up.is_given_up();
            return Err(does_not_answer());
        };
        let places = Arc::new(found.map_err(|e| away(e.to_string()))??);
        let (jobs, mut waiting) = mpsc::channel::<Job>(QUEUE);
        let queue = Queue { jobs, places: places.clone(), end: Arc::default() };
        let (end, working) = (queue.end.clone(), hung.clone());
        let work = move || {
            while let Some(job) = waiting.blocking_recv() {
                // Queued requests of a target that has ended must not run later, concurrently with requests of the next
                // connection to it.
                if !end.over.is_cancelled() {
                    job(&places);
                }
            }
            working.is_over();
        };
        std::thread::Builder::new().name("local target".into()).spawn(work).map_err(|e| away(e.to_string()))?;
        let leaving = Arc::new(Leaving { end: queue.end.clone(), hung: hung.clone() });
        let watch = tokio::spawn(watch(queue.clone(), patience, hung));
        Ok(Self { queue, _watch: Arc::new(AbortOnDropHandle::new(watch)), _leaving: leaving })
    }

    /// Returns whether the target is no longer usable.
    pub(crate) fn is_ended(&self) -> bool {
        self.queue.end.over.is_cancelled()
    }

    /// Returns why the target is no longer usable.
    pub(crate) fn why_ended(&self) -> SftpError {
        self.queue.end.why()
    }

    /// Waits until the target is no longer usable.
    pub(crate) async fn over(&self) {
        self.queue.end.over.cancelled().await;
    }

    /// Opens a file, as [`Sftp::open`](super::sftp::Sftp::open).
    pub(crate) async fn open_file(&self, path: &[u8], flags: OpenFlags, mode: u32) -> Result<Arc<File>, SftpError> {
        let path = path.to_vec();
        self.queue.ask(move |places| act::open(&places.at(&path)?, flags, mode).map(Arc::new)).await
    }

    /// Closes a file.
    pub(crate) async fn close(&self, file: Arc<File>) -> Result<(), SftpError> {
        self.queue
            .ask(move |_| {
                drop(file);
                Ok(())
            })
            .await
    }

    /// Sets attributes, flushes and closes, as [`Sftp::finish`](super::sftp::Sftp::finish).
    pub(crate) async fn finish(
        &self,
        file: Arc<File>,
        set: Attrs,
        flush: bool,
    ) -> Result<(Result<(), SftpError>, Result<(), SftpError>), SftpError> {
        let set = self.fsetstat(file.clone(), set).await;
        let flushed = if flush { self.fsync(file).await } else { self.close(file).await };
        Ok((set, flushed))
    }

    /// Sends a write, as [`Sftp::send_write`](super::sftp::Sftp::send_write).
    pub(crate) async fn send_write(&self, file: Arc<File>, offset: u64, bytes: Bytes) -> Result<Asked<()>, SftpError> {
        self.queue.send(move |_| file.write_all_at(&bytes, offset).map_err(refused)).await
    }

    /// Sends a copy, as [`Sftp::send_copy`](super::sftp::Sftp::send_copy). The kernel copies, or shares the blocks if
    /// the file system supports that.
    pub(crate) async fn send_copy(
        &self,
        (from, from_offset): (Arc<File>, u64),
        length: u64,
        (to, to_offset): (Arc<File>, u64),
    ) -> Result<Asked<()>, SftpError> {
        self.queue.send(move |_| act::copy((&from, from_offset), length, (&to, to_offset)).map_err(refused)).await
    }

    /// Reads bytes, as [`Sftp::read`](super::sftp::Sftp::read).
    pub(crate) async fn read(&self, file: Arc<File>, offset: u64, length: u32) -> Result<Option<Bytes>, SftpError> {
        self.queue.ask(move |_| act::read(&file, offset, length as usize).map_err(refused)).await
    }

    /// Returns attributes, as [`Sftp::lstat`](super::sftp::Sftp::lstat).
    pub(crate) async fn lstat(&self, path: &[u8]) -> Result<Attrs, SftpError> {
        let path = path.to_vec();
        self.queue.ask(move |places| act::look(&places.at(&path)?)).await
    }

    /// Returns attributes, as [`Sftp::stat`](super::sftp::Sftp::stat), but does not follow links.
    pub(crate) async fn stat(&self, path: &[u8]) -> Result<Attrs, SftpError> {
        let path = path.to_vec();
        self.queue.ask(move |places| act::look(&places.at(&path)?)).await
    }

    /// Returns the attributes of an open file.
    pub(crate) async fn fstat(&self, file: Arc<File>) -> Result<Attrs, SftpError> {
        self.queue.ask(move |_| act::look_at_file(&file)).await
    }

    /// Sets attributes, as [`Sftp::setstat`](super::sftp::Sftp::setstat).
    pub(crate) async fn setstat(&self, path: &[u8], set: Attrs) -> Result<(), SftpError> {
        let path = path.to_vec();
        self.queue.ask(move |places| act::set(&places.at(&path)?, &set)).await
    }

    /// Sets attributes of a link, as [`Sftp::lsetstat`](super::sftp::Sftp::lsetstat).
    pub(crate) async fn lsetstat(&self, path: &[u8], set: Attrs) -> Result<(), SftpError> {
        let path = path.to_vec();
        self.queue.ask(move |places| act::set_link(&places.at(&path)?, &set)).await
    }

    /// Sets attributes of an open file.
    pub(crate) async fn fsetstat(&self, file: Arc<File>, set: Attrs) -> Result<(), SftpError> {
        self.queue.ask(move |_| act::set_file(&file, &set)).await
    }

    /// Removes a file.
    pub(crate) async fn remove(&self, path: &[u8]) -> Result<(), SftpError> {
        let path = path.to_vec();
        self.queue.ask(move |places| act::remove(&places.at(&path)?, false)).await
    }

    /// Removes an empty directory.
    pub(crate) async fn rmdir(&self, path: &[u8]) -> Result<(), SftpError> {
        let path = path.to_vec();
        self.queue.ask(move |places| act::remove(&places.at(&path)?, true)).await
    }

    /// Creates a directory.
    pub(crate) async fn mkdir(&self, path: &[u8], mode: u32) -> Result<(), SftpError> {
        let path = path.to_vec();
        self.queue.ask(move |places| act::make_dir(&places.at(&path)?, mode)).await
    }

    /// Creates a symbolic link.
    pub(crate) async fn symlink(&self, target: &[u8], link: &[u8]) -> Result<(), SftpError> {
        let (target, link) = (target.to_vec(), link.to_vec());
        self.queue.ask(move |places| act::make_link(&target, &places.at(&link)?)).await
    }

    /// Returns the target of a symbolic link.
    pub(crate) async fn readlink(&self, path: &[u8]) -> Result<Bytes, SftpError> {
        let path = path.to_vec();
        self.queue.ask(move |places| act::read_link(&places.at(&path)?)).await
    }

    /// Renames a path. Fails when the new name exists.
    pub(crate) async fn rename(&self, from: &[u8], to: &[u8]) -> Result<(), SftpError> {
        let (from, to) = (from.to_vec(), to.to_vec());
        self.queue.ask(move |places| act::rename(&places.at(&from)?, &places.at(&to)?, false)).await
    }

    /// Renames a path and replaces an existing file of the new name.
    pub(crate) async fn posix_rename(&self, from: &[u8], to: &[u8]) -> Result<(), SftpError> {
        let (from, to) = (from.to_vec(), to.to_vec());
        self.queue.ask(move |places| act::rename(&places.at(&from)?, &places.at(&to)?, true)).await
    }

    /// Flushes an open file to its disk.
    pub(crate) async fn fsync(&self, file: Arc<File>) -> Result<(), SftpError> {
        beside(move || file.sync_all().map_err(refused)).await
    }

    /// Flushes files and directories to their disks, or the whole file systems that they are on.
    pub(crate) async fn flush(&self, paths: Vec<Vec<u8>>, whole: bool) -> Result<(), SftpError> {
        let places = self.queue.places.clone();
        beside(move || paths.iter().try_for_each(|path| act::flush(&places.at(path)?, whole))).await
    }

    /// Returns the free space of the file system that a path is on.
    pub(crate) async fn statvfs(&self, path: &[u8]) -> Result<Space, SftpError> {
        let path = path.to_vec();
        self.queue.ask(move |places| act::space(&places.at(&path)?)).await
    }

    /// Returns the entries of a directory without `.` and `..`, at most `most` of them.
    pub(crate) async fn list(&self, path: &[u8], most: usize) -> Result<Vec<(Bytes, Attrs)>, SftpError> {
        let path = path.to_vec();
        self.queue.ask(move |places| act::list(&places.at(&path)?, most)).await
    }
}

/// Checks the target's directories periodically, so that a removed disk is noticed before it is needed. If the disk
/// does not answer for long, marks the target as no longer usable, just like a connection to a silent vessel.
async fn watch(queue: Queue, patience: Duration, hung: Hung) {
    while !queue.end.over.is_cancelled() {
        tokio::time::sleep(LOOK).await;
        let mut looking = std::pin::pin!(queue.ask(MountRoots::check));
        if tokio::time::timeout(patience, &mut looking).await.is_ok() {
            continue;
        }
        let directories = hung.places();
        tracing::warn!(
            ?directories,
            "The disk of the local vessel has not responded for {}: it hangs or is busy",
            crate::text::duration(patience)
        );
        if tokio::time::timeout(LONGEST_SILENCE.max(patience * 3), looking).await.is_err() {
            hung.is_given_up();
            let _ = queue.end.why.set("the disk does not answer".to_owned());
            queue.end.over.cancel();
            return;
        }
        tracing::info!(?directories, "The disk of the local vessel responds again");
    }
}
