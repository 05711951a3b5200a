//! A vessel's task: connects, runs deliveries, and reconnects whenever a connection ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::Vessel;
use super::levels::Levels;
use super::retry_waits::{AWAY, SLOW, SOON, UNHURRIED};
use super::scheduler::{Ended, Scheduler};
use crate::backoff::Backoff;
use crate::clock::wait_between;
use crate::fault::{Fault, Pace, Scope};
use crate::link::Session;
use crate::link::replacement;
use crate::link::{Coming, WORTH_BYTES, preconnect};
use crate::local::Arrival;
use crate::monitor::Event;
use crate::records::{Host, PathRate};
use crate::settings::{CongestionControl, Shell};
use crate::transfer::Transfers;
use crate::transfer::compare_places;
use crate::transport::{ConnectError, KnownShell, Lead, Rank, Remote};

/// Time in milliseconds after which a shell that was found to be unusable is tried again.
const A_DAY: i64 = 24 * 60 * 60 * 1000;

/// Number of large deliveries examined to find out whether there is much to send.
const GLANCE: usize = 8;

/// Shortest and longest wait before a vessel whose window is closed is looked at again.
const LEAST_LOOK: Duration = Duration::from_millis(50);
const LONGEST_LOOK: Duration = Duration::from_secs(1);

/// In a single run (`--once`): how many connections may fail in a row.
const ONCE_CONNECTIONS: u32 = 3;

/// Serves a vessel until it is stopped or, in a single run, until nothing is left that can be done.
///
/// # Errors
/// Returns a daemon-wide [`Fault`] if the ledger can't be used. A vessel's own faults are logged and waited out.
pub async fn supervise(vessel: Vessel) -> Result<(), Fault> {
    Supervisor::new(vessel).run().await
}

struct Supervisor {
    vessel: Vessel,
    /// The last logged reason why the vessel is away; an unchanged reason is logged once.
    complaint: Option<String>,
    /// The last logged connection parameters; unchanged parameters are logged once.
    introduction: Option<String>,
    /// Set until the first session starts or the vessel is found to be away. Until then, other readers of the same
    /// files wait for this vessel.
    arrival: Option<Arrival>,
    /// The known state of the vessel's shell.
    known: KnownShell,
    /// Time (milliseconds since 1970) when the shell was found to be unusable.
    refused_at: i64,
    /// Whether the last session sent bytes over one connection only. Then the next session opens no further connections
    /// early.
    narrow: bool,
    /// What the path carried in an earlier session, and when that was (milliseconds since 1970).
    path: Option<(i64, PathRate)>,
}

enum End {
    /// Nothing is left to do in a single run.
    Done,
    /// The vessel was paused, its window closed, or its task was stopped.
    LeftAlone,
    /// The session ended with a fault; `progress` tells whether it had sent anything.
    Away { fault: Fault, progress: bool },
    /// The connection stalled, and a replacement was ready before the vessel responded again.
    Replaced(Remote),
}

impl Supervisor {
    fn new(vessel: Vessel) -> Self {
        Self {
            arrival: Some(vessel.source_cache.arrival()),
            vessel,
            complaint: None,
            introduction: None,
            known: KnownShell::Unknown,
            refused_at: 0,
            narrow: false,
            path: None,
        }
    }

