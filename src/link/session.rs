//! A session: the state that lasts as long as one connection to the vessel.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::sync::{Mutex, OnceCell};
use tokio_util::sync::CancellationToken;

use super::allowance::{Allowance, InHand};
use super::channel_pool::{ChannelPool, Coming, LONG};
use super::command_batch::CommandBatcher;
use super::compressor::Compressor;
use super::costs::Costs;
use super::large_uploads::{LargeUploads, UploadTurn};
use super::late_files::LateFiles;
use super::new_file::{OURS, Owners, open_new};
use super::send_gate::{SendGate, SendTurn};
use super::small_files::LoopSlot;
use super::temp_dir;
use super::unanswered_changes::UnansweredChanges;
use super::unequal_files::UnequalFiles;
use crate::clock::Clock;
use crate::fault::{Cause, Fault};
use crate::local::Arrival;
use crate::monitor::{Event, Monitor};
use crate::names::{InstanceId, RemotePath, Stream, compressed_name, part_name};
use crate::rate_limit::RateLimiter;
use crate::records::{Delivery, DeliveryId, PathRate, Version};
use crate::settings::{self, Priority, Verify};
use crate::transport::{
    Attrs, ErrorKind, HashTool, OpenFlags, Remote, RemoteError, RemoteFile, SftpChannel, SshEnvironment,
};

/// Number of sent bytes from which a session counts as under way, so that other readers of the same files stop waiting
/// for it. A login alone is too early: if many vessels are on one host, their servers and shells start one after the
/// other.
const UNDER_WAY: u64 = 8 << 20;
/// Minimum size of a write where a rate limit applies, in bytes.
const LEAST_WRITE: u64 = 8 << 10;

/// The right to pass bytes to a channel, within the budgets. Keep this value until the bytes were passed.
pub(crate) struct Sending<'a> {
    _turn: SendTurn<'a>,
    in_hand: InHand,
}

impl Sending<'_> {
    /// Ends the turn of a write whose bytes no SFTP channel counts. Keep the result until the bytes have arrived.
    pub(crate) fn end_turn(self) -> InHand {
        self.in_hand
    }
}

/// The data that every session with one vessel needs.
#[derive(Clone)]
pub(crate) struct Link {
    pub(crate) settings: Arc<settings::Vessel>,
    /// Keys, agent and `known_hosts`.
    pub(crate) environment: Arc<SshEnvironment>,
    pub(crate) instance: InstanceId,
    /// The limits of the way that the session uses.
    pub(crate) way: Limits,
    /// Other ways over which large files are sent in parallel, each with the vessel's settings for this way. These ways
    /// are numbered from 1; see [`SftpChannel::route`].
    pub(crate) parallel: Vec<(Arc<settings::Vessel>, Limits)>,
    /// Receiver of events.
    pub(crate) monitor: Arc<dyn Monitor>,
    /// Whether the vessel's inability to store some modification times was already reported.
    pub(crate) told_of_times: Arc<AtomicBool>,
    /// Compresses ranges of files.
    pub(crate) compressor: Compressor,
    /// Clock for the time of day.
    pub(crate) clock: Clock,
}

/// The limits of one way.
#[derive(Clone)]
pub(crate) struct Limits {
    /// Rate limit for bytes of files.
    pub(crate) limit: RateLimiter,
    /// Budgets for bytes on the link.
    pub(crate) allowance: Allowance,
}

impl Link {
    /// Returns the limits of the way with the number `route`.
    pub(crate) fn route(&self, route: usize) -> &Limits {
        let parallel = route.checked_sub(1).and_then(|at| self.parallel.get(at));
        parallel.map_or(&self.way, |(_, limits)| limits)
    }

    /// Returns whether the link and the budgets of the way with the number `route` allow files of a priority now.
    pub(crate) fn carries(&self, route: usize, priority: Priority) -> bool {
        let settings = route.checked_sub(1).and_then(|at| self.parallel.get(at)).map_or(&self.settings, |(it, _)| it);
        let allowance = &self.route(route).allowance;
        settings.link.as_ref().is_none_or(|link| link.priorities.contains(priority))
            && (!allowance.has_reserve() || allowance.allows_now().contains(priority))
    }
}

