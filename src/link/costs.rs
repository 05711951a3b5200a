//! The costs of a session's deliveries: the bytes of files that they write, and their shares of the bytes on the link.
//!
//! Deliveries run concurrently on the same connections, and only the sum of a connection's bytes is known. So the bytes
//! on the link while deliveries run are divided among them by weight: the bytes that each one wrote in that time, plus
//! [`REQUESTS`] bytes for its requests and answers. A delivery that runs alone gets all bytes on the link meanwhile.
//! Bytes on the link while no delivery runs, such as those of a login, are assigned to none.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use crate::records::{Delivery, DeliveryCost, DeliveryId, LinkBytes, VersionId};
use crate::transport::LinkMeter;

/// Bytes that are added to the weight of each delivery for its requests and answers.
const REQUESTS: u64 = 2048;
/// How long a reading of the meters is reused, so that a burst of small files reads them at most 100 times a second. At
/// the end of a delivery, the reading must also be newer than the delivery's start.
const FRESH: Duration = Duration::from_millis(10);

/// The costs of the deliveries of one session that are not in the ledger yet.
pub(crate) struct Costs {
    /// The meters of the ways that are used, the session's own way first. Empty for a vessel that is not reached over a
    /// link.
    meters: Vec<LinkMeter>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The sum of the weights of all deliveries so far.
    weight: u64,
    running: HashMap<VersionId, Running>,
    /// The costs of deliveries that failed.
    ended: Vec<(DeliveryId, DeliveryCost)>,
    /// The time of the last reading of the meters, and the sum of their values (`None`: not counted).
    last: Option<(Instant, Option<u64>)>,
    /// The first such sum.
    first: Option<u64>,
    /// Bytes on the link that were charged to deliveries.
    charged: u64,
}

/// The state at one moment: the bytes on the link until then (`None`: not counted), and the sum of the weights.
#[derive(Clone, Copy)]
struct Point {
    link: Option<u64>,
    weight: u64,
}

struct Running {
    delivery: DeliveryId,
    /// Bytes written since `since`.
    written: u64,
    /// The delivery's part of the sum of the weights since `since`.
    weight: u64,
    since: Point,
    /// The time of `since`.
    began: Instant,
}

impl Costs {
    pub(super) fn new(meters: Vec<LinkMeter>) -> Self {
        Self { meters, state: Mutex::default() }
    }

    /// Begins to count for a delivery.
    pub(crate) fn begin(&self, delivery: &Delivery) {
        if self.meters.is_empty() {
            return;
        }
        let mut state = self.state();
        let since = state.point(&self.meters, None);
        state.weight += REQUESTS;
        let running = Running { delivery: delivery.id, written: 0, weight: REQUESTS, since, began: Instant::now() };
        state.running.insert(delivery.version.id, running);
    }

    /// Counts bytes of a file that were written, whether or not they arrive.
    pub(super) fn wrote(&self, version: VersionId, bytes: u64) {
        if !self.meters.is_empty() {
            let mut state = self.state();
            state.weight += bytes;
            if let Some(running) = state.running.get_mut(&version) {
                running.written += bytes;
                running.weight += bytes;
            }
        }
    }

    /// Ends the count of a delivery that is about to be acknowledged, and returns its cost since it was last recorded.
    /// `None` if nothing is counted for the vessel.
    pub(crate) fn settle(&self, version: VersionId) -> Option<DeliveryCost> {
        let mut state = self.state();
        let running = state.running.remove(&version)?;
        let now = state.point(&self.meters, Some(running.began));
        Some(state.charge(&running, now))
    }

    /// Ends the count of a delivery that was not acknowledged.
    pub(crate) fn end(&self, version: VersionId) {
        let mut state = self.state();
        if let Some(running) = state.running.remove(&version) {
            let now = state.point(&self.meters, Some(running.began));
            let cost = state.charge(&running, now);
            state.ended.push((running.delivery, cost));
        }
    }

    /// Returns the meter of the session's own way; `None` for a vessel that is not reached over a link.
    pub(crate) fn meter(&self) -> Option<&LinkMeter> {
        self.meters.first()
    }

    /// Returns whether a delivery runs.
    pub(crate) fn has_running(&self) -> bool {
        !self.state().running.is_empty()
    }

