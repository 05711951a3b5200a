//! Limits the connections of a session to the rate of the path, which [`Pace`] determines.

use std::fmt::Display;
use std::time::{Duration, Instant};

use contentmonster_kernel::TcpInfo;

use super::channel_pool::{ChannelPool, FIRST_SHORT, LONG};
use super::pace::{Pace, Tick, divide};
use crate::records::PathRate;
use crate::transport::SftpChannel;

/// Measurement interval: the round trip divided by `PART`, between `SHORTEST` and `LONGEST`.
const PART: u32 = 8;
const SHORTEST: Duration = Duration::from_millis(10);
const LONGEST: Duration = Duration::from_millis(250);
/// The measurements begin when at least this many bytes are left to send.
const WORTH: u64 = 256 << 10;
/// Factor by which the rate of a connection may grow within one round trip.
const GROWTH: f64 = 3.0;
/// Acknowledged bytes are averaged over this many round trips, but over at least `SHORTEST_ANSWERS`.
const ANSWERS: u32 = 4;
const SHORTEST_ANSWERS: Duration = Duration::from_secs(1);
/// If the rate of a connection falls, it is averaged over this many round trips, because the fall may only be a pause.
const FORGOTTEN: f64 = 8.0;
/// Bytes that a connection sends in its first round trip.
const BEGINNING: f64 = 15e3;
/// On a full path, all windows together cover `WINDOW` round trips and `SLACK` seconds: one round trip for the data and
/// its reply, one and a half in which a lost packet is sent again. More bytes would only queue in front of the
/// connections, and the slowest connection would delay the end of a file.
const WINDOW: f64 = 2.5;
const SLACK: f64 = 0.25;
/// The same where queues are kept short and the path is not known to be full. This is as much as the path and a short
/// queue hold; more bytes would be lost or delay the next file.
const SHORT_WINDOW: f64 = 1.5;
const SHORT_SLACK: f64 = 0.1;

/// A connection, and its counters as last read.
struct Member {
    channel: SftpChannel,
    info: TcpInfo,
    /// Its average rate over the last round trips, in bytes per second.
    rate: f64,
}

impl Member {
    fn least_round_trip(&self) -> Duration {
        Duration::from_micros(self.info.least_round_trip_micros.into())
    }

    /// Adds the connection's traffic since the last call, `took` seconds ago, to `tick`. Returns the delivered bytes
    /// and the current round trip in seconds.
    fn look(&mut self, tick: &mut Tick, took: f64) -> (f64, f64) {
        let Some(info) = self.channel.tcp_info() else { return (0.0, 0.0) };
        let before = std::mem::replace(&mut self.info, info);
        let size = info.bytes_sent as f64 / f64::from(info.data_packets_sent.max(1));
        let delivered = f64::from(info.packets_delivered.wrapping_sub(before.packets_delivered)) * size;
        let round_trip = f64::from(info.round_trip_micros) / 1e6;
        // Averaged over about a round trip. A lower rate counts less, because it may only be a pause.
        let now = delivered / took;
        let round_trips = if now < self.rate { FORGOTTEN } else { 1.0 };
        self.rate += (now - self.rate) * (took / (round_trip * round_trips).max(0.001)).min(1.0);
        tick.delivered += delivered;
        tick.sent += info.bytes_sent.saturating_sub(before.bytes_sent) as f64;
        tick.resent += info.bytes_resent.saturating_sub(before.bytes_resent) as f64;
        tick.lost += f64::from(info.lost) * size;
        tick.limited &= info.limited_by_sender && info.bytes_unsent == 0;
        (delivered, round_trip)
    }
}

/// The rate at which the vessel acknowledges bytes. TCP's own counts are less useful, because a relay or a proxy
/// accepts megabytes faster than the path behind it carries them.
#[derive(Default)]
struct Answers {
    answered: u64,
    /// Sums of the acknowledged bytes and of the time that they took. Older bytes and older time count less.
    bytes: f64,
    seconds: f64,
}

impl Answers {
    /// Records the total number of acknowledged bytes, `took` after the last call, and returns the rate in bytes per
    /// second; 0 before the first acknowledgement. Time without outstanding bytes doesn't count.
    fn rate(&mut self, answered: u64, is_busy: bool, (took, round_trip): (Duration, Duration)) -> f64 {
        // The total becomes smaller if a connection has ended.
        let new = answered.saturating_sub(std::mem::replace(&mut self.answered, answered));
        if is_busy || new > 0 {
            let left = (-took.as_secs_f64() / (round_trip * ANSWERS).max(SHORTEST_ANSWERS).as_secs_f64()).exp();
            self.bytes = self.bytes * left + new as f64;
            self.seconds = self.seconds * left + took.as_secs_f64();
        }
        if self.seconds > 0.0 { self.bytes / self.seconds } else { 0.0 }
    }
}

