//! Sends large files over another way to the vessel, in parallel to the session's own way (setting `Together`). The
//! connections of the other way are in the session's pool as long as this way works and there is something to send.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tokio::time::sleep;

use super::channel_pool::{ChannelPool, FIRST_SHORT};
use super::pacer;
use super::session::Link;
use super::tending::Tending;
use crate::settings::Priority;
use crate::transport::SftpChannel;

/// The way is used once at least this many bytes of large files are left to send.
const WORTH: u64 = 256 << 10;
/// Interval between checks whether the way works and may be used.
const LOOK: Duration = Duration::from_millis(250);
/// Pause before the way is tried again. It doubles each time, up to `LONGEST_PAUSE`, and returns to `PAUSE` after the
/// way was tried or used for longer than `LONGEST_PAUSE`.
const PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(16);
/// While requests are unanswered, the way counts as failed if no packet arrives for `ROUND_TRIPS` round trips, but at
/// least for `SHORTEST` and at most for `LONGEST`.
const ROUND_TRIPS: u32 = 3;
const SHORTEST: Duration = Duration::from_secs(2);
const LONGEST: Duration = Duration::from_secs(6);
/// How long the connections are kept after the last large file.
const IDLE: Duration = Duration::from_secs(60);

impl ChannelPool {
    /// Opens and closes channels as needed; never returns.
    pub(crate) async fn tend(&self, link: &Link) {
        let first = self.channels.borrow()[0].clone();
        let tending = Tending::new(self, &link.settings, &link.environment, first);
        let parallel = join_all((1..=link.parallel.len()).map(|route| keep(self, link, route)));
        tokio::join!(tending.run(), pacer::hold(self, &link.settings.name, 0), parallel);
    }
}

/// Keeps connections over the way with the number `route` while there is something to send; never returns.
async fn keep(channels: &ChannelPool, link: &Link, route: usize) {
    let Some((settings, _)) = link.parallel.get(route - 1) else { return };
    let (vessel, way, mut pause) = (&settings.name, settings.way().unwrap_or_default(), PAUSE);
    loop {
        channels.wait_for_work(WORTH).await;
        if !is_open(link, route) {
            sleep(LOOK).await;
            continue;
        }
        let began = Instant::now();
        match SftpChannel::connect(settings, &link.environment, None).await {
            Ok(first) => {
                tracing::info!(%vessel, way, "Also sending over another way");
                let why = carry(channels, link, route, first).await;
                channels.abandon_route(route);
                match why {
                    Some(why) => tracing::info!(%vessel, way, "Stopped sending over the additional way: {why}"),
                    None => tracing::debug!(%vessel, way, "Closed the additional connection: no files left to send"),
                }
            }
            Err(e) => tracing::debug!(%vessel, way, "Cannot send over the additional way: {e}"),
        }
        pause = if began.elapsed() > LONGEST_PAUSE { PAUSE } else { (pause * 2).min(LONGEST_PAUSE) };
        sleep(pause).await;
    }
}

/// Returns whether the way may carry something now.
fn is_open(link: &Link, route: usize) -> bool {
    let schedule = link.parallel[route - 1].0.link.as_ref().map(|link| &link.schedule);
    schedule.is_none_or(|schedule| schedule.is_open(link.clock.now_ms()))
        && link.route(route).allowance.spent().is_none()
        && Priority::ALL.into_iter().any(|priority| link.carries(route, priority))
}

/// Uses the way until it fails, may not be used any more, or was idle for [`IDLE`]. Returns why the use ended; `None`
/// if the way was idle.
async fn carry(channels: &ChannelPool, link: &Link, route: usize, first: SftpChannel) -> Option<String> {
    let (settings, _) = &link.parallel[route - 1];
    first.set_route(route);
    if channels.keeps_short_queues() {
        first.begin_with_window(FIRST_SHORT);
    }
    channels.add(vec![first.clone()]);
    let tending = Tending::new(channels, settings, &link.environment, first.clone());
    let ended = async {
        let meter = link.environment.meters.on(settings);
        let received = || meter.bytes().map_or(0, |bytes| bytes.received);
        let (mut last, mut heard, mut busy) = (received(), Instant::now(), Instant::now());
        loop {
            sleep(LOOK).await;
            let now = received();
            if now != last || channels.unanswered_on(route) == 0 {
                (last, heard) = (now, Instant::now());
            }
            if channels.left() > 0 {
                busy = Instant::now();
            }
            let patience = (first.round_trip() * ROUND_TRIPS).clamp(SHORTEST, LONGEST);
            if first.is_lost() {
                return Some("its connection ended".to_owned());
            } else if heard.elapsed() > patience {
                return Some("it stopped answering".to_owned());
            } else if !is_open(link, route) {
                return Some("its budget is spent, or its schedule is closed".to_owned());
            } else if busy.elapsed() > IDLE {
                return None;
            }
        }
    };
    tokio::select! {
        why = ended => why,
        () = tending.run() => None,
        () = pacer::hold(channels, &settings.name, route) => None,
    }
}
