//! Recovery from a stalled connection: a replacement is opened in parallel, and while much is still to be sent, a spare
//! connection is kept ready.
//!
//! After an outage of 10 s, TCP waits another 5 s before it sends anything again, and longer after longer outages. A
//! connection without outstanding data has no such wait and works as soon as the link does. Opening a connection only
//! after the outage takes a dozen round trips.

use std::future::pending;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::time::{sleep, timeout};

use super::session::{Link, Session};
use crate::transport::{DialIn, Lead, Rank, Remote};

/// Pause after a replacement connection could not be opened.
const AGAIN: Duration = Duration::from_secs(1);
/// Interval between checks whether a spare connection is needed. Nothing is sent on the spare before it is used: with
/// outstanding data during an outage, it would wait as long as the stalled connection.
const LOOK: Duration = Duration::from_secs(1);
/// Time that the stalled connection gets to resume by itself once the host is reachable again.
const REPAIR: Duration = Duration::from_secs(2);
/// Timeout of the ping on a spare connection.
const DEADLINE: Duration = Duration::from_secs(10);
/// Pause after a spare connection could not be opened.
const REST: Duration = Duration::from_secs(60);

/// Opens a replacement connection whenever the vessel stops responding, until the vessel responds again. Returns the
/// first replacement that works. Opens none if the session has sent nothing and the vessel has not dialled in again,
/// because a replacement would then work no better. Sets `connecting` while a replacement is being opened.
pub(crate) async fn replacement(session: &Session, connecting: &AtomicBool) -> Remote {
    let Link { settings, environment, .. } = &session.link;
    let alone = Lead::alone(Rank::replacement());
    let mut spare = None;
    let mut tunnel = DialIn::look(&[&**settings]).await;
    // Whether the vessel has dialled in again. Its earlier tunnel is then probably lost, even if no overdue answer
    // shows that yet.
    let mut renewed = false;
    loop {
        if !renewed {
            renewed = tokio::select! {
                () = session.remote.silent() => false,
                () = tunnel.renewed() => true,
                () = keep_ready(session, &mut spare) => false,
            };
        }
        if !session.has_sent() && !renewed {
            return pending().await;
        }
        tunnel = DialIn::look(&[&**settings]).await;
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
            () = session.remote.talking(), if !renewed => {}
            () = tunnel.renewed() => {}
        }
        connecting.store(false, Ordering::Relaxed);
    }
}

/// Waits until the spare connection works again. Never returns if there is no spare or if it has failed.
async fn carries_again(spare: &mut Option<Remote>) -> Remote {
    if let Some(remote) = spare {
        let since = Instant::now();
        remote.host_answers().await;
        // If the link is up, the stalled connection may just be retransmitting lost packets, so it gets time to resume.
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

/// Keeps a spare connection ready while enough bytes are left to send; never returns.
async fn keep_ready(session: &Session, spare: &mut Option<Remote>) {
    let Link { settings, environment, .. } = &session.link;
    let (mut answered, mut since) = (session.channels.answered(), Instant::now());
    if settings.ssh.socket().is_some() {
        // A vessel that dials in to a socket gets no spare, because the spare would go through the same tunnel. A
        // vessel whose address is a port of this host gets one, because the port may be forwarded over a separate link.
        return pending().await;
    }
    loop {
        if spare.is_none() && session.channels.left() == 0 {
            // Waits for work instead of checking at intervals, so that an idle vessel causes no load.
            session.channels.wait_for_work(1).await;
            (answered, since) = (session.channels.answered(), Instant::now());
        }
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
