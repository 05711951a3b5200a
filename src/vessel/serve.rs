//! A vessel's task: connects, keeps deliveries going, and comes back after whatever ends a connection.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use super::Vessel;
use super::deliver::Outcome;
use super::visit::Visit;
use crate::backoff::Backoff;
use crate::clock::wait_between;
use crate::fault::{Fault, Pace, Scope};
use crate::monitor::Event;
use crate::names::{DirectoryName, RelPath};
use crate::records::{Delivery, DeliveryId};
use crate::transport::Remote;

/// Deliveries under way at once: of files of one chunk, which cost round trips, and of larger ones, which cost bandwidth
/// (only one of those uploads; the other is being joined or verified).
const SMALL_AT_ONCE: usize = 64;
const LARGE_AT_ONCE: usize = 2;
/// Small deliveries fetched from the ledger at once.
const FETCH: u32 = 256;

/// The waits between attempts of one delivery, and of one that is parked.
const ATTEMPT: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));
const PARKED: Backoff = Backoff::new(Duration::from_secs(600), Duration::from_secs(6 * 3600));
/// Attempts that may fail in a row before a delivery is parked.
const PATIENCE: u32 = 8;
/// The waits between connections, by what ended the last one. A vessel that can't be reached is looked for all the time:
/// a link that returns is used within seconds. A refused login may lock an account.
const SOON: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(5));
const UNHURRIED: Backoff = Backoff::new(Duration::from_secs(5), Duration::from_secs(30));
const SLOW: Backoff = Backoff::new(Duration::from_secs(30), Duration::from_secs(900));

/// In a single run (`--once`): connections in a row that may fail, and the longest wait for something that was put off.
const ONCE_CONNECTIONS: u32 = 3;
const ONCE_WAIT: Duration = Duration::from_secs(30);

/// Serves a vessel until it is stopped or, in a single run, until nothing is left that can be done.
///
/// # Errors
/// A [`Fault`] of the daemon's when the ledger can't be used. A vessel's own troubles are logged and waited out.
pub async fn serve(vessel: Vessel) -> Result<(), Fault> {
    let stop = vessel.stop.clone();
    stop.run_until_cancelled(Server { vessel, complaint: None }.run()).await.unwrap_or(Ok(()))
}

struct Server {
    vessel: Vessel,
    /// What was said last about why the vessel is away: it is said once.
    complaint: Option<String>,
}

enum End {
    /// Nothing is left to do in a single run.
    Done,
    /// The visit ended, and whether it had brought anything over.
    Away { fault: Fault, progress: bool },
}

impl Server {
    async fn run(mut self) -> Result<(), Fault> {
        // A new start is a new chance for everything that was put off.
        self.vessel.ledger.hurry(&self.vessel.settings.name).await.map_err(|e| e.fault())?;
        let (mut failures, mut pace) = (0, None);
        loop {
            let fault = match Remote::connect(&self.vessel.settings, &self.vessel.environment).await {
                Ok(remote) => match self.visit(remote).await? {
                    End::Done => return Ok(()),
                    End::Away { fault, progress } => {
                        if progress {
                            failures = 0;
                            self.complaint = None;
                        }
                        fault
                    }
                },
                Err(e) => e.fault(),
            };
            if fault.scope == Scope::Daemon {
                return Err(fault);
            }
            // A refused login after an hour without a link is a first refusal.
            failures = if pace == Some(fault.pace) { failures + 1 } else { 1 };
            pace = Some(fault.pace);
            self.say_away(&fault);
            if self.vessel.until_done.is_some() && (failures >= ONCE_CONNECTIONS || fault.pace != Pace::Soon) {
                return Ok(());
            }
            tokio::time::sleep(pause(fault.pace).wait(failures, fastrand::f64())).await;
        }
    }

    async fn visit(&mut self, remote: Remote) -> Result<End, Fault> {
        let name = &self.vessel.settings.name;
        tracing::info!(vessel = %name, cipher = remote.cipher(), offers = %remote.capabilities(), "connected");
        self.vessel.monitor.notice(&Event::Connected { vessel: name });
        let mut rounds = Rounds::new(Arc::new(Visit::new(self.vessel.clone(), remote)));
        let end = rounds.run().await;
        let progress = rounds.visit.progress.load(Ordering::Relaxed);
        rounds.running.shutdown().await;
        rounds.visit.remote.hang_up().await;
        match end {
            Ok(()) => Ok(End::Done),
            Err(fault) if fault.scope == Scope::Daemon => Err(fault),
            Err(fault) => Ok(End::Away { fault, progress }),
        }
    }

