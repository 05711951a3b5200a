//! Watches the ways to a vessel during a session: decides when the session switches to another way, and over which
//! connection.
//!
//! A way counts as silent when requests are unanswered and not one packet arrives. While there is something to send, a
//! connection on the next way is kept ready. So the next way takes over within seconds, even if a login takes many
//! round trips over a satellite.

use std::pin::pin;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::future::pending;
use futures_util::stream::FuturesUnordered;
use tokio::time::sleep;

use super::ways::Ways;
use crate::link::Session;
use crate::transport::{KnownShell, Lead, Rank, Remote};

/// Interval at which the number of received bytes is polled.
const GLANCE: Duration = Duration::from_millis(100);
/// Interval between checks whether a way may still be used, and whether a standby connection is needed.
const LOOK: Duration = Duration::from_millis(250);
/// Maximum time without a packet on a way: `ROUND_TRIPS` round trips, but between `SHORTEST` and `LONGEST`.
const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(4);
const ROUND_TRIPS: u32 = 3;
/// How long a standby connection is kept while there is nothing to send.
const IDLE: Duration = Duration::from_secs(60);
/// Pause after a standby connection could not be opened.
const REST: Duration = Duration::from_secs(10);
/// Pause between two attempts to take over.
const AGAIN: Duration = Duration::from_millis(250);

/// Why a session on a way ends while its connection may still work.
pub(super) enum Change {
    /// Switch to another way.
    To {
        /// The number of the new way.
        way: usize,
        /// The connection on the new way.
        remote: Remote,
        /// Whether the current way failed; otherwise a better one is available again.
        failed: bool,
    },
    /// The current way may not be used any more.
    Closed,
}

/// Waits until another way should be used.
pub(super) async fn change(ways: &Ways, session: &Session, current: usize) -> Change {
    tokio::select! {
        biased;
        () = closes(ways, current) => Change::Closed,
        (way, remote) = silent(ways, session, current) => Change::To { way, remote, failed: true },
        (way, remote) = better(ways, session, current) => Change::To { way, remote, failed: false },
    }
}

/// Waits until a way may not be used any more.
async fn closes(ways: &Ways, current: usize) {
    if ways.is_always_open(current) {
        return pending().await;
    }
    while ways.closed(current).is_none() {
        sleep(LOOK).await;
    }
}

/// Waits until a better way works steadily.
async fn better(ways: &Ways, session: &Session, current: usize) -> (usize, Remote) {
    // If ways may carry only some priorities, a less preferred way may become better.
    let all = if ways.may_be_limited() { ways.count() } else { current };
    let others = (0..all).filter(|at| *at != current);
    let mut returning: FuturesUnordered<_> = others.map(|at| returns(ways, session, (at, current))).collect();
    match returning.next().await {
        Some(ready) => ready,
        None => pending().await,
    }
}

async fn returns(ways: &Ways, session: &Session, (at, current): (usize, usize)) -> (usize, Remote) {
    loop {
        if ways.closed(at).is_some() || !ways.is_before(at, current) || !ways.is_wanted(at) {
            sleep(LOOK).await;
            continue;
        }
        sleep(ways.rest(at)).await;
        let lead = Lead::alone(Rank::replacement());
        match ways.try_way(at, &session.remote.known_shell(), &lead).await {
            Ok(remote) if ways.is_steady(at, &remote).await => return (at, remote),
            Ok(_) => sleep(LOOK).await,
            // `try_way` has noted the wait before the next attempt.
            Err(_) => {}
        }
    }
}

/// Waits until the current way is silent, and a connection on another way works.
async fn silent(ways: &Ways, session: &Session, current: usize) -> (usize, Remote) {
    if !ways.are_several() {
        return pending().await;
    }
    loop {
        tokio::select! {
            () = falls_silent(session) => {}
            () = keep_ready(ways, session, current) => {}
        }
        let vessel = &session.link.settings.name;
        tracing::debug!(%vessel, way = ways.way(current).name(), "The way does not answer; trying another one");
        let another = async {
            loop {
                let known = session.remote.known_shell();
                if let Ok(ready) = ways.connect(&known, Rank::replacement(), Some(current)).await {
                    return ready;
                }
                sleep(AGAIN).await;
            }
        };
        tokio::select! {
            ready = another => return ready,
            () = hears_again(session) => {}
        }
    }
}

/// Returns how many bytes have arrived on the session's way, acknowledgements of the kernel included.
fn received(session: &Session) -> u64 {
    session.costs.meter().and_then(|meter| meter.bytes()).map_or(0, |bytes| bytes.received)
}

fn is_busy(session: &Session) -> bool {
    session.channels.unanswered() > 0 || session.costs.has_running()
}

async fn hears_again(session: &Session) {
    let before = received(session);
    while received(session) == before {
        sleep(GLANCE).await;
    }
}

/// Waits until no packet has arrived for some round trips, although requests are unanswered. After half of that time,
/// sends a ping, because the vessel may just be busy.
async fn falls_silent(session: &Session) {
    loop {
        let patience = patience(session);
        let quiet = async {
            let (mut last, mut since) = (received(session), Instant::now());
            while since.elapsed() < patience / 2 {
                sleep(GLANCE).await;
                let now = received(session);
                if now != last || !is_busy(session) {
                    (last, since) = (now, Instant::now());
                }
            }
            last
        };
        let last = quiet.await;
        let asked = Instant::now();
        let mut ping = pin!(session.remote.ping());
        let mut is_answered = false;
        while received(session) == last && asked.elapsed() < patience - patience / 2 && !is_answered {
            tokio::select! {
                () = &mut ping => is_answered = true,
                () = sleep(GLANCE) => {}
            }
        }
        if received(session) == last && !is_answered {
            return;
        }
    }
}

fn patience(session: &Session) -> Duration {
    let now = session.remote.main_channel().tcp_info().map(|info| Duration::from_micros(info.round_trip_micros.into()));
    let round_trip = now.unwrap_or_default().max(session.remote.main_channel().round_trip());
    (round_trip * ROUND_TRIPS).clamp(SHORTEST, LONGEST)
}

/// Keeps a connection on the next way ready while there is something to send; never returns.
async fn keep_ready(ways: &Ways, session: &Session, current: usize) {
    let mut busy_at: Option<Instant> = None;
    loop {
        sleep(LOOK).await;
        if is_busy(session) || session.channels.left() > 0 {
            busy_at = Some(Instant::now());
        }
        if busy_at.is_none_or(|at| at.elapsed() > IDLE) {
            ways.keep_standby(None);
            continue;
        }
        if ways.has_standby(current) {
            continue;
        }
        // The standby connection is on a worse way, because the session switches to a better way anyway as soon as the
        // better way works.
        let is_next = |at: &usize| {
            *at != current
                && ways.is_before(current, *at)
                && ways.closed(*at).is_none()
                && ways.is_wanted(*at)
                && ways.rest(*at).is_zero()
        };
        let next = (0..ways.count()).find(is_next);
        let Some(next) = next else { continue };
        let known: KnownShell = session.remote.known_shell();
        match ways.try_way(next, &known, &Lead::spare()).await {
            Ok(remote) => ways.keep_standby(Some((next, remote))),
            Err(e) => {
                let (vessel, way) = (&session.link.settings.name, ways.way(next).name());
                tracing::debug!(%vessel, way, "Cannot open a standby connection: {e}");
                sleep(REST).await;
            }
        }
    }
}
