//! Limits the rate of outgoing bytes, as the settings specify for the time of day.
//!
//! A custom implementation, because the existing crates (governor, leaky-bucket) fix the rate when the limiter is
//! created. A token bucket fills at the current rate and holds about 100 ms worth of bytes, so that the traffic is
//! even.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use jiff::tz::TimeZone;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::clock::Clock;
use crate::settings::{Priority, RateSchedule};

/// Minimum capacity of the bucket in bytes, however low the rate is: one write of the largest usual size (256 KiB).
const LEAST_BURST: f64 = 262_144.0;
/// Interval at which blocked senders check whether another rate applies.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// Minimum wait: the granularity of the timer.
const GRAIN: Duration = Duration::from_millis(1);
/// Bytes of a lower priority that may be sent for each byte of a higher one while both wait: 5 % of all bytes.
const SHARE: f64 = 1.0 / 19.0;

/// A rate limit, optionally inside outer limits that it shares with other limiters. Clones are cheap and share the
/// limit.
#[derive(Clone)]
pub struct RateLimiter(Vec<Arc<Limit>>);

struct Limit {
    schedule: RwLock<RateSchedule>,
    clock: Clock,
    /// Returns the local time zone. Called each time, because the shore may move to another zone.
    zone: fn() -> TimeZone,
    queue: Mutex<Queue>,
}

/// A token bucket with the senders that wait for it. The level is in bytes, and negative after a write that was larger
/// than the bucket.
struct Queue {
    level: f64,
    filled_at: Instant,
    waiting: BTreeMap<Place, Waiter>,
    next_number: u64,
    /// Number of bytes that the longest waiting sender of a lower priority may send before the senders of a higher
    /// priority.
    owed: f64,
}

/// A place in the queue: the priority, then a number in the order of arrival.
type Place = (Priority, u64);

struct Waiter {
    bytes: f64,
    wake: Arc<Notify>,
}

/// A sender's place in the queue of one limit. Dropping the ticket removes the sender from the queue.
struct Ticket<'a> {
    limit: &'a Limit,
    place: Place,
    wake: Arc<Notify>,
}

impl RateLimiter {
    /// Creates a limiter that follows a schedule, by the local time that `clock` shows.
    pub fn new(schedule: RateSchedule, clock: Clock) -> Self {
        Self::in_zone(schedule, clock, TimeZone::system)
    }

    fn in_zone(schedule: RateSchedule, clock: Clock, zone: fn() -> TimeZone) -> Self {
        // The level starts above the bucket's capacity; the first call of `wait_for` reduces it to a full bucket.
        let (level, filled_at) = (f64::MAX, Instant::now());
        let queue = Queue { level, filled_at, waiting: BTreeMap::new(), next_number: 0, owed: 0.0 };
        Self(vec![Arc::new(Limit { schedule: RwLock::new(schedule), clock, zone, queue: Mutex::new(queue) })])
    }

    /// Replaces the schedule of this limit, but not of the outer ones. Blocked senders apply it within 1 s.
    pub fn follow(&self, schedule: &RateSchedule) {
        if let Some(own) = self.0.first() {
            own.schedule.write().unwrap_or_else(PoisonError::into_inner).clone_from(schedule);
        }
    }

    /// Nests this limit inside an outer limit that other limits share. Only the first sender in the queue of each inner
    /// limit waits for the outer limit, so the inner limits take turns.
    pub fn within(mut self, outer: &Self) -> Self {
        self.0.extend(outer.0.iter().cloned());
        self
    }

    /// Returns the lowest rate that applies now, in bytes per second; `None` if there is no limit.
    pub fn rate(&self) -> Option<u64> {
        self.0.iter().filter_map(|limit| limit.rate()).min()
    }

