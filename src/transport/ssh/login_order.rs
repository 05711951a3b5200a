//! Whose turn it is to log in, where several connections are made at the same time.
//!
//! The first leads. The others follow as far as the login and wait there until it is through: what is wrong with a login is
//! found out once, not by as many refusals, which lock accounts.

use std::time::Duration;

use tokio::sync::watch;

use super::login_limit::Rank;

/// How far the leading connection has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Begun,
    Reached(RoundTrip),
    LoggedIn,
}

/// What is known of the way to a host once it has taken a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RoundTrip {
    /// How long the way there and back is.
    pub round_trip: Duration,
    /// Whether what is sent is paced by BBR, which a loss here and there does not slow down.
    pub bbr: bool,
}

/// The turn of a connection that leads.
pub struct Lead {
    stage: watch::Sender<Stage>,
    /// Whether it is a spare.
    spare: bool,
    rank: Rank,
}

/// The turn of connections that follow one.
#[derive(Clone)]
pub struct Follow(watch::Receiver<Stage>);

impl Lead {
    /// One that may be followed.
    pub fn new(rank: Rank) -> (Self, Follow) {
        let (stage, follow) = watch::channel(Stage::Begun);
        (Self { stage, spare: false, rank }, Follow(follow))
    }

    /// One that nobody follows.
    pub fn alone(rank: Rank) -> Self {
        Self::new(rank).0
    }

    /// One that is made for the case that another falls silent. Once it is there it asks for nothing by itself, not even for
    /// a sign of life: TCP waits the longer, the longer something has been due.
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
    /// Waits until the leader's host was reached. `None` when it wasn't.
    pub async fn reached(&mut self) -> Option<RoundTrip> {
        let stage = *self.0.wait_for(|stage| *stage != Stage::Begun).await.ok()?;
        match stage {
            Stage::Reached(path) => Some(path),
            Stage::Begun | Stage::LoggedIn => None,
        }
    }

    /// Waits until the leader is logged in; `false` when it never will be.
    pub(super) async fn may_log_in(&mut self) -> bool {
        self.0.wait_for(|stage| *stage == Stage::LoggedIn).await.is_ok()
    }
}

/// A connection's place among those that are made at the same time.
pub(crate) enum Turn<'a> {
    Lead(&'a Lead),
    Follow(Follow),
}

impl Turn<'_> {
    /// How urgent the login is.
    pub(super) fn rank(&self) -> Rank {
        match self {
            Self::Lead(lead) => lead.rank,
            Self::Follow(_) => Rank::further(),
        }
    }

    /// Whether the connection asks for a sign of life when it has nothing else to say.
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
