//! Errors of operations on a vessel, and their consequences.

use std::fmt;
use std::time::Duration;

use super::sftp::SftpError;
use crate::fault::{Cause, Fault, Pace};
use crate::text::{duration, excerpt};

/// The kind of a failure, as precise as the vessel's answers allow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The file does not exist.
    NotFound,
    /// The account lacks permission for the operation.
    Denied,
    /// The file system is mounted read-only.
    ReadOnly,
    /// The file system is full.
    NoSpace {
        /// The number of bytes that are still free.
        free: u64,
    },
    /// The account's storage quota is exhausted, which the number of free bytes does not show.
    Quota,
    /// The name is too long for the vessel's file system, or contains characters that this file system does not allow.
    BadName,
    /// A symbolic link is in the path.
    Link,
    /// The vessel does not support the operation.
    Unsupported,
    /// The operation failed, and the vessel gives no reason.
    Failed,
    /// The connection is lost, or the vessel is silent or sends invalid data. A new connection is needed.
    Connection,
}

impl ErrorKind {
    /// Derives the kind from the system's error text (`strerror`), which some SFTP servers and every shell pass on.
    /// Returns [`Self::Failed`] for an unknown text.
    pub(super) fn by_words(words: &str) -> Self {
        let words = words.to_ascii_lowercase();
        let known = [
            ("no space left", Self::NoSpace { free: 0 }),
            ("quota exceeded", Self::Quota),
            ("read-only file system", Self::ReadOnly),
            ("name too long", Self::BadName),
        ];
        known.into_iter().find(|(text, _)| words.contains(text)).map_or(Self::Failed, |(_, kind)| kind)
    }
}

/// The error of an operation on a vessel: the operation with its file or directory, and the reason.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{what}: {why}")]
pub struct RemoteError {
    /// The kind of the failure.
    pub kind: ErrorKind,
    what: String,
    why: String,
    /// Whether the operation failed because no answer arrived in time.
    pub(super) silent: bool,
}

impl RemoteError {
    pub(crate) fn new(kind: ErrorKind, what: impl fmt::Display, why: impl fmt::Display) -> Self {
        Self { kind, what: what.to_string(), why: excerpt(why.to_string()), silent: false }
    }

    pub(crate) fn from_sftp(error: &SftpError, what: impl fmt::Display) -> Self {
        let kind = match error {
            error if error.is_not_found() => ErrorKind::NotFound,
            SftpError::Status { code: 3 | 12, .. } => ErrorKind::Denied,
            SftpError::Status { code: 14, .. } => ErrorKind::NoSpace { free: 0 },
            SftpError::Status { code: 15, .. } => ErrorKind::Quota,
            // OpenSSH reports ENAMETOOLONG and EINVAL as status 5.
            SftpError::Status { code: 5, .. } => ErrorKind::BadName,
            SftpError::Status { code: 6 | 7, .. } => ErrorKind::Connection,
            SftpError::Status { code: 8, .. } => ErrorKind::Unsupported,
            SftpError::Status { message, .. } => ErrorKind::by_words(message),
            SftpError::Lost(_) | SftpError::Silent(_) | SftpError::Garbled => ErrorKind::Connection,
        };
        Self::new(kind, what, error)
    }

    pub(crate) fn silent(what: impl fmt::Display, waited: Duration) -> Self {
        let why = format_args!("no answer for {}", duration(waited));
        Self { silent: true, ..Self::new(ErrorKind::Connection, what, why) }
    }

    /// Returns whether the vessel said that there is no such file.
    pub fn is_not_found(&self) -> bool {
        self.kind == ErrorKind::NotFound
    }

    /// Returns whether the vessel denies the account this operation or does not support it, so that a retry is useless.
    pub fn is_refusal(&self) -> bool {
        matches!(self.kind, ErrorKind::Denied | ErrorKind::Unsupported)
    }

    /// Returns whether the connection is no longer usable.
    pub fn is_connection(&self) -> bool {
        self.kind == ErrorKind::Connection
    }

    /// Returns the consequence of the error for deliveries, and the remedy for the operator.
    pub fn fault(&self) -> Fault {
        match &self.kind {
            ErrorKind::Connection => Fault::attempt(self).of(Cause::Link),
            ErrorKind::NotFound | ErrorKind::Failed => Fault::attempt(self),
            ErrorKind::Denied => Fault::file(self)
                .mend("give the login user on the vessel read and write permission for this path")
                .of(Cause::Denied),
            ErrorKind::Link => {
                Fault::file(self).mend("replace the link with a directory there, or choose another RemoteLocation")
            }
            ErrorKind::Unsupported => Fault::file(self),
            ErrorKind::ReadOnly => {
                let fault = Fault::place(self).of(Cause::ReadOnly);
                fault.mend("remount the vessel's file system read-write, or choose another RemoteLocation or TempDir")
            }
            ErrorKind::BadName => {
                let fault = Fault::file(self).of(Cause::Name);
                fault.mend(
                    "give the file a name that the vessel's file system accepts, or choose another RemoteLocation",
                )
            }
            ErrorKind::Quota => {
                let fault = Fault::place(self).of(Cause::Space);
                fault.mend("raise the account's quota on the vessel, or remove files of the account")
            }
            ErrorKind::NoSpace { .. } => {
                let fault = Fault::place(self).of(Cause::Space);
                fault.mend("free some space there; delivery resumes by itself")
            }
        }
    }
}

