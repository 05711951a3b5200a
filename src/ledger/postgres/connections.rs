//! The connections to the database: the pools, which are replaced after each outage, and the lease.
//!
//! One task, the keeper, renews the lease over a connection of its own. A query or update that fails because of its
//! connection wakes the keeper, which reconnects, renews the lease, and then replaces the pools. Meanwhile the queries
//! and updates of the workflows wait, so no file is published, deleted or retired, and no task ends.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, Connection, PgConnection, PgPool};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use super::Result;
use super::lease::{self, Holder, Lease};
use super::trouble::{Trouble, meaning, meaning_of, text_of};
use super::write::Pools;
use crate::backoff::Backoff;
use crate::ledger::{LedgerError, Outage};

/// Wait times between attempts to reconnect.
const RECONNECT: Backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(5));
/// Maximum number of times that an attempt is repeated because it conflicted with another transaction.
const CONFLICTS: u32 = 20;

/// Time since the host's boot, including the time in suspend.
pub(super) fn now() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Duration::new(time.tv_sec.cast_unsigned(), u32::try_from(time.tv_nsec).unwrap_or_default())
}

#[derive(Clone)]
#[allow(clippy::large_enum_variant, reason = "there is one value")]
enum State {
    There(Pools),
    Away(Arc<Outage>),
    /// Another process has taken over the ledger, or this process has closed the ledger.
    Ended(LedgerError),
}

/// The servers of a ledger.
pub(super) struct Servers {
    /// The connection options for each host of the address, in the order of the address.
    pub(super) options: Vec<PgConnectOptions>,
    /// The address without a password.
    pub(super) shown: String,
}

impl Servers {
    /// Connects to the first server that answers. If `writing` and there are several servers, skips standby servers.
    pub(super) async fn connect(&self, writing: bool) -> sqlx::Result<(PgConnection, PgConnectOptions)> {
        let mut failed = None;
        for options in &self.options {
            match connect_to(options, writing && self.options.len() > 1).await {
                Ok(connection) => return Ok((connection, options.clone())),
                Err(e) => failed = Some(e),
            }
        }
        Err(failed.unwrap_or_else(|| sqlx::Error::Configuration("the address has no host".into())))
    }
}

async fn connect_to(options: &PgConnectOptions, no_standby: bool) -> sqlx::Result<PgConnection> {
    let mut connection = options.connect().await?;
    if no_standby && sqlx::query_scalar::<_, bool>("SELECT pg_is_in_recovery()").fetch_one(&mut connection).await? {
        return Err(sqlx::Error::Protocol("the server is a standby".to_owned()));
    }
    Ok(connection)
}

pub(super) struct Connections {
    servers: Servers,
    /// The lock of the ledger on this host, until it is released.
    holder: Mutex<Option<Holder>>,
    pub(super) lease: Lease,
    pub(super) lease_time: Duration,
    state: watch::Sender<State>,
    /// The time, by [`now`], until which certainly no other process has the lease.
    held_until: watch::Sender<Duration>,
    /// The time, by [`now`], since which there was no outage.
    steady_since: Mutex<Duration>,
    /// Notified when the keeper must renew the lease or reconnect.
    broken: Notify,
    closing: CancellationToken,
}

impl Connections {
    /// Starts the keeper, which renews `lease` over the connection `keeping`.
    pub(super) fn start(
        (servers, holder): (Servers, Holder),
        (keeping, options): (PgConnection, PgConnectOptions),
        lease: Lease,
        lease_time: Duration,
    ) -> (Arc<Self>, tokio::task::JoinHandle<()>) {
        let pools = Pools::new(options, 1, lease.clone());
        let connections = Arc::new(Self {
            servers,
            holder: Mutex::new(Some(holder)),
            lease,
            lease_time,
            state: watch::Sender::new(State::There(pools)),
            // The first renewal follows at once and sets the time until which the lease is valid.
            held_until: watch::Sender::new(Duration::ZERO),
            steady_since: Mutex::new(now()),
            broken: Notify::new(),
            closing: CancellationToken::new(),
        });
        let keeper = tokio::spawn(keep(connections.clone(), keeping));
        (connections, keeper)
    }

