//! The one rename that makes a file appear, on servers of every manner.

use futures_util::future::join;

use super::error::{ErrorKind, RemoteError};
use super::remote::Remote;
use super::sftp::{Attrs, SftpError};
use crate::names::RemotePath;

/// What became of a file that was renamed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renamed {
    /// It has its new name.
    There,
    /// It has neither name: somebody there took it at once.
    Taken,
    /// The vessel says so, and doesn't let the account look.
    Unseen,
}

impl Remote {
    /// Whether open files can be flushed to the vessel's disk by SFTP.
    pub fn fsync(&self) -> bool {
        self.capabilities().fsync() && !self.0.lane.files().refuses_fsync()
    }

    /// Whether a rename replaces an existing file in one step.
    pub fn replaces_at_once(&self) -> bool {
        self.capabilities().posix_rename() && !self.0.lane.files().refuses_posix_rename()
    }

    /// Whether a rename may have failed because of what has the new name (`found`), and not for want of the file. Where nobody
    /// may look, that is taken for the reason.
    async fn is_in_the_way(&self, from: &RemotePath, found: &Result<Option<Attrs>, RemoteError>) -> bool {
        let is_there = match found {
            Ok(found) => found.is_some_and(|attrs| !attrs.is_dir()),
            Err(e) => e.is_refusal(),
        };
        is_there
            && match self.look(from).await {
                Ok(there) => there.is_some(),
                Err(e) => e.is_refusal(),
            }
    }

    /// Gives a file of `size` bytes, or a link that has none, its final name, replacing whatever file has it: in one step
    /// where the vessel can.
    ///
    /// Looks whether it is there then, in the same round trip: what is acknowledged must not hang on the vessel's word.
    pub async fn rename_over(
        &self,
        from: &RemotePath,
        to: &RemotePath,
        size: Option<u64>,
    ) -> Result<Renamed, RemoteError> {
        let files = self.0.lane.files();
        let what = || format!("renaming {from} to {to}");
        let error = |e: SftpError| RemoteError::from_sftp(&e, what());
        let plain = || async { join(files.rename(from.as_bytes(), to.as_bytes()), self.look(to)).await };
        let (mut renamed, mut found) = if self.replaces_at_once() {
            // Polled in this order, so sent in this order; tokio's own would begin with either.
            join(files.posix_rename(from.as_bytes(), to.as_bytes()), self.look(to)).await
        } else {
            plain().await
        };
        if renamed.is_err() && files.refuses_posix_rename() && self.capabilities().posix_rename() {
            (renamed, found) = plain().await;
        }
        // It may not rename over a file, or has none of the words to say so.
        if let Err(e @ SftpError::Status { .. }) = &renamed
            && !self.replaces_at_once()
            && !e.is_not_found()
            && self.is_in_the_way(from, &found).await
        {
            self.remove(to).await?;
            (renamed, found) = plain().await;
        }
        renamed.map_err(error)?;
        let is_it = |attrs: &Attrs| !attrs.is_dir() && (size.is_none() || attrs.size.is_none() || attrs.size == size);
        let found = match found {
            Err(e) if e.is_refusal() => return Ok(Renamed::Unseen),
            Ok(Some(attrs)) if is_it(&attrs) => return Ok(Renamed::There),
            found => found?,
        };
        // A vessel may have looked before it had renamed.
        match self.look(to).await? {
            Some(attrs) if is_it(&attrs) => Ok(Renamed::There),
            // Whoever waits for files there has taken it already.
            None if found.is_none() && self.look(from).await?.is_none() => Ok(Renamed::Taken),
            Some(Attrs { size: Some(is), .. }) if size.is_some() => {
                Err(RemoteError::new(ErrorKind::Failed, what(), format_args!("it has {is} bytes after the rename")))
            }
            _ => {
                let why = "the vessel reported success, but the file does not exist";
                Err(RemoteError::new(ErrorKind::Failed, what(), why))
            }
        }
    }
}