    fn say_away(&mut self, fault: &Fault) {
        let (vessel, reason) = (&self.vessel.settings.name, fault.to_string());
        // The same trouble with other numbers (free space) is still the same trouble.
        let gist: String = reason.chars().filter(|c| !c.is_ascii_digit()).collect();
        if self.complaint.as_ref() == Some(&gist) {
            tracing::debug!(%vessel, "still away: {reason}");
            return;
        }
        tracing::warn!(%vessel, "away: {reason}");
        self.vessel.monitor.notice(&Event::Away { vessel, reason: &reason });
        self.complaint = Some(gist);
    }
}

fn pause(pace: Pace) -> Backoff {
    match pace {
        Pace::Soon => SOON,
        Pace::Unhurried => UNHURRIED,
        Pace::Slow => SLOW,
    }
}

/// What a running delivery keeps others from: the same delivery again, and another version of the same path, which must
/// not be published out of order.
struct Busy {
    place: (DirectoryName, RelPath),
    large: bool,
    /// Ends it when nobody wants it any more.
    unwanted: CancellationToken,
}

type Ended = (Delivery, Result<Outcome, Fault>);

/// The deliveries of one visit.
struct Rounds {
    visit: Arc<Visit>,
    running: JoinSet<Ended>,
    busy: HashMap<DeliveryId, Busy>,
    waiting: VecDeque<Delivery>,
}

impl Rounds {
    fn new(visit: Arc<Visit>) -> Self {
        Self { visit, running: JoinSet::new(), busy: HashMap::new(), waiting: VecDeque::new() }
    }

    /// Delivers until nothing is left (`Ok`, in a single run only) or the visit must end.
    async fn run(&mut self) -> Result<(), Fault> {
        self.visit.sweep_strays().await?;
        self.sweep().await?;
        loop {
            self.start_due().await?;
            let wait = self.wait().await?;
            if self.running.is_empty() && wait.is_none() {
                return Ok(());
            }
            let visit = self.visit.clone();
            tokio::select! {
                Some(ended) = self.running.join_next() => self.end(ended).await?,
                () = visit.vessel.bell.rung() => {
                    self.end_unwanted().await?;
                    self.sweep().await?;
                }
                () = visit.remote.lost() => return Err(Fault::vessel(visit.remote.lost_error()).at(Pace::Soon)),
                () = tokio::time::sleep(wait.unwrap_or(Duration::MAX)) => {}
            }
        }
    }

    async fn sweep(&self) -> Result<(), Fault> {
        let busy: HashSet<DeliveryId> = self.busy.keys().copied().collect();
        self.visit.sweep_remains(&busy).await
    }

    /// Ends large deliveries that were superseded: their next question to the ledger may be hours away.
    async fn end_unwanted(&self) -> Result<(), Fault> {
        for (delivery, busy) in self.busy.iter().filter(|(_, busy)| busy.large) {
            if !self.visit.vessel.ledger.is_open(*delivery).await.map_err(|e| e.fault())? {
                busy.unwanted.cancel();
            }
        }
        Ok(())
    }

    /// How long there is nothing to start; `None` when a single run has nothing to wait for.
    async fn wait(&self) -> Result<Option<Duration>, Fault> {
        let vessel = &self.visit.vessel;
        let due = vessel.ledger.next_due_at(&vessel.settings.name).await.map_err(|e| e.fault())?;
        let wait = due.map(|due| wait_between(vessel.clock.now_ms(), due));
        // What is due and not started is waiting for a place; a delivery that ends makes one.
        let idle = Duration::from_secs(60);
        let wait = match wait {
            Some(wait) if wait.is_zero() && !self.running.is_empty() => idle,
            Some(wait) => wait.clamp(Duration::from_millis(50), idle),
            None => idle,
        };
        let Some(taken_in) = &vessel.until_done else { return Ok(Some(wait)) };
        let all_taken_in = taken_in.iter().all(|taken_in| *taken_in.borrow());
        let nothing_soon = due.is_none_or(|due| wait_between(vessel.clock.now_ms(), due) > ONCE_WAIT);
        Ok((!all_taken_in || !nothing_soon).then_some(wait))
    }

