//! The SFTP channels of a session: which channels there are, which of them may carry the next bytes, and how many bytes
//! are left to send.
//!
//! This module does not know which files are sent.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio_util::task::AbortOnDropHandle;

use super::path;
use super::way_load::WayLoad;
use crate::records::PathRate;
use crate::settings::{self, Connections};
use crate::transport::SftpChannel;

/// Maximum number of connections with `Connections = auto`.
pub(super) const MOST: usize = 8;
/// Initial and minimum window of a channel in bytes where queues are kept short: two writes. Sending one window takes
/// four seconds at 128 kbit/s.
pub(super) const FIRST_SHORT: usize = 64 << 10;
/// Further connections are opened only if at least this many bytes are left to send.
pub(crate) const WORTH_BYTES: u64 = 4 << 20;
/// Small files get a connection of their own only if at least this many bytes of large files are left to send.
pub(super) const BESIDE_WORTH_BYTES: u64 = WORTH_BYTES / 4;
/// Round-trip time from which a path counts as long. On a long path, losses and windows limit a connection; on a short
/// path, the processor does.
pub(crate) const LONG: Duration = Duration::from_millis(20);
/// Minimum remaining transfer time for which a spare connection is kept ready.
const WORTH_A_SPARE: Duration = Duration::from_secs(5);

/// A channel that is being opened; `None` if it could not be opened.
pub(crate) type Coming = AbortOnDropHandle<Option<SftpChannel>>;

/// The channels of a session.
pub(crate) struct ChannelPool {
    pub(super) channels: watch::Sender<Vec<SftpChannel>>,
    /// Channels of connections that were started before the first connection was ready.
    coming: Mutex<Vec<Coming>>,
    /// Whether a further connection was ever added.
    pub(super) widened: AtomicBool,
    jobs: Mutex<Vec<Weak<AtomicU64>>>,
    begun: Notify,
    /// Whether only few bytes may queue on the connections, because files with priorities share them.
    keeps_short_queues: AtomicBool,
    /// The rate of the path in an earlier session, and in this one.
    remembered: Option<PathRate>,
    carried: Mutex<Option<PathRate>>,
    /// The rate at which the vessel acknowledges bytes sent over each way, in bytes per second.
    rates: Mutex<HashMap<usize, f64>>,
    /// For each way, the number of bytes of parts that are being opened. They are sent as soon as the vessel answers.
    opening: Mutex<HashMap<usize, u64>>,
}

/// The bytes of a part that is being opened, with the number of its way. The bytes count until this value is dropped.
pub(crate) struct Opening<'a>(&'a ChannelPool, usize, u64);

impl Drop for Opening<'_> {
    fn drop(&mut self) {
        if let Some(bytes) = self.0.opening().get_mut(&self.1) {
            *bytes -= self.2;
        }
    }
}

/// A number of announced bytes that are still to be sent. They count until the job is dropped.
pub(crate) struct Job(Arc<AtomicU64>);

impl Job {
    /// Subtracts bytes that were sent.
    pub(crate) fn sent(&self, bytes: u64) {
        // Saturates at 0, because bytes may be sent twice but are announced only once.
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| Some(left.saturating_sub(bytes)));
    }
}

impl ChannelPool {
    pub(crate) fn new(first: SftpChannel, coming: Vec<Coming>, remembered: Option<PathRate>) -> Self {
        let remembered = remembered.filter(|path| path::is_like(path, first.round_trip()));
        Self {
            channels: watch::Sender::new(vec![first]),
            coming: Mutex::new(coming),
            widened: AtomicBool::new(false),
            jobs: Mutex::default(),
            begun: Notify::new(),
            keeps_short_queues: AtomicBool::new(false),
            remembered,
            carried: Mutex::default(),
            rates: Mutex::default(),
            opening: Mutex::default(),
        }
    }

