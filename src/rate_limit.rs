//! Limits the rate of outgoing bytes, as the settings specify for the time of day.
//!
//! A custom implementation, because the existing crates (governor, leaky-bucket) fix the rate when the limiter is
//! created. A token bucket fills at the current rate and holds about 100 ms worth of bytes, so that the traffic is
//! even.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use jiff::tz::TimeZone;
use tokio::sync::{Mutex, MutexGuard};
use tokio::time::Instant;

use crate::clock::Clock;
use crate::settings::RateSchedule;

/// Minimum capacity of the bucket in bytes, however low the rate is: one write of the largest usual size (256 KiB).
const LEAST_BURST: f64 = 262_144.0;
/// How often blocked senders check whether another rate applies.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// Minimum wait: the granularity of the timer.
const GRAIN: Duration = Duration::from_millis(1);

/// A rate limit, possibly inside of shared outer ones. Clones are cheap and share the limit.
#[derive(Clone)]
pub struct RateLimiter(Vec<Arc<Limit>>);

struct Limit {
    schedule: RwLock<RateSchedule>,
    clock: Clock,
    /// Returns the local time zone. Called each time, because the shore may move to another one.
    zone: fn() -> TimeZone,
    /// Locked while a sender waits. The lock is fair, so senders are served in order.
    bucket: Mutex<Bucket>,
}

/// A token bucket. The level is in bytes, and negative after a write that was larger than the bucket.
struct Bucket {
    level: f64,
    filled_at: Instant,
}

impl RateLimiter {
    /// Creates a limiter that follows a schedule, by the local time that `clock` shows.
    pub fn new(schedule: RateSchedule, clock: Clock) -> Self {
        Self::in_zone(schedule, clock, TimeZone::system)
    }

    fn in_zone(schedule: RateSchedule, clock: Clock, zone: fn() -> TimeZone) -> Self {
        // The level starts above the bucket's capacity; the first call of `wait_for` reduces it to a full bucket.
        let bucket = Mutex::new(Bucket { level: f64::MAX, filled_at: Instant::now() });
        Self(vec![Arc::new(Limit { schedule: RwLock::new(schedule), clock, zone, bucket })])
    }

    /// Replaces the schedule of this limit, but not of the outer ones. Blocked senders apply it within 1 s.
    pub fn follow(&self, schedule: &RateSchedule) {
        if let Some(own) = self.0.first() {
            own.schedule.write().unwrap_or_else(PoisonError::into_inner).clone_from(schedule);
        }
    }

    /// Nests this limit inside an outer one that other limits share. Only one sender of each inner limit waits for the
    /// outer one at a time, so each inner limit gets its turn.
    pub fn within(mut self, outer: &Self) -> Self {
        self.0.extend(outer.0.iter().cloned());
        self
    }

    /// Returns the lowest rate that applies now, in bytes per second; `None` if there is no limit.
    pub fn rate(&self) -> Option<u64> {
        self.0.iter().filter_map(|limit| limit.rate()).min()
    }

    /// Waits until `bytes` may be sent, and subtracts them from this limit and the outer ones. Senders are served in
    /// order; a sender that cancels the wait consumes nothing.
    pub async fn take(&self, bytes: u64) {
        if self.0.iter().all(|limit| limit.is_unlimited()) {
            return;
        }
        let bytes = bytes as f64;
        let mut ready = Vec::with_capacity(self.0.len());
        for limit in &self.0 {
            ready.push(limit.ready_for(bytes).await);
        }
        ready.iter_mut().for_each(|bucket| bucket.level -= bytes);
    }
}

impl Limit {
    /// Waits for all earlier senders, then until this many bytes may be sent.
    async fn ready_for(&self, bytes: f64) -> MutexGuard<'_, Bucket> {
        let mut bucket = self.bucket.lock().await;
        while let Some(wait) = bucket.wait_for(bytes, self.rate()) {
            tokio::time::sleep(wait.clamp(GRAIN, LOOK_AGAIN)).await;
        }
        bucket
    }

    fn is_unlimited(&self) -> bool {
        self.schedule.read().unwrap_or_else(PoisonError::into_inner).is_unlimited()
    }

    fn rate(&self) -> Option<u64> {
        let minute = minute_of_day(self.clock.now(), (self.zone)());
        self.schedule.read().unwrap_or_else(PoisonError::into_inner).at(minute)
    }
}

