//! Maps errors of the file system to SFTP status codes, as OpenSSH's sftp-server does.

use std::io;

use russh_sftp::protocol::StatusCode;
use russh_sftp::server::StatusReply;
use rustix::io::Errno;

/// The status of a failed request, and a message.
#[derive(Debug)]
pub(super) struct Refusal {
    code: StatusCode,
    message: Option<String>,
}

impl Refusal {
    pub(super) fn new(code: StatusCode, message: &str) -> Self {
        Self { code, message: Some(message.to_owned()) }
    }
}

impl From<StatusCode> for Refusal {
    fn from(code: StatusCode) -> Self {
        Self { code, message: None }
    }
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        let code = match Errno::from_io_error(&error) {
            Some(Errno::NOENT | Errno::NOTDIR | Errno::BADF | Errno::LOOP) => StatusCode::NoSuchFile,
            Some(Errno::PERM | Errno::ACCESS | Errno::FAULT) => StatusCode::PermissionDenied,
            Some(Errno::NAMETOOLONG | Errno::INVAL) => StatusCode::BadMessage,
            Some(Errno::NOSYS) => StatusCode::OpUnsupported,
            _ => StatusCode::Failure,
        };
        Self { code, message: Some(error.to_string()) }
    }
}

impl From<Errno> for Refusal {
    fn from(errno: Errno) -> Self {
        io::Error::from(errno).into()
    }
}

impl From<Refusal> for StatusReply {
    fn from(refusal: Refusal) -> Self {
        let reply = StatusReply::new(refusal.code);
        match refusal.message {
            Some(message) => reply.with_message(message),
            None => reply,
        }
    }
}