    pub(super) fn coming(&self) -> MutexGuard<'_, Vec<Coming>> {
        self.coming.lock().expect("no code panics while it holds this lock")
    }

    /// Returns whether a further connection was ever added.
    pub(crate) fn was_widened(&self) -> bool {
        self.widened.load(Ordering::Relaxed)
    }

    /// Returns the rate that the path carried in this session, if it was measured.
    pub(crate) fn carried(&self) -> Option<PathRate> {
        *self.carried.lock().expect("no code panics while it holds this lock")
    }

    pub(super) fn note_carried(&self, path: PathRate) {
        *self.carried.lock().expect("no code panics while it holds this lock") = Some(path);
    }

    /// Returns the rate that the path carried in an earlier session, if the path still has a similar round-trip time.
    pub(super) fn remembered(&self) -> Option<PathRate> {
        self.remembered
    }

    fn jobs(&self) -> MutexGuard<'_, Vec<Weak<AtomicU64>>> {
        self.jobs.lock().expect("no code panics while it holds this lock")
    }

    /// Announces bytes that are to be sent.
    pub(crate) fn job(&self, bytes: u64) -> Job {
        let job = Arc::new(AtomicU64::new(bytes));
        self.jobs().push(Arc::downgrade(&job));
        self.begun.notify_waiters();
        Job(job)
    }

    /// Returns a receiver that is notified when channels are added or removed.
    pub(crate) fn subscribe(&self) -> watch::Receiver<Vec<SftpChannel>> {
        self.channels.subscribe()
    }

    pub(crate) fn count(&self) -> usize {
        self.channels.borrow().len()
    }

    /// Returns the number of channels on the way with the number `route`.
    pub(super) fn count_on(&self, route: usize) -> usize {
        self.channels.borrow().iter().filter(|channel| channel.route() == route).count()
    }

    /// Adds channels.
    pub(super) fn add(&self, new: Vec<SftpChannel>) {
        if !new.is_empty() {
            if self.keeps_short_queues() {
                new.iter().for_each(|channel| channel.begin_with_window(FIRST_SHORT));
            }
            self.channels.send_modify(|channels| channels.extend(new));
        }
    }

    /// Aborts all connections on the way with the number `route`, and removes them.
    pub(super) fn abandon_route(&self, route: usize) {
        self.channels.send_if_modified(|channels| {
            let before = channels.len();
            channels.retain(|channel| {
                let stays = channel.route() != route;
                if !stays {
                    channel.abandon();
                }
                stays
            });
            channels.len() != before
        });
        self.rates().remove(&route);
    }

    fn rates(&self) -> MutexGuard<'_, HashMap<usize, f64>> {
        self.rates.lock().expect("no code panics while it holds this lock")
    }

    fn opening(&self) -> MutexGuard<'_, HashMap<usize, u64>> {
        self.opening.lock().expect("no code panics while it holds this lock")
    }

    /// Announces that a part of `bytes` bytes is being opened on a channel.
    pub(crate) fn begin_opening(&self, channel: &SftpChannel, bytes: u64) -> Opening<'_> {
        let route = channel.route();
        *self.opening().entry(route).or_default() += bytes;
        Opening(self, route, bytes)
    }

    /// Notes the rate of the way with the number `route`, in bytes per second.
    pub(super) fn note_rate(&self, route: usize, rate: f64) {
        self.rates().insert(route, rate);
    }

    /// Returns whether a channel should take another piece of a file with `left` unsent bytes. Returns `false` if the
    /// other ways would deliver all these bytes sooner, and always `true` if only one way is in use. `carries` returns
    /// whether a way may carry the file.
    pub(crate) fn is_in_time(&self, channel: &SftpChannel, left: u64, carries: impl Fn(usize) -> bool) -> bool {
        let route = channel.route();
        let channels = self.channels.borrow();
        if channels.iter().all(|other| other.route() == route) {
            return true;
        }
        let mut loads: HashMap<usize, WayLoad> = HashMap::new();
        let (rates, opening) = (self.rates(), self.opening());
        for living in channels.iter().filter(|other| !other.is_lost()) {
            let load = loads.entry(living.route()).or_insert_with(|| WayLoad {
                rate: rates.get(&living.route()).copied().unwrap_or(0.0),
                unanswered: opening.get(&living.route()).map_or(0.0, |bytes| *bytes as f64),
                round_trip: living.round_trip().as_secs_f64(),
            });
            load.unanswered += living.unanswered_bytes() as f64;
        }
        let Some(own) = loads.remove(&route) else { return true };
        loads.retain(|other, _| carries(*other));
        own.is_in_time(&loads.into_values().collect::<Vec<_>>(), left)
    }

    /// Returns the first channel of each live connection on the way with the number `route`.
    pub(super) fn each_connection_on(&self, route: usize) -> Vec<SftpChannel> {
        let channels = self.channels.borrow();
        let living = channels.iter().filter(|channel| channel.route() == route && !channel.is_lost());
        let living: Vec<&SftpChannel> = living.collect();
        let is_first = |at: &usize| !living[..*at].iter().any(|other| other.is_beside(living[*at]));
        (0..living.len()).filter(is_first).map(|at| living[at].clone()).collect()
    }

    /// Returns the number of live connections on the session's own way.
    pub(super) fn connections(&self) -> usize {
        self.connections_on(0)
    }

    /// Returns the number of live connections on the way with the number `route`.
    pub(super) fn connections_on(&self, route: usize) -> usize {
        self.each_connection_on(route).len()
    }

    /// Returns whether a channel is in the pool and its connection is alive.
    pub(crate) fn has(&self, channel: &SftpChannel) -> bool {
        self.channels.borrow().contains(channel) && !channel.is_lost()
    }

    /// Returns the channel on the session's own way with the fewest unanswered bytes.
    pub(crate) fn idlest(&self) -> SftpChannel {
        let channels = self.channels.borrow();
        let living = channels.iter().filter(|channel| channel.route() == 0 && !channel.is_lost());
        living.min_by_key(|channel| channel.unanswered_bytes()).unwrap_or(&channels[0]).clone()
    }

    /// Sets whether only few bytes may queue on the connections, because files with priorities share them. This has no
    /// effect on a short path, where queues are short anyway.
    pub(crate) fn keep_short_queues(&self, short: bool) {
        let channels = self.channels.borrow();
        let short = short && channels[0].round_trip() >= LONG;
        if self.keeps_short_queues.swap(short, Ordering::Relaxed) != short {
            for channel in channels.iter() {
                if short { channel.begin_with_window(FIRST_SHORT) } else { channel.limit_window(usize::MAX) }
            }
        }
    }

    pub(super) fn keeps_short_queues(&self) -> bool {
        self.keeps_short_queues.load(Ordering::Relaxed)
    }

    /// Returns whether a channel may carry bytes of large files. Where queues are kept short, only one channel of each
    /// connection may carry them, or all channels if the server's windows are small. As soon as the session's own way
    /// has another connection, the first connection carries only small files and requests.
    pub(crate) fn carries_large_files(&self, channel: &SftpChannel) -> bool {
        if !self.keeps_short_queues() {
            return true;
        }
        let channels = self.channels.borrow();
        let mut living = channels.iter().filter(|other| !other.is_lost());
        let is_first = living.clone().find(|other| other.is_beside(channel)).is_none_or(|first| first == channel);
        let is_alone = living.all(|other| other.route() != 0 || other.is_beside(&channels[0]));
        (is_alone || !channel.is_beside(&channels[0])) && (is_first || channel.has_small_window())
    }

    /// Waits until at least this many announced bytes are still to be sent.
    pub(super) async fn wait_for_work(&self, bytes: u64) {
        loop {
            let mut begun = std::pin::pin!(self.begun.notified());
            begun.as_mut().enable();
            if self.left() >= bytes {
                return;
            }
            begun.await;
        }
    }

    /// Waits until no channel uses the way with the number `route`; never returns for the session's own way.
    pub(crate) async fn ends(&self, route: usize) {
        let gone = |channels: &Vec<SftpChannel>| channels.iter().all(|channel| channel.route() != route);
        if route == 0 || self.channels.subscribe().wait_for(gone).await.is_err() {
            std::future::pending().await
        }
    }

    /// Returns how many of the announced bytes are still to be sent.
    pub(crate) fn left(&self) -> u64 {
        let mut left = 0;
        self.jobs().retain(|job| job.upgrade().map(|job| left += job.load(Ordering::Relaxed)).is_some());
        left
    }

    /// Returns how many bytes were sent and not yet answered.
    pub(crate) fn unanswered(&self) -> u64 {
        self.channels.borrow().iter().filter(|channel| !channel.is_lost()).map(SftpChannel::unanswered_bytes).sum()
    }

    /// Returns how many bytes were sent over the way with the number `route` and not yet answered.
    pub(crate) fn unanswered_on(&self, route: usize) -> u64 {
        let channels = self.channels.borrow();
        let living = channels.iter().filter(|channel| channel.route() == route && !channel.is_lost());
        living.map(SftpChannel::unanswered_bytes).sum()
    }

    /// Returns how many bytes the vessel has acknowledged on the current channels.
    pub(crate) fn answered(&self) -> u64 {
        self.channels.borrow().iter().map(SftpChannel::answered_bytes).sum()
    }

    /// Returns how many bytes the vessel has acknowledged on the current channels of the way with the number `route`.
    pub(super) fn answered_on(&self, route: usize) -> u64 {
        let channels = self.channels.borrow();
        channels.iter().filter(|channel| channel.route() == route).map(SftpChannel::answered_bytes).sum()
    }

    /// Returns whether sending the remaining bytes at `rate` (bytes per second) takes so long that a spare connection
    /// should be ready in case the current one stalls. On a short path no spare is kept, because a new connection is
    /// opened quickly.
    pub(crate) fn is_spare_worth_it(&self, vessel: &settings::Vessel, rate: f64) -> bool {
        let round_trip = self.channels.borrow()[0].round_trip();
        round_trip >= LONG
            && self.connections() < most(vessel.connections)
            && rate > 0.0
            && self.left() as f64 > rate * WORTH_A_SPARE.as_secs_f64()
    }

    /// Returns whether small files should get a connection of their own: the path is long, enough bytes are left to
    /// send, and the settings allow another connection.
    pub(crate) fn is_connection_beside_worth_it(&self, vessel: &settings::Vessel) -> bool {
        self.channels.borrow()[0].round_trip() >= LONG
            && self.connections() < most(vessel.connections)
            && self.left() >= BESIDE_WORTH_BYTES
    }

    /// Aborts all connections.
    pub(crate) fn abandon(&self) {
        self.channels.borrow().iter().for_each(SftpChannel::abandon);
    }
}

/// Returns the maximum number of connections that the settings allow.
pub(super) fn most(connections: Connections) -> usize {
    match connections {
        Connections::Auto => MOST,
        Connections::Fixed(number) => usize::from(number),
    }
}