/// Limits the connections on the way with the number `route` while there is much to send; never returns.
pub(super) async fn hold(channels: &ChannelPool, vessel: &impl Display, route: usize) {
    let remembered = channels.remembered().filter(|_| route == 0);
    let mut pace = Pace::new(remembered.map(|path| path.rate as f64));
    let mut members: Vec<Member> = Vec::new();
    let mut answers = Answers::default();
    loop {
        channels.wait_for_work(WORTH).await;
        meet(channels, route, &mut members);
        // Drops the counts of the time in which little was sent, because they show nothing about the path.
        look(&mut members, LONG);
        while channels.left() > 0 {
            let round_trip = shortest(&members).unwrap_or(LONG);
            let since = Instant::now();
            tokio::time::sleep((round_trip / PART).clamp(SHORTEST, LONGEST)).await;
            let tick = look(&mut members, since.elapsed());
            meet(channels, route, &mut members);
            let is_busy = channels.unanswered_on(route) > 0;
            channels
                .note_rate(route, answers.rate(channels.answered_on(route), is_busy, (since.elapsed(), round_trip)));
            if tick.least_round_trip < LONG {
                continue;
            }
            let (was, _) = (pace.found().is_some(), pace.note(tick));
            if let Some(rate) = pace.found() {
                if route == 0 {
                    channels.note_carried(PathRate { rate: rate as u64, round_trip: tick.least_round_trip });
                }
                if !was {
                    tracing::debug!(%vessel, bytes_per_second = rate as u64, "The network path is saturated");
                }
            }
            apply(pace.limit(), (channels, route), &members, tick);
        }
    }
}

/// Adds the connections that are new in the pool, and removes those that have left the pool.
fn meet(channels: &ChannelPool, route: usize, members: &mut Vec<Member>) {
    let now = channels.each_connection_on(route);
    members.retain(|member| now.contains(&member.channel));
    for channel in now {
        if !members.iter().any(|member| member.channel == channel)
            && let Some(info) = channel.tcp_info()
        {
            members.push(Member { channel, info, rate: 0.0 });
        }
    }
}

fn shortest(members: &[Member]) -> Option<Duration> {
    members.iter().map(Member::least_round_trip).filter(|least| !least.is_zero()).min()
}

/// Sums up the traffic of the connections since the last call, `took` ago.
fn look(members: &mut [Member], took: Duration) -> Tick {
    let mut tick = Tick { took, limited: true, ..Tick::default() };
    let looks: Vec<(f64, f64)> = members.iter_mut().map(|member| member.look(&mut tick, took.as_secs_f64())).collect();
    tick.least_round_trip = shortest(members).unwrap_or_default();
    // Weighted by the delivered bytes, because a connection that carries nothing knows only an old round trip.
    let (bytes, weighted) = looks.iter().fold((0.0, 0.0), |(b, w), (bytes, trip)| (b + bytes, w + bytes * trip));
    let current = if bytes > 0.0 { Duration::from_secs_f64(weighted / bytes) } else { Duration::ZERO };
    tick.round_trip = current.max(tick.least_round_trip);
    tick
}

/// Divides the rate among the connections, and limits the windows of their channels. Without a rate limit, limits only
/// the windows, and these only where queues are kept short.
fn apply(limit: Option<f64>, (channels, route): (&ChannelPool, usize), members: &[Member], tick: Tick) {
    let mut all = channels.subscribe().borrow().clone();
    all.retain(|channel| channel.route() == route);
    let Some(limit) = limit else {
        members.iter().for_each(|member| member.channel.limit_pace(None));
        let window = |channel: &SftpChannel| match members.iter().find(|member| member.channel.is_beside(channel)) {
            Some(member) if channels.keeps_short_queues() => {
                let its = all.iter().filter(|other| other.is_beside(channel) && channels.carries_large_files(other));
                short_window(member, its.count(), tick)
            }
            _ => usize::MAX,
        };
        return all.iter().for_each(|channel| channel.limit_window(window(channel)));
    };
    let beginning = BEGINNING / tick.round_trip.as_secs_f64();
    let wanted: Vec<f64> = members.iter().map(|member| (member.rate * GROWTH).max(beginning)).collect();
    for (member, share) in members.iter().zip(divide(limit, &wanted)) {
        member.channel.limit_pace(Some(share as u64));
        let its: Vec<_> = all.iter().filter(|channel| channel.is_beside(&member.channel)).collect();
        // The window is divided only among channels with large files; the others carry only small files.
        let large = its.iter().filter(|channel| channels.carries_large_files(channel)).count();
        let window = share * (tick.least_round_trip.as_secs_f64() * WINDOW + SLACK) / large.max(1) as f64;
        its.iter().for_each(|channel| channel.limit_window(window as usize));
    }
}

/// Returns the window of each channel that carries large files on a connection, where queues are kept short and the
/// path is not known to be full. The rate of the connection can grow by half with each round trip.
fn short_window(member: &Member, channels: usize, tick: Tick) -> usize {
    let wanted = member.rate * (tick.least_round_trip.as_secs_f64() * SHORT_WINDOW + SHORT_SLACK);
    wanted.max(FIRST_SHORT as f64) as usize / channels.max(1)
}
