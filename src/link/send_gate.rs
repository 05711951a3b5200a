//! Decides which deliveries of a session may send their next bytes: those with the highest priority first, and none
//! from a closed directory (see [`SendRules::closed`]).
//!
//! Every write asks the gate first. So a file with a higher priority preempts the others at their next write;
//! afterwards, they continue with that write. The delivery that has waited longest gets 5 % of the bytes.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::names::DirectoryName;
use crate::records::{Version, VersionId};
use crate::settings::Priority;

/// How long lower priorities still wait after a write of a higher priority: longer than the pause between two writes of
/// a file, but short, so that a delivery that is slow for other reasons than the link does not delay the others.
const LINGER: Duration = Duration::from_millis(30);
/// Number of bytes that the longest waiting sender may send for each byte that others send: 5 % of all bytes.
const SHARE: f64 = 1.0 / 19.0;
/// Maximum of [`Senders::owed`], in bytes.
const MOST_OWED: f64 = 1_048_576.0;

/// The priorities of the directories, and the directories whose files may not be sent now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct SendRules {
    /// Directories with another priority than the default.
    pub(crate) priorities: HashMap<DirectoryName, Priority>,
    /// Directories that may not send now: their schedule or that of the vessel is closed, they are paused, or the way
    /// may not carry their priority.
    pub(crate) closed: HashSet<DirectoryName>,
}

/// The gate of one session.
#[derive(Default)]
pub(crate) struct SendGate {
    /// `None` if all directories have the default priority and none is closed; then no delivery waits.
    rules: RwLock<Option<Arc<SendRules>>>,
    senders: Mutex<Senders>,
    changed: Notify,
    /// Versions that were stopped before their next write and that [`SendGate::stopped`] has not returned yet.
    stopped: Mutex<Vec<VersionId>>,
    has_stopped: Notify,
}

#[derive(Default)]
struct Senders {
    /// For each priority: the number of writes that are being passed to a channel, and when the last one ended.
    sending: [(usize, Option<Instant>); Priority::ALL.len()],
    /// The numbers of the waiting senders, in the order of their arrival.
    waiting: BTreeSet<u64>,
    next_number: u64,
    /// Number of bytes that the longest waiting sender may send before senders with a higher priority.
    owed: f64,
}

/// The right to pass bytes to a channel. While it exists, and shortly afterwards, lower priorities wait.
pub(crate) struct SendTurn<'a>(Option<(&'a SendGate, Priority)>);

/// The entry of a waiting sender, removed on drop.
struct Waiting<'a>(&'a SendGate, u64);

impl Drop for SendTurn<'_> {
    fn drop(&mut self) {
        let Some((gate, priority)) = self.0 else { return };
        let mut senders = gate.senders();
        let (sending, last) = &mut senders.sending[priority as usize];
        (*sending, *last) = (sending.saturating_sub(1), Some(Instant::now()));
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.senders().waiting.remove(&self.1);
    }
}

impl SendGate {
    /// Sets the rules. Senders that wait follow them at once.
    pub(crate) fn set(&self, rules: SendRules) {
        let rules = (rules != SendRules::default()).then(|| Arc::new(rules));
        *self.rules.write().unwrap_or_else(PoisonError::into_inner) = rules;
        self.changed.notify_waiters();
    }