/// The state of one session with a vessel: its main connection, the channels of all its connections, and facts about
/// the vessel and the files that the session created there.
pub(crate) struct Session {
    pub(crate) link: Link,
    pub(crate) remote: Remote,
    pub(crate) channels: ChannelPool,
    pub(crate) commands: CommandBatcher,
    /// Decides which delivery sends its next bytes.
    pub(crate) gate: SendGate,
    /// The order in which large files are uploaded.
    pub(crate) large_uploads: LargeUploads,
    /// Held while the vessel hashes a large file on a connection of its own, so that there is only one such connection.
    pub(crate) large_hash: Mutex<()>,
    /// Cancelled when the session is about to end: no more bytes of large files are sent.
    pub(crate) resting: CancellationToken,
    /// Whether the vessel was found to accept a file only as one stream from start to end.
    pub(crate) streams_only: AtomicBool,
    /// The costs of the deliveries.
    pub(crate) costs: Costs,
    /// Whether a hash by the SFTP extension `check-file` was as expected, which shows that the vessel hashes files
    /// correctly.
    pub(crate) check_file_matched: AtomicBool,
    /// Whether the session continues the work of another connection.
    continues: AtomicBool,
    /// Number of file bytes sent in this session. If it is not 0, the session has made progress, even if it ends with
    /// an error.
    sent: AtomicU64,
    /// Rate of the link in bytes per second, as last measured; 0 if it was not measured yet.
    link_rate: AtomicU64,
    /// While this is set, other readers of the same files wait for this session to start reading.
    arrival: std::sync::Mutex<Option<Arrival>>,
    /// Whether TempDir was prepared on this connection. Reset when an open fails, so that TempDir is prepared again.
    temp_dir: Mutex<bool>,
    made_dirs: Mutex<HashMap<RemotePath, Arc<OnceCell<()>>>>,
    /// The loop in the vessel's shell that receives small files.
    pub(crate) small_files: LoopSlot,
    /// Files on the vessel that differ from a version, and so are not copied for it.
    pub(crate) unequal: UnequalFiles,
    /// Temporary files that may still appear on the vessel.
    pub(crate) late_files: LateFiles,
    /// The deliveries that have requested a change of a final name and have no answer yet.
    pub(crate) changes: UnansweredChanges,
    /// Owners of the files that are created on this vessel.
    pub(crate) owners: Owners,
}

impl Session {
    /// `path.0`: connections that were begun before this session was ready. `path.1`: the rate that was measured on the
    /// same network path in an earlier session.
    pub(crate) fn new(
        link: Link,
        remote: Remote,
        path: (Vec<Coming>, Option<PathRate>),
        arrival: Option<Arrival>,
    ) -> Self {
        let ways = std::iter::once(&link.settings).chain(link.parallel.iter().map(|(settings, _)| settings));
        let over_a_link = ways.filter(|settings| settings.local.is_none());
        let meters = over_a_link.map(|settings| link.environment.meters.on(settings)).collect();
        Self {
            costs: Costs::new(meters),
            link,
            channels: ChannelPool::new(remote.main_channel().clone(), path.0, path.1),
            commands: CommandBatcher::new(&remote),
            remote,
            gate: SendGate::default(),
            large_uploads: LargeUploads::default(),
            large_hash: Mutex::new(()),
            resting: CancellationToken::new(),
            streams_only: AtomicBool::new(false),
            check_file_matched: AtomicBool::new(false),
            continues: AtomicBool::new(false),
            sent: AtomicU64::new(0),
            link_rate: AtomicU64::new(0),
            arrival: std::sync::Mutex::new(arrival),
            temp_dir: Mutex::new(false),
            made_dirs: Mutex::default(),
            small_files: LoopSlot::default(),
            unequal: UnequalFiles::default(),
            late_files: LateFiles::default(),
            changes: UnansweredChanges::default(),
            owners: Owners::default(),
        }
    }