    /// Repeats an attempt after temporary errors, until the attempt succeeds or fails with a permanent error. Waits
    /// while the database is unavailable.
    pub(super) async fn lasting<T, F, Fut>(&self, attempt: F) -> Result<T>
    where
        F: Fn(Pools) -> Fut + Send,
        Fut: Future<Output = Result<T>> + Send,
    {
        let mut conflicts = 0;
        loop {
            let pools = self.there().await?;
            let number = pools.number;
            let mut state = self.state.subscribe();
            let is_over = |state: &State| !matches!(state, State::There(pools) if pools.number == number);
            let done = tokio::select! {
                done = attempt(pools) => done,
                _ = state.wait_for(is_over) => continue,
            };
            let Err(error) = done else { return done };
            match meaning_of(&error) {
                Trouble::Conflict if conflicts < CONFLICTS => {
                    conflicts += 1;
                    tokio::time::sleep(Duration::from_millis(u64::from(fastrand::u32(1..=20 * conflicts)))).await;
                }
                Trouble::Away | Trouble::RefusesWrites => {
                    self.report(number, &error);
                }
                Trouble::Fenced => return Err(self.taken_over()),
                Trouble::Conflict | Trouble::Lasting => return Err(error),
            }
        }
    }

    /// Returns the current pools; waits while the database is unavailable.
    pub(super) async fn there(&self) -> Result<Pools> {
        let mut state = self.state.subscribe();
        let state = state.wait_for(|state| !matches!(state, State::Away(_))).await;
        match state.as_deref() {
            Ok(State::There(pools)) => Ok(pools.clone()),
            Ok(State::Ended(error)) => Err(error.clone()),
            _ => Err(LedgerError::from(sqlx::Error::PoolClosed)),
        }
    }

    /// Returns the pool for reading, without waiting.
    ///
    /// # Errors
    /// [`LedgerError::Away`] while the database is unavailable; another error after the connections have ended.
    pub(super) fn readers_now(&self) -> Result<PgPool> {
        match &*self.state.borrow() {
            State::There(pools) => Ok(pools.readers.clone()),
            State::Away(outage) => Err(LedgerError::Away(outage.clone())),
            State::Ended(error) => Err(error.clone()),
        }
    }

    /// Returns why the database is unavailable; `None` when it is available.
    pub(super) fn outage(&self) -> Option<Arc<Outage>> {
        match &*self.state.borrow() {
            State::Away(outage) => Some(outage.clone()),
            _ => None,
        }
    }

    /// Waits until the database is unavailable.
    pub(super) async fn went_away(&self) {
        let mut state = self.state.subscribe();
        // This cannot fail: an error would mean that the sender was dropped, but `self` holds it.
        state.wait_for(|state| matches!(state, State::Away(_))).await.ok();
    }

    /// Waits until this process certainly holds the lease and the lease lasts long enough for the next step.
    pub(super) async fn surely_ours(&self) -> Result<()> {
        let mut held = self.held_until.subscribe();
        let mut state = self.state.subscribe();
        loop {
            if let State::Ended(error) = &*state.borrow_and_update() {
                return Err(error.clone());
            }
            if now() + self.margin() < *held.borrow_and_update() {
                return Ok(());
            }
            tokio::select! {
                changed = held.changed() => changed.map_err(|_| sqlx::Error::PoolClosed)?,
                changed = state.changed() => changed.map_err(|_| sqlx::Error::PoolClosed)?,
            }
        }
    }

