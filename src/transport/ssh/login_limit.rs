//! Limits how many logins run at once, in the whole process and at each host that several vessels share.
//!
//! A login costs the host at least one process and the run of the account's profile, often 0.5 s of a processor. If 200
//! logins run at once, each takes 200 times as long, all time out, and all start again. So each login waits for its
//! turn *before* it starts, and its timeouts begin with its turn. A vessel that does not share its host does not wait
//! for a turn at the host.

mod gate;

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::names::VesselName;
use gate::{Gate, Place};

/// The initial and the highest limit on concurrent logins at one host. OpenSSH starts to drop connections at 10
/// unauthenticated ones (`MaxStartups`).
const FIRST_AT_HOST: usize = 4;
const MOST_AT_HOST: usize = 8;
/// The initial, the lowest and the highest limit on concurrent logins of this process, for each processor core.
const FIRST_PER_CORE: usize = 4;
const LEAST_PER_CORE: usize = 2;
const MOST_PER_CORE: usize = 64;
/// The minimum time after which an unfinished login no longer counts towards the limit of the process. The time is
/// longer if logins usually take longer.
const LEASE: Duration = Duration::from_secs(2);
/// How long a login whose connection is already open waits for its turn, if the limit of the process is reached.
/// Servers close a connection that has not logged in after one or two minutes.
const CONNECTED: Duration = Duration::from_secs(20);

/// How many times longer a login may take at a shared host, and a program that a login starts may take at any host (the
/// program runs the account's profile). A slow login does not block others, because its place expires and goes to the
/// next login, but a retry would cost the host another login.
const LONGER: u32 = 6;

/// The urgency of a login: the login is queued as if it had arrived earlier or later by these times. The times are
/// short, so no login waits forever.
#[derive(Clone, Copy, Debug)]
pub struct Rank {
    earlier: Duration,
    later: Duration,
}

impl Rank {
    /// Returns the rank of a connection that replaces a silent connection.
    pub fn replacement() -> Self {
        Self { earlier: Duration::from_secs(10), later: Duration::ZERO }
    }

    /// Returns the rank of a vessel's first connection. `failures` is the number of consecutive failed attempts before
    /// it, and `work` says whether deliveries are due.
    pub fn first(work: bool, failures: u32) -> Self {
        let idle = if work { Duration::ZERO } else { Duration::from_secs(5) };
        Self { earlier: Duration::ZERO, later: idle + Duration::from_secs(2) * failures.min(5) }
    }

    /// Returns the rank of an additional connection.
    pub fn further() -> Self {
        Self { earlier: Duration::ZERO, later: Duration::from_secs(15) }
    }

    fn counts_from(self, now: Instant) -> Instant {
        now.checked_sub(self.earlier).unwrap_or(now) + self.later
    }
}

/// The limits, shared by all logins; cheap to clone.
#[derive(Clone)]
pub struct LoginLimit(Arc<Limits>);

struct Limits {
    process: Arc<Gate>,
    /// The hosts, keyed by route: the addresses of the hops and of the host itself.
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
    /// Waits until a login of a vessel is admitted at a host. `way` is the key of the host (see `Endpoint::way`), and
    /// `patience` is how long a login may take there.
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

    /// Returns the gate of a host if several vessels share it.
    fn shared(&self, way: &str) -> Option<Arc<Gate>> {
        let hosts = self.0.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        hosts.get(way).filter(|host| host.vessels.len() > 1).map(|host| host.gate.clone())
    }
}

/// An admitted login. Its places in the limits are released when it is dropped.
pub(crate) struct Admission {
    limit: LoginLimit,
    rank: Rank,
    patience: Duration,
    starts: Starts,
    host: Option<Place>,
    process: Option<Place>,
}

impl Admission {
    /// Must be called after the host has answered. Waits for a place in the limit of this process, at most for the time
    /// [`CONNECTED`]; after that, the login continues without a place.
    pub(super) async fn answered(&mut self) {
        let entering = self.limit.0.process.enter(self.rank, self.patience);
        self.process = tokio::time::timeout(CONNECTED, entering).await.ok();
    }

    /// Records that the host accepted the connection, but the SSH handshake failed.
    pub(super) fn turned_away(self) {
        if let Some(place) = self.host {
            place.turned_away();
        }
    }

    /// Returns the limit for programs that are started on the host after the login.
    pub(super) fn starts(&self) -> Starts {
        self.starts.clone()
    }

    /// Marks the login as complete: all programs that it starts are running on the host. Returns the limit for programs
    /// that are started later.
    pub(crate) fn ready(self) -> Starts {
        self.host.into_iter().chain(self.process).for_each(Place::succeeded);
        self.starts
    }
}

/// The limit for programs that are started on a host after the login, such as further shells. Each start costs the host
/// about as much as a login.
#[derive(Clone)]
pub(crate) struct Starts {
    limit: LoginLimit,
    way: Arc<str>,
    patience: Duration,
}

/// A turn to start a program. The turn ends when this value is dropped.
pub(crate) struct StartTurn(#[expect(dead_code, reason = "what counts is when it is dropped")] Option<Place>);

impl Starts {
    /// Returns how long a login may take once its turn has come.
    pub(crate) fn deadline(&self) -> Duration {
        let is_shared = self.limit.shared(&self.way).is_some();
        if is_shared { self.patience * LONGER } else { self.patience }
    }

    /// Returns how long a program started by a login may take until its first output.
    pub(crate) fn start_deadline(&self) -> Duration {
        self.patience * LONGER
    }

    /// Waits for a turn to start a program. Returns at once if the vessel does not share its host.
    pub(crate) async fn turn(&self) -> StartTurn {
        match self.limit.shared(&self.way) {
            Some(gate) => StartTurn(Some(gate.enter(Rank::first(true, 0), self.patience).await.unjudged())),
            None => StartTurn(None),
        }
    }
}