/// The reason why a connection attempt failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ConnectError {
    /// A target on this host, or the socket of a vessel that dials in, can't be used, for example because a disk is not
    /// mounted.
    #[error("{why}")]
    Away {
        /// The directory, mount or socket, and the reason.
        why: String,
        /// The remedy for the operator.
        remedy: String,
    },
    /// The vessel is to dial in, but no tunnel from it to this host is open.
    #[error("the vessel has not dialled in at {place}: {why}")]
    NotDialledIn {
        /// The path of the tunnel's socket.
        place: String,
        /// The state of the socket.
        why: String,
    },
    /// No TCP connection could be established.
    #[error("{place} can't be reached: {why}")]
    Unreachable {
        /// Address and port of the host.
        place: String,
        /// The network error.
        why: String,
    },
    /// The host accepts the connection but sends nothing, because the host hangs, or because a device in front of it
    /// accepts connections in its place.
    #[error("{place} accepts connections, but sends nothing: {why}")]
    Mute {
        /// Address and port of the host.
        place: String,
        /// The error with which the connection attempt ended.
        why: String,
    },
    /// The SSH handshake failed, or the connection broke before SFTP was started.
    #[error("SSH to {place} failed: {why}")]
    Handshake {
        /// Address and port of the host.
        place: String,
        /// The reason of the failure.
        why: String,
    },
    /// The login to a hop succeeded, but the hop refuses to forward to the next endpoint.
    #[error("login to {hop} succeeded, but forwarding to {place} was refused")]
    NoPassage {
        /// The hop that refuses to forward.
        hop: String,
        /// Address and port of the next endpoint.
        place: String,
    },
    /// The host key is not trusted.
    #[error("{why}")]
    HostKey {
        /// The host, its key, and why the key is not trusted.
        why: String,
        /// The remedy for the operator.
        remedy: String,
    },
    /// The login was rejected.
    #[error("{place} refuses the login of {user}: {why}")]
    Login {
        /// Address and port of the host.
        place: String,
        /// The user name of the login.
        user: String,
        /// The tried credentials and the vessel's answer.
        why: String,
        /// The remedy for the operator.
        remedy: String,
    },
    /// The vessel has no usable SFTP.
    #[error("login to {place} succeeded, but the server offers no SFTP: {why}")]
    NoSftp {
        /// Address and port of the vessel.
        place: String,
        /// The reason why SFTP is not usable.
        why: String,
    },
}

impl ConnectError {
    /// Returns the consequence of the error: the vessel is parked for a time that depends on the cause.
    pub fn fault(&self) -> Fault {
        let fault = Fault::vessel(self);
        match self {
            Self::Away { remedy, .. } => fault.at(Pace::AtOnce).mend(remedy).of(Cause::Link),
            Self::NotDialledIn { .. } => fault
                .at(Pace::AtOnce)
                .mend(
                    "start the tunnel (`ssh -R`) on the vessel; contentmonster connects as soon as the tunnel is open",
                )
                .of(Cause::Link),
            Self::Unreachable { .. } | Self::Mute { .. } => {
                fault.at(Pace::AtOnce).mend("contentmonster retries every few seconds while it runs").of(Cause::Link)
            }
            Self::Handshake { .. } => fault.at(Pace::Soon).mend("contentmonster retries at growing intervals while it runs").of(Cause::Link),
            Self::HostKey { remedy, .. } => fault.at(Pace::Unhurried).mend(remedy).of(Cause::HostKey),
            Self::Login { remedy, .. } => fault.at(Pace::Slow).mend(remedy).of(Cause::Login),
            Self::NoPassage { .. } => {
                let remedy = "allow forwarding on the hop: for OpenSSH, `AllowTcpForwarding local` in sshd_config, a \
                              `PermitOpen` that names the refused address, and no `restrict` or `no-port-forwarding` \
                              before the key in authorized_keys";
                fault.at(Pace::Slow).mend(remedy).of(Cause::Login)
            }
            Self::NoSftp { .. } => fault.at(Pace::Slow).mend(
                "enable SFTP on that server: for OpenSSH, set `Subsystem sftp internal-sftp` in sshd_config, and make sure \
                     that the shell profile prints nothing",
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::Scope;

    fn of(code: u32, message: &str) -> Fault {
        let message = message.to_owned();
        RemoteError::from_sftp(&SftpError::Status { code, message }, "writing to x").fault()
    }

    #[test]
    fn a_long_error_text_of_a_vessel_is_cut() {
        let fault = of(4, &"no \u{202e}space\n".repeat(100_000));
        assert!(fault.reason.chars().count() < 600, "{}", fault.reason.len());
        assert!(fault.reason.chars().all(crate::text::is_plain), "{}", fault.reason);
    }

    #[test]
    fn what_follows_from_a_failure_goes_by_what_the_vessel_says_of_it() {
        for (code, message, scope, pace) in [
            (4, "Failure", Scope::Attempt, Pace::Soon),
            (4, "write: No space left on device", Scope::Place, Pace::Unhurried),
            (4, "Disk quota exceeded", Scope::Place, Pace::Unhurried),
            (4, "Read-only file system", Scope::Place, Pace::Unhurried),
            (4, "open: File name too long", Scope::File, Pace::Slow),
            (5, "Bad message", Scope::File, Pace::Slow),
            (3, "Permission denied", Scope::File, Pace::Slow),
            (2, "No such file", Scope::Attempt, Pace::Soon),
            (7, "Connection lost", Scope::Attempt, Pace::Soon),
        ] {
            let fault = of(code, message);
            assert_eq!((fault.scope, fault.pace), (scope, pace), "{code} {message}: {fault}");
            assert_eq!(fault.remedy.is_empty(), scope == Scope::Attempt, "{fault}");
        }
    }
}
