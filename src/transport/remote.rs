//! [`Remote`] is a connected vessel, with the operations on it. The errors of the operations name the file or
//! directory.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::pending;

use super::capabilities::Capabilities;
use super::error::{ErrorKind, RemoteError};
use super::exec::{Output, Running, Shells};
use super::file::RemoteFile;
use super::known::KnownShell;
use super::sftp::{Attrs, OpenFlags, SftpError, Space};
use super::sftp_channel::SftpChannel;
use super::shell::Script;
use super::ssh::Connection;
use crate::names::RemotePath;

/// The maximum number of entries that are read from a directory on a vessel.
pub(super) const MOST_ENTRIES: usize = 1_000_000;

/// The interval between checks for a silent vessel, and the minimum deadline for the reply to a keepalive request.
const LOOK: Duration = Duration::from_millis(250);
const SIGN_OF_LIFE: Duration = Duration::from_secs(2);
/// How many bytes a silent vessel must confirm before its connection counts as working again.
const GOES_ON: u64 = 256 << 10;

/// A connected vessel; cheap to clone. The connection ends when the last clone is dropped.
#[derive(Clone)]
pub struct Remote(pub(super) Arc<Inner>);

pub(super) struct Inner {
    /// The SSH connection and its shells; `None` for a target on this host.
    pub(super) ssh: Option<Ssh>,
    pub(super) channel: SftpChannel,
    /// The capabilities of SFTP, without those of the shell.
    pub(super) basic: Capabilities,
    /// The capabilities of SFTP and of the shell, set once the shell is known.
    pub(super) full: OnceLock<Capabilities>,
    pub(super) timeout: Duration,
    /// The facts about the shell that the next connection can reuse.
    pub(super) known: Mutex<KnownShell>,
    /// Whether the vessel refused `check-file`, or returned a wrong hash.
    pub(super) refuses_check_file: AtomicBool,
}

/// The SSH connection and its shells.
pub(super) struct Ssh {
    pub(super) connection: Connection,
    pub(super) shells: Arc<Shells>,
    /// Directories in which a probe file may be created to compare the paths of SFTP and of the shell.
    pub(super) places: [RemotePath; 2],
}

impl Remote {
    /// Returns the channel for all operations that do not use a channel of their own.
    pub fn main_channel(&self) -> &SftpChannel {
        &self.0.channel
    }

    /// Returns the vessel's capabilities.
    pub fn capabilities(&self) -> &Capabilities {
        self.0.full.get().unwrap_or(&self.0.basic)
    }

    pub(super) fn connection(&self) -> Option<&Connection> {
        self.0.ssh.as_ref().map(|ssh| &ssh.connection)
    }

    /// Returns whether the target is on this host and uses no SSH.
    pub fn is_this_host(&self) -> bool {
        self.0.ssh.is_none()
    }

    /// Returns algorithm and fingerprint of the host key that the vessel has shown; `None` for a target on this host.
    pub fn host_key(&self) -> Option<(String, String)> {
        self.connection()?.host_key()
    }

    /// Returns the cipher in use; `none` for a target on this host.
    pub fn cipher(&self) -> String {
        self.connection().map_or_else(|| "none".into(), Connection::cipher)
    }

    /// Returns the kernel's name of the congestion control that the connection sends with; `none` for a target on this
    /// host.
    pub fn congestion(&self) -> String {
        self.connection().map_or_else(|| "none".into(), Connection::congestion)
    }

    /// Returns why the configured congestion control is not in use, with a remedy; `None` when it is in use.
    pub fn congestion_refused(&self) -> Option<String> {
        self.connection()?.congestion_refused()
    }

    /// Returns whether the connection compresses sent data.
    pub fn compresses(&self) -> bool {
        self.connection().is_some_and(Connection::compresses)
    }

    /// Returns whether the connection is lost.
    pub fn is_lost(&self) -> bool {
        self.0.channel.is_lost()
    }

    /// Waits until the connection is lost.
    pub async fn lost(&self) {
        self.0.channel.files().over().await;
    }