    /// Runs a step of a delivery that changes a final name on the vessel. If the step is dropped, or its answer is
    /// lost, the change counts as unanswered.
    pub(crate) async fn change<T>(
        &self,
        delivery: DeliveryId,
        step: impl Future<Output = Result<T, Fault>>,
    ) -> Result<T, Fault> {
        let change = self.changes.begin(delivery);
        let result = step.await;
        if !result.as_ref().is_err_and(|fault| fault.cause == Cause::Link || self.remote.is_lost()) {
            change.answered();
        }
        result
    }

    pub(crate) fn part(&self, delivery: DeliveryId, start: u64) -> RemotePath {
        self.link.settings.temp_dir.join(part_name(self.link.instance, delivery.0, start))
    }

    /// Returns the program on the vessel that verifies files, if there is one and `Verify` allows it.
    pub(crate) fn hash_tool(&self) -> Option<HashTool> {
        self.remote.capabilities().hash_tool.filter(|_| self.link.settings.verify != Verify::ReadBack)
    }

    /// Returns the path of a part that holds a compressed stream.
    pub(crate) fn compressed_part(&self, delivery: &Delivery, stream: Stream) -> RemotePath {
        self.link.settings.temp_dir.join(compressed_name(self.link.instance, delivery.id.0, stream))
    }

    /// Returns the rate of the link in bytes per second, as last measured in this session.
    pub(crate) fn link_rate(&self) -> Option<f64> {
        let rate = self.link_rate.load(Ordering::Relaxed);
        (rate > 0).then_some(rate as f64)
    }

    /// Records the rate of the link, measured while there was always more to send.
    pub(crate) fn note_link_rate(&self, rate: f64) {
        self.link_rate.store(rate as u64, Ordering::Relaxed);
    }

    /// Returns whether this session continues the work of another connection.
    pub(crate) fn continues(&self) -> bool {
        self.continues.load(Ordering::Relaxed)
    }

    /// Returns whether a round trip to the vessel costs more than requests that may turn out to be unnecessary.
    pub(crate) fn is_far(&self) -> bool {
        self.remote.main_channel().round_trip() >= LONG
    }

    /// Ensures that TempDir exists and belongs to this account.
    pub(crate) async fn prepare_temp_dir(&self) -> Result<(), Fault> {
        let mut prepared = self.temp_dir.lock().await;
        if !*prepared {
            temp_dir::prepare(&self.remote, &self.link.settings, self.link.instance).await?;
            *prepared = true;
        }
        Ok(())
    }

    /// Creates a directory on the vessel, unless this connection has already created it.
    pub(crate) async fn make_dirs(&self, directory: &RemotePath) -> Result<(), Fault> {
        let made = self.made_dirs.lock().await.entry(directory.clone()).or_default().clone();
        let making = || async {
            let made = self.remote.make_dirs(directory).await;
            self.explained(made, directory, 0).await
        };
        made.get_or_try_init(making).await.copied()
    }

    /// Creates the parent directory of a file, unless this connection has already created it.
    pub(crate) async fn make_dirs_above(&self, file: &RemotePath) -> Result<(), Fault> {
        match file.parent() {
            Some(directory) => self.make_dirs(&directory).await,
            None => Ok(()),
        }
    }

    /// Forgets that a directory and those below it were created on this connection, because it is about to be removed.
    pub(crate) async fn forget_dirs(&self, directory: &RemotePath) {
        let below = [directory.as_bytes(), b"/"].concat();
        self.made_dirs.lock().await.retain(|made, _| made != directory && !made.as_bytes().starts_with(&below));
    }

