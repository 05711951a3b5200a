//! [`Remote`]: everything that can be done on a connected vessel, with errors that name the place.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;

use super::capabilities::Capabilities;
use super::error::{ConnectError, ErrorKind, RemoteError};
use super::exec::{Output, Shells};
use super::sftp::{Attrs, Handle, OpenFlags, SentWrite, Sftp, SftpError, Space};
use super::shell::Script;
use super::ssh::{Connection, SshEnvironment, accepted, place};
use crate::names::RemotePath;
use crate::settings::Vessel;

/// Most entries of a directory on a vessel that are looked at.
const MOST_ENTRIES: usize = 1_000_000;

/// A connected vessel; cheap to clone. It hangs up when the last clone is dropped.
#[derive(Clone)]
pub struct Remote(Arc<Inner>);

struct Inner {
    connection: Connection,
    sftp: Sftp,
    shells: Shells,
    capabilities: Capabilities,
    timeout: Duration,
}

/// An open file on a vessel; cheap to clone. It is closed when the last clone is dropped, if not before.
#[derive(Clone)]
pub struct RemoteFile(Arc<OpenFile>);

struct OpenFile {
    sftp: Sftp,
    handle: Handle,
    path: RemotePath,
    closed: AtomicBool,
}

impl Drop for OpenFile {
    fn drop(&mut self) {
        // A server has some hundred handles for us; what failed half-way must not use them up.
        if !self.closed.load(Ordering::Acquire)
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            let (sftp, handle) = (self.sftp.clone(), self.handle.clone());
            runtime.spawn(async move { sftp.close(handle).await });
        }
    }
}

impl Remote {
    /// Connects, logs in, starts SFTP and finds out what the vessel offers.
    ///
    /// # Errors
    /// [`ConnectError`]: what failed, and what a person can do.
    pub async fn connect(vessel: &Arc<Vessel>, environment: &Arc<SshEnvironment>) -> Result<Self, ConnectError> {
        let connection = Connection::open(vessel, environment).await?;
        let no_sftp = |why: String| ConnectError::NoSftp { place: place(vessel), why };
        let handshake = |why: String| ConnectError::Handshake { place: place(vessel), why };
        let starting = async {
            let mut channel = connection.channel().await.map_err(|e| handshake(e.to_string()))?;
            channel.request_subsystem(true, "sftp").await.map_err(|e| handshake(e.to_string()))?;
            if !accepted(&mut channel).await {
                return Err(no_sftp("the subsystem is refused".into()));
            }
            Sftp::start(channel, vessel.timeout).await.map_err(|e| no_sftp(e.to_string()))
        };
        let (sftp, extensions) = tokio::time::timeout(vessel.timeout * 2, starting)
            .await
            .map_err(|_| handshake(format!("no SFTP within {:?}", vessel.timeout * 2)))??;
        let capabilities = Capabilities::probe(&connection, &sftp, extensions, vessel.timeout)
            .await
            .map_err(|e| handshake(e.to_string()))?;
        let shells = Shells::new(connection.clone());
        Ok(Self(Arc::new(Inner { connection, sftp, shells, capabilities, timeout: vessel.timeout })))
    }

    /// What the vessel offers.
    pub fn capabilities(&self) -> &Capabilities {
        &self.0.capabilities
    }

    /// The cipher in use.
    pub fn cipher(&self) -> String {
        self.0.connection.cipher()
    }

    /// Whether the connection is gone.
    pub fn is_lost(&self) -> bool {
        self.0.connection.is_closed() || self.0.sftp.is_ended()
    }

    /// Waits until the connection is gone.
    pub async fn lost(&self) {
        self.0.sftp.over().await;
    }

    /// Why it is gone, where that is known.
    pub fn why_lost(&self) -> String {
        // Silence is noticed here before the connection ends over it.
        let noticed = self.0.sftp.is_ended().then(|| self.0.sftp.why_ended());
        match noticed {
            Some(why @ (SftpError::Silent(_) | SftpError::Garbled)) => why.to_string(),
            _ => self.0.connection.why_closed().unwrap_or_else(|| "the connection was closed".into()),
        }
    }

    /// What to say when something can't be done because the connection is gone.
    pub fn lost_error(&self) -> RemoteError {
        RemoteError::new(ErrorKind::Connection, "the connection is gone", self.why_lost())
    }

    /// Says good-bye, to a vessel that may be past hearing it.
    pub async fn hang_up(&self) {
        let _ = tokio::time::timeout(Duration::from_secs(1), self.0.connection.hang_up()).await;
    }

