//! An SFTP session on a channel with its own window. The channel may share its connection with other channels. A target
//! on this host has one channel and no connection.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use contentmonster_kernel::TcpInfo;
use russh::client::Msg;

use super::capabilities::Landmark;
use super::disk::Disk;
use super::error::{ConnectError, RemoteError};
use super::file::RemoteFile;
use super::files::Files;
use super::sftp::{EarlyReply, Greeting, Limits, OpenFlags, Sftp, SftpError};
use super::ssh::{Connection, Follow, Lead, Rank, SshEnvironment, Turn, place};
use crate::names::RemotePath;
use crate::settings::Vessel;

/// A channel counts as one with a small window if it accepts fewer bytes at once than this. With a larger window, a
/// channel accepts a whole packet.
const SMALL_WINDOW: usize = 32 << 10;

/// An SFTP channel to a vessel; cheap to clone. The channel ends when its last clone and the last file opened on it are
/// dropped.
#[derive(Clone)]
pub struct SftpChannel(Arc<Inner>);

impl PartialEq for SftpChannel {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

struct Inner {
    /// The connection that the channel is on; `None` for a target on this host.
    connection: Option<Connection>,
    files: Files,
    /// The number of the way (one of several routes to the vessel) that the channel uses.
    route: AtomicUsize,
}

impl SftpChannel {
    /// Opens a channel on a new connection. If `follow` is set, the connection logs in only after the connection that
    /// it follows.
    ///
    /// # Errors
    /// The same errors as those of [`Remote::connect`](super::Remote::connect).
    pub async fn connect(
        vessel: &Arc<Vessel>,
        environment: &Arc<SshEnvironment>,
        follow: Option<Follow>,
    ) -> Result<Self, ConnectError> {
        if let Some(target) = &vessel.local {
            return Ok(Self::here(Disk::open(target, vessel.timeout).await?));
        }
        let alone = Lead::alone(Rank::further());
        let turn = follow.map_or(Turn::Lead(&alone), Turn::Follow);
        let (connection, admission) = Connection::open(vessel, environment, turn).await?;
        let (channel, mut greeting) = Self::start(&connection, connection.channel(), vessel).await?;
        let no_answer = |e: RemoteError| ConnectError::Handshake { place: place(vessel), why: e.to_string() };
        channel.find_limits(&mut greeting).await.map_err(no_answer)?;
        admission.ready();
        Ok(channel)
    }

    /// Opens another channel on the same connection.
    ///
    /// # Errors
    /// The same errors as those of [`Remote::connect`](super::Remote::connect). A vessel may allow only few channels
    /// (`MaxSessions`).
    pub async fn beside(&self, vessel: &Vessel) -> Result<Self, ConnectError> {
        let Some(connection) = &self.0.connection else { return Ok(self.clone()) };
        let (channel, _) = Self::start(connection, connection.channel(), vessel).await?;
        channel.set_route(self.route());
        Ok(channel)
    }

    /// Sets the number of the way that the channel uses, for files opened from now on.
    pub fn set_route(&self, route: usize) {
        self.0.route.store(route, Ordering::Relaxed);
    }

    /// Returns the number of the way that the channel uses, as set by [`Self::set_route`]; 0 if it was not set.
    pub fn route(&self) -> usize {
        self.0.route.load(Ordering::Relaxed)
    }

    /// Creates the only channel to a target on this host.
    pub(super) fn here(disk: Disk) -> Self {
        Self(Arc::new(Inner { connection: None, files: Files::Disk(disk), route: AtomicUsize::new(0) }))
    }

    /// Starts SFTP on a channel that is being opened. Also returns the vessel's greeting.
    pub(super) async fn start(
        connection: &Connection,
        channel: impl Future<Output = Result<russh::Channel<Msg>, russh::Error>>,
        vessel: &Vessel,
    ) -> Result<(Self, Greeting), ConnectError> {
        let handshake = |why: String| ConnectError::Handshake { place: place(vessel), why };
        let no_sftp = |why: String| {
            let banner = connection.banner().map(|words| format!("; before the login, the server said: {words}"));
            ConnectError::NoSftp { place: place(vessel), why: why + &banner.unwrap_or_default() }
        };
        let start = connection.start_deadline();
        let starting = async {
            let channel = channel.await.map_err(|e| handshake(e.to_string()))?;
            channel.request_subsystem(true, "sftp").await.map_err(|e| handshake(e.to_string()))?;
            let (timeouts, steady) = ((start, vessel.timeout), connection.sends_with_bbr());
            let started = Sftp::start(channel, timeouts, steady, connection.early_requests()).await;
            let (sftp, greeting) = started.map_err(|e| no_sftp(e.to_string()))?;
            let (connection, files) = (Some(connection.clone()), Files::Sftp(sftp));
            Ok((Self(Arc::new(Inner { connection, files, route: AtomicUsize::new(0) })), greeting))
        };
        tokio::time::timeout(start * 2, starting)
            .await
            .map_err(|_| handshake(format!("SFTP did not start within {}", crate::text::duration(start * 2))))?
    }