    fn rules(&self) -> Option<Arc<SendRules>> {
        self.rules.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn senders(&self) -> MutexGuard<'_, Senders> {
        self.senders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the priority of a directory.
    pub(crate) fn priority_of(&self, directory: &DirectoryName) -> Priority {
        self.rules().and_then(|rules| rules.priorities.get(directory).copied()).unwrap_or_default()
    }

    /// Returns whether senders may have to wait for each other.
    pub(crate) fn is_used(&self) -> bool {
        self.rules.read().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Waits until bytes of a version may be sent. The turn must be kept until these bytes were passed to a channel.
    pub(crate) async fn enter(&self, version: &Version, bytes: u64) -> SendTurn<'_> {
        if !self.is_used() {
            return SendTurn(None);
        }
        let waiting = {
            let mut senders = self.senders();
            let number = senders.next_number;
            senders.next_number += 1;
            senders.waiting.insert(number);
            Waiting(self, number)
        };
        let mut is_stopped = false;
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            let Some(rules) = self.rules() else { return SendTurn(None) };
            if rules.closed.contains(&version.directory) {
                if !std::mem::replace(&mut is_stopped, true) {
                    self.senders().waiting.remove(&waiting.1);
                    self.note_stopped(version);
                }
                changed.await;
                continue;
            }
            let priority = rules.priorities.get(&version.directory).copied().unwrap_or_default();
            let Some(wait) = self.senders().wait_for(priority, waiting.1, bytes as f64) else {
                return SendTurn(Some((self, priority)));
            };
            tokio::select! {
                () = changed => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    fn note_stopped(&self, version: &Version) {
        self.stopped.lock().unwrap_or_else(PoisonError::into_inner).push(version.id);
        self.has_stopped.notify_one();
    }

    /// Reports that a version may not be sent now, as if its directory were closed, and waits until the rules change.
    pub(crate) async fn stop(&self, version: &Version) {
        let mut changed = std::pin::pin!(self.changed.notified());
        changed.as_mut().enable();
        self.note_stopped(version);
        changed.await;
    }

    /// Waits until at least one delivery was stopped before its next write, and returns the versions of all stopped
    /// deliveries.
    pub(crate) async fn stopped(&self) -> Vec<VersionId> {
        loop {
            let stopped = std::mem::take(&mut *self.stopped.lock().unwrap_or_else(PoisonError::into_inner));
            if !stopped.is_empty() {
                return stopped;
            }
            self.has_stopped.notified().await;
        }
    }
}

impl Senders {
    /// Lets the sender with this number pass (`None`), or returns how long it must wait before it asks again.
    fn wait_for(&mut self, priority: Priority, number: u64, bytes: f64) -> Option<Duration> {
        let now = Instant::now();
        let higher = &self.sending[..priority as usize];
        let is_sending = higher.iter().any(|(sending, _)| *sending > 0);
        let last = higher.iter().filter_map(|(_, last)| *last).max();
        let left = last.map_or(Duration::ZERO, |last| (last + LINGER).saturating_duration_since(now));
        if is_sending || !left.is_zero() {
            let is_longest = self.waiting.first() == Some(&number);
            if !is_longest || self.owed < bytes {
                return Some(if is_sending { LINGER } else { left });
            }
            self.owed -= bytes;
        }
        self.waiting.remove(&number);
        if !self.waiting.is_empty() {
            self.owed = (self.owed + bytes * SHARE).min(MOST_OWED);
        }
        self.sending[priority as usize].0 += 1;
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::RelPath;
    use crate::records::{Entry, FileStamp, VersionKind};

    const WRITE: u64 = 65_536;

    fn version(directory: &str) -> Version {
        let entry = Entry {
            path: RelPath::new("file").unwrap(),
            kind: VersionKind::File,
            stamp: FileStamp { size: 1, mtime: 0, mtime_nanos: 0, inode: 1 },
            mode: 0o644,
            owner: None,
            target: Vec::new(),
            digest: None,
            chunk_size: 1,
        };
        Version { id: VersionId(7), directory: DirectoryName::new(directory), entry }
    }

    fn gate() -> Arc<SendGate> {
        let gate = SendGate::default();
        let priorities = [("storms", Priority::Urgent), ("films", Priority::Bulk), ("backups", Priority::Low)];
        let priorities = priorities.map(|(name, priority)| (DirectoryName::new(name), priority)).into();
        gate.set(SendRules { priorities, closed: HashSet::new() });
        Arc::new(gate)
    }

    /// Sends writes that take 10 ms each, and counts them.
    fn send(gate: &Arc<SendGate>, directory: &'static str) -> Arc<std::sync::atomic::AtomicU64> {
        let (gate, sent) = (gate.clone(), Arc::new(std::sync::atomic::AtomicU64::new(0)));
        let counted = sent.clone();
        tokio::spawn(async move {
            loop {
                let turn = gate.enter(&version(directory), WRITE).await;
                tokio::time::sleep(Duration::from_millis(10)).await;
                drop(turn);
                counted.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                // Stands for reading the next bytes of the source.
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        });
        sent
    }

    fn count(sent: &std::sync::atomic::AtomicU64) -> u64 {
        sent.load(std::sync::atomic::Ordering::Relaxed)
    }

    #[tokio::test(start_paused = true)]
    async fn a_higher_priority_gets_all_but_a_twentieth_and_only_while_it_sends() {
        let gate = gate();
        let (low, bulk) = (send(&gate, "backups"), send(&gate, "films"));
        tokio::time::sleep(Duration::from_millis(1)).await;
        let urgent = send(&gate, "storms");
        tokio::time::sleep(Duration::from_secs(60)).await;
        let (urgent, lower) = (count(&urgent), count(&low) + count(&bulk));
        let share = lower as f64 / (urgent + lower) as f64;
        assert!((0.03..0.08).contains(&share), "{lower} of {}: {share}", urgent + lower);
        assert!(count(&bulk) > 0 && count(&low) > 0, "whichever waits longest");
        // A file that waits for its disk doesn't hold back the others.
        let before = count(&bulk);
        let other = self::gate();
        let bulk = send(&other, "films");
        drop(other.enter(&version("storms"), 1).await);
        tokio::time::sleep(LINGER + Duration::from_secs(1)).await;
        assert!(count(&bulk) > 80, "{before} {}", count(&bulk));
    }

    #[tokio::test(start_paused = true)]
    async fn a_closed_directory_stops_at_its_next_write_and_is_named() {
        let gate = gate();
        let films = send(&gate, "films");
        tokio::time::sleep(Duration::from_secs(1)).await;
        let closed = HashSet::from([DirectoryName::new("films")]);
        gate.set(SendRules { closed, ..SendRules::default() });
        assert_eq!(gate.stopped().await, [VersionId(7)]);
        let before = count(&films);
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(count(&films) <= before + 1);
        drop(gate.enter(&version("storms"), WRITE).await);
        gate.set(SendRules::default());
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(count(&films) > before + 50, "and goes on when it is open again");
    }
}