    /// What a path is, not following a link; `None` when there is nothing.
    pub async fn look(&self, path: &RemotePath) -> Result<Option<Attrs>, RemoteError> {
        found(self.0.sftp.lstat(path.as_bytes()).await, || format!("looking at {path}"))
    }

    /// What a path leads to, following links; `None` when there is nothing.
    pub async fn look_through(&self, path: &RemotePath) -> Result<Option<Attrs>, RemoteError> {
        found(self.0.sftp.stat(path.as_bytes()).await, || format!("looking at {path}"))
    }

    /// The entries of a directory; none when it doesn't exist.
    pub async fn list(&self, directory: &RemotePath) -> Result<Vec<(Bytes, Attrs)>, RemoteError> {
        let listed = self.0.sftp.list(directory.as_bytes(), MOST_ENTRIES).await;
        Ok(found(listed, || format!("listing {directory}"))?.unwrap_or_default())
    }

    /// Makes one directory with the given permission bits, exactly.
    pub async fn make_dir(&self, path: &RemotePath, mode: u32) -> Result<(), RemoteError> {
        let made = self.0.sftp.mkdir(path.as_bytes(), mode).await;
        made.map_err(|e| RemoteError::from_sftp(&e, format_args!("making the directory {path}")))
    }

    /// Makes a directory and those above it, where they are missing.
    pub async fn make_dirs(&self, path: &RemotePath) -> Result<(), RemoteError> {
        let mut missing = Vec::new();
        let mut next = Some(path.clone());
        while let Some(directory) = next {
            match self.look_through(&directory).await? {
                Some(attrs) if attrs.is_dir() => break,
                Some(_) => {
                    let why = "it exists and is no directory";
                    return Err(RemoteError::new(ErrorKind::Denied, format_args!("using {directory}"), why));
                }
                None => {
                    next = directory.parent();
                    missing.push(directory);
                }
            }
        }
        for directory in missing.iter().rev() {
            if let Err(e) = self.make_dir(directory, 0o755).await {
                // Someone else may have made it at the same moment.
                if !self.look_through(directory).await?.is_some_and(|attrs| attrs.is_dir()) {
                    return Err(e);
                }
            }
        }
        Ok(())
    }

    /// Opens a file; one that is made gets the permission bits `mode`.
    pub async fn open(&self, path: &RemotePath, flags: OpenFlags, mode: u32) -> Result<RemoteFile, RemoteError> {
        let opened = self.0.sftp.open(path.as_bytes(), flags, mode).await;
        let handle = opened.map_err(|e| RemoteError::from_sftp(&e, format_args!("opening {path}")))?;
        let (sftp, path) = (self.0.sftp.clone(), path.clone());
        Ok(RemoteFile(Arc::new(OpenFile { sftp, handle, path, closed: AtomicBool::new(false) })))
    }

    /// Sets attributes of a path.
    pub async fn set(&self, path: &RemotePath, attrs: Attrs) -> Result<(), RemoteError> {
        let set = self.0.sftp.setstat(path.as_bytes(), attrs).await;
        set.map_err(|e| RemoteError::from_sftp(&e, format_args!("setting mode or time of {path}")))
    }

    /// Removes a file; one that isn't there is as good as removed.
    pub async fn remove(&self, path: &RemotePath) -> Result<(), RemoteError> {
        found(self.0.sftp.remove(path.as_bytes()).await, || format!("removing {path}")).map(|_| ())
    }

    /// Gives a file its final name, replacing whatever file has it: in one step where the vessel can.
    pub async fn rename_over(&self, from: &RemotePath, to: &RemotePath) -> Result<(), RemoteError> {
        let sftp = &self.0.sftp;
        let renamed = if self.0.capabilities.posix_rename() {
            sftp.posix_rename(from.as_bytes(), to.as_bytes()).await
        } else {
            self.remove(to).await?;
            sftp.rename(from.as_bytes(), to.as_bytes()).await
        };
        renamed.map_err(|e| RemoteError::from_sftp(&e, format_args!("renaming {from} to {to}")))
    }

    /// Free space where a path is or would be; `None` where the vessel doesn't tell.
    pub async fn space(&self, path: &RemotePath) -> Result<Option<Space>, RemoteError> {
        if !self.0.capabilities.statvfs() {
            return Ok(None);
        }
        let mut at = path.clone();
        loop {
            match self.0.sftp.statvfs(at.as_bytes()).await {
                Ok(space) => return Ok(Some(space)),
                Err(e) if e.is_not_found() => match at.parent() {
                    Some(parent) => at = parent,
                    None => return Ok(None),
                },
                Err(e @ SftpError::Status { .. }) => {
                    tracing::debug!(path = %at, "the vessel doesn't tell its free space: {e}");
                    return Ok(None);
                }
                Err(e) => return Err(RemoteError::from_sftp(&e, format_args!("asking for free space at {at}"))),
            }
        }
    }

