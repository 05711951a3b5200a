//! The login order of connections that are opened at the same time.
//!
//! The first connection leads. The other connections prepare everything up to the login and wait until the leader is
//! logged in, so that wrong credentials cause one rejected attempt instead of many, which could lock the account.

use std::time::Duration;

use tokio::sync::watch;

use super::login_limit::Rank;

/// The progress of the leading connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Begun,
    Reached(RoundTrip),
    LoggedIn,
}

/// Properties of the path to a host, known once the host has accepted a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RoundTrip {
    /// The round-trip time.
    pub round_trip: Duration,
    /// Whether the connection sends with BBR, which occasional losses do not slow down.
    pub bbr: bool,
}

/// The role of a leading connection in the login order.
pub struct Lead {
    stage: watch::Sender<Stage>,
    /// Whether the connection is a standby.
    spare: bool,
    rank: Rank,
}

/// The role of a connection that follows a leader in the login order.
#[derive(Clone)]
pub struct Follow(watch::Receiver<Stage>);

impl Lead {
    /// Creates the role of a leader, and the role that its followers share.
    pub fn new(rank: Rank) -> (Self, Follow) {
        let (stage, follow) = watch::channel(Stage::Begun);
        (Self { stage, spare: false, rank }, Follow(follow))
    }

    /// Creates the role of a leader without followers.
    pub fn alone(rank: Rank) -> Self {
        Self::new(rank).0
    }

    /// Creates the role of a standby connection, which is used when another connection falls silent. A standby sends
    /// nothing by itself, not even keepalives: TCP repeats a lost packet at growing intervals, so a keepalive lost in
    /// an outage would delay the use of the standby.
    pub fn spare() -> Self {
        Self { spare: true, ..Self::alone(Rank::further()) }
    }

    pub(super) fn reached(&self, path: RoundTrip) {
        self.stage.send_replace(Stage::Reached(path));
    }

    pub(super) fn logged_in(&self) {
        self.stage.send_replace(Stage::LoggedIn);
    }
}

impl Follow {
    /// Waits until the leader has reached the host. Returns `None` if the leader failed or is already logged in.
    pub async fn reached(&mut self) -> Option<RoundTrip> {
        let stage = *self.0.wait_for(|stage| *stage != Stage::Begun).await.ok()?;
        match stage {
            Stage::Reached(path) => Some(path),
            Stage::Begun | Stage::LoggedIn => None,
        }
    }

    /// Waits until the leader is logged in. Returns `false` if the leader failed.
    pub(super) async fn may_log_in(&mut self) -> bool {
        self.0.wait_for(|stage| *stage == Stage::LoggedIn).await.is_ok()
    }
}

/// The role of a connection among the connections that are opened at the same time.
pub(crate) enum Turn<'a> {
    Lead(&'a Lead),
    Follow(Follow),
}

impl Turn<'_> {
    /// Returns the urgency of the login.
    pub(super) fn rank(&self) -> Rank {
        match self {
            Self::Lead(lead) => lead.rank,
            Self::Follow(_) => Rank::further(),
        }
    }

    /// Returns whether the connection sends keepalives while idle.
    pub(super) fn keeps_alive(&self) -> bool {
        !matches!(self, Self::Lead(Lead { spare: true, .. }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn nobody_logs_in_before_the_leader_has() {
        let (lead, mut follow) = Lead::new(Rank::first(true, 0));
        let mut other = follow.clone();
        let path = RoundTrip { round_trip: Duration::from_millis(7), bbr: false };
        lead.reached(path);
        assert_eq!(follow.reached().await, Some(path));
        let waiting = tokio::spawn(async move { other.may_log_in().await });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        lead.logged_in();
        drop(lead);
        assert!(waiting.await.unwrap() && follow.may_log_in().await);
    }

    #[tokio::test]
    async fn where_the_leader_fails_nobody_logs_in() {
        let (lead, mut follow) = Lead::new(Rank::first(true, 0));
        drop(lead);
        assert!(follow.reached().await.is_none() && !follow.may_log_in().await);
    }
}