    /// Returns why the connection was lost, or a general text if the reason is unknown.
    pub fn why_lost(&self) -> String {
        // The SFTP session notices a silent vessel before the SSH connection ends, so the reason of the SFTP session
        // comes first.
        let noticed = self.0.channel.files().is_ended().then(|| self.0.channel.files().why_ended());
        match (noticed, self.connection()) {
            (Some(why @ (SftpError::Silent(_) | SftpError::Garbled)), _) | (Some(why), None) => why.to_string(),
            (_, connection) => {
                connection.and_then(Connection::why_closed).unwrap_or_else(|| "the connection was closed".into())
            }
        }
    }

    /// Returns the error of an operation that failed because the connection was lost.
    pub fn lost_error(&self) -> RemoteError {
        let what = if self.is_this_host() { "the target is not available" } else { "the connection was lost" };
        RemoteError::new(ErrorKind::Connection, what, self.why_lost())
    }

    /// Sends a keepalive request and waits for the reply, forever if none arrives. Returns at once for a target on this
    /// host.
    pub async fn ping(&self) {
        if let Some(connection) = self.connection() {
            connection.ping().await;
        }
    }

    /// Starts keepalives on a connection that was a standby until now, and is used from now on.
    pub fn keep_alive(&self) {
        if let Some(connection) = self.connection().cloned() {
            tokio::spawn(async move { connection.keep_alive().await });
        }
    }

    /// Waits until the host accepts another connection, which shows that the link works again. Returns at once for a
    /// target on this host.
    pub async fn host_answers(&self) {
        if let Some(connection) = self.connection() {
            connection.host_answers().await;
        }
    }

    /// Waits until replies are pending and the vessel has been silent for so long that the link seems to be down. A
    /// vessel that is only busy with its disk still answers keepalive requests, and does not count as silent.
    pub async fn silent(&self) {
        let Some(connection) = self.connection() else { return pending().await };
        loop {
            while !self.0.channel.is_silent() {
                // While no reply is pending, `asked` waits without polling.
                self.0.channel.asked().await;
                tokio::time::sleep(LOOK).await;
            }
            let patience = SIGN_OF_LIFE.max(self.0.channel.round_trip() * 8);
            if tokio::time::timeout(patience, connection.ping()).await.is_err() && self.0.channel.is_silent() {
                return;
            }
            tokio::time::sleep(SIGN_OF_LIFE).await;
        }
    }

    /// Waits until a silent vessel responds again: until it has answered a keepalive request, or has confirmed more
    /// bytes than its system may have buffered during an outage. Confirmations may come first: replies that the vessel
    /// sent during the outage arrive as soon as the link returns, while our own packets may wait seconds for their
    /// retransmission.
    pub async fn talking(&self) {
        let Some(connection) = self.connection() else { return };
        let before = self.0.channel.answered_bytes();
        let answering = async {
            while self.is_lost() || self.0.channel.answered_bytes() < before + GOES_ON {
                tokio::time::sleep(LOOK).await;
            }
        };
        tokio::select! {
            () = connection.ping() => {}
            () = answering => {}
        }
    }

    /// Sends a disconnect message. Gives up after 1 s, because the vessel may not be reachable any more.
    pub async fn hang_up(&self) {
        if let Some(connection) = self.connection() {
            let _ = tokio::time::timeout(Duration::from_secs(1), connection.hang_up()).await;
        }
    }

    /// Returns the entries of a directory, or an empty list if the directory does not exist.
    pub async fn list(&self, directory: &RemotePath) -> Result<Vec<(Bytes, Attrs)>, RemoteError> {
        let listed = self.0.channel.files().list(directory.as_bytes(), MOST_ENTRIES).await;
        Ok(found(listed, || format!("listing {directory}"))?.unwrap_or_default())
    }

    /// Opens a file. If the file is created, it gets the permission bits `mode`.
    pub async fn open(&self, path: &RemotePath, flags: OpenFlags, mode: u32) -> Result<RemoteFile, RemoteError> {
        self.0.channel.open(path, flags, mode).await
    }

    /// Sets attributes of a path.
    pub async fn set(&self, path: &RemotePath, attrs: Attrs) -> Result<(), RemoteError> {
        let set = self.0.channel.files().setstat(path.as_bytes(), attrs).await;
        set.map_err(|e| RemoteError::from_sftp(&e, format_args!("setting mode or time of {path}")))
    }

