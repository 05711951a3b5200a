//! Limits repeated warnings: logs the first warnings of a kind, counts the others, and logs the count.
//!
//! A malicious vessel or a failing disk can cause thousands of warnings per second. Warnings are of one kind if they
//! come from the same line of the source code and concern the same vessel, directory and cause. `why` and `status` show
//! the errors of each file even if the log doesn't.

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

use crate::text::counted;

/// How long the warnings of a kind are counted together: 5 minutes.
const SPAN: Duration = Duration::from_secs(300);
/// Maximum number of warnings of a kind that are logged within [`SPAN`].
const MOST_OF_A_KIND: u32 = 10;
/// Maximum number of identical warnings that are logged within [`SPAN`].
const MOST_ALIKE: u32 = 3;
/// Maximum number of counts, which limits the memory; when it is reached, all further kinds share one count.
const MOST_KINDS: usize = 4096;
/// Time between two checks for expired counts.
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
    logged: u32,
    left_out: u64,
    /// The text of the first warning.
    sample: String,
}

impl Thin {
    /// Starts the thread that logs the counts. The thread ends when the last clone of the returned value is dropped.
    pub(super) fn start() -> Self {
        let counts = Arc::new(Counts::default());
        let weak = Arc::downgrade(&counts);
        // If the thread can't be started, warnings are still limited, but their counts are not logged.
        let _ = std::thread::Builder::new().name("thinned-log".to_owned()).spawn(move || tell(&weak));
        Self(counts)
    }
}

/// Logs the counts of warnings that were left out, after [`SPAN`] has passed.
fn tell(counts: &Weak<Counts>) {
    loop {
        std::thread::sleep(BEAT);
        let Some(counts) = counts.upgrade() else { return };
        for Count { left_out, sample, .. } in counts.over(Instant::now()).into_iter().filter(|count| count.left_out > 0)
        {
            let minutes = SPAN.as_secs() / 60;
            let left_out = counted(left_out, "more warning");
            tracing::warn!("Not logged: {left_out} like this one within {minutes} minutes: {sample}");
        }
    }
}

impl Counts {
    fn kinds(&self) -> MutexGuard<'_, HashMap<u64, Count>> {
        self.kinds.lock().expect("no code panics while it holds this lock")
    }

    /// Counts one more warning of a kind, and returns whether it is logged.
    fn admits(&self, kind: u64, most: u32, sample: &str, now: Instant) -> bool {
        let mut kinds = self.kinds();
        let kind = if kinds.len() < MOST_KINDS || kinds.contains_key(&kind) { kind } else { 0 };
        let fresh = || Count { since: now, logged: 0, left_out: 0, sample: sample.to_owned() };
        let count = kinds.entry(kind).or_insert_with(fresh);
        let admitted = count.logged < most;
        if admitted {
            count.logged += 1
        } else {
            count.left_out += 1
        }
        admitted
    }

    /// Removes and returns the counts that are older than [`SPAN`].
    fn over(&self, now: Instant) -> Vec<Count> {
        let is_over = |count: &Count| now.saturating_duration_since(count.since) >= SPAN;
        self.kinds().extract_if(|_, count| is_over(count)).map(|(_, count)| count).collect()
    }

    fn admits_event(&self, metadata: &Metadata<'_>, words: &Words, now: Instant) -> bool {
        let place = (metadata.file(), metadata.line(), metadata.target());
        let alike = self.hasher.hash_one((place, &words.whom, &words.text));
        let kind = self.hasher.hash_one((place, &words.whom));
        self.admits(alike, MOST_ALIKE, &words.text, now) && self.admits(kind, MOST_OF_A_KIND, &words.text, now)
    }
}

impl Thin {
    fn admits(&self, event: &Event<'_>) -> bool {
        let metadata = event.metadata();
        // `Level` orders by verbosity, so levels above `WARN` are informational. This module's own lines are not
        // limited.
        if *metadata.level() > Level::WARN || metadata.target() == module_path!() {
            return true;
        }
        let mut words = Words::default();
        event.record(&mut words);
        // An error that concerns no vessel or directory, such as rejected settings, follows an operator's action and is
        // always logged.
        if *metadata.level() == Level::ERROR && words.whom.is_empty() {
            return true;
        }
        self.0.admits_event(metadata, &words, Instant::now())
    }
}

/// A layer that passes only those events on to `inner` that `thin` admits.
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
    text: String,
}

impl Visit for Words {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // The result is ignored, because writing to a `String` doesn't fail.
        let _ = match field.name() {
            "message" => write!(self.text, "{value:?}"),
            "vessel" | "directory" | "cause" => {
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
        let of_the_kind = over.iter().find(|count| count.left_out > 0).unwrap();
        assert_eq!((of_the_kind.left_out, of_the_kind.sample.as_str()), (99_990, "the link flaps"));
        assert!(counts.admits(7, MOST_OF_A_KIND, "the link flaps", start + SPAN));
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
