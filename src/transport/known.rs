//! What is known of a vessel's shell before a connection is made, and how a connection finds out about it.
//!
//! SFTP is what deliveries need; the shell is a bonus. Some servers end the whole connection when they are asked for one,
//! others never answer. So it is asked for beside SFTP, nothing waits long for the answer, and a refusal is remembered.

use std::sync::Arc;
use std::time::Duration;

use super::capabilities::Capabilities;
use super::error::RemoteError;
use super::exec::Shells;
use super::sftp_channel::SftpChannel;
use super::ssh::Connection;

/// How long a new connection waits for the shell: the longer of these. A profile may take much longer; the shell is used
/// from when it has answered.
const PATIENCE: Duration = Duration::from_secs(2);
const PATIENT_ROUND_TRIPS: u32 = 10;
/// After so long without an answer there is no shell.
pub(super) const DEADLINE: Duration = Duration::from_secs(60);

/// What is known of a vessel's shell.
#[derive(Clone, Debug, Default)]
pub enum KnownShell {
    /// Nothing: it is asked for.
    #[default]
    Unknown,
    /// What it offered on an earlier connection; it is used at once, and asked again.
    Found(Box<Capabilities>),
    /// It took long to answer: it is asked for, and not waited for.
    Slow,
    /// The connection broke while it was asked for, which may have been a coincidence: it is asked for once more.
    Suspect,
    /// It can't be used, and is not asked for. Why.
    Unusable(String),
}

impl KnownShell {
    /// Whether a connection asks for a shell before it is used.
    pub(super) fn asks(&self) -> bool {
        matches!(self, Self::Unknown | Self::Slow | Self::Suspect)
    }
}

/// What came of asking.
pub(super) enum Answer {
    /// What the shell offers; nothing, where there is none.
    Found(Capabilities),
    /// There was no answer yet.
    Slow,
    /// The connection ended over the question.
    Ended,
    /// It is there, but can't be used.
    Unusable(String),
}

/// Asks for a shell on a connection of which SFTP is up.
pub(super) async fn ask(shells: Arc<Shells>, connection: Connection) -> Answer {
    match Capabilities::probe_shell(&shells, DEADLINE).await {
        Ok(found) => Answer::Found(found),
        // Some say no, and hang up then.
        Err(_) if ended(&connection).await => Answer::Ended,
        Err(e) if e.is_silent() => Answer::Unusable(format!("no answer for {:.0} s", DEADLINE.as_secs_f64())),
        Err(e) => {
            tracing::debug!("The vessel has no usable shell: {e}");
            Answer::Found(Capabilities::default())
        }
    }
}

/// Whether the whole connection is gone, and not only a channel, whose end may be noticed before.
pub(super) async fn ended(connection: &Connection) -> bool {
    let closed = async {
        while !connection.is_closed() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::select! {
        () = closed => true,
        () = connection.ping() => false,
        () = tokio::time::sleep(PATIENCE) => connection.is_closed(),
    }
}

/// How long a new connection with this lane waits for its shell.
pub(super) fn patience(lane: &SftpChannel) -> Duration {
    PATIENCE.max(lane.round_trip() * PATIENT_ROUND_TRIPS)
}

impl RemoteError {
    /// Whether nobody answered.
    pub(super) fn is_silent(&self) -> bool {
        self.silent
    }
}