    /// Waits until `bytes` may be sent, and subtracts them from this limit and the outer ones. Senders are served by
    /// priority, then in the order of arrival; while senders of several priorities wait, 5 % of the bytes go to the
    /// longest waiting sender of a lower priority. A sender that cancels the wait consumes nothing.
    pub async fn take(&self, priority: Priority, bytes: u64) {
        if self.0.iter().all(|limit| limit.is_unlimited()) {
            return;
        }
        let (bytes, mut tickets) = (bytes as f64, Vec::with_capacity(self.0.len()));
        while let Some(wait) = self.wait_for(&mut tickets, priority, bytes) {
            match (wait, tickets.last()) {
                (Some(wait), _) => tokio::time::sleep(wait.clamp(GRAIN, LOOK_AGAIN)).await,
                (None, Some(ticket)) => ticket.wake.notified().await,
                (None, None) => return,
            }
        }
    }

    /// Joins the queues of the limits, from the innermost outwards. Joins an outer queue only when the sender is first
    /// in the inner queues and their limits allow the bytes. If all limits allow the bytes, subtracts them and returns
    /// `None`. Otherwise returns how long to wait: `Some(None)` means until the last ticket is woken.
    fn wait_for<'a>(
        &'a self,
        tickets: &mut Vec<Ticket<'a>>,
        priority: Priority,
        bytes: f64,
    ) -> Option<Option<Duration>> {
        for (at, limit) in self.0.iter().enumerate() {
            if tickets.len() == at {
                tickets.push(limit.join(priority, bytes));
            }
            let mut queue = limit.queue();
            if queue.next() != Some(tickets[at].place) {
                drop(queue);
                // Another sender is first in this queue, for example a new one of a higher priority. It also goes first
                // at the outer limits, so this sender leaves their queues.
                tickets.truncate(at + 1);
                return Some(None);
            }
            if let Some(wait) = queue.wait_for(bytes, limit.rate()) {
                return Some(Some(wait));
            }
        }
        for ticket in tickets {
            ticket.limit.queue().serve(ticket.place, bytes);
        }
        None
    }
}

impl Limit {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn join(&self, priority: Priority, bytes: f64) -> Ticket<'_> {
        let (mut queue, wake) = (self.queue(), Arc::new(Notify::new()));
        let place = (priority, queue.next_number);
        queue.next_number += 1;
        queue.waiting.insert(place, Waiter { bytes, wake: wake.clone() });
        Ticket { limit: self, place, wake }
    }

    fn is_unlimited(&self) -> bool {
        self.schedule.read().unwrap_or_else(PoisonError::into_inner).is_unlimited()
    }

    fn rate(&self) -> Option<u64> {
        let schedule = self.schedule.read().unwrap_or_else(PoisonError::into_inner);
        // A schedule without limits does not depend on the time of day.
        if schedule.is_unlimited() { None } else { schedule.at(minute_of_day(self.clock.now(), (self.zone)())) }
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        let mut queue = self.limit.queue();
        queue.waiting.remove(&self.place);
        if queue.waiting.is_empty() {
            queue.owed = 0.0;
        }
        if let Some(next) = queue.next().and_then(|place| queue.waiting.get(&place)) {
            next.wake.notify_one();
        }
    }
}

impl Queue {
    /// Returns the place of the sender that is served next.
    fn next(&self) -> Option<Place> {
        let (first, _) = self.waiting.first_key_value()?;
        if let Some((longest, waiter)) = self.longest_below(first.0)
            && self.owed >= waiter.bytes
        {
            return Some(longest);
        }
        Some(*first)
    }

    /// Returns the longest waiting sender among those with a lower priority than `priority`.
    fn longest_below(&self, priority: Priority) -> Option<(Place, &Waiter)> {
        let mut longest = None;
        for lower in Priority::ALL.into_iter().filter(|lower| *lower > priority) {
            let first = self.waiting.range((lower, 0)..=(lower, u64::MAX)).next();
            longest = longest.into_iter().chain(first).min_by_key(|((_, number), _)| *number);
        }
        longest.map(|(place, waiter)| (*place, waiter))
    }