    /// Opens an assembly or a part for writing on a channel. With [`OpenFlags::FRESH`], creates a new file.
    ///
    /// An existing file may deny writing, because an earlier attempt may already have set the source's mode; then its
    /// mode is changed first. If the directory no longer exists (the vessel's system may have cleaned it up), the next
    /// attempt creates it again.
    pub(crate) async fn open_ours(
        &self,
        channel: &SftpChannel,
        path: &RemotePath,
        flags: OpenFlags,
        needed: u64,
    ) -> Result<RemoteFile, Fault> {
        let opened = match flags {
            OpenFlags::FRESH => open_new(&self.remote, channel, path).await,
            flags => self.open_there(channel, path, flags).await,
        };
        // Some servers report a missing directory only as a general failure.
        if opened.as_ref().is_err_and(|e| matches!(e.kind, ErrorKind::NotFound | ErrorKind::Failed)) {
            *self.temp_dir.lock().await = false;
            self.made_dirs.lock().await.clear();
        }
        self.explained(opened, path, needed).await
    }

    pub(crate) async fn open_there(
        &self,
        channel: &SftpChannel,
        path: &RemotePath,
        flags: OpenFlags,
    ) -> Result<RemoteFile, RemoteError> {
        match channel.open(path, flags, OURS).await {
            Err(e) if e.kind == ErrorKind::Denied => {
                // An error of this change is ignored, because the second open reports an error of its own.
                let _ = self.remote.set(path, Attrs { mode: Some(OURS), ..Attrs::default() }).await;
                channel.open(path, flags, OURS).await
            }
            opened => opened,
        }
    }

    /// Adds the reason to an error if the vessel gave none, and turns the error into a fault.
    pub(crate) async fn explained<T>(
        &self,
        result: Result<T, RemoteError>,
        at: &RemotePath,
        needed: u64,
    ) -> Result<T, Fault> {
        match result {
            Ok(value) => Ok(value),
            Err(e) => Err(Box::pin(self.remote.explain(e, at, needed)).await.fault()),
        }
    }

