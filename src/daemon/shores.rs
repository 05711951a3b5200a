//! The work of this shore if several shores use one ledger: starts the tasks of work that this shore is given, hands
//! work over after its tasks have ended, and exchanges hints with the other shores.
//!
//! This shore knows all sections of the settings, but runs tasks only for the work that it has. It relays the bells
//! (wake-ups between tasks) of all other sections to the other shores. Without other shores, for example with a ledger
//! file, it has all work.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use super::Daemon;
use super::hint_relay::Relay;
use super::sections::{Running, Tasks};
use crate::bell::Bell;
use crate::fault::Fault;
use crate::ledger::{Hint, Ledger, Next, Work};
use crate::shore::Troubles;

/// Interval at which all tasks are woken, because hints may have been lost.
const POLL: Duration = Duration::from_secs(30);
/// Maximum time for which a stopping shore tries to hand its work over.
const LONGEST_HANDOVER: Duration = Duration::from_secs(10);
/// How long a stopping shore waits for all tasks to end before it gives work back: a little longer than a vessel's
/// tasks wait for the data in flight. Work that is given back later is also taken over later, because the other shore
/// first starts the tasks of the work that it already has.
const AT_ONCE: Duration = Duration::from_millis(400);

/// The work of this shore.
pub(super) struct Shared {
    held: Mutex<BTreeSet<Work>>,
    /// Work whose tasks are being stopped, so that another shore can have it.
    ending: Mutex<BTreeSet<Work>>,
    relay: Arc<Relay>,
    _sending: AbortOnDropHandle<()>,
    /// The tasks that wait for the bells of other shores' work and pass the rings on.
    relays: Mutex<HashMap<Hint, AbortOnDropHandle<()>>>,
    /// Rung when this shore has recorded notices, which the shore with the housekeeping sends.
    pub(super) notices: Bell,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    /// Creates the state of a shore that has no work yet; `None` if this shore uses the ledger alone.
    pub(super) fn new(ledger: &Ledger) -> Option<Arc<Self>> {
        ledger.share_interval()?;
        let relay = Arc::new(Relay::default());
        Some(Arc::new(Self {
            held: Mutex::default(),
            ending: Mutex::default(),
            _sending: AbortOnDropHandle::new(tokio::spawn(relay.clone().send(ledger.clone()))),
            relay,
            relays: Mutex::default(),
            notices: Bell::new(),
        }))
    }

    pub(super) fn holds(&self, work: &Work) -> bool {
        locked(&self.held).contains(work) && !locked(&self.ending).contains(work)
    }
}

/// The events that the main loop waits for, besides new settings.
pub(super) struct Events {
    ledger: Ledger,
    interval: Option<Duration>,
    look_at: Instant,
    poll_at: Instant,
    drained: watch::Receiver<bool>,
    /// Work whose tasks are being stopped.
    handovers: JoinSet<Work>,
    /// Work whose tasks have ended, and which is to be given back.
    ended: Vec<Work>,
}

impl Events {
    pub(super) fn new(ledger: Ledger, drained: watch::Receiver<bool>) -> Self {
        let (now, interval) = (Instant::now(), ledger.share_interval());
        let look_at = now + interval.unwrap_or_default();
        Self { ledger, interval, look_at, poll_at: now + POLL, drained, handovers: JoinSet::new(), ended: Vec::new() }
    }

    /// Waits for the next event: a hint of another shore, a finished handover, or the time for the next check. Never
    /// returns if this shore uses the ledger alone.
    pub(super) async fn next(&mut self) -> Hint {
        let Some(interval) = self.interval else { return std::future::pending().await };
        let hint = tokio::select! {
            hint = self.ledger.next_hint() => hint,
            Ok(()) = self.drained.changed() => Hint::Shares,
            Some(ended) = self.handovers.join_next() => {
                self.ended.extend(ended.ok());
                while let Some(ended) = self.handovers.try_join_next() {
                    self.ended.extend(ended.ok());
                }
                Hint::Shares
            }
            () = tokio::time::sleep_until(self.look_at) => Hint::Shares,
            () = tokio::time::sleep_until(self.poll_at) => Hint::Anything,
        };
        let now = Instant::now();
        if matches!(hint, Hint::Shares | Hint::Anything) {
            self.look_at = now + interval;
        }
        if hint == Hint::Anything {
            self.poll_at = now + POLL;
        }
        hint
    }
}

