//! What can go wrong between the shore and a vessel, and what follows from it.

use std::fmt;
use std::time::Duration;

use super::sftp::SftpError;
use crate::fault::{Fault, Pace};

/// Sorts of failure, as far as the vessel lets us tell them apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// There is no such file.
    NotFound,
    /// The account may not do this.
    Denied,
    /// The file system is mounted read-only.
    ReadOnly,
    /// The file system is full.
    NoSpace {
        /// Bytes still free.
        free: u64,
    },
    /// The vessel doesn't know how.
    Unsupported,
    /// It failed, and the vessel doesn't say why.
    Failed,
    /// The connection is gone, silent or garbled: a new one is needed.
    Connection,
}

/// A failed operation: which, where, and why.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{what}: {why}")]
pub struct RemoteError {
    /// What sort of failure it was.
    pub kind: ErrorKind,
    what: String,
    why: String,
}

impl RemoteError {
    pub(crate) fn new(kind: ErrorKind, what: impl fmt::Display, why: impl fmt::Display) -> Self {
        Self { kind, what: what.to_string(), why: why.to_string() }
    }

    pub(crate) fn from_sftp(error: &SftpError, what: impl fmt::Display) -> Self {
        let kind = match error {
            SftpError::Status { code: 2, .. } => ErrorKind::NotFound,
            SftpError::Status { code: 3, .. } => ErrorKind::Denied,
            SftpError::Status { code: 6 | 7, .. } => ErrorKind::Connection,
            SftpError::Status { code: 8, .. } => ErrorKind::Unsupported,
            SftpError::Status { .. } => ErrorKind::Failed,
            SftpError::Lost(_) | SftpError::Silent(_) | SftpError::Garbled => ErrorKind::Connection,
        };
        Self::new(kind, what, error)
    }

    pub(crate) fn silent(what: impl fmt::Display, waited: Duration) -> Self {
        Self::new(ErrorKind::Connection, what, format_args!("no answer for {:.0} s", waited.as_secs_f64()))
    }

    /// Whether the vessel said that there is no such file.
    pub fn is_not_found(&self) -> bool {
        self.kind == ErrorKind::NotFound
    }

    /// Whether nothing more can be done on this connection.
    pub fn is_connection(&self) -> bool {
        self.kind == ErrorKind::Connection
    }

    /// What follows from it.
    pub fn fault(&self) -> Fault {
        match &self.kind {
            ErrorKind::Connection | ErrorKind::NotFound | ErrorKind::Failed => Fault::attempt(self),
            ErrorKind::Denied => Fault::file(self).mend("give the vessel's user permission to write there"),
            ErrorKind::Unsupported => Fault::file(self),
            ErrorKind::ReadOnly => {
                Fault::file(self).mend("mount the file system writable, or choose another RemoteLocation or TempDir")
            }
            ErrorKind::NoSpace { .. } => {
                Fault::vessel(self).mend("make room there; delivery goes on by itself").at(Pace::Unhurried)
            }
        }
    }
}

/// A connection that couldn't be made.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ConnectError {
    /// No TCP connection.
    #[error("{place} can't be reached: {why}")]
    Unreachable {
        /// Address and port.
        place: String,
        /// What the network said.
        why: String,
    },
    /// SSH didn't come about, or broke before it could be used.
    #[error("{place} answers, but SSH fails: {why}")]
    Handshake {
        /// Address and port.
        place: String,
        /// What went wrong.
        why: String,
    },
    /// The host key is not one that is trusted.
    #[error("{why}")]
    HostKey {
        /// Which key, of what, and why it isn't trusted.
        why: String,
        /// The command that mends it.
        remedy: String,
    },
    /// The login was refused.
    #[error("{place} refuses the login of {user}: {why}")]
    Login {
        /// Address and port.
        place: String,
        /// The user.
        user: String,
        /// What was tried and what the vessel said.
        why: String,
        /// What a person can do.
        remedy: String,
    },
    /// There is no SFTP, or it is unusable.
    #[error("{place} lets us in, but offers no SFTP: {why}")]
    NoSftp {
        /// Address and port.
        place: String,
        /// What went wrong.
        why: String,
    },
}

impl ConnectError {
    /// What follows from it: the vessel is parked, for a time that suits the cause.
    pub fn fault(&self) -> Fault {
        let fault = Fault::vessel(self);
        match self {
            Self::Unreachable { .. } => fault.at(Pace::Soon).mend("tried again every few seconds"),
            Self::Handshake { .. } => fault.at(Pace::Soon).mend("tried again soon"),
            Self::HostKey { remedy, .. } => fault.at(Pace::Unhurried).mend(remedy),
            Self::Login { remedy, .. } => fault.at(Pace::Slow).mend(remedy),
            Self::NoSftp { .. } => {
                fault.at(Pace::Slow).mend("enable it there: for OpenSSH, `Subsystem sftp internal-sftp` in sshd_config")
            }
        }
    }
}