    /// Returns the costs to record: the costs of deliveries that have failed, and of running deliveries that have
    /// written at least `least` bytes since their costs were last recorded. Then counts these deliveries from 0 again.
    pub(crate) fn take(&self, least: u64) -> Vec<(DeliveryId, DeliveryCost)> {
        if self.meters.is_empty() {
            return Vec::new();
        }
        let mut state = self.state();
        let began = Instant::now();
        let now = state.point(&self.meters, Some(began));
        let State { running, ended, .. } = &mut *state;
        let mut costs = std::mem::take(ended);
        let mut running = std::mem::take(running);
        for running in running.values_mut().filter(|running| running.written >= least) {
            costs.push((running.delivery, state.charge(running, now)));
            (running.written, running.weight, running.since, running.began) = (0, 0, now, began);
        }
        state.running = running;
        costs
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no code panics while it holds this lock")
    }
}

impl State {
    /// Returns the current state. Reuses the last reading of the meters if it is fresh and was made after `after`.
    fn point(&mut self, meters: &[LinkMeter], after: Option<Instant>) -> Point {
        let is_usable = |at: Instant| at.elapsed() < FRESH && after.is_none_or(|after| at > after);
        let link = match self.last {
            Some((at, link)) if is_usable(at) => link,
            _ => {
                let counted = meters.iter().filter_map(LinkMeter::bytes).reduce(LinkBytes::and);
                let link = counted.map(|bytes| bytes.total());
                self.last = Some((Instant::now(), link));
                link
            }
        };
        self.first = self.first.or(link);
        Point { link, weight: self.weight }
    }

    /// Returns the cost of a delivery until `now`, limited so that the charges of all deliveries together do not exceed
    /// the bytes on the link. Without the limit, bytes of one delivery that are in flight when the next one begins
    /// would be charged to both.
    fn charge(&mut self, running: &Running, now: Point) -> DeliveryCost {
        let mut cost = running.cost(now);
        if let Some(link) = &mut cost.link {
            let all = now.link.zip(self.first).map_or(0, |(now, first)| now.saturating_sub(first));
            *link = (*link).min(all.saturating_sub(self.charged));
            self.charged += *link;
        }
        cost
    }
}

impl Running {
    fn cost(&self, now: Point) -> DeliveryCost {
        let all = now.weight.saturating_sub(self.since.weight);
        let share = |now: u64, then: u64| {
            let share = u128::from(now.saturating_sub(then)) * u128::from(self.weight) / u128::from(all.max(1));
            u64::try_from(share).unwrap_or(u64::MAX)
        };
        let link = now.link.zip(self.since.link).map(|(now, then)| share(now, then));
        DeliveryCost { written: self.written, link }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn running(written: u64, since: Point) -> Running {
        Running { delivery: DeliveryId(1), written, weight: written + REQUESTS, since, began: Instant::now() }
    }

    fn at(link: u64, weight: u64) -> Point {
        Point { link: Some(link), weight }
    }

    #[test]
    fn a_delivery_that_runs_alone_gets_all_bytes_of_its_time() {
        let alone = running(10_000, at(500, 70_000));
        let cost = alone.cost(at(13_500, 70_000 + 10_000 + REQUESTS));
        assert_eq!(cost, DeliveryCost { written: 10_000, link: Some(13_000) });
        let empty = running(0, at(0, 0)).cost(at(3100, REQUESTS));
        assert_eq!(empty, DeliveryCost { written: 0, link: Some(3100) });
    }

    #[test]
    fn deliveries_at_the_same_time_share_by_what_they_wrote() {
        let (small, large) = (running(0, at(0, 0)), running(3 * REQUESTS, at(0, 0)));
        let now = at(10_000, 5 * REQUESTS);
        assert_eq!((small.cost(now).link, large.cost(now).link), (Some(2000), Some(8000)));
    }

    #[test]
    fn bytes_that_arrive_late_are_charged_once() {
        let mut state = State { first: Some(0), ..State::default() };
        let large = running(100_000, at(0, 0));
        let written = large.weight;
        // The small delivery begins when the large one is completely written, but half of its bytes are still in
        // flight.
        let small = running(0, at(50_000, written));
        let now = at(101_000, written + REQUESTS);
        let costs = [state.charge(&small, now), state.charge(&large, now)].map(|cost| cost.link.unwrap());
        assert_eq!(costs, [51_000, 50_000]);
    }

    #[test]
    fn without_a_count_of_the_link_only_the_written_bytes_are_known() {
        let nowhere = Point { link: None, weight: 0 };
        assert_eq!(running(7, nowhere).cost(nowhere), DeliveryCost { written: 7, link: None });
        assert!(Costs::new(Vec::new()).take(0).is_empty());
    }
}