    /// SFTP says "failure" for a full disk and a read-only one alike: looks which it was. `needed` is how many bytes
    /// were still to be written there.
    pub async fn explain(&self, error: RemoteError, at: &RemotePath, needed: u64) -> RemoteError {
        if error.kind != ErrorKind::Failed {
            return error;
        }
        let Ok(Some(space)) = self.space(at).await else { return error };
        if space.read_only {
            return RemoteError::new(ErrorKind::ReadOnly, format_args!("writing to {at}"), "it is read-only");
        }
        if space.free_files == 0 {
            let kind = ErrorKind::NoSpace { free: space.free };
            return RemoteError::new(kind, format_args!("{at} is full"), "it can hold no further file (out of inodes)");
        }
        if space.free < needed.max(1) {
            let why = format_args!("{} bytes are free, {needed} more are needed", space.free);
            return RemoteError::new(ErrorKind::NoSpace { free: space.free }, format_args!("{at} is full"), why);
        }
        error
    }

    /// Runs a script in the vessel's shell; `bytes` is how much data it goes through, which its deadline allows for.
    pub(super) async fn run(&self, script: Script, what: &str, bytes: u64) -> Result<Output, RemoteError> {
        // Slow disks and CPUs included: a connection that dies meanwhile is noticed by its keepalives.
        let deadline = self.0.timeout + Duration::from_secs(60 + bytes / (2 << 20));
        self.0.shells.run(script, what, deadline).await
    }
}

/// Turns "no such file" into `None`.
fn found<T>(result: Result<T, SftpError>, what: impl FnOnce() -> String) -> Result<Option<T>, RemoteError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(e) if e.is_not_found() => Ok(None),
        Err(e) => Err(RemoteError::from_sftp(&e, what())),
    }
}

/// Bytes on their way into a file.
pub struct Sent {
    write: SentWrite,
    path: RemotePath,
    length: u64,
}

impl Sent {
    /// Waits until the vessel has taken them; returns how many they are.
    pub async fn taken(self) -> Result<u64, RemoteError> {
        let taken = self.write.wait().await;
        taken.map(|()| self.length).map_err(|e| RemoteError::from_sftp(&e, format_args!("writing to {}", self.path)))
    }
}

impl RemoteFile {
    fn error(&self, error: &SftpError, doing: &str) -> RemoteError {
        RemoteError::from_sftp(error, format_args!("{doing} {}", self.0.path))
    }

    /// The file's path.
    pub fn path(&self) -> &RemotePath {
        &self.0.path
    }

    /// Sends a write; waits first while too much is in flight already. The vessel gets writes in the order in which this
    /// returns.
    pub async fn send(&self, offset: u64, bytes: Bytes) -> Result<Sent, RemoteError> {
        let length = bytes.len() as u64;
        let sent = self.0.sftp.send_write(&self.0.handle, offset, bytes).await;
        Ok(Sent { write: sent.map_err(|e| self.error(&e, "writing to"))?, path: self.0.path.clone(), length })
    }

    /// Reads at most `length` bytes at an offset; `None` at the end.
    pub async fn read_at(&self, offset: u64, length: u32) -> Result<Option<Bytes>, RemoteError> {
        self.0.sftp.read(&self.0.handle, offset, length).await.map_err(|e| self.error(&e, "reading"))
    }

    /// What it is now.
    pub async fn attrs(&self) -> Result<Attrs, RemoteError> {
        self.0.sftp.fstat(&self.0.handle).await.map_err(|e| self.error(&e, "looking at"))
    }

    /// Sets attributes; a size truncates.
    pub async fn set(&self, attrs: Attrs) -> Result<(), RemoteError> {
        self.0.sftp.fsetstat(&self.0.handle, attrs).await.map_err(|e| self.error(&e, "setting mode, time or size of"))
    }

    /// Flushes it to the vessel's disk (`fsync@openssh.com`).
    pub async fn flush(&self) -> Result<(), RemoteError> {
        self.0.sftp.fsync(&self.0.handle).await.map_err(|e| self.error(&e, "flushing"))
    }

    /// Closes it.
    pub async fn close(self) -> Result<(), RemoteError> {
        self.0.closed.store(true, Ordering::Release);
        let closed = self.0.sftp.close(self.0.handle.clone()).await;
        closed.map_err(|e| self.error(&e, "closing"))
    }
}
