//! Recognizes "no such file" on servers that report it as an unspecific failure. To learn how a server reports it,
//! queries a name that certainly does not exist.

use futures_util::future::join;
use tokio::sync::OnceCell;

use super::{Sftp, SftpError};

/// The status of a request that failed for an unspecified reason.
const FAILURE: u32 = 4;
const NO_SUCH_FILE: u32 = 2;

/// The messages of the unspecific failures with which the server answers queries for a missing name. Empty if the
/// server uses a specific status code for a missing name.
#[derive(Default)]
pub(super) struct Missing(OnceCell<Vec<String>>);

impl Sftp {
    /// Converts a failure that means "no such file" on this server into the status for "no such file". Must only be
    /// used for queries of a path, because a change can fail with the same message for other reasons.
    pub(super) async fn or_missing<T>(&self, path: &[u8], answer: Result<T, SftpError>) -> Result<T, SftpError> {
        let Err(SftpError::Status { code: FAILURE, message }) = &answer else { return answer };
        if answer.as_ref().is_err_and(SftpError::is_not_found) {
            return answer;
        }
        // Boxed, because otherwise the future of every query would reserve memory for this step, which runs only once
        // per session.
        let words = self.missing.0.get_or_try_init(|| Box::pin(self.ask_for_nothing())).await?;
        if words.contains(&without_path(message, path)) {
            return Err(SftpError::Status { code: NO_SUCH_FILE, message: String::new() });
        }
        answer
    }

    /// Queries a name that does not exist, and returns the messages of the failures. LSTAT and STAT may fail with
    /// different messages.
    async fn ask_for_nothing(&self) -> Result<Vec<String>, SftpError> {
        let name = format!(".contentmonster-is-not-there-{:016x}", fastrand::u64(..)).into_bytes();
        let (lstat, stat) = join(self.lstat_once(&name), self.stat_once(&name)).await;
        let mut words = Vec::new();
        for answer in [lstat, stat] {
            match answer {
                Err(SftpError::Status { code: FAILURE, message }) => words.push(without_path(&message, &name)),
                Ok(_) | Err(SftpError::Status { .. }) => {}
                Err(e) => return Err(e),
            }
        }
        Ok(words)
    }
}

/// Returns a message in lower case, without the path, which the server may have quoted in it.
fn without_path(message: &str, path: &[u8]) -> String {
    message.replace(&*String::from_utf8_lossy(path), "").to_ascii_lowercase()
}