impl Bucket {
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
                limiter.take(WRITE).await;
            }
            let expected = 4.0 - burst as f64 / per_second as f64;
            assert!(about(start.elapsed(), expected), "{rate}: {:?}", start.elapsed());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_saves_up_no_more_than_a_burst() {
        let limiter = constant("1 MiB/s");
        limiter.take(WRITE).await;
        tokio::time::sleep(Duration::from_secs(60)).await;
        let start = Instant::now();
        limiter.take(WRITE).await;
        assert!(about(start.elapsed(), 0.0), "{:?}", start.elapsed());
        limiter.take(WRITE).await;
        assert!(about(start.elapsed(), 0.25), "{:?}", start.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_larger_than_the_bucket_goes_out_and_is_paid_for_later() {
        let (limiter, start) = (constant("1 MiB/s"), Instant::now());
        limiter.take(4 << 20).await;
        assert!(about(start.elapsed(), 0.0), "{:?}", start.elapsed());
        limiter.take(1).await;
        assert!(about(start.elapsed(), 3.75), "{:?}", start.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_schedule_holds_for_all_clones_and_for_who_waits_and_not_for_the_limit_around_it() {
        let (shore, start) = (constant("1 GiB/s"), Instant::now());
        let limiter = constant("1 KiB/s").within(&shore);
        limiter.take(WRITE).await;
        let (waits, limit) = (limiter.clone(), RateSchedule::of("1 MiB/s"));
        let follow = async {
            tokio::time::sleep(Duration::from_secs(10)).await;
            limiter.follow(&limit);
        };
        tokio::join!(waits.take(WRITE), follow);
        assert!(start.elapsed() < Duration::from_secs(12), "{:?}", start.elapsed());
        limiter.follow(&RateSchedule::default());
        assert!(!shore.0[0].is_unlimited());
    }

    #[tokio::test(start_paused = true)]
    async fn a_limit_that_is_lifted_is_lifted_for_who_waits_too() {
        let limiter = limiter("08:00-18:00 1 KiB/s", clock_at(17, 59, 50));
        let start = Instant::now();
        for _ in 0..100 {
            limiter.take(WRITE).await;
        }
        assert!((10.0..12.0).contains(&start.elapsed().as_secs_f64()), "{:?}", start.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_limit_that_begins_holds_from_its_minute_on() {
        let limiter = limiter("08:00-18:00 1 MiB/s", clock_at(7, 59, 50));
        let start = Instant::now();
        for _ in 0..1000 {
            limiter.take(WRITE).await;
        }
        assert_eq!(start.elapsed(), Duration::ZERO);
        tokio::time::sleep(Duration::from_secs(10)).await;
        limiter.take(WRITE).await;
        limiter.take(WRITE).await;
        assert!(about(start.elapsed(), 10.25), "{:?}", start.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn who_comes_first_goes_first_and_small_writes_do_not_overtake() {
        let limiter = constant("1 MiB/s");
        limiter.take(WRITE).await;
        let order = Arc::new(std::sync::Mutex::new(Vec::new()));
        let waiting = (0..10).map(|at| {
            let (limiter, order) = (limiter.clone(), order.clone());
            async move {
                limiter.take(if at % 2 == 0 { WRITE } else { 1 }).await;
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
            limiter.take(WRITE).await;
            for _ in 0..5 {
                let waiting = limiter.take(WRITE);
                assert!(tokio::time::timeout(Duration::from_millis(40), waiting).await.is_err());
            }
            limiter.take(WRITE).await;
            assert!(about(start.elapsed(), 0.25), "{inner} in {outer}: {:?}", start.elapsed());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_outer_limit_holds_for_all_inside_and_gives_each_its_turn() {
        let (outer, start) = (constant("1 MiB/s"), Instant::now());
        let (busy, quiet) = (constant("none").within(&outer), constant("none").within(&outer));
        outer.take(WRITE).await;
        let crowd: Vec<_> = (0..20)
            .map(|_| {
                let busy = busy.clone();
                tokio::spawn(async move { busy.take(WRITE).await })
            })
            .collect();
        tokio::time::sleep(Duration::from_millis(1)).await;
        quiet.take(WRITE).await;
        assert!(about(start.elapsed(), 0.5), "second in the queue, not twenty-first: {:?}", start.elapsed());
        futures_util::future::join_all(crowd).await;
        assert!(about(start.elapsed(), 21.0 / 4.0), "{:?}", start.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn the_lower_of_two_limits_counts() {
        for (inner, outer) in [("1 MiB/s", "8 MiB/s"), ("8 MiB/s", "1 MiB/s"), ("1 MiB/s", "none")] {
            let (limiter, start) = (constant(inner).within(&constant(outer)), Instant::now());
            for _ in 0..9 {
                limiter.take(WRITE).await;
            }
            assert!(about(start.elapsed(), 2.0), "{inner} in {outer}: {:?}", start.elapsed());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_limit_nobody_waits() {
        for schedule in ["none", "08:00-18:00 1 KiB/s"] {
            let (limiter, start) = (limiter(schedule, clock_at(20, 0, 0)), Instant::now());
            for _ in 0..1000 {
                limiter.take(u64::MAX).await;
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
}
