//! The part of the status document about one vessel.

use super::convert::moment;
use super::document::{Amount, Link, LinkBytes, LinkState, Oldest, PutOff, Transfer, VesselStatus};
use super::holds::opens;
use super::live::{LiveLink, LiveTransfer, LiveVessel};
use super::place::Place;
use super::queues::{Outlook, Sending};
use super::routes::Budgets;
use super::running::Running;
use super::speed::{Known, Speed, speed};
use crate::ledger::Summary;
use crate::names::VesselName;
use crate::settings::Way;

/// Maximum length of the list `transfers` in the document.
const TRANSFERS: usize = 10;
/// Time in milliseconds for which a measured rate of a path is shown.
const A_DAY: i64 = 24 * 60 * 60 * 1000;

/// The sources of the vessels' statuses.
#[derive(Clone, Copy)]
pub(super) struct Sources<'a> {
    pub(super) place: &'a Place,
    pub(super) running: Option<&'a Running>,
    pub(super) summary: &'a Summary,
    pub(super) budgets: &'a Budgets,
    /// The time of the document, in milliseconds since 1970.
    pub(super) at: i64,
}

impl Sources<'_> {
    /// Returns the rate over a way to a vessel in bytes per second: the current rate, or the last rate measured within
    /// 24 h, but at most the rate limit that applies now. If no rate was measured, returns this limit; `None` without a
    /// limit.
    pub(super) fn known_rate(&self, name: &VesselName, live: &LiveVessel, way: Option<&str>) -> Option<u64> {
        let Self { place, running, summary, at, .. } = *self;
        let is_recent = |measured: i64| (0..A_DAY).contains(&(at - measured));
        let now = running
            .map(|running| running.rate(live))
            .filter(|rate| *rate > 0 && live.link.way().map(|(way, _)| way) == way);
        let earlier = live.recent_rate(way).filter(|(at, _)| is_recent(*at)).map(|(_, rate)| rate);
        let path = summary.notes.iter().find(|note| note.vessel == *name).and_then(|note| note.path);
        let path = path.filter(|(measured, _)| way.is_none() && is_recent(*measured)).map(|(_, rate)| rate);
        let measured = now.or(earlier).or(path);
        measured.into_iter().chain(place.sending.rate_limit(name, way, at)).min()
    }

    /// Returns the status of a vessel, without its link bytes by day and month, its ways and its speed.
    /// `is_elsewhere` says that another shore serves the vessel.
    pub(super) fn status(&self, name: &VesselName, live: Option<&LiveVessel>, is_elsewhere: bool) -> VesselStatus {
        let Self { place, running, summary, budgets, at } = *self;
        let (idle, sending) = (LiveVessel::default(), &place.sending);
        let now = live.unwrap_or(&idle);
        let rate = |way: Option<&str>| self.known_rate(name, now, way);
        let (queues, unknown) = sending.queues(&outlook(name, sending, budgets, now, &rate, at), &summary.tallies);
        let mut status = VesselStatus {
            name: name.to_string(),
            link: link(name, live, summary, at),
            shore: None,
            backlog: Amount::default(),
            parked: 0,
            expired: 0,
            opens: sending.vessel(name).and_then(|vessel| opens(&[&vessel.schedule], at)),
            queues,
            carries: None,
            put_off: 0,
            retried_first: summary.postponed.iter().find(|one| one.vessel == *name).map(PutOff::from),
            groups: place.groups.get(name).cloned().unwrap_or_default(),
            oldest: summary.oldest.iter().find(|oldest| oldest.vessel == *name).map(Oldest::from),
            in_flight: now.transfers.len() as u64,
            in_flight_bytes: now.transfers.values().map(|transfer| transfer.taken).sum(),
            transfers: transfers(now),
            rate: running.map_or(0, |running| running.rate(now)),
            eta_seconds: None,
            eta_unknown: None,
            acknowledged: Amount::default(),
            last_acknowledged: None,
            sent_bytes: now.sent,
            saved_bytes: now.saved,
            link_bytes: running.and_then(|running| running.meters.sum(name)).map(LinkBytes::from),
            link_bytes_today: None,
            link_bytes_month: None,
            ways: Vec::new(),
            speed: None,
            errors: now.errors.iter().map(|(cause, count)| (cause.as_str().to_owned(), *count)).collect(),
            took: now.took.clone(),
        };
        if is_elsewhere && status.link.state == LinkState::Off {
            let is_away = status.link.reason.is_some();
            status.link.state = if is_away { LinkState::Away } else { LinkState::Elsewhere };
        }
        if status.link.state == LinkState::Closed {
            status.link.next_try = status.opens;
        }
        let mut last = None;
        for tally in summary.tallies.iter().filter(|tally| tally.vessel == *name) {
            status.backlog.add(tally.waiting, tally.waiting_bytes);
            status.acknowledged.add(tally.acknowledged, tally.acknowledged_bytes);
            status.parked += tally.parked;
            status.expired += tally.expired;
            status.put_off += tally.postponed;
            last = last.max(tally.acknowledged_at);
        }
        status.last_acknowledged = last.map(moment);
        let left = status.backlog.bytes.saturating_sub(status.in_flight_bytes);
        let way = now.link.way().map(|(way, _)| way);
        let first = sending.vessel(name).filter(|vessel| vessel.has_ways()).and_then(|vessel| vessel.ways.first());
        status.carries = rate(way.map(str::to_owned).or(first.map(Way::name)).as_deref());
        if left > 0 {
            let last = status.queues.iter().filter(|queue| queue.waiting.bytes > 0).map(|queue| queue.ends);
            let ends = last.reduce(|one, other| Some(one?.max(other?))).flatten();
            let unknown = match status.link.state {
                LinkState::Connected if unknown.is_none() && ends.is_none() => Some("not calculated yet".to_owned()),
                LinkState::Connected => unknown,
                state => state.why_not_sending().map(str::to_owned),
            };
            let seconds =
                ends.map(|ends| ends.as_millisecond().saturating_sub(at).max(0).cast_unsigned().div_ceil(1000));
            status.eta_seconds = seconds.filter(|_| unknown.is_none());
            status.eta_unknown = unknown;
        }
        status
    }

    /// Returns the rate to a vessel, and what limits it.
    pub(super) fn speed(&self, name: &VesselName, live: Option<&LiveVessel>, cpu_percent: f64) -> Option<Speed> {
        let (running, live) = (self.running?, live?);
        Some(speed(Known {
            is_connected: matches!(live.link, LiveLink::Connected { .. }),
            is_sending: !live.transfers.is_empty(),
            way: live.link.way().map(|(way, _)| way.to_owned()),
            path: running.meters.path(name),
            rate: running.rate(live),
            rate_limit: self.place.sending.rate_limit(name, live.link.way().map(|(way, _)| way), self.at),
            cpu_percent,
        }))
    }
}