    /// Subtracts the bytes of a sender from the bucket, and updates `owed`.
    fn serve(&mut self, place: Place, bytes: f64) {
        self.level -= bytes;
        let is_share = self.waiting.first_key_value().is_some_and(|(first, _)| first.0 < place.0);
        if is_share {
            self.owed -= bytes;
        } else if let Some((_, waiter)) = self.longest_below(place.0) {
            // The share of a waiting sender is limited to the bytes that it needs, or to `LEAST_BURST` if that is more.
            self.owed = (self.owed + bytes * SHARE).min(waiter.bytes.max(LEAST_BURST));
        }
    }

    /// Returns how long to wait until this many bytes may be sent at `rate` (bytes per second; `None`: no limit).
    /// Returns `None` if they may be sent now.
    fn wait_for(&mut self, bytes: f64, rate: Option<u64>) -> Option<Duration> {
        let now = Instant::now();
        let since = now.duration_since(std::mem::replace(&mut self.filled_at, now));
        let Some(rate) = rate.map(|rate| rate as f64) else {
            self.level = f64::MAX;
            return None;
        };
        let burst = (rate / 10.0).max(LEAST_BURST);
        self.level = (self.level + since.as_secs_f64() * rate).min(burst);
        let missing = bytes.min(burst) - self.level;
        (missing > 0.0).then(|| Duration::from_secs_f64(missing / rate))
    }
}

/// Returns the local wall-clock time in minutes since midnight. An hour that daylight saving repeats occurs twice.
fn minute_of_day(now: SystemTime, zone: TimeZone) -> u16 {
    let time = Timestamp::try_from(now).unwrap_or_default().to_zoned(zone).time();
    u16::from(time.hour().unsigned_abs()) * 60 + u16::from(time.minute().unsigned_abs())
}

#[cfg(test)]
mod tests {
    use super::Priority::{Bulk, Low, Normal, Urgent};
    use super::*;

    const WRITE: u64 = 262_144;

    fn limiter(schedule: &str, clock: Clock) -> RateLimiter {
        RateLimiter::in_zone(RateSchedule::of(schedule), clock, || TimeZone::UTC)
    }

    fn constant(rate: &str) -> RateLimiter {
        limiter(rate, Clock::system())
    }

    /// Returns a clock that starts at this time of day and advances with tokio's clock.
    fn clock_at(hour: u64, minute: u64, second: u64) -> Clock {
        let (made, shown) = (Instant::now(), Duration::from_secs((20_000 * 24 + hour) * 3600 + minute * 60 + second));
        Clock::from_fn(move || SystemTime::UNIX_EPOCH + shown + made.elapsed())
    }

    fn about(taken: Duration, seconds: f64) -> bool {
        (taken.as_secs_f64() - seconds).abs() < 0.05
    }