impl Daemon {
    /// Returns whether this shore runs the tasks of `work`.
    pub(super) fn holds(&self, work: &Work) -> bool {
        self.shared.as_ref().is_none_or(|shared| shared.holds(work))
    }

    /// Returns the work that this shore can be given.
    fn serves(&self) -> Vec<Work> {
        if *self.orders.drained().borrow() || self.surroundings.stop.is_cancelled() {
            return Vec::new();
        }
        let (settings, own) = (&self.settings, &self.settings.monster.shore_name);
        let vessels = settings.vessels.iter().filter(|vessel| vessel.may_be_served_by(own, &settings.directories));
        let directories = settings.directories.iter().filter(|one| one.shore.is_empty() || one.shore == *own);
        let vessels = vessels.map(|vessel| Work::Vessel(vessel.name.clone()));
        let directories = directories.map(|directory| Work::Directory(directory.name.clone()));
        vessels.chain(directories).chain([Work::Housekeeping]).collect()
    }

    /// Takes this shore's first share of the work. Must be called before anything that depends on the share.
    pub(super) async fn join_shores(&self) -> Result<(), Fault> {
        let Some(shared) = &self.shared else { return Ok(()) };
        let share = self.ledger.share_out(&self.serves()).await.map_err(|e| e.fault())?;
        let held: BTreeSet<Work> = share.held.into_keys().collect();
        let shore = &self.settings.monster.shore_name;
        tracing::info!(
            %shore, vessels = count(&held, true), directories = count(&held, false),
            "Joined the shores that use this ledger"
        );
        *locked(&shared.held) = held;
        self.relay_bells();
        Ok(())
    }

    /// Acts on a hint from [`Events::next`].
    pub(super) async fn follow_hint(
        &mut self,
        hint: Hint,
        tasks: &mut Tasks,
        events: &mut Events,
    ) -> Result<(), Fault> {
        match hint {
            Hint::Shares => return self.follow_shares(tasks, events).await,
            Hint::New(work) => self.ring(&work),
            Hint::Hurry(vessel) => {
                let control = self.vessels.get(&vessel).filter(|_| self.holds(&Work::Vessel(vessel.clone())));
                if let Some(vessel) = control {
                    vessel.controls.hurry.ring();
                    vessel.controls.bell.ring();
                }
            }
            Hint::Pauses => self.orders.follow_pauses().await.map_err(|e| e.fault())?,
            Hint::Notices => self.ring(&Work::Housekeeping),
            Hint::Locations => self.follow_locations(tasks).await?,
            Hint::Anything => {
                self.follow_shares(tasks, events).await?;
                if self.ledger.outage().is_none() {
                    self.usage.refresh(&[]).await.map_err(|e| e.fault())?;
                    self.orders.follow_pauses().await.map_err(|e| e.fault())?;
                }
                self.ring_all().await?;
            }
        }
        Ok(())
    }

    /// Wakes the tasks of `work`, if this shore runs them.
    fn ring(&self, work: &Work) {
        if !self.holds(work) {
            return;
        }
        match work {
            Work::Vessel(name) => self.vessels.get(name).into_iter().for_each(|vessel| vessel.controls.bell.ring()),
            Work::Directory(name) => self.directories.get(name).into_iter().for_each(|one| one.retire_bell.ring()),
            Work::Housekeeping => self.background.iter().for_each(|background| background.ring()),
        }
    }

    /// Wakes the tasks of all work of this shore that may have something to do.
    async fn ring_all(&self) -> Result<(), Fault> {
        let held: Vec<Work> = self.shared.iter().flat_map(|shared| locked(&shared.held).clone()).collect();
        let mut vessels = Vec::new();
        for work in held {
            match work {
                Work::Vessel(name) => vessels.push(name),
                work => self.ring(&work),
            }
        }
        if self.ledger.outage().is_none() {
            vessels = self.ledger.with_work(vessels).await.map_err(|e| e.fault())?;
        }
        vessels.into_iter().for_each(|name| self.ring(&Work::Vessel(name)));
        Ok(())
    }

    /// Tells the other shores that the locations have changed.
    pub(super) fn tell_locations(&self) {
        self.shared.iter().for_each(|shared| shared.relay.add(Hint::Locations));
    }

