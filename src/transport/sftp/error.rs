//! Why a request failed.

use std::time::Duration;

use super::wire;

/// Why a request failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum SftpError {
    /// The vessel answered with a status that isn't OK (`SSH_FX_*`).
    #[error("{}", status_text(*code, message))]
    Status {
        /// The status code.
        code: u32,
        /// The vessel's own words.
        message: String,
    },
    /// The connection is gone.
    #[error("{0}")]
    Lost(String),
    /// The vessel didn't answer in time.
    #[error("no answer for {:.0} s", .0.as_secs_f64())]
    Silent(Duration),
    /// What came was no SFTP.
    #[error("the vessel sent something that is no SFTP")]
    Garbled,
}

impl From<wire::Garbled> for SftpError {
    fn from(_: wire::Garbled) -> Self {
        Self::Garbled
    }
}

impl SftpError {
    /// Whether the vessel said that there is no such file.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Status { code: 2, .. })
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
        _ => return format!("status {code} {message:?}"),
    };
    if message.is_empty() || message.eq_ignore_ascii_case(name) { name.into() } else { format!("{name} ({message:?})") }
}
