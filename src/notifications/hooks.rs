//! Records which commands, webhooks and heartbeats fail, so that the status can show them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The results of all recipients (commands, webhooks, heartbeats) since the program started. Cheap to clone; clones
/// share the results.
#[derive(Clone, Debug, Default)]
pub struct Hooks(Arc<Mutex<BTreeMap<String, HookResults>>>);

/// The results of one recipient.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HookResults {
    /// Number of failures.
    pub failures: u64,
    /// When the recipient began to fail, in milliseconds since 1970, and its last error; `None` if its last use
    /// succeeded.
    pub failing: Option<(i64, String)>,
}

impl Hooks {
    /// Records the result of using a recipient at the time `at`, in milliseconds since 1970.
    pub(super) fn note(&self, name: &str, at: i64, outcome: Result<(), &str>) {
        let mut all = self.all_results();
        if !all.contains_key(name) {
            all.insert(name.to_owned(), HookResults::default());
        }
        let Some(results) = all.get_mut(name) else { return };
        match outcome {
            Ok(()) => results.failing = None,
            Err(why) => {
                results.failures += 1;
                let since = results.failing.take().map_or(at, |(since, _)| since);
                results.failing = Some((since, why.to_owned()));
            }
        }
    }

    /// Forgets recipients that are not in the settings any more.
    pub(super) fn keep(&self, names: impl Fn(&str) -> bool) {
        self.all_results().retain(|name, _| names(name));
    }

    /// Returns the results, ordered by name.
    pub fn results(&self) -> Vec<(String, HookResults)> {
        self.all_results().iter().map(|(name, results)| (name.clone(), results.clone())).collect()
    }

    fn all_results(&self) -> MutexGuard<'_, BTreeMap<String, HookResults>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_stands_since_it_began_until_a_success_and_is_counted() {
        let hooks = Hooks::default();
        hooks.note("command tell", 5, Err("exit status: 1"));
        hooks.note("command tell", 7, Err("exit status: 2"));
        let failing = Some((5, "exit status: 2".to_owned()));
        assert_eq!(hooks.results(), [("command tell".to_owned(), HookResults { failures: 2, failing })]);
        hooks.note("command tell", 8, Ok(()));
        assert_eq!(hooks.results()[0].1, HookResults { failures: 2, failing: None });
    }
}