/// Returns the state of a vessel, as input for a forecast.
pub(super) fn outlook<'a>(
    name: &'a VesselName,
    sending: &'a Sending,
    budgets: &'a Budgets,
    live: &'a LiveVessel,
    rate: &'a dyn Fn(Option<&str>) -> Option<u64>,
    now: i64,
) -> Outlook<'a> {
    let carries = live.link.way().map(|(way, _)| way);
    Outlook { name, vessel: sending.vessel(name), budgets, carries, rate, live: Some(live), now }
}

/// Returns the connection state of a vessel. Only the ledger knows whether a vessel is paused; the other states come
/// from the running program.
fn link(name: &VesselName, live: Option<&LiveVessel>, summary: &Summary, now: i64) -> Link {
    let note = summary.notes.iter().find(|note| note.vessel == *name);
    let is_over = |until: Option<i64>| until.is_some_and(|until| until <= now);
    if let Some((paused_at, note)) =
        note.and_then(|note| Some((note.paused_at?, note))).filter(|(_, note)| !is_over(note.paused_until))
    {
        let (since, until) = (Some(moment(paused_at)), note.paused_until.map(moment));
        return Link { state: LinkState::Paused, since, reason: note.pause_note.clone(), next_try: until };
    }
    let (state, since, reason, next_try) = match live.map(|live| &live.link) {
        None => {
            let away = note.and_then(|note| note.away.clone());
            let (since, reason) = away.unzip();
            (LinkState::Off, since, reason, None)
        }
        Some(LiveLink::Connecting) => (LinkState::Connecting, None, None, None),
        Some(LiveLink::Connected { since, .. }) => (LinkState::Connected, Some(*since), None, None),
        Some(LiveLink::Closed { since }) => (LinkState::Closed, Some(*since), None, None),
        Some(LiveLink::Away { since, reason, next_try }) => {
            (LinkState::Away, Some(*since), Some(reason.clone()), *next_try)
        }
    };
    Link { state, since: since.map(moment), reason, next_try: next_try.map(moment) }
}

fn transfers(vessel: &LiveVessel) -> Vec<Transfer> {
    let mut largest: Vec<&LiveTransfer> = vessel.transfers.values().collect();
    largest.sort_by(|a, b| (b.bytes, &a.path).cmp(&(a.bytes, &b.path)));
    let shown = |transfer: &LiveTransfer| Transfer {
        directory: transfer.directory.to_string(),
        path: transfer.path.to_string(),
        bytes: transfer.bytes,
        taken: transfer.taken,
        since: moment(transfer.since),
    };
    largest.into_iter().take(TRANSFERS).map(shown).collect()
}