    /// Acquires the work that is now assigned to this shore, and starts its tasks. Begins to hand over the work that is
    /// now assigned to other shores.
    ///
    /// # Errors
    /// A [`Fault`] of the daemon when the ledger can't be used, or this shore was replaced.
    pub(super) async fn follow_shares(&mut self, tasks: &mut Tasks, events: &mut Events) -> Result<(), Fault> {
        let Some(shared) = self.shared.clone() else { return Ok(()) };
        // No work is acquired or handed over while the database is unavailable.
        if self.ledger.outage().is_some() {
            return Ok(());
        }
        self.give_back_ended(&shared, events).await?;
        let share = self.ledger.share_out(&self.serves()).await.map_err(|e| e.fault())?;
        if let Some(look_in) = share.look_in {
            events.look_at = events.look_at.min(Instant::now() + look_in);
        }
        let before = locked(&shared.held).clone();
        let gained: Vec<Work> = share
            .held
            .iter()
            .filter(|(work, next)| **next == Next::Stays && !before.contains(work) && self.is_configured(work))
            .map(|(work, _)| work.clone())
            .collect();
        let ending = locked(&shared.ending).clone();
        let goes = |(work, next): &(&Work, &Next)| **next == Next::Goes && !ending.contains(work);
        let goes: Vec<Work> = share.held.iter().filter(goes).map(|(work, _)| work.clone()).collect();
        if gained.iter().any(|work| matches!(work, Work::Directory(_))) {
            // A location may have turned from a file into a directory meanwhile.
            self.follow_locations(tasks).await?;
        }
        let known = |work: &Work| before.contains(work) || gained.contains(work);
        *locked(&shared.held) = share.held.into_keys().filter(known).collect();
        locked(&shared.ending).extend(goes.iter().cloned());
        if gained.is_empty() && goes.is_empty() {
            return Ok(());
        }
        for work in goes {
            tracing::info!("Handing {work} over to another shore");
            let ended = self.end_work(&work);
            if work == Work::Housekeeping {
                self.start_background().await?;
            }
            events.handovers.spawn(async move {
                ended.await;
                work
            });
        }
        for work in &gained {
            tracing::info!("This shore takes over {work}");
        }
        self.start_work(&gained, tasks).await?;
        self.relay_bells();
        self.show();
        Ok(())
    }

    /// Gives back the work whose tasks have ended. Must not run concurrently with
    /// [`Shores::share_out`](crate::ledger::Shores::share_out): a share that was read before would still contain the
    /// work, so this shore would start the tasks of work that it no longer has.
    async fn give_back_ended(&self, shared: &Shared, events: &mut Events) -> Result<(), Fault> {
        if events.ended.is_empty() {
            return Ok(());
        }
        self.ledger.give_back(&events.ended).await.map_err(|e| e.fault())?;
        for work in events.ended.drain(..) {
            locked(&shared.held).remove(&work);
            locked(&shared.ending).remove(&work);
        }
        Ok(())
    }

    fn is_configured(&self, work: &Work) -> bool {
        match work {
            Work::Vessel(name) => self.vessels.contains_key(name),
            Work::Directory(name) => self.directories.contains_key(name),
            Work::Housekeeping => true,
        }
    }

    /// Stops the tasks of `work`. The returned future waits until the tasks have ended.
    fn end_work(&mut self, work: &Work) -> impl Future<Output = ()> + Send + use<> {
        let running = match work {
            Work::Vessel(name) => self.vessels.get(name).map(|vessel| vessel.running.clone()),
            Work::Directory(name) => self.directories.get(name).map(|directory| directory.running.clone()),
            Work::Housekeeping => None,
        };
        if let Some(running) = &running {
            running.stop.cancel();
        }
        let background = if *work == Work::Housekeeping { self.background.take() } else { None };
        let (live, vessel) = (self.live.clone(), work.clone());
        async move {
            if let Some(running) = running {
                running.end().await;
            }
            if let Some(background) = background {
                background.stop().await;
            }
            if let Work::Vessel(name) = vessel {
                live.connecting(&name);
            }
        }
    }

