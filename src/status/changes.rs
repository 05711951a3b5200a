//! `/api/changes`: keeps a status page up to date. The page gets the whole document once, then only the differences, as
//! JSON merge patches (RFC 7396), at a rate that a slow link can carry.

use std::convert::Infallible;
use std::time::Duration;

use axum::response::sse::Event;
use futures_util::Stream;
use serde_json::{Map, Value};
use tokio::time::Instant;

use crate::ledger::LedgerError;
use crate::text::visible_json;

/// Minimum time between two updates.
const BEAT: Duration = Duration::from_millis(500);
/// Maximum pause after an update, even after a large one.
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// Streams the document that `now` returns: first an event `whole`, then an event `change` for each change, at most
/// `bytes_per_second` on average. If `now` fails, sends an event `trouble`.
pub(super) fn changes<F, A>(bytes_per_second: u64, now: F) -> impl Stream<Item = Result<Event, Infallible>>
where
    F: Fn() -> A,
    A: Future<Output = Result<Value, LedgerError>>,
{
    let start = Changes { shown: None, next: Instant::now(), now, bytes_per_second };
    futures_util::stream::unfold(start, |mut changes| async move {
        let event = changes.next().await;
        Some((Ok(event), changes))
    })
}

struct Changes<F> {
    /// The state that the page has received.
    shown: Option<Value>,
    next: Instant,
    now: F,
    bytes_per_second: u64,
}

impl<F, A> Changes<F>
where
    F: Fn() -> A,
    A: Future<Output = Result<Value, LedgerError>>,
{
    async fn next(&mut self) -> Event {
        loop {
            tokio::time::sleep_until(self.next).await;
            let (name, data) = match (self.now)().await {
                Err(e) => ("trouble", e.fault().to_string().replace(['\r', '\n'], " ")),
                Ok(document) => {
                    let found = match &self.shown {
                        None => Some(("whole", document.clone())),
                        Some(shown) => difference(shown, &document).map(|patch| ("change", patch)),
                    };
                    self.shown = Some(document);
                    let Some((name, patch)) = found else {
                        self.next = Instant::now() + BEAT;
                        continue;
                    };
                    (name, visible_json(&patch.to_string()).into_owned())
                }
            };
            self.next = Instant::now() + pause_after(data.len() as u64, self.bytes_per_second);
            return Event::default().event(name).data(data);
        }
    }
}

/// Returns how long to wait after an update of `bytes` bytes.
fn pause_after(bytes: u64, bytes_per_second: u64) -> Duration {
    // Number of bytes added for the name of the event and its line ends.
    const FRAME: u64 = 32;
    Duration::from_millis((bytes + FRAME) * 1000 / bytes_per_second.max(1)).clamp(BEAT, LONGEST_WAIT)
}

/// Returns the merge patch that turns `old` into `new`; `None` if they are equal, or if only `at`, the time of the
/// document, differs. A `null` in the patch removes a field, so a field that becomes `null` is missing afterwards.
fn difference(old: &Value, new: &Value) -> Option<Value> {
    let (Value::Object(old), Value::Object(new)) = (old, new) else {
        return (old != new).then(|| new.clone());
    };
    let mut patch = Map::new();
    for (key, value) in new {
        match old.get(key) {
            Some(before) if before == value => {}
            Some(before) => drop(difference(before, value).map(|changed| patch.insert(key.clone(), changed))),
            None => drop(patch.insert(key.clone(), value.clone())),
        }
    }
    for key in old.keys().filter(|key| !new.contains_key(*key)) {
        patch.insert(key.clone(), Value::Null);
    }
    let is_only_time = patch.len() == 1 && patch.contains_key("at");
    (!patch.is_empty() && !is_only_time).then_some(Value::Object(patch))
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt;
    use serde_json::json;

    use super::*;

    /// Applies a merge patch, as RFC 7396 describes it.
    fn patched(target: Value, patch: &Value) -> Value {
        let Value::Object(patch) = patch else { return patch.clone() };
        let mut target = match target {
            Value::Object(target) => target,
            _ => Map::new(),
        };
        for (key, value) in patch {
            let before = target.remove(key).unwrap_or(Value::Null);
            if !value.is_null() {
                target.insert(key.clone(), patched(before, value));
            }
        }
        Value::Object(target)
    }

    #[test]
    fn a_patch_makes_the_new_document_of_the_old_one_and_is_small() {
        let old = json!({ "at": 1, "vessels": { "a": { "rate": 5, "since": 1 }, "b": { "files": 7 } }, "errors": [1] });
        let new = json!({ "at": 2, "vessels": { "a": { "rate": 6 }, "c": {} }, "errors": [2, 1] });
        let patch = difference(&old, &new).unwrap();
        let expected = json!({
            "at": 2, "vessels": { "a": { "rate": 6, "since": null }, "b": null, "c": {} }, "errors": [2, 1]
        });
        assert_eq!(patch, expected);
        assert_eq!(patched(old.clone(), &patch), new);
        assert!(difference(&new, &new).is_none());
        assert!(difference(&old, &json!({ "at": 3, "vessels": old["vessels"], "errors": [1] })).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn however_much_changes_the_bytes_in_a_second_are_bounded() {
        let count = std::cell::Cell::new(0);
        let now = || {
            count.set(count.get() + 1);
            let lines: Map<String, Value> =
                (0..200).map(|n| (format!("offshore-{n:03}"), json!({ "rate": n + count.get() }))).collect();
            std::future::ready(Ok(Value::Object(lines)))
        };
        let begun = Instant::now();
        let updates: Vec<_> = changes(10_240, now).take(20).collect().await;
        assert_eq!(updates.len(), 20);
        let document = Value::Object((0..200).map(|n| (format!("offshore-{n:03}"), json!({ "rate": n }))).collect());
        let bytes = 19 * document.to_string().len() as u64;
        let rate = bytes as f64 / begun.elapsed().as_secs_f64();
        assert!(rate < 10_240.0 * 1.05, "{rate} bytes in a second");
        assert!(rate > 5_000.0, "{rate} bytes in a second");
    }
}
