//! Limits repeated warnings: logs the first warnings of a kind, counts the others, and logs the count.
//!
//! A malicious vessel or a failing disk can cause thousands of warnings per second. Warnings are of one kind if they
//! come from the same line of the source code and concern the same vessel, directory and cause. A kind that continues
//! is logged less and less often, down to once an hour. If a cause concerns many vessels or directories, its warnings
//! are also limited in total. `why` and `status` show the errors of each file even if the log doesn't.

use std::collections::HashMap;
use std::fmt::{self, Write};
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::{Duration, Instant};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Dispatch, Event, Level, Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use crate::text::{counted, duration};

/// Length of the first span in which the warnings of a kind are counted: 5 minutes. While warnings continue to be
/// omitted, each further span is twice as long, up to [`LONGEST_SPAN`].
const SPAN: Duration = Duration::from_secs(300);
const LONGEST_SPAN: Duration = Duration::from_secs(3600);
/// Maximum number of warnings of a kind that are logged within [`SPAN`].
const MOST_OF_A_KIND: u32 = 10;
/// Maximum number of identical warnings that are logged within [`SPAN`].
const MOST_ALIKE: u32 = 3;
/// Maximum number of warnings of one cause that are logged within [`SPAN`] for all vessels and directories together.
/// The first warning of each kind is logged in any case.
const MOST_OF_A_CAUSE: u32 = 50;
/// Maximum number of counts, to limit the memory. When it is reached, all further kinds share one count.
const MOST_KINDS: usize = 4096;
/// Time between two checks for spans that have ended.
const BEAT: Duration = Duration::from_secs(5);

/// A filter that passes warnings and errors until there are too many of a kind.
#[derive(Clone)]
pub(super) struct Thin(Arc<Counts>);

#[derive(Default)]
struct Counts {
    hasher: RandomState,
    kinds: Mutex<HashMap<u64, Count>>,
}

struct Count {
    since: Instant,
    span: Duration,
    /// Maximum number of warnings that are logged within `span`.
    most: u32,
    logged: u32,
    left_out: u64,
    /// The text of the first warning.
    sample: String,
}

impl Thin {
    /// Starts the thread that logs how many repeated warnings were omitted. The thread ends when the last clone of the
    /// returned value is dropped.
    pub(super) fn start() -> Self {
        let counts = Arc::new(Counts::default());
        let weak = Arc::downgrade(&counts);
        // If the thread can't be started, warnings are still limited, but their counts are not logged.
        let _ = std::thread::Builder::new().name("thinned-log".to_owned()).spawn(move || tell(&weak));
        Self(counts)
    }
}

/// Logs how many warnings of each kind were omitted, at the end of each span. Returns after `counts` was dropped.
fn tell(counts: &Weak<Counts>) {
    loop {
        std::thread::sleep(BEAT);
        let Some(counts) = counts.upgrade() else { return };
        for (span, left_out, sample) in counts.over(Instant::now()) {
            let (left_out, span) = (counted(left_out, "more warning"), duration(span));
            tracing::warn!("Omitted {left_out} like this one within {span}: {sample}");
        }
    }
}

