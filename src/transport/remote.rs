//! [`Remote`]: everything that can be done on a connected vessel, with errors that name the place.

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

/// Most entries of a directory on a vessel that are looked at.
pub(super) const MOST_ENTRIES: usize = 1_000_000;

/// How often it is looked whether a vessel is silent, and how long it may take for a sign of life.
const LOOK: Duration = Duration::from_millis(250);
const SIGN_OF_LIFE: Duration = Duration::from_secs(2);
/// How much a vessel has to answer for, in bytes, until it counts as one that goes on after a silence.
const GOES_ON: u64 = 256 << 10;

/// A connected vessel; cheap to clone. It hangs up when the last clone is dropped.
#[derive(Clone)]
pub struct Remote(pub(super) Arc<Inner>);

pub(super) struct Inner {
    /// `None` on this host.
    pub(super) ssh: Option<Ssh>,
    pub(super) lane: SftpChannel,
    /// What SFTP offers.
    pub(super) basic: Capabilities,
    /// The same with what the shell offers, once that is known.
    pub(super) full: OnceLock<Capabilities>,
    pub(super) timeout: Duration,
    /// What the next connection may take for known of the shell.
    pub(super) known: Mutex<KnownShell>,
}

/// What there is beside SFTP where a vessel is reached over SSH.
pub(super) struct Ssh {
    pub(super) connection: Connection,
    pub(super) shells: Arc<Shells>,
    /// Directories in which a file may be made to find out whether SFTP and the shell show the same.
    pub(super) places: [RemotePath; 2],
}

impl Remote {
    /// The way that everything takes which needs no other.
    pub fn main_channel(&self) -> &SftpChannel {
        &self.0.lane
    }

    /// What the vessel offers.
    pub fn capabilities(&self) -> &Capabilities {
        self.0.full.get().unwrap_or(&self.0.basic)
    }

    pub(super) fn connection(&self) -> Option<&Connection> {
        self.0.ssh.as_ref().map(|ssh| &ssh.connection)
    }

    /// Whether it is this host itself, without SSH.
    pub fn is_this_host(&self) -> bool {
        self.0.ssh.is_none()
    }

    /// Algorithm and fingerprint of the key that the vessel has shown; `None` on this host.
    pub fn host_key(&self) -> Option<(String, String)> {
        self.connection()?.host_key()
    }

    /// The cipher in use; `none` on this host.
    pub fn cipher(&self) -> String {
        self.connection().map_or_else(|| "none".into(), Connection::cipher)
    }

    /// The congestion control that the connection sends with, by its name in the kernel; `none` on this host.
    pub fn congestion(&self) -> String {
        self.connection().map_or_else(|| "none".into(), Connection::congestion)
    }

    /// Why that is not the one that was wished for, and what a person can do; `None` when it is.
    pub fn congestion_refused(&self) -> Option<String> {
        self.connection()?.congestion_refused()
    }

    /// Whether the connection compresses what is sent.
    pub fn compresses(&self) -> bool {
        self.connection().is_some_and(Connection::compresses)
    }

    /// Whether the connection is gone.
    pub fn is_lost(&self) -> bool {
        self.0.lane.is_lost()
    }

    /// Waits until the connection is gone.
    pub async fn lost(&self) {
        self.0.lane.files().over().await;
    }

    /// Why it is gone, where that is known.
    pub fn why_lost(&self) -> String {
        // Silence is noticed here before the connection ends over it.
        let noticed = self.0.lane.files().is_ended().then(|| self.0.lane.files().why_ended());
        match (noticed, self.connection()) {
            (Some(why @ (SftpError::Silent(_) | SftpError::Garbled)), _) | (Some(why), None) => why.to_string(),
            (_, connection) => {
                connection.and_then(Connection::why_closed).unwrap_or_else(|| "the connection was closed".into())
            }
        }
    }

    /// What to say when something can't be done because the connection is gone.
    pub fn lost_error(&self) -> RemoteError {
        let what = if self.is_this_host() { "the target is not available" } else { "the connection was lost" };
        RemoteError::new(ErrorKind::Connection, what, self.why_lost())
    }

    /// Asks for a sign of life and waits for it, for ever where none comes.
    pub async fn ping(&self) {
        if let Some(connection) = self.connection() {
            connection.ping().await;
        }
    }

    /// Has a connection that was a spare looked after as any other.
    pub fn keep_alive(&self) {
        if let Some(connection) = self.connection().cloned() {
            tokio::spawn(async move { connection.keep_alive().await });
        }
    }