    /// Waits until this many bytes of a version may be sent over the way with the number `route`; never returns once
    /// the session is about to end.
    pub(crate) async fn may_send(&self, version: &Version, bytes: u64, route: usize) -> Sending<'_> {
        match self.resting.run_until_cancelled(self.may_finish(version, bytes, route)).await {
            Some(sending) => sending,
            None => std::future::pending().await,
        }
    }

    /// Waits like [`Session::may_send`], but returns also when the session is about to end.
    pub(crate) async fn may_finish(&self, version: &Version, bytes: u64, route: usize) -> Sending<'_> {
        let way = self.link.route(route);
        loop {
            let turn = self.gate.enter(version, bytes).await;
            let priority = self.gate.priority_of(&version.directory);
            way.limit.take(priority, bytes).await;
            tokio::select! {
                allowed = way.allowance.take(priority, bytes) => if let Some(in_hand) = allowed {
                    return Sending { _turn: turn, in_hand };
                },
                // The way has ended: the write fails, and the bytes go over another way.
                () = self.channels.ends(route) => return Sending { _turn: turn, in_hand: InHand::default() },
            }
            drop(turn);
            // Only the reserve for higher priorities is left.
            self.gate.stop(version).await;
        }
    }

    /// Returns whether a channel may carry bytes of a version that is a large file.
    pub(crate) fn carries(&self, channel: &SftpChannel, version: &Version) -> bool {
        let is_allowed = || self.link.carries(channel.route(), self.gate.priority_of(&version.directory));
        self.channels.carries_large_files(channel) && (channel.route() == 0 || is_allowed())
    }

    /// Returns whether a channel should take another piece of a version's file. `left` is the number of unsent bytes of
    /// the file.
    pub(crate) fn is_in_time(&self, channel: &SftpChannel, version: &Version, left: u64) -> bool {
        let priority = self.gate.priority_of(&version.directory);
        self.channels.is_in_time(channel, left, |route| route == 0 || self.link.carries(route, priority))
    }

    /// Waits until no other large file of the same priority is being uploaded, and takes the turn.
    pub(crate) async fn large_upload(&self, delivery: &Delivery) -> UploadTurn<'_> {
        self.large_uploads.turn(delivery.id, self.gate.priority_of(&delivery.version.directory)).await
    }

    /// Returns the recommended size of one write to a file, in bytes. If files may preempt each other, a write takes at
    /// most about an eighth of a second at the rate limit.
    pub(crate) fn bytes_per_write(&self, file: &RemoteFile) -> u64 {
        let most = self.remote.capabilities().bytes_per_write().min(file.worth_writing());
        let rate = if self.gate.is_used() { self.link.route(file.route()).limit.rate() } else { None };
        rate.map_or(most, |rate| most.min((rate / 8).max(LEAST_WRITE)))
    }

    /// Waits until this many bytes of a version may be read back; never returns once the session is about to end. Keep
    /// the result until the bytes have arrived.
    pub(crate) async fn may_receive(&self, version: &Version, bytes: u64) -> InHand {
        let priority = self.gate.priority_of(&version.directory);
        let taking = async {
            loop {
                if let Some(in_hand) = self.link.way.allowance.take(priority, bytes).await {
                    return in_hand;
                }
                self.gate.stop(version).await;
            }
        };
        match self.resting.run_until_cancelled(taking).await {
            Some(in_hand) => in_hand,
            None => std::future::pending().await,
        }
    }

    /// Continues the work of an earlier session on another connection: takes over the facts that the earlier session
    /// found out about the vessel. Does nothing if the host key differs or is unknown.
    pub(crate) async fn continue_after(&self, earlier: &Self) {
        if self.remote.host_key() != earlier.remote.host_key() || self.remote.host_key().is_none() {
            return;
        }
        self.continues.store(true, Ordering::Relaxed);
        *self.temp_dir.lock().await = *earlier.temp_dir.lock().await;
        self.owners.learn_from(&earlier.owners);
        self.unequal.learn_from(&earlier.unequal);
        self.late_files.take_over(&earlier.late_files);
        for (flag, known) in
            [(&self.streams_only, &earlier.streams_only), (&self.check_file_matched, &earlier.check_file_matched)]
        {
            flag.store(known.load(Ordering::Relaxed), Ordering::Relaxed);
        }
        let made = earlier.made_dirs.lock().await.clone();
        *self.made_dirs.lock().await = made.into_iter().filter(|(_, made)| made.initialized()).collect();
    }

    /// Cuts all connections off and discards unsent data, because the vessel must not receive the data later.
    pub(crate) fn abandon(&self) {
        self.remote.main_channel().abandon();
        self.channels.abandon();
        self.small_files.abandon();
    }

    /// Makes the budgets of each way count this session's unacknowledged bytes, as long as the session lasts.
    pub(crate) fn join_budgets(self: &Arc<Self>) {
        for route in 0..=self.link.parallel.len() {
            let session = Arc::downgrade(self);
            let unanswered = move || session.upgrade().map(|session| session.channels.unanswered_on(route));
            self.link.route(route).allowance.join(unanswered);
        }
    }

    /// Counts bytes of a version that were passed to a channel, whether or not they arrive.
    pub(crate) fn wrote(&self, version: &Version, bytes: u64) {
        self.costs.wrote(version.id, bytes);
    }

    /// Reports bytes of a version that were sent.
    pub(crate) fn sent(&self, version: &Version, bytes: u64) {
        let before = self.sent.fetch_add(bytes, Ordering::Relaxed);
        if before < UNDER_WAY && before + bytes >= UNDER_WAY {
            self.has_arrived();
        }
        self.taken(version, bytes, false);
    }

    /// Returns whether any bytes of files were sent.
    pub(crate) fn has_sent(&self) -> bool {
        self.sent.load(Ordering::Relaxed) > 0
    }

    /// Records that the session has started to read, or has nothing to read, so that other readers stop waiting for it.
    pub(crate) fn has_arrived(&self) {
        let arrival = self.arrival.lock().expect("no code panics while it holds this lock").take();
        drop(arrival);
    }

    /// Reports bytes of a version that the vessel was found to hold already.
    pub(crate) fn found(&self, version: &Version, bytes: u64) {
        self.taken(version, bytes, true);
    }

    fn taken(&self, version: &Version, bytes: u64, found: bool) {
        if bytes > 0 {
            let vessel = &self.link.settings.name;
            self.link.monitor.notice(&Event::Taken { vessel, version: version.id, bytes, found });
        }
    }
}