    /// Creates a symbolic link.
    pub async fn make_link(&self, target: &[u8], link: &RemotePath) -> Result<(), RemoteError> {
        let made = self.0.channel.files().symlink(target, link.as_bytes()).await;
        made.map_err(|e| RemoteError::from_sftp(&e, format_args!("creating the symbolic link {link}")))
    }

    /// Returns the target of a symbolic link, or `None` if the link does not exist.
    pub async fn read_link(&self, link: &RemotePath) -> Result<Option<Bytes>, RemoteError> {
        found(self.0.channel.files().readlink(link.as_bytes()).await, || format!("reading the symbolic link {link}"))
    }

    /// Returns the absolute path of a path. A relative path starts at the login directory.
    pub async fn real_path(&self, path: &RemotePath) -> Result<RemotePath, RemoteError> {
        let real = self.0.channel.files().realpath(path.as_bytes()).await;
        real.map(RemotePath::new).map_err(|e| RemoteError::from_sftp(&e, format_args!("resolving {path}")))
    }

    /// Sets attributes of a link itself (`lsetstat@openssh.com`). Does nothing if the vessel does not support that.
    pub async fn set_link(&self, link: &RemotePath, attrs: Attrs) -> Result<(), RemoteError> {
        if !self.capabilities().lsetstat() {
            return Ok(());
        }
        let set = self.0.channel.files().lsetstat(link.as_bytes(), attrs).await;
        set.map_err(|e| RemoteError::from_sftp(&e, format_args!("setting time or owner of the link {link}")))
    }

    /// Returns the free space of the file system that a path is on, or `None` if the vessel does not report it. For a
    /// missing path, queries its nearest existing parent.
    pub async fn space(&self, path: &RemotePath) -> Result<Option<Space>, RemoteError> {
        if !self.capabilities().statvfs() {
            return Ok(None);
        }
        let mut at = path.clone();
        loop {
            match self.0.channel.files().statvfs(at.as_bytes()).await {
                Ok(space) => return Ok(Some(space)),
                Err(e) if e.is_not_found() => match at.parent() {
                    Some(parent) => at = parent,
                    None => return Ok(None),
                },
                Err(e @ SftpError::Status { .. }) => {
                    tracing::debug!(path = %at, "The vessel does not report its free space: {e}");
                    return Ok(None);
                }
                Err(e) => return Err(RemoteError::from_sftp(&e, format_args!("querying the free space at {at}"))),
            }
        }
    }

    /// Starts a script in the vessel's shell. The script reads lines from its standard input while it runs.
    pub(super) async fn start(&self, script: Script, what: &'static str) -> Result<Running<'_>, RemoteError> {
        self.shells(what)?.start(script, what, self.deadline(0)).await
    }

    /// Returns the deadline of a command that processes `bytes` bytes.
    pub(super) fn deadline(&self, bytes: u64) -> Duration {
        // The deadline allows for slow disks and CPUs. Keepalives detect a dead connection meanwhile.
        self.0.timeout + Duration::from_secs(60 + bytes / (2 << 20))
    }

    /// Runs a script in the vessel's shell. The script's deadline allows for processing `bytes` bytes.
    pub(super) async fn run(&self, script: Script, what: &str, bytes: u64) -> Result<Output, RemoteError> {
        self.shells(what)?.run(script, what, self.deadline(bytes)).await
    }

    pub(super) fn shells(&self, what: &str) -> Result<&Arc<Shells>, RemoteError> {
        let none = || RemoteError::new(ErrorKind::Unsupported, what, "no shell is used on this host");
        self.0.ssh.as_ref().map(|ssh| &ssh.shells).ok_or_else(none)
    }
}

/// Converts the error "no such file" to `None`.
pub(super) fn found<T>(result: Result<T, SftpError>, what: impl FnOnce() -> String) -> Result<Option<T>, RemoteError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(e) if e.is_not_found() => Ok(None),
        Err(e) => Err(RemoteError::from_sftp(&e, what())),
    }
}