    /// Requests the limits that the vessel sets for SFTP requests, and applies the limit on open files.
    pub(super) async fn find_limits(&self, greeting: &mut Greeting) -> Result<Limits, RemoteError> {
        let Files::Sftp(sftp) = &self.0.files else { return Ok(Limits::default()) };
        let limits = match greeting.limits.take() {
            Some(early) => early.limits().await,
            None if greeting.extensions.contains_key("limits@openssh.com") => sftp.limits().await,
            // The vessel announces no limits. Any request is sufficient here, because it only measures the round-trip
            // time.
            None => sftp.stat(b".").await.map(|_| Limits::default()),
        };
        if let Ok(limits) = &limits {
            sftp.keep_to_handles(limits.handles);
        }
        match limits {
            Err(SftpError::Status { .. }) => Ok(Limits::default()),
            limits => limits.map_err(|e| RemoteError::from_sftp(&e, "querying the vessel's limits")),
        }
    }

    /// Returns those attributes of a directory that both SFTP and a shell report, or `None` if SFTP does not report
    /// them. `early` is the pending reply if the attributes were already requested.
    pub(super) async fn landmark(&self, path: &[u8], early: Option<EarlyReply>) -> Option<Landmark> {
        let attrs = match early {
            Some(early) => early.attrs().await.ok()?,
            None => self.0.files.stat(path).await.ok()?,
        };
        let ((user, group), (_, changed)) = (attrs.owner?, attrs.times?);
        Some(Landmark { changed: u32::try_from(changed).ok()?, user, group })
    }

    pub(super) fn files(&self) -> &Files {
        &self.0.files
    }

    /// Opens a file. If the file is created, it gets the permission bits `mode`.
    ///
    /// # Errors
    /// The vessel's error, or a lost connection.
    pub async fn open(&self, path: &RemotePath, flags: OpenFlags, mode: u32) -> Result<RemoteFile, RemoteError> {
        let opened = self.0.files.open(path.as_bytes(), flags, mode).await;
        let opened = opened.map_err(|e| RemoteError::from_sftp(&e, format_args!("opening {path}")))?;
        Ok(RemoteFile::new(opened, path.clone(), self.route()))
    }

    /// Returns the shortest round-trip time measured so far.
    pub fn round_trip(&self) -> Duration {
        self.0.files.round_trip()
    }

    /// Returns the minimum size of a part in bytes: about as many bytes as are sent in one round trip, because opening
    /// a part takes one round trip.
    pub fn worth_a_file(&self) -> u64 {
        self.0.files.worth_a_file()
    }

    /// Returns whether the vessel's window is so small that one channel can't fill a path with a long round-trip time.
    pub fn has_small_window(&self) -> bool {
        self.0.files.takes_at_once() < SMALL_WINDOW
    }

    /// Returns whether the connection sends with BBR, which occasional losses do not slow down.
    pub fn sends_with_bbr(&self) -> bool {
        self.0.connection.as_ref().is_some_and(Connection::sends_with_bbr)
    }

    /// Returns the state of the channel's TCP connection; `None` for a target on this host, or if the connection was
    /// cut off.
    pub fn tcp_info(&self) -> Option<TcpInfo> {
        self.0.connection.as_ref().and_then(Connection::tcp_info)
    }

    /// Sets the highest rate, in bytes per second, at which the kernel sends on the channel's connection; `None`
    /// removes the limit.
    pub fn limit_pace(&self, bytes_per_second: Option<u64>) {
        if let Some(connection) = &self.0.connection {
            connection.limit_pace(bytes_per_second);
        }
    }

    /// Sets an upper bound of the bytes on the channel that are not confirmed yet.
    pub fn limit_window(&self, bytes: usize) {
        if let Files::Sftp(sftp) = &self.0.files {
            sftp.limit_window(bytes);
        }
    }

    /// Sets an upper bound of the payload bytes in flight. If nothing was measured yet, the window is set to this size
    /// at once.
    pub fn begin_with_window(&self, bytes: usize) {
        if let Files::Sftp(sftp) = &self.0.files {
            sftp.begin_with(bytes);
        }
    }

    /// Returns whether both channels share a connection, or are both channels to targets on this host.
    pub fn is_beside(&self, other: &Self) -> bool {
        match (&self.0.connection, &other.0.connection) {
            (Some(one), Some(other)) => one.is_same(other),
            (one, other) => one.is_none() && other.is_none(),
        }
    }

    /// Waits until at least one request is waiting for its reply; never returns for a target on this host.
    pub async fn asked(&self) {
        self.0.files.asked().await;
    }

    /// Returns whether replies are overdue, so that the link may be down, possibly only for a while.
    pub fn is_silent(&self) -> bool {
        self.0.files.is_silent()
    }

    /// Cuts the connection off without a message, and discards unsent data in the kernel.
    pub fn abandon(&self) {
        if let Some(connection) = &self.0.connection {
            connection.abandon();
        }
    }

    /// Returns whether the channel or its connection is lost.
    pub fn is_lost(&self) -> bool {
        self.0.connection.as_ref().is_some_and(Connection::is_closed) || self.0.files.is_ended()
    }

    /// Returns how many bytes written on the channel are not confirmed yet.
    pub fn unanswered_bytes(&self) -> u64 {
        self.0.files.unanswered_bytes()
    }

    /// Returns how many bytes written on the channel were confirmed since the channel started.
    pub fn answered_bytes(&self) -> u64 {
        self.0.files.answered_bytes()
    }
}