    /// Starts the tasks of work that this shore was given.
    async fn start_work(&mut self, gained: &[Work], tasks: &mut Tasks) -> Result<(), Fault> {
        if gained.is_empty() {
            return Ok(());
        }
        let stop = self.surroundings.stop.clone();
        let vessels: Vec<_> = gained.iter().filter_map(Work::vessel).cloned().collect();
        self.usage.refresh(&vessels).await.map_err(|e| e.fault())?;
        // Any tasks that this shore ran earlier for this work have ended.
        for work in gained {
            match work {
                Work::Vessel(name) => {
                    if let Some(vessel) = self.vessels.get_mut(name) {
                        vessel.running = Running::within(&stop);
                    }
                }
                Work::Directory(name) => {
                    if let Some(directory) = self.directories.get_mut(name) {
                        directory.running = Running::within(&stop);
                        directory.trouble.send_replace(Troubles::default());
                    }
                }
                Work::Housekeeping => self.start_background().await?,
            }
        }
        self.orders.follow_pauses().await.map_err(|e| e.fault())?;
        for work in gained {
            if let Work::Directory(name) = work {
                self.directory(name).prepare().await?;
                self.start_directory(name, tasks);
            }
        }
        for settings in &self.settings.vessels {
            if gained.contains(&Work::Vessel(settings.name.clone())) {
                self.start_vessel(settings, tasks);
            }
        }
        Ok(())
    }

    /// Relays the bells of other shores' work to them, and stops relaying the bells of this shore's work.
    pub(super) fn relay_bells(&self) {
        let Some(shared) = &self.shared else { return };
        let mut wanted: HashMap<Hint, &Bell> = HashMap::new();
        for (name, vessel) in &self.vessels {
            let work = Work::Vessel(name.clone());
            if !self.holds(&work) {
                wanted.insert(Hint::Hurry(name.clone()), &vessel.controls.hurry);
                wanted.insert(Hint::New(work), &vessel.controls.bell);
            }
        }
        for (name, directory) in &self.directories {
            let work = Work::Directory(name.clone());
            if !self.holds(&work) {
                wanted.insert(Hint::New(work), &directory.retire_bell);
            }
        }
        wanted.insert(Hint::Pauses, self.orders.pauses_changed());
        wanted.insert(Hint::Notices, &shared.notices);
        // All bells are attached again, because changed sections have new bells.
        let attach = |(hint, bell): (Hint, &Bell)| (hint.clone(), shared.relay.attach(bell.clone(), hint));
        let attached = wanted.into_iter().map(attach).collect();
        *locked(&shared.relays) = attached;
    }

    /// Gives back the work of removed sections, whose tasks have ended, and announces to the other shores what this
    /// shore can serve.
    pub(super) async fn follow_settings(&mut self, tasks: &mut Tasks, events: &mut Events) -> Result<(), Fault> {
        if self.shared.is_some() {
            self.follow_shares(tasks, events).await?;
            self.relay_bells();
        }
        Ok(())
    }

    /// Hands over all work when the program stops, each piece soon after its tasks have ended.
    pub(super) async fn leave_shores(&mut self) {
        let Some(shared) = self.shared.clone() else { return };
        if self.ledger.outage().is_some() {
            return;
        }
        let mut held = locked(&shared.held).clone();
        if self.once {
            // The notifications end last, and their work is given back with the lease.
            held.remove(&Work::Housekeeping);
        }
        // The ledger goes on to record events, and another shore reports them.
        let ends: FuturesUnordered<_> = held
            .into_iter()
            .map(|work| (self.end_work(&work), work))
            .map(|(ended, work)| async {
                ended.await;
                work
            })
            .collect();
        tokio::time::timeout(LONGEST_HANDOVER, self.give_back_all(ends)).await.ok();
    }

    /// Gives work back as its tasks end.
    async fn give_back_all(&self, mut ends: FuturesUnordered<impl Future<Output = Work>>) {
        // Each transaction waits for those of the other shores, so there are few: the first one announces that this
        // shore stops, and gives back the work whose tasks end at once; each later one gives back all work whose tasks
        // have ended meanwhile.
        let mut ended = Vec::new();
        let at_once = async {
            while let Some(work) = ends.next().await {
                ended.push(work);
            }
        };
        tokio::time::timeout(AT_ONCE, at_once).await.ok();
        if let Err(e) = self.ledger.leave(&ended).await {
            tracing::debug!("Cannot notify the other shores that this shore stops: {e}");
            return;
        }
        while let Some(first) = ends.next().await {
            let mut ended = vec![first];
            ended.extend(std::iter::from_fn(|| ends.next().now_or_never().flatten()));
            self.ledger.give_back(&ended).await.ok();
        }
    }
}

fn count(held: &BTreeSet<Work>, vessels: bool) -> usize {
    let wanted = |work: &&Work| match work {
        Work::Vessel(_) => vessels,
        Work::Directory(_) => !vessels,
        Work::Housekeeping => false,
    };
    held.iter().filter(wanted).count()
}
