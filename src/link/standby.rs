//! What is done about a connection that has fallen silent: another one is tried beside it, and where much is still to be
//! sent, one is kept ready for that.
//!
//! After an outage of ten seconds TCP waits another five before it sends anything again, and longer after longer ones. A
//! connection on which nothing was due waits for nothing: it carries again as soon as the link does. To make one only then
//! takes a dozen round trips.

use std::future::pending;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::time::{sleep, timeout};

use super::session::Session;
use crate::transport::{Lead, Rank, Remote};

/// The pause after another connection has failed.
const AGAIN: Duration = Duration::from_secs(1);
/// How often it is looked whether a spare connection is worth having. It is asked nothing until it is needed: one that has
/// asked while the link was down waits as long as the others.
const LOOK: Duration = Duration::from_secs(1);
/// How long it is waited for a connection to go on by itself while the host can be reached.
const REPAIR: Duration = Duration::from_secs(2);
/// How long a spare's sign of life may take.
const DEADLINE: Duration = Duration::from_secs(10);
/// How long no spare is tried after one has failed.
const REST: Duration = Duration::from_secs(60);

/// Whenever the vessel has fallen silent, tries to get another connection until there is a sign of life; gives the one
/// that came first. Where nothing was brought over, the next connection would fare no better. `connecting` says whether
/// one is being tried.
pub(crate) async fn replacement(session: &Session, connecting: &AtomicBool) -> Remote {
    let Session { settings, environment, .. } = session;
    let alone = Lead::alone(Rank::replacement());
    let mut spare = None;
    loop {
        tokio::select! {
            () = session.remote.silent() => {}
            () = keep_ready(session, &mut spare) => {}
        }
        if !session.has_sent() {
            return pending().await;
        }
        tracing::debug!(
            vessel = %settings.name, spare = spare.is_some(),
            "The vessel does not answer; trying another connection"
        );
        connecting.store(true, Ordering::Relaxed);
        let known = session.remote.known_shell();
        tokio::select! {
            remote = carries_again(&mut spare) => return remote,
            connected = Remote::connect(settings, environment, &known, &alone) => match connected {
                Ok(remote) => return remote,
                Err(e) => {
                    tracing::debug!(vessel = %settings.name, "Cannot open a replacement connection: {e}");
                    sleep(AGAIN).await;
                }
            },
            () = session.remote.talking() => {}
        }
        connecting.store(false, Ordering::Relaxed);
    }
}

/// Waits until the spare connection carries; for ever where there is none, or it does not survive.
async fn carries_again(spare: &mut Option<Remote>) -> Remote {
    if let Some(remote) = spare {
        let since = Instant::now();
        remote.host_answers().await;
        // A link that is not down may just be repairing what it has lost.
        sleep(REPAIR.saturating_sub(since.elapsed())).await;
        if timeout(DEADLINE, remote.ping()).await.is_ok()
            && let Some(remote) = spare.take()
        {
            remote.keep_alive();
            return remote;
        }
    }
    pending().await
}

/// Keeps a spare connection while there is enough to send, for ever.
async fn keep_ready(session: &Session, spare: &mut Option<Remote>) {
    let Session { settings, environment, .. } = session;
    let (mut answered, mut since) = (session.channels.answered(), Instant::now());
    loop {
        sleep(LOOK).await;
        if let Some(remote) = spare {
            if session.channels.left() == 0 || remote.is_lost() {
                *spare = None;
            }
            continue;
        }
        let now = session.channels.answered();
        let rate = now.saturating_sub(answered) as f64 / since.elapsed().as_secs_f64();
        (answered, since) = (now, Instant::now());
        if session.channels.is_spare_worth_it(settings, rate) {
            match Remote::connect(settings, environment, &session.remote.known_shell(), &Lead::spare()).await {
                Ok(remote) => *spare = Some(remote),
                Err(e) => {
                    tracing::debug!(vessel = %settings.name, "Cannot open a spare connection: {e}");
                    sleep(REST).await;
                }
            }
        }
    }
}
