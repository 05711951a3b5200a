//! Lets a vessel hash files without a shell, by the SFTP extension `check-file`.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::error::{ConnectError, RemoteError};
use super::files::Files;
use super::remote::Remote;
use super::sftp::SftpError;
use super::sftp_channel::SftpChannel;
use super::ssh::SshEnvironment;
use crate::digest::Digest;
use crate::names::RemotePath;
use crate::settings::Vessel;

/// The lowest rate, in bytes per second, at which a vessel is expected to hash.
const SLOWEST: u64 = 2 << 20;

/// Returns how long a vessel may need to hash `bytes` bytes.
fn time_for(bytes: u64) -> Duration {
    Duration::from_secs(1 + bytes / SLOWEST)
}

impl SftpChannel {
    /// Opens a channel on a new connection for hashing `bytes` bytes. Some servers handle the requests of a connection
    /// one after the other and answer no keepalive requests while they hash, so the connection tolerates more
    /// unanswered ones.
    ///
    /// # Errors
    /// The same errors as those of [`Remote::connect`].
    pub async fn connect_for_hashing(
        vessel: &Vessel,
        environment: &Arc<SshEnvironment>,
        bytes: u64,
    ) -> Result<Self, ConnectError> {
        let mut vessel = vessel.clone();
        let (interval, count) = vessel.ssh.alive;
        let unanswered = time_for(bytes).as_secs() / interval.as_secs().max(1) + 1;
        vessel.ssh.alive = (interval, count.saturating_add(usize::try_from(unanswered).unwrap_or(usize::MAX)));
        Self::connect(&Arc::new(vessel), environment, None).await
    }

    /// Returns whether the vessel knows the extension. Requests the hash of a directory: a vessel that knows the
    /// extension may refuse this request, but not as unsupported.
    pub(super) async fn knows_check_file(&self) -> bool {
        let Files::Sftp(sftp) = self.files() else { return false };
        match sftp.check_file(b".", (0, 0), Duration::ZERO).await {
            Ok(_) => true,
            Err(SftpError::Status { code, .. }) => code != SftpError::UNSUPPORTED,
            Err(_) => false,
        }
    }
}

impl Remote {
    /// Returns whether `check-file` may be used. Only a comparison with a known hash shows whether the vessel hashes
    /// correctly.
    pub fn checks_files(&self) -> bool {
        self.capabilities().check_file && !self.0.refuses_check_file.load(Ordering::Relaxed)
    }

    /// Stops using `check-file` on this connection.
    pub fn distrust_check_file(&self, why: &str) {
        tracing::debug!("The vessel's check-file is not used: {why}");
        self.0.refuses_check_file.store(true, Ordering::Relaxed);
    }

    /// Requests the vessel to hash a range of a file. `range` holds the offset and the length; a length of 0 means up
    /// to the end of the file. `bytes` is the number of bytes to hash. Returns `None` if the vessel refuses, or its
    /// reply is not a SHA-256.
    ///
    /// # Errors
    /// When the connection is lost, or no reply arrives in time.
    pub async fn check_file(
        &self,
        channel: &SftpChannel,
        path: &RemotePath,
        range: (u64, u64),
        bytes: u64,
    ) -> Result<Option<Digest>, RemoteError> {
        let Files::Sftp(sftp) = channel.files() else { return Ok(None) };
        match sftp.check_file(path.as_bytes(), range, time_for(bytes)).await {
            Ok(Some(digest)) => return Ok(Some(digest)),
            Ok(None) => self.distrust_check_file("the reply is not a SHA-256"),
            Err(e @ SftpError::Status { code: SftpError::UNSUPPORTED, .. }) => self.distrust_check_file(&e.to_string()),
            Err(e @ SftpError::Status { .. }) => tracing::debug!(%path, "The vessel does not hash the file: {e}"),
            Err(e) => return Err(RemoteError::from_sftp(&e, format_args!("hashing {path} on the vessel"))),
        }
        Ok(None)
    }
}