    async fn start_due(&mut self) -> Result<(), Fault> {
        let large = self.busy.values().filter(|busy| busy.large).count();
        if large < LARGE_AT_ONCE {
            let due = self.due(true, LARGE_AT_ONCE).await?;
            due.into_iter().take(LARGE_AT_ONCE - large).for_each(|delivery| self.start(delivery, true));
        }
        let mut small = self.busy.len() - self.busy.values().filter(|busy| busy.large).count();
        if self.waiting.is_empty() && small < SMALL_AT_ONCE / 2 {
            self.waiting = self.due(false, FETCH as usize).await?.into();
        }
        while small < SMALL_AT_ONCE
            && let Some(delivery) = self.waiting.pop_front()
        {
            if self.is_free(&delivery) {
                self.start(delivery, false);
                small += 1;
            }
        }
        Ok(())
    }

    /// Deliveries that are due and free to start.
    async fn due(&self, large: bool, most: usize) -> Result<Vec<Delivery>, Fault> {
        let vessel = &self.visit.vessel;
        let limit = u32::try_from(most + self.busy.len()).unwrap_or(u32::MAX);
        let due = vessel.ledger.next_due(&vessel.settings.name, large, limit).await.map_err(|e| e.fault())?;
        Ok(due.into_iter().filter(|delivery| self.is_free(delivery)).collect())
    }

    fn is_free(&self, delivery: &Delivery) -> bool {
        let place = (&delivery.version.directory, &delivery.version.path);
        !self.busy.contains_key(&delivery.id) && !self.busy.values().any(|b| (&b.place.0, &b.place.1) == place)
    }

    fn start(&mut self, delivery: Delivery, large: bool) {
        let version = &delivery.version;
        let place = (version.directory.clone(), version.path.clone());
        let unwanted = CancellationToken::new();
        self.busy.insert(delivery.id, Busy { place, large, unwanted: unwanted.clone() });
        let visit = self.visit.clone();
        self.running.spawn(async move {
            let outcome = unwanted.run_until_cancelled(visit.deliver(&delivery)).await;
            (delivery, outcome.unwrap_or(Ok(Outcome::Superseded)))
        });
    }

    async fn end(&mut self, ended: Result<Ended, JoinError>) -> Result<(), Fault> {
        let (delivery, outcome) = ended.map_err(|e| Fault::daemon(format_args!("a delivery broke down: {e}")))?;
        self.busy.remove(&delivery.id);
        match outcome {
            Ok(Outcome::Acknowledged) => Ok(()),
            Ok(Outcome::Superseded) => self.sweep().await,
            // Nothing is wrong with the delivery; it goes on with the next connection.
            Err(_) if self.visit.remote.is_lost() => Ok(()),
            Err(fault) => {
                self.put_off(&delivery, fault).await?;
                // It may have been superseded while it was busy, which kept it from being swept.
                self.sweep().await
            }
        }
    }

    async fn put_off(&self, delivery: &Delivery, fault: Fault) -> Result<(), Fault> {
        if fault.scope > Scope::File {
            return Err(fault);
        }
        // What fails the same way again and again is no passing trouble, whatever the vessel calls it.
        let parked = fault.scope == Scope::File || delivery.failures >= PATIENCE;
        let vessel = &self.visit.vessel;
        let pause = match (parked, fault.pace) {
            (false, _) => ATTEMPT,
            (true, Pace::Unhurried) => UNHURRIED,
            (true, _) => PARKED,
        };
        let failures =
            if parked && fault.scope != Scope::File { delivery.failures - PATIENCE } else { delivery.failures };
        let wait = pause.wait(failures + 1, fastrand::f64());
        let due_at = vessel.clock.now_ms() + i64::try_from(wait.as_millis()).unwrap_or(i64::MAX);
        let reason = fault.to_string();
        vessel.ledger.put_off(delivery.id, &reason, due_at, parked).await.map_err(|e| e.fault())?;
        let (name, directory, path) = (&vessel.settings.name, &delivery.version.directory, &delivery.version.path);
        if parked {
            tracing::warn!(vessel = %name, %directory, file = %path, again_in = ?wait, "parked: {reason}");
            vessel.monitor.notice(&Event::Parked { vessel: name, directory, path, reason: &reason });
        } else {
            tracing::warn!(vessel = %name, %directory, file = %path, again_in = ?wait, "put off: {reason}");
        }
        Ok(())
    }
}
