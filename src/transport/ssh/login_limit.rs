//! How many logins run at once: over the whole process, and at each host that several vessels share.
//!
//! A login costs the host a process or more and whatever the account's profile does, often half a second of a processor.
//! Two hundred at once each take two hundred times as long, all time out, and all begin anew. So each waits for its turn
//! *before* it begins, and its time-outs count from there. A vessel that has a host to itself never waits for one.

mod gate;

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::names::VesselName;
use gate::{Gate, Place};

/// Logins at one host: OpenSSH begins to drop connections when ten have not logged in yet (`MaxStartups`).
const FIRST_AT_HOST: usize = 4;
const MOST_AT_HOST: usize = 8;
/// Logins of the process for each core: to begin with, at the least, and at the most.
const FIRST_PER_CORE: usize = 4;
const LEAST_PER_CORE: usize = 2;
const MOST_PER_CORE: usize = 64;
/// How long one that does not end counts against the others of the process, unless they usually take longer.
const LEASE: Duration = Duration::from_secs(2);
/// How long one that has reached its host waits for the process's turn at the most: servers wait a minute or two for a login.
const CONNECTED: Duration = Duration::from_secs(20);

/// A login on a host that several vessels share may take so many times as long: to wait costs nobody anything, since its
/// place goes to the next one meanwhile, and to begin anew costs the host another login. So may what a login starts on any
/// host, which runs the account's profile.
const LONGER: u32 = 6;

/// How urgent a login is, as the time by which it counts as having come earlier or later. So everybody's turn comes.
#[derive(Clone, Copy, Debug)]
pub struct Rank {
    earlier: Duration,
    later: Duration,
}

impl Rank {
    /// A connection in the place of one that fell silent.
    pub fn replacement() -> Self {
        Self { earlier: Duration::from_secs(10), later: Duration::ZERO }
    }

    /// A vessel's first connection, after so many failures in a row; `work`: whether anything is due to be delivered.
    pub fn first(work: bool, failures: u32) -> Self {
        let idle = if work { Duration::ZERO } else { Duration::from_secs(5) };
        Self { earlier: Duration::ZERO, later: idle + Duration::from_secs(2) * failures.min(5) }
    }

    /// A connection beside one that there is.
    pub fn further() -> Self {
        Self { earlier: Duration::ZERO, later: Duration::from_secs(15) }
    }

    fn counts_from(self, now: Instant) -> Instant {
        now.checked_sub(self.earlier).unwrap_or(now) + self.later
    }
}

/// The limits, shared by all that log in; cheap to clone.
#[derive(Clone)]
pub struct LoginLimit(Arc<Limits>);

struct Limits {
    process: Arc<Gate>,
    /// By the way to the host: its address, and those of the hops before it.
    hosts: Mutex<HashMap<String, Host>>,
}

struct Host {
    gate: Arc<Gate>,
    vessels: HashSet<VesselName>,
}

impl Default for LoginLimit {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let (least, first, most) = (LEAST_PER_CORE * cores, FIRST_PER_CORE * cores, MOST_PER_CORE * cores);
        Self(Arc::new(Limits { process: Gate::new(least, first, most, Some(LEASE)), hosts: Mutex::default() }))
    }
}

impl fmt::Debug for LoginLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoginLimit").finish_non_exhaustive()
    }
}

impl LoginLimit {
    /// Waits for a vessel's turn at the host that `way` leads to. `patience` is how long a login may take there.
    pub(super) async fn admit(&self, way: &str, vessel: &VesselName, rank: Rank, patience: Duration) -> Admission {
        let starts = Starts { limit: self.clone(), way: way.into(), patience };
        let host = {
            let mut hosts = self.0.hosts.lock().unwrap_or_else(PoisonError::into_inner);
            let host = hosts.entry(way.to_owned()).or_insert_with(|| Host {
                gate: Gate::new(1, FIRST_AT_HOST, MOST_AT_HOST, None),
                vessels: HashSet::new(),
            });
            host.vessels.insert(vessel.clone());
            (host.vessels.len() > 1).then(|| host.gate.clone())
        };
        let host = match host {
            Some(gate) => Some(gate.enter(rank, patience).await),
            None => None,
        };
        Admission { limit: self.clone(), rank, patience, starts, host, process: None }
    }

    /// The gate of a host that several vessels share.
    fn shared(&self, way: &str) -> Option<Arc<Gate>> {
        let hosts = self.0.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        hosts.get(way).filter(|host| host.vessels.len() > 1).map(|host| host.gate.clone())
    }
}

/// One login that was admitted, until it is dropped.
pub(crate) struct Admission {
    limit: LoginLimit,
    rank: Rank,
    patience: Duration,
    starts: Starts,
    host: Option<Place>,
    process: Option<Place>,
}

impl Admission {
    /// The host has answered: from now on it is the process's turn, too.
    pub(super) async fn answered(&mut self) {
        let entering = self.limit.0.process.enter(self.rank, self.patience);
        self.process = tokio::time::timeout(CONNECTED, entering).await.ok();
    }

    /// The host took the connection and closed it.
    pub(super) fn turned_away(self) {
        if let Some(place) = self.host {
            place.turned_away();
        }
    }

    /// What later starts on the host ask for their turn.
    pub(super) fn starts(&self) -> Starts {
        self.starts.clone()
    }

    /// All that a login starts on the host has started. Gives what later starts there ask for their turn.
    pub(crate) fn ready(self) -> Starts {
        self.host.into_iter().chain(self.process).for_each(Place::succeeded);
        self.starts
    }
}

/// The turns of what is started on a host after the login, such as further shells: each costs about as much as a login.
#[derive(Clone)]
pub(crate) struct Starts {
    limit: LoginLimit,
    way: Arc<str>,
    patience: Duration,
}

/// A turn to start something, until it is dropped.
pub(crate) struct StartTurn(#[expect(dead_code, reason = "what counts is when it is dropped")] Option<Place>);

impl Starts {
    /// How long a login may take, from when its turn has come.
    pub(crate) fn deadline(&self) -> Duration {
        let is_shared = self.limit.shared(&self.way).is_some();
        if is_shared { self.patience * LONGER } else { self.patience }
    }

    /// How long what a login starts may take to answer for the first time.
    pub(crate) fn start_deadline(&self) -> Duration {
        self.patience * LONGER
    }

    /// Waits for a turn. One who has the host to himself does not wait.
    pub(crate) async fn turn(&self) -> StartTurn {
        match self.limit.shared(&self.way) {
            Some(gate) => StartTurn(Some(gate.enter(Rank::first(true, 0), self.patience).await.unjudged())),
            None => StartTurn(None),
        }
    }
}