    /// Waits until the host takes another connection: a link that was down carries again.
    pub async fn host_answers(&self) {
        if let Some(connection) = self.connection() {
            connection.host_answers().await;
        }
    }

    /// Waits until the vessel has been silent for so long, with answers due, that the link seems to be down. One that is
    /// busy with its disk still answers for its link.
    pub async fn silent(&self) {
        let Some(connection) = self.connection() else { return pending().await };
        loop {
            while !self.0.lane.is_silent() {
                tokio::time::sleep(LOOK).await;
            }
            let patience = SIGN_OF_LIFE.max(self.0.lane.round_trip() * 8);
            if tokio::time::timeout(patience, connection.ping()).await.is_err() && self.0.lane.is_silent() {
                return;
            }
            tokio::time::sleep(SIGN_OF_LIFE).await;
        }
    }

    /// Waits until a vessel that was silent goes on: it has answered for what was on its way, or for more than what its own
    /// system may have kept for us during an outage. The answers that were under way come as soon as a link returns, while
    /// what we send may still wait seconds for its next try.
    pub async fn talking(&self) {
        let Some(connection) = self.connection() else { return };
        let before = self.0.lane.answered_bytes();
        let answering = async {
            while self.is_lost() || self.0.lane.answered_bytes() < before + GOES_ON {
                tokio::time::sleep(LOOK).await;
            }
        };
        tokio::select! {
            () = connection.ping() => {}
            () = answering => {}
        }
    }

    /// Says good-bye, to a vessel that may be past hearing it.
    pub async fn hang_up(&self) {
        if let Some(connection) = self.connection() {
            let _ = tokio::time::timeout(Duration::from_secs(1), connection.hang_up()).await;
        }
    }

    /// The entries of a directory; none when it doesn't exist.
    pub async fn list(&self, directory: &RemotePath) -> Result<Vec<(Bytes, Attrs)>, RemoteError> {
        let listed = self.0.lane.files().list(directory.as_bytes(), MOST_ENTRIES).await;
        Ok(found(listed, || format!("listing {directory}"))?.unwrap_or_default())
    }

    /// Opens a file; one that is made gets the permission bits `mode`.
    pub async fn open(&self, path: &RemotePath, flags: OpenFlags, mode: u32) -> Result<RemoteFile, RemoteError> {
        self.0.lane.open(path, flags, mode).await
    }

    /// Sets attributes of a path.
    pub async fn set(&self, path: &RemotePath, attrs: Attrs) -> Result<(), RemoteError> {
        let set = self.0.lane.files().setstat(path.as_bytes(), attrs).await;
        set.map_err(|e| RemoteError::from_sftp(&e, format_args!("setting mode or time of {path}")))
    }

    /// Makes a symbolic link.
    pub async fn make_link(&self, target: &[u8], link: &RemotePath) -> Result<(), RemoteError> {
        let made = self.0.lane.files().symlink(target, link.as_bytes()).await;
        made.map_err(|e| RemoteError::from_sftp(&e, format_args!("making the link {link}")))
    }

    /// Where a symbolic link leads; `None` when there is nothing.
    pub async fn read_link(&self, link: &RemotePath) -> Result<Option<Bytes>, RemoteError> {
        found(self.0.lane.files().readlink(link.as_bytes()).await, || format!("reading the link {link}"))
    }

    /// A path from the root on; of a relative one, what the login directory makes of it.
    pub async fn real_path(&self, path: &RemotePath) -> Result<RemotePath, RemoteError> {
        let real = self.0.lane.files().realpath(path.as_bytes()).await;
        real.map(RemotePath::new).map_err(|e| RemoteError::from_sftp(&e, format_args!("resolving {path}")))
    }

    /// Sets attributes of a link itself (`lsetstat@openssh.com`), where the vessel can.
    pub async fn set_link(&self, link: &RemotePath, attrs: Attrs) -> Result<(), RemoteError> {
        if !self.capabilities().lsetstat() {
            return Ok(());
        }
        let set = self.0.lane.files().lsetstat(link.as_bytes(), attrs).await;
        set.map_err(|e| RemoteError::from_sftp(&e, format_args!("setting time or owner of the link {link}")))
    }

    /// Free space where a path is or would be; `None` where the vessel doesn't tell.
    pub async fn space(&self, path: &RemotePath) -> Result<Option<Space>, RemoteError> {
        if !self.capabilities().statvfs() {
            return Ok(None);
        }
        let mut at = path.clone();
        loop {
            match self.0.lane.files().statvfs(at.as_bytes()).await {
                Ok(space) => return Ok(Some(space)),
                Err(e) if e.is_not_found() => match at.parent() {
                    Some(parent) => at = parent,
                    None => return Ok(None),
                },
                Err(e @ SftpError::Status { .. }) => {
                    tracing::debug!(path = %at, "The vessel does not report its free space: {e}");
                    return Ok(None);
                }
                Err(e) => return Err(RemoteError::from_sftp(&e, format_args!("asking for free space at {at}"))),
            }
        }
    }