    async fn run(mut self) -> Result<(), Fault> {
        // After a start, all postponed deliveries are tried again.
        self.vessel.ledger.hurry(&self.vessel.settings.name).await.map_err(|e| e.fault())?;
        let refused = self.vessel.ledger.shell_refusal(&self.vessel.settings.name).await.map_err(|e| e.fault())?;
        if let Some((at, why)) = refused {
            (self.known, self.refused_at) = (KnownShell::Unusable(why), at);
        }
        self.path = self.vessel.ledger.path(&self.vessel.settings.name).await.map_err(|e| e.fault())?;
        let (mut failures, mut pace, mut other, mut is_closed) = (0, None, None, false);
        let stop = self.vessel.stop.clone();
        while !stop.is_cancelled() {
            if *self.vessel.paused.borrow() {
                if self.vessel.until_done.is_some() {
                    return Ok(());
                }
                // Other readers of the same files need not wait for a paused vessel.
                self.arrival = None;
                stop.run_until_cancelled(self.vessel.becomes_paused(false)).await;
                (failures, self.complaint) = (0, None);
                continue;
            }
            let window = self.waits_for_window().await?;
            if window.is_none() {
                is_closed = false;
            }
            if let Some(wait) = window {
                if self.vessel.until_done.is_some() {
                    return Ok(());
                }
                if !std::mem::replace(&mut is_closed, true) {
                    self.say_closed().await?;
                }
                self.arrival = None;
                tokio::select! {
                    () = tokio::time::sleep(wait) => {}
                    () = self.vessel.bell.rung() => {}
                    () = self.vessel.becomes_paused(true) => {}
                    () = stop.cancelled() => {}
                }
                (failures, self.complaint) = (0, None);
                continue;
            }
            self.forget_old_refusal().await?;
            let (connected, coming) = match other.take() {
                Some(remote) => (Ok(remote), Vec::new()),
                None => {
                    let Some(connected) = stop.run_until_cancelled(self.connect(failures)).await else { return Ok(()) };
                    connected
                }
            };
            let fault = match connected {
                Ok(remote) => match self.session(remote, coming).await? {
                    End::Done => return Ok(()),
                    End::LeftAlone => continue,
                    End::Replaced(remote) => {
                        other = Some(remote);
                        continue;
                    }
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
            self.arrival = None;
            // The count restarts if the kind of failure changes: a refused login after an hour without a link is a
            // first refusal.
            failures = if pace == Some(fault.pace) { failures + 1 } else { 1 };
            pace = Some(fault.pace);
            let hopeless = failures >= ONCE_CONNECTIONS || !matches!(fault.pace, Pace::AtOnce | Pace::Soon);
            let gives_up = self.vessel.until_done.is_some() && hopeless;
            let pause = pause(fault.pace, self.vessel.settings.reconnect_wait);
            let wait = (!gives_up).then(|| pause.wait(failures, fastrand::f64()));
            self.say_away(&fault, wait).await?;
            let Some(wait) = wait else { return Ok(()) };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.vessel.hurry.rung() => {}
                () = self.vessel.becomes_paused(true) => {}
                () = stop.cancelled() => {}
            }
        }
        Ok(())
    }

    /// Returns how long to wait before the vessel is looked at again, because its window is closed and no delivery is due
    /// that may be sent nevertheless; `None` if the vessel may be connected.
    async fn waits_for_window(&self) -> Result<Option<Duration>, Fault> {
        let Vessel { settings, clock, .. } = &self.vessel;
        let now = clock.now_ms();
        if settings.schedule.is_open(now) {
            return Ok(None);
        }
        let levels = self.levels();
        let due = levels.next_due_at(&self.vessel.ledger, settings, &[]).await?;
        if due.is_some_and(|due| due <= now) {
            return Ok(None);
        }
        // The clock may be set meanwhile.
        let next = due.into_iter().chain(levels.until()).map(|at| wait_between(now, at)).min();
        Ok(Some(next.unwrap_or(LONGEST_LOOK).clamp(LEAST_LOOK, LONGEST_LOOK)))
    }

    fn levels(&self) -> Levels {
        let Vessel { settings, directories, clock, .. } = &self.vessel;
        Levels::at(clock.now_ms(), settings, directories)
    }

    /// Returns whether a delivery is due. Vessels with due deliveries log in first.
    async fn has_work(&self) -> bool {
        let Vessel { settings, ledger, clock, .. } = &self.vessel;
        // A ledger error is ignored here, because the next query reports it.
        let due = self.levels().next_due_at(ledger, settings, &[]).await.ok().flatten();
        due.is_some_and(|due| due <= clock.now_ms())
    }

    /// Connects to the vessel. Also returns the further connections that are being opened.
    async fn connect(&self, failures: u32) -> (Result<Remote, ConnectError>, Vec<Coming>) {
        let Vessel { settings, environment, .. } = &self.vessel;
        let (lead, follow) = Lead::new(Rank::first(self.has_work().await, failures));
        // The future owns `lead`, so that `lead` is dropped with it. Otherwise the followers of `lead` would wait
        // forever.
        let connecting = async move { Remote::connect(settings, environment, &self.known, &lead).await };
        if self.narrow {
            return (connecting.await, Vec::new());
        }
        let mut connecting = std::pin::pin!(connecting);
        let link = self.vessel.link();
        tokio::select! {
            biased;
            connected = &mut connecting => (connected, Vec::new()),
            coming = preconnect(&link, follow, self.recent_path(), self.enough_to_send()) => (connecting.await, coming),
        }
    }

    /// Waits until enough bytes of large files are due to justify further connections.
    async fn enough_to_send(&self) {
        let Vessel { settings, ledger, bell, .. } = &self.vessel;
        loop {
            // A ledger error is ignored here, because the next query reports it.
            let mut bytes = 0;
            for level in &self.levels().levels {
                let due = level.due(ledger, settings, (true, GLANCE), &[], false).await.unwrap_or_default();
                bytes += due.iter().map(|delivery| delivery.version.stamp.size).sum::<u64>();
            }
            if bytes >= WORTH_BYTES {
                return;
            }
            // More files may be taken in meanwhile. It doesn't matter that this consumes the ring: a session queries
            // the ledger itself when it starts.
            bell.rung().await;
        }
    }

    async fn session(&mut self, remote: Remote, coming: Vec<Coming>) -> Result<End, Fault> {
        let name = &self.vessel.settings.name;
        let (cipher, compression, congestion_control) = (remote.cipher(), remote.compresses(), remote.congestion());
        let offers = remote.capabilities().to_string();
        let introduction = format!("{cipher} {compression} {congestion_control} {offers}");
        if self.introduction.as_ref() == Some(&introduction) {
            tracing::info!(vessel = %name, "connected again");
        } else {
            tracing::info!(vessel = %name, cipher, compression, congestion_control, %offers, "connected");
            self.introduction = Some(introduction);
        }
        if let (CongestionControl::Named(_), Some(why)) =
            (&self.vessel.settings.congestion_control, remote.congestion_refused())
        {
            tracing::warn!(vessel = %name, "CongestionControl: {why}");
        }
        self.vessel.monitor.notice(&Event::Connected { vessel: name });
        self.vessel.ledger.away(name, None).await.map_err(|e| e.fault())?;
        self.meet(&remote).await?;
        let begun_early = !coming.is_empty();
        let session =
            Arc::new(Session::new(self.vessel.link(), remote, (coming, self.recent_path()), self.arrival.take()));
        let transfers = self.transfers(&session);
        compare_places(&transfers).await;
        let mut scheduler = Scheduler::new(self.vessel.clone(), transfers);
        let connecting = AtomicBool::new(false);
        let mut replacement = std::pin::pin!(replacement(&session, &connecting));
        // Further connections were begun because there is much to send, in parts. On their long path, TempDir takes
        // several round trips.
        let preparing = async {
            if begun_early {
                // The upload prepares it again and reports the error.
                let _ = session.prepare_temp_dir().await;
            }
            std::future::pending().await
        };
        let (end, other) = tokio::select! {
            end = scheduler.run() => (Some(end), None),
            other = &mut replacement => (Some(Ok(Ended::Done)), Some(other)),
            () = self.vessel.becomes_paused(true) => (None, None),
            () = self.vessel.stop.cancelled() => (None, None),
            () = preparing => (None, None),
        };
        // If a replacement was being opened when the connection was lost, waits for the replacement instead of
        // connecting again.
        let other = match other {
            None if end.is_some() && session.remote.is_lost() && connecting.load(Ordering::Relaxed) => {
                tokio::time::timeout(self.vessel.settings.timeout, replacement).await.ok()
            }
            other => other,
        };
        if end.is_none() && other.is_none() {
            scheduler.come_to_rest().await?;
        }
        scheduler.drop_all().await;
        if other.is_some() || session.remote.is_lost() {
            session.channels.abandon();
        } else {
            session.remote.hang_up().await;
        }
        scheduler.record_costs(0).await?;
        let progress = session.has_sent();
        self.narrow = progress && !session.channels.was_widened();
        if let Some(remote) = other {
            tracing::info!(vessel = %name, "The vessel stopped answering; the connection was replaced");
            return Ok(End::Replaced(remote));
        }
        self.remember_shell(session.remote.known_shell(), progress).await?;
        self.remember_path(session.channels.carried()).await?;
        match end {
            None => Ok(End::LeftAlone),
            Some(Ok(Ended::Done)) => Ok(End::Done),
            Some(Ok(Ended::Closed)) => Ok(End::LeftAlone),
            Some(Err(fault)) if fault.scope == Scope::Daemon => Err(fault),
            Some(Err(fault)) => Ok(End::Away { fault, progress }),
        }
    }

    fn transfers(&self, session: &Arc<Session>) -> Arc<Transfers> {
        let Vessel { ledger, directories, source_cache, .. } = &self.vessel;
        Arc::new(Transfers::new(session.clone(), ledger.clone(), directories.clone(), source_cache.clone()))
    }

    /// Records the vessel's host and account in the ledger. If one of them has changed, all current files are due
    /// again.
    async fn meet(&self, remote: &Remote) -> Result<(), Fault> {
        let settings = &self.vessel.settings;
        let host = match &settings.local {
            Some(_) => Host { address: "this host".into(), account: String::new(), key: None },
            None => Host {
                address: format!("{}:{}", settings.ssh.address, settings.ssh.port),
                account: settings.ssh.username.clone(),
                key: remote.host_key(),
            },
        };
        let due = self.vessel.ledger.meet(&settings.name, &host).await.map_err(|e| e.fault())?;
        if due > 0 {
            tracing::warn!(
                vessel = %settings.name, address = %host.address, account = %host.account, files = due,
                "The host or account has changed; delivering all current files to the new one"
            );
        }
        Ok(())
    }

    /// Forgets that the shell is unusable if that was found at least 24 h ago, or if the record in the ledger was
    /// cleared.
    async fn forget_old_refusal(&mut self) -> Result<(), Fault> {
        if !matches!(self.known, KnownShell::Unusable(_)) {
            return Ok(());
        }
        let Vessel { settings, ledger, clock, .. } = &self.vessel;
        let is_old = !(0..A_DAY).contains(&(clock.now_ms() - self.refused_at));
        if is_old || ledger.shell_refusal(&settings.name).await.map_err(|e| e.fault())?.is_none() {
            self.known = KnownShell::Unknown;
        }
        Ok(())
    }

    /// Stores the state of the shell that a session has found. An unusable shell is also recorded in the ledger, so
    /// that it is not tried for 24 h even after a restart.
    async fn remember_shell(&mut self, learned: KnownShell, progress: bool) -> Result<(), Fault> {
        let refusal = |known: &KnownShell| match known {
            KnownShell::Unusable(why) => Some(why.clone()),
            _ => None,
        };
        let (before, now) = (refusal(&self.known), refusal(&learned));
        if before != now {
            self.refused_at = self.vessel.clock.now_ms();
        }
        if before != now && self.vessel.settings.shell == Shell::Auto {
            let name = &self.vessel.settings.name;
            self.vessel.ledger.shell_refused(name, now.as_deref()).await.map_err(|e| e.fault())?;
            if let Some(why) = now {
                tracing::info!(vessel = %name, "The vessel's shell will not be used for the next 24 h: {why}");
            }
        }
        self.known = match learned {
            KnownShell::Found(_) if !progress => KnownShell::Unknown,
            learned => learned,
        };
        Ok(())
    }

    /// Returns the rate that the path carried, unless it was measured too long ago.
    fn recent_path(&self) -> Option<PathRate> {
        let (at, path) = self.path?;
        (0..A_DAY).contains(&(self.vessel.clock.now_ms() - at)).then_some(path)
    }

    /// Stores what the path was found to carry in a session, for the next one.
    async fn remember_path(&mut self, carried: Option<PathRate>) -> Result<(), Fault> {
        let Some(path) = carried else { return Ok(()) };
        let Vessel { settings, ledger, clock, .. } = &self.vessel;
        self.path = Some((clock.now_ms(), path));
        ledger.path_carried(&settings.name, path).await.map_err(|e| e.fault())
    }

    /// Reports that the vessel's window is closed.
    async fn say_closed(&self) -> Result<(), Fault> {
        let vessel = &self.vessel.settings.name;
        tracing::info!(%vessel, "The window of the vessel is closed");
        self.vessel.monitor.notice(&Event::Closed { vessel });
        self.vessel.ledger.away(vessel, None).await.map_err(|e| e.fault())
    }

    async fn say_away(&mut self, fault: &Fault, again_in: Option<Duration>) -> Result<(), Fault> {
        let (vessel, reason) = (&self.vessel.settings.name, fault.to_string());
        self.vessel.monitor.notice(&Event::Away { vessel, reason: &reason, cause: fault.cause, again_in });
        self.vessel.ledger.away(vessel, Some(&reason)).await.map_err(|e| e.fault())?;
        // A reason that differs only in its numbers (free space) counts as unchanged.
        let gist: String = reason.chars().filter(|c| !c.is_ascii_digit()).collect();
        if self.complaint.as_ref() == Some(&gist) {
            tracing::debug!(%vessel, "still away: {reason}");
        } else {
            tracing::warn!(%vessel, "away: {reason}");
            self.complaint = Some(gist);
        }
        Ok(())
    }
}

fn pause(pace: Pace, longest: Duration) -> Backoff {
    match pace {
        Pace::AtOnce => AWAY,
        Pace::Soon => Backoff::new(SOON, longest),
        Pace::Unhurried => UNHURRIED,
        Pace::Slow => SLOW,
    }
}