    #[tokio::test(start_paused = true)]
    async fn bytes_go_out_at_the_rate_after_a_first_burst() {
        for (rate, per_second, burst) in [("1 MiB/s", 1 << 20, WRITE), ("100 MiB/s", 100 << 20, 10 << 20)] {
            let (limiter, start) = (constant(rate), Instant::now());
            for _ in 0..per_second * 4 / WRITE {
                limiter.take(Normal, WRITE).await;
            }
            let expected = 4.0 - burst as f64 / per_second as f64;
            assert!(about(start.elapsed(), expected), "{rate}: {:?}", start.elapsed());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_saves_up_no_more_than_a_burst() {
        let limiter = constant("1 MiB/s");
        limiter.take(Normal, WRITE).await;
        tokio::time::sleep(Duration::from_secs(60)).await;
        let start = Instant::now();
        limiter.take(Normal, WRITE).await;
        assert!(about(start.elapsed(), 0.0), "{:?}", start.elapsed());
        limiter.take(Normal, WRITE).await;
        assert!(about(start.elapsed(), 0.25), "{:?}", start.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_larger_than_the_bucket_goes_out_and_is_paid_for_later() {
        let (limiter, start) = (constant("1 MiB/s"), Instant::now());
        limiter.take(Normal, 4 << 20).await;
        assert!(about(start.elapsed(), 0.0), "{:?}", start.elapsed());
        limiter.take(Normal, 1).await;
        assert!(about(start.elapsed(), 3.75), "{:?}", start.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_schedule_holds_for_all_clones_and_for_who_waits_and_not_for_the_limit_around_it() {
        let (shore, start) = (constant("1 GiB/s"), Instant::now());
        let limiter = constant("1 KiB/s").within(&shore);
        limiter.take(Normal, WRITE).await;
        let (waits, limit) = (limiter.clone(), RateSchedule::of("1 MiB/s"));
        let follow = async {
            tokio::time::sleep(Duration::from_secs(10)).await;
            limiter.follow(&limit);
        };
        tokio::join!(waits.take(Normal, WRITE), follow);
        assert!(start.elapsed() < Duration::from_secs(12), "{:?}", start.elapsed());
        limiter.follow(&RateSchedule::default());
        assert!(!shore.0[0].is_unlimited());
    }

    #[tokio::test(start_paused = true)]
    async fn a_limit_that_is_lifted_is_lifted_for_who_waits_too() {
        let limiter = limiter("08:00-18:00 1 KiB/s", clock_at(17, 59, 50));
        let start = Instant::now();
        for _ in 0..100 {
            limiter.take(Normal, WRITE).await;
        }
        assert!((10.0..12.0).contains(&start.elapsed().as_secs_f64()), "{:?}", start.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_limit_that_begins_holds_from_its_minute_on() {
        let limiter = limiter("08:00-18:00 1 MiB/s", clock_at(7, 59, 50));
        let start = Instant::now();
        for _ in 0..1000 {
            limiter.take(Normal, WRITE).await;
        }
        assert_eq!(start.elapsed(), Duration::ZERO);
        tokio::time::sleep(Duration::from_secs(10)).await;
        limiter.take(Normal, WRITE).await;
        limiter.take(Normal, WRITE).await;
        assert!(about(start.elapsed(), 10.25), "{:?}", start.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn who_comes_first_goes_first_and_small_writes_do_not_overtake() {
        let limiter = constant("1 MiB/s");
        limiter.take(Normal, WRITE).await;
        let order = Arc::new(Mutex::new(Vec::new()));
        let waiting = (0..10).map(|at| {
            let (limiter, order) = (limiter.clone(), order.clone());
            async move {
                limiter.take(Normal, if at % 2 == 0 { WRITE } else { 1 }).await;
                order.lock().unwrap().push(at);
            }
        });
        futures_util::future::join_all(waiting).await;
        assert_eq!(*order.lock().unwrap(), (0..10).collect::<Vec<_>>());
    }

    #[tokio::test(start_paused = true)]
    async fn who_stops_waiting_has_taken_nothing_and_holds_up_nobody() {
        for (inner, outer) in [("1 MiB/s", "none"), ("2 MiB/s", "1 MiB/s")] {
            let (limiter, start) = (constant(inner).within(&constant(outer)), Instant::now());
            limiter.take(Normal, WRITE).await;
            for _ in 0..5 {
                let waiting = limiter.take(Normal, WRITE);
                assert!(tokio::time::timeout(Duration::from_millis(40), waiting).await.is_err());
            }
            limiter.take(Normal, WRITE).await;
            assert!(about(start.elapsed(), 0.25), "{inner} in {outer}: {:?}", start.elapsed());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_outer_limit_holds_for_all_inside_and_gives_each_its_turn() {
        let (outer, start) = (constant("1 MiB/s"), Instant::now());
        let (busy, quiet) = (constant("none").within(&outer), constant("none").within(&outer));
        outer.take(Normal, WRITE).await;
        let crowd: Vec<_> = (0..20)
            .map(|_| {
                let busy = busy.clone();
                tokio::spawn(async move { busy.take(Normal, WRITE).await })
            })
            .collect();
        tokio::time::sleep(Duration::from_millis(1)).await;
        quiet.take(Normal, WRITE).await;
        assert!(about(start.elapsed(), 0.5), "second in the queue, not twenty-first: {:?}", start.elapsed());
        futures_util::future::join_all(crowd).await;
        assert!(about(start.elapsed(), 21.0 / 4.0), "{:?}", start.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn the_lower_of_two_limits_counts() {
        for (inner, outer) in [("1 MiB/s", "8 MiB/s"), ("8 MiB/s", "1 MiB/s"), ("1 MiB/s", "none")] {
            let (limiter, start) = (constant(inner).within(&constant(outer)), Instant::now());
            for _ in 0..9 {
                limiter.take(Normal, WRITE).await;
            }
            assert!(about(start.elapsed(), 2.0), "{inner} in {outer}: {:?}", start.elapsed());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_limit_nobody_waits() {
        for schedule in ["none", "08:00-18:00 1 KiB/s"] {
            let (limiter, start) = (limiter(schedule, clock_at(20, 0, 0)), Instant::now());
            for _ in 0..1000 {
                limiter.take(Normal, u64::MAX).await;
            }
            assert_eq!(start.elapsed(), Duration::ZERO);
        }
    }

    #[test]
    fn the_time_of_day_is_the_walls_through_daylight_saving() {
        let berlin = || TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap();
        let minute = |time: &str| minute_of_day(time.parse::<Timestamp>().unwrap().into(), berlin());
        for (time, shown) in [
            ("2026-01-15T07:00:00Z", 8 * 60),
            ("2026-07-15T07:00:30Z", 9 * 60),
            ("2026-03-29T00:59:59Z", 60 + 59),
            ("2026-03-29T01:00:00Z", 3 * 60),
            ("2026-10-25T00:30:00Z", 2 * 60 + 30),
            ("2026-10-25T01:30:00Z", 2 * 60 + 30),
            ("2026-07-14T22:00:00Z", 0),
        ] {
            assert_eq!(minute(time), shown, "{time}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_higher_priority_overtakes_whoever_waits_in_this_limit_and_in_the_shared_one() {
        let outer = constant("1 MiB/s");
        let (ship, station) = (constant("none").within(&outer), constant("none").within(&outer));
        outer.take(Normal, WRITE).await;
        let start = Instant::now();
        for _ in 0..8 {
            let (ship, station) = (ship.clone(), station.clone());
            tokio::spawn(async move { ship.take(Bulk, WRITE).await });
            tokio::spawn(async move { station.take(Low, WRITE).await });
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
        station.take(Urgent, WRITE).await;
        assert!(about(start.elapsed(), 0.25), "before all others of both vessels: {:?}", start.elapsed());
        ship.take(Normal, WRITE).await;
        assert!(about(start.elapsed(), 0.5), "{:?}", start.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_low_priority_that_waits_gets_a_twentieth() {
        let limiter = constant("1 MiB/s");
        let sent = Arc::new(Mutex::new([0_u64; 2]));
        let mut senders = tokio::task::JoinSet::new();
        for (at, priority) in [Urgent, Urgent, Bulk, Low].into_iter().enumerate() {
            let (limiter, sent) = (limiter.clone(), sent.clone());
            senders.spawn(async move {
                loop {
                    limiter.take(priority, WRITE / 4).await;
                    sent.lock().unwrap()[at / 2] += WRITE / 4;
                }
            });
        }
        tokio::time::sleep(Duration::from_secs(400)).await;
        let [urgent, lower] = *sent.lock().unwrap();
        let share = lower as f64 / (urgent + lower) as f64;
        assert!((0.045..0.055).contains(&share), "{share}");
    }
}