    /// Returns how long the database has been available without an outage.
    pub(super) fn steady_for(&self) -> Duration {
        now().saturating_sub(*self.steady_since.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Returns how long the lease must still be valid when a step on a vessel or on the disk begins.
    pub(super) fn margin(&self) -> Duration {
        self.lease_time / 3
    }

    /// Records that the pools with this number are broken, and wakes the keeper.
    fn report(&self, number: u64, error: &LedgerError) {
        let current = |state: &State| matches!(state, State::There(pools) if pools.number == number);
        if current(&self.state.borrow()) {
            if let LedgerError::Failed(error) = error {
                self.away(error);
            }
            self.broken.notify_one();
        }
    }

    /// Enters the state `Away`, or updates its reason. Logs each new reason.
    fn away(&self, error: &sqlx::Error) {
        let refuses_writes = meaning(error) == Trouble::RefusesWrites;
        let why = text_of(error);
        let shown = &self.servers.shown;
        self.state.send_if_modified(|state| {
            let since = match state {
                State::Ended(_) => return false,
                State::Away(outage) if outage.why == why => return false,
                State::Away(outage) => outage.since,
                State::There(_) => std::time::SystemTime::now(),
            };
            match refuses_writes {
                true => tracing::error!(
                    "The ledger {shown} rejects writes: {why}; nothing is published, deleted or retired until it \
                     accepts them. Free space on its disk, or promote the standby"
                ),
                false => tracing::error!(
                    "The ledger {shown} is unavailable: {why}; nothing is published, deleted or retired until it is \
                     available again. Retrying"
                ),
            }
            *state = State::Away(Arc::new(Outage { since, why: why.clone(), refuses_writes }));
            true
        });
    }

    fn taken_over(&self) -> LedgerError {
        let error = LedgerError::TakenOver { ledger: self.servers.shown.clone() };
        self.held_until.send_replace(Duration::ZERO);
        self.state.send_if_modified(|state| {
            let first = !matches!(state, State::Ended(_));
            if first {
                *state = State::Ended(error.clone());
            }
            first
        });
        error
    }

    /// Lets another process of this host use the ledger.
    fn unlock(&self) {
        self.holder.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    /// Ends the keeper, which then gives back the lease.
    pub(super) fn close(&self) {
        self.closing.cancel();
    }

    /// Reconnects and renews the lease. Returns `None` when another process has acquired the lease.
    async fn reconnect(&self) -> sqlx::Result<Option<(PgConnection, PgConnectOptions, Duration)>> {
        let (mut connection, options) = self.servers.connect(true).await?;
        let asked = now();
        let ours = lease::renew(&mut connection, &self.lease, self.lease_time, None).await?;
        Ok(ours.then_some((connection, options, asked)))
    }
}

/// Renews the lease, and replaces broken pools, until the ledger is closed or taken over.
async fn keep(it: Arc<Connections>, mut lease: PgConnection) {
    let beat = it.lease_time / 3;
    let (mut number, mut first, mut latency) = (1, true, None);
    loop {
        if !std::mem::take(&mut first) {
            tokio::select! {
                () = tokio::time::sleep(beat) => {}
                () = it.broken.notified() => {}
                () = it.closing.cancelled() => return end(&it, lease).await,
            }
        }
        let asked = now();
        let is_there = matches!(&*it.state.borrow(), State::There(_));
        if is_there {
            match within(beat, lease::renew(&mut lease, &it.lease, it.lease_time, latency)).await {
                Ok(true) => {
                    latency = Some(now().saturating_sub(asked));
                    it.held_until.send_replace(asked + it.lease_time);
                    continue;
                }
                Ok(false) => {
                    it.taken_over();
                    return it.unlock();
                }
                Err(e) => it.away(&e),
            }
        }
        let mut failures = 0;
        let found = loop {
            let attempt = tokio::select! {
                attempt = within(beat.max(Duration::from_secs(2)), it.reconnect()) => attempt,
                () = it.closing.cancelled() => return give_up(&it),
            };
            match attempt {
                Ok(Some(found)) => break found,
                Ok(None) => {
                    it.taken_over();
                    return it.unlock();
                }
                Err(e) => it.away(&e),
            }
            failures += 1;
            tokio::select! {
                () = tokio::time::sleep(RECONNECT.wait(failures, fastrand::f64())) => {}
                () = it.closing.cancelled() => return give_up(&it),
            }
        };
        let options;
        let asked;
        (lease, options, asked) = found;
        number += 1;
        it.held_until.send_replace(asked + it.lease_time);
        *it.steady_since.lock().unwrap_or_else(PoisonError::into_inner) = now();
        if let Some(outage) = it.outage() {
            let away = outage.since.elapsed().unwrap_or_default();
            tracing::info!("The ledger {} is available again after {} s", it.servers.shown, away.as_secs());
        }
        it.state.send_replace(State::There(Pools::new(options, number, it.lease.clone())));
    }
}

/// Limits the time of an attempt. After a timeout, the connection of the attempt must not be used any more.
async fn within<T>(time: Duration, attempt: impl Future<Output = sqlx::Result<T>>) -> sqlx::Result<T> {
    let late =
        || std::io::Error::new(std::io::ErrorKind::TimedOut, format!("no answer within {} s", time.as_secs_f32()));
    tokio::time::timeout(time, attempt).await.unwrap_or_else(|_| Err(sqlx::Error::Io(late())))
}

fn finish(it: &Connections) {
    it.held_until.send_replace(Duration::ZERO);
    it.state.send_replace(State::Ended(LedgerError::from(sqlx::Error::PoolClosed)));
}

/// Ends the keeper while the database is unavailable; the lease expires by itself.
fn give_up(it: &Connections) {
    finish(it);
    it.unlock();
}

/// Closes the pools and gives back the lease.
async fn end(it: &Connections, mut lease: PgConnection) {
    let state = it.state.borrow().clone();
    finish(it);
    let ending = async {
        if let State::There(pools) = state {
            pools.close().await;
        }
        lease::give_back(&mut lease, &it.lease).await?;
        lease.close().await
    };
    if let Err(e) = within(it.lease_time / 3, ending).await {
        tracing::debug!("The lease of the ledger could not be returned: {e}");
    }
    it.unlock();
}