    /// SFTP says "failure" for a full disk, a read-only one and a long name alike: looks which it was. `needed` is how many bytes
    /// were still to be written there.
    pub async fn explain(&self, error: RemoteError, at: &RemotePath, needed: u64) -> RemoteError {
        let error = self.explain_by_place(error, at, needed).await;
        let is_odd = std::str::from_utf8(at.as_bytes()).is_err();
        let may_be_the_name = matches!(error.kind, ErrorKind::Failed | ErrorKind::NotFound | ErrorKind::BadName);
        if is_odd && may_be_the_name && longest_name_in(at) <= LONGEST_NAME {
            let what = format_args!("{at} is not valid UTF-8, and the vessel may not accept such names");
            return RemoteError::new(ErrorKind::BadName, what, &error);
        }
        error
    }

    async fn explain_by_place(&self, error: RemoteError, at: &RemotePath, needed: u64) -> RemoteError {
        if !matches!(error.kind, ErrorKind::Failed | ErrorKind::BadName | ErrorKind::NoSpace { .. }) {
            return error;
        }
        // A name that is too long is in the way of asking, too.
        if longest_name_in(at) > LONGEST_NAME || at.as_bytes().len() > LONGEST_PATH {
            return name_too_long(at);
        }
        let Ok(Some(space)) = self.space(at).await else { return error };
        if space.longest_name > 0 && longest_name_in(at) as u64 > space.longest_name {
            return name_too_long(at);
        }
        if space.read_only {
            return RemoteError::new(ErrorKind::ReadOnly, format_args!("writing to {at}"), "it is read-only");
        }
        if space.free_files == 0 {
            let kind = ErrorKind::NoSpace { free: space.free };
            return RemoteError::new(kind, format_args!("{at} is full"), "it cannot hold another file (out of inodes)");
        }
        if space.free < needed.max(1) {
            let why = format_args!("{} bytes are free, {needed} more are needed", space.free);
            return RemoteError::new(ErrorKind::NoSpace { free: space.free }, format_args!("{at} is full"), why);
        }
        error
    }

    /// Starts a script in the vessel's shell that goes on while it is told lines.
    pub(super) async fn start(&self, script: Script, what: &'static str) -> Result<Running<'_>, RemoteError> {
        self.shells(what)?.start(script, what, self.deadline(0)).await
    }

    /// How long a command may take that goes through `bytes` bytes.
    pub(super) fn deadline(&self, bytes: u64) -> Duration {
        // Slow disks and CPUs included: a connection that dies meanwhile is noticed by its keepalives.
        self.0.timeout + Duration::from_secs(60 + bytes / (2 << 20))
    }

    /// Runs a script in the vessel's shell; `bytes` is how much data it goes through, which its deadline allows for.
    pub(super) async fn run(&self, script: Script, what: &str, bytes: u64) -> Result<Output, RemoteError> {
        self.shells(what)?.run(script, what, self.deadline(bytes)).await
    }

    fn shells(&self, what: &str) -> Result<&Shells, RemoteError> {
        let none = || RemoteError::new(ErrorKind::Unsupported, what, "no shell is used on this host");
        self.0.ssh.as_ref().map(|ssh| &*ssh.shells).ok_or_else(none)
    }
}

/// The longest name and path that Linux and the BSDs take, in bytes.
const LONGEST_NAME: usize = 255;
const LONGEST_PATH: usize = 4095;

fn longest_name_in(path: &RemotePath) -> usize {
    path.as_bytes().split(|byte| *byte == b'/').map(<[u8]>::len).max().unwrap_or(0)
}

fn name_too_long(at: &RemotePath) -> RemoteError {
    let why =
        format_args!("{} bytes in total, {} bytes in its longest component", at.as_bytes().len(), longest_name_in(at));
    RemoteError::new(ErrorKind::BadName, format_args!("the name {at} is too long for the vessel"), why)
}

/// Turns "no such file" into `None`.
pub(super) fn found<T>(result: Result<T, SftpError>, what: impl FnOnce() -> String) -> Result<Option<T>, RemoteError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(e) if e.is_not_found() => Ok(None),
        Err(e) => Err(RemoteError::from_sftp(&e, what())),
    }
}
