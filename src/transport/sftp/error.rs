//! Errors of SFTP requests.

use std::time::Duration;

use super::wire;
use crate::transport::excerpt::excerpt;

/// The reason why a request failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum SftpError {
    /// The vessel answered with a status that isn't OK (`SSH_FX_*`).
    #[error("{}", status_text(*code, message))]
    Status {
        /// The status code.
        code: u32,
        /// The vessel's own message.
        message: String,
    },
    /// The connection was lost.
    #[error("{0}")]
    Lost(String),
    /// The vessel didn't answer in time.
    #[error("no answer for {}; raise `Timeout` if the vessel needs longer", crate::text::duration(*.0))]
    Silent(Duration),
    /// The bytes received are not valid SFTP.
    #[error("the vessel sent data that is not SFTP")]
    Garbled,
}

impl From<wire::Garbled> for SftpError {
    fn from(_: wire::Garbled) -> Self {
        Self::Garbled
    }
}

impl SftpError {
    /// `SSH_FX_OP_UNSUPPORTED`: the vessel does not support the request.
    pub(crate) const UNSUPPORTED: u32 = 8;

    /// Returns whether too many open files may have caused the error. Some servers say so, others report only a
    /// failure.
    pub(super) fn may_be_too_many(&self) -> bool {
        let Self::Status { code, message } = self else { return false };
        let message = message.to_ascii_lowercase();
        let is_told = ["too many", "handle", "open files"].iter().any(|words| message.contains(words));
        let is_bare = *code == 4 && (message.is_empty() || message == "failure");
        is_told || is_bare
    }

    /// Returns whether the vessel denies the account this operation or does not support it.
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Status { code: 3 | 8 | 12, .. })
    }

    /// Returns whether the vessel said that there is no such file.
    pub fn is_not_found(&self) -> bool {
        match self {
            // Status 10 is SSH_FX_NO_SUCH_PATH of later drafts, which some servers use.
            Self::Status { code: 2 | 10, .. } => true,
            Self::Status { code: 4, message } => message.to_ascii_lowercase().contains("no such file"),
            _ => false,
        }
    }
}

fn status_text(code: u32, message: &str) -> String {
    let name = match code {
        1 => "end of file",
        2 => "no such file or directory",
        3 => "permission denied",
        4 => "failure",
        5 => "bad message",
        8 => "not supported",
        10 => "no such path",
        11 => "file already exists",
        12 => "write-protected",
        14 => "no space left on the file system",
        15 => "quota exceeded",
        _ => return format!("status {code} \"{}\"", excerpt(message)),
    };
    if message.is_empty() || message.eq_ignore_ascii_case(name) {
        name.into()
    } else {
        format!("{name} (\"{}\")", excerpt(message))
    }
}
