//! Knowledge about a vessel's shell from earlier connections, and the probe that updates it.
//!
//! Deliveries need SFTP; the shell is optional. Some servers end the connection when a shell is requested, others never
//! answer. So the probe runs concurrently with SFTP, a new connection waits only briefly for the result, and a
//! rejection is remembered.

use std::sync::Arc;
use std::time::Duration;

use super::capabilities::Capabilities;
use super::error::RemoteError;
use super::exec::Shells;
use super::sftp_channel::SftpChannel;
use super::ssh::Connection;

/// How long a new connection waits for the shell: `PATIENCE` or `PATIENT_ROUND_TRIPS` round trips, whichever is longer.
/// The account's profile may take much longer; the shell is then used once it has answered.
const PATIENCE: Duration = Duration::from_secs(2);
const PATIENT_ROUND_TRIPS: u32 = 10;
/// If a probe gets no answer within this time, the shell counts as unusable.
pub(super) const DEADLINE: Duration = Duration::from_secs(60);

/// The knowledge about a vessel's shell.
#[derive(Clone, Debug, Default)]
pub enum KnownShell {
    /// Nothing is known about the shell, so it is probed.
    #[default]
    Unknown,
    /// The capabilities of the shell on an earlier connection. They are used at once, and the shell is probed again.
    Found(Box<Capabilities>),
    /// The shell was slow to answer, so it is probed without waiting for the result.
    Slow,
    /// The connection broke during the probe, possibly by coincidence, so the shell is probed once more.
    Suspect,
    /// The shell can't be used, for the contained reason, and is not probed.
    Unusable(String),
}

impl KnownShell {
    /// Returns whether a connection probes the shell before using it.
    pub(super) fn asks(&self) -> bool {
        matches!(self, Self::Unknown | Self::Slow | Self::Suspect)
    }
}

/// The result of a probe.
pub(super) enum Answer {
    /// The capabilities of the shell, or the default ones if there is no shell.
    Found(Capabilities),
    /// The shell has not answered yet.
    Slow,
    /// The probe ended the connection.
    Ended,
    /// The shell exists, but can't be used.
    Unusable(String),
}

/// Probes the shell on a connection on which SFTP is being started.
pub(super) async fn ask(shells: Arc<Shells>, connection: Connection) -> Answer {
    match Capabilities::probe_shell(&shells, DEADLINE, connection.early_requests().is_some()).await {
        Ok(found) => Answer::Found(found),
        // Some servers reject the shell and then disconnect.
        Err(_) if ended(&connection).await => Answer::Ended,
        Err(e) if e.is_silent() => Answer::Unusable(format!("no answer for {}", crate::text::duration(DEADLINE))),
        Err(e) => {
            tracing::debug!("The vessel has no usable shell: {e}");
            Answer::Found(Capabilities::default())
        }
    }
}

/// Waits briefly for the end of the whole connection, and returns whether it has ended. When a connection ends, the end
/// of one of its channels may be noticed first.
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

/// Returns how long a new connection waits for its shell. `channel` is the connection's SFTP channel.
pub(super) fn patience(channel: &SftpChannel) -> Duration {
    PATIENCE.max(channel.round_trip() * PATIENT_ROUND_TRIPS)
}

impl RemoteError {
    /// Returns whether the operation failed because no answer arrived in time.
    pub(crate) fn is_silent(&self) -> bool {
        self.silent
    }
}