impl Counts {
    fn kinds(&self) -> MutexGuard<'_, HashMap<u64, Count>> {
        self.kinds.lock().expect("no code panics while it holds this lock")
    }

    /// Counts one more warning of a kind, and returns whether it is logged.
    fn admits(&self, kind: u64, most: u32, sample: &str, now: Instant) -> bool {
        self.count(kind, most, sample, now).is_some()
    }

    /// Counts one more warning of a kind. Returns how many were logged in this span before it, or `None` if it is not
    /// logged.
    fn count(&self, kind: u64, most: u32, sample: &str, now: Instant) -> Option<u32> {
        let mut kinds = self.kinds();
        let kind = if kinds.len() < MOST_KINDS || kinds.contains_key(&kind) { kind } else { 0 };
        let fresh = || Count { since: now, span: SPAN, most, logged: 0, left_out: 0, sample: sample.to_owned() };
        let count = kinds.entry(kind).or_insert_with(fresh);
        if count.logged < count.most {
            count.logged += 1;
            return Some(count.logged - 1);
        }
        count.left_out += 1;
        None
    }

    /// Ends the spans that have passed. For each of these spans: if warnings were omitted, returns the span, the number
    /// of omitted warnings and a sample, and starts a longer span of the same kind in which one warning is logged;
    /// otherwise removes the kind.
    fn over(&self, now: Instant) -> Vec<(Duration, u64, String)> {
        let mut left_out = Vec::new();
        self.kinds().retain(|_, count| {
            if now.saturating_duration_since(count.since) < count.span {
                return true;
            }
            if count.left_out > 0 {
                left_out.push((count.span, count.left_out, count.sample.clone()));
            }
            let goes_on = count.left_out > 0;
            (count.since, count.span) = (now, (count.span * 2).min(LONGEST_SPAN));
            (count.most, count.logged, count.left_out) = (1, 0, 0);
            goes_on
        });
        left_out
    }

    fn admits_event(&self, metadata: &Metadata<'_>, words: &Words, now: Instant) -> bool {
        let place = (metadata.file(), metadata.line(), metadata.target());
        let alike = self.hasher.hash_one((place, &words.whom, &words.text));
        let kind = self.hasher.hash_one((place, &words.whom));
        if !self.admits(alike, MOST_ALIKE, &words.text, now) {
            return false;
        }
        let cause = self.hasher.hash_one((place, &words.cause, "over all"));
        match self.count(kind, MOST_OF_A_KIND, &words.text, now) {
            None => false,
            // The first warning of a kind is always logged, so that each vessel and each directory is named at least
            // once.
            Some(0) => true,
            Some(_) => self.admits(cause, MOST_OF_A_CAUSE, &words.text, now),
        }
    }
}

impl Thin {
    fn admits(&self, event: &Event<'_>) -> bool {
        let metadata = event.metadata();
        // `Level` orders by verbosity, so `INFO` and more verbose levels are greater than `WARN`. Events at these
        // levels are not limited, nor are this module's own lines.
        if *metadata.level() > Level::WARN || metadata.target() == module_path!() {
            return true;
        }
        let mut words = Words::default();
        event.record(&mut words);
        // An error that names no vessel, directory or cause, such as rejected settings, follows an operator's action
        // and is always logged.
        if *metadata.level() == Level::ERROR && words.whom.is_empty() {
            return true;
        }
        self.0.admits_event(metadata, &words, Instant::now())
    }
}

/// A layer that passes to `inner` only the events that `thin` admits.
///
/// This is not a `Filter`: a filter that rejects an event after it was enabled corrupts the registry's per-layer filter
/// state (a failed assertion in debug builds, a lost line in others).
pub(super) struct Thinned<L> {
    pub(super) inner: L,
    pub(super) thin: Thin,
}

impl<S: Subscriber, L: Layer<S>> Layer<S> for Thinned<L> {
    fn on_register_dispatch(&self, subscriber: &Dispatch) {
        self.inner.on_register_dispatch(subscriber);
    }

    fn on_layer(&mut self, subscriber: &mut S) {
        self.inner.on_layer(subscriber);
    }

    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        self.inner.on_new_span(attributes, id, context);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        self.inner.on_record(id, values, context);
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        if self.thin.admits(event) {
            self.inner.on_event(event, context);
        }
    }

    fn on_enter(&self, id: &Id, context: Context<'_, S>) {
        self.inner.on_enter(id, context);
    }

    fn on_exit(&self, id: &Id, context: Context<'_, S>) {
        self.inner.on_exit(id, context);
    }

    fn on_close(&self, id: Id, context: Context<'_, S>) {
        self.inner.on_close(id, context);
    }
}

/// An event's text, and the vessel, directory and cause that it concerns.
#[derive(Default)]
struct Words {
    whom: String,
    cause: String,
    text: String,
}

impl Visit for Words {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // The result is ignored, because writing to a `String` doesn't fail.
        let _ = match field.name() {
            "message" => write!(self.text, "{value:?}"),
            "vessel" | "directory" | "cause" => {
                if field.name() == "cause" {
                    self.cause = format!("{value:?}");
                }
                write!(self.whom, "{value:?} ").and_then(|()| write!(self.text, " {}={value:?}", field.name()))
            }
            name => write!(self.text, " {name}={value:?}"),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warnings_of_a_kind_are_logged_up_to_a_number_and_then_counted() {
        let (counts, start) = (Counts::default(), Instant::now());
        let logged = (0..100_000).filter(|_| counts.admits(7, MOST_OF_A_KIND, "the link flaps", start)).count();
        assert_eq!(logged, MOST_OF_A_KIND as usize);
        assert!(counts.admits(8, MOST_OF_A_KIND, "another", start));
        assert!(counts.over(start + SPAN / 2).is_empty());
        let over = counts.over(start + SPAN);
        assert_eq!(over, [(SPAN, 99_990, "the link flaps".to_owned())]);
        assert!(counts.admits(7, MOST_OF_A_KIND, "the link flaps", start + SPAN));
    }

    #[test]
    fn a_kind_that_goes_on_is_logged_less_and_less_and_afresh_after_a_pause() {
        let (counts, mut now, mut logged) = (Counts::default(), Instant::now(), 0);
        let day = now + Duration::from_secs(86_400);
        while now < day {
            logged += u32::from(counts.admits(7, MOST_OF_A_KIND, "full", now));
            now += Duration::from_secs(10);
            counts.over(now);
        }
        assert!(logged < 10 + 4 + 26, "{logged} lines in a day");
        let later = now + LONGEST_SPAN;
        counts.over(later);
        counts.over(later + LONGEST_SPAN);
        let again = (0..100).filter(|_| counts.admits(7, MOST_OF_A_KIND, "full", later + LONGEST_SPAN)).count();
        assert_eq!(again, MOST_OF_A_KIND as usize);
    }

    #[test]
    fn a_cause_that_concerns_a_fleet_is_logged_once_for_each_vessel_and_seldom_more() {
        let counts = Counts::default();
        let mut logged = HashMap::new();
        let metadata = warning();
        for file in 0..200 {
            for vessel in 0..60 {
                let (whom, text) = (format!("vessel-{vessel} space"), format!("no space for {file}"));
                let words = Words { whom, cause: "space".to_owned(), text };
                *logged.entry(vessel).or_insert(0) += u32::from(counts.admits_event(metadata, &words, Instant::now()));
            }
        }
        assert!(logged.values().all(|lines| *lines > 0), "{logged:?}");
        assert_eq!(logged.values().sum::<u32>(), 60 + MOST_OF_A_CAUSE);
    }

    /// Returns the metadata of a warning.
    fn warning() -> &'static Metadata<'static> {
        use tracing::callsite::Callsite;
        static CALLSITE: tracing::callsite::DefaultCallsite = {
            static META: Metadata<'static> = tracing::metadata! {
                name: "w", target: "t", level: Level::WARN, fields: tracing::fieldset!(), callsite: &CALLSITE,
                kind: tracing::metadata::Kind::EVENT
            };
            tracing::callsite::DefaultCallsite::new(&META)
        };
        CALLSITE.metadata()
    }

    #[test]
    fn a_million_different_warnings_take_bounded_room() {
        let (counts, start) = (Counts::default(), Instant::now());
        for kind in 1..1_000_000 {
            counts.admits(kind, 1, "x", start);
        }
        assert!(counts.kinds().len() <= MOST_KINDS + 1);
    }
}
