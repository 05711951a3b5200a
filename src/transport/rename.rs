//! Renames a file to its final name, on all kinds of servers.

use futures_util::future::join;

use super::error::{ErrorKind, RemoteError};
use super::remote::Remote;
use super::sftp::{Attrs, SftpError};
use crate::names::RemotePath;

/// The outcome of a rename.
#[derive(Clone, Copy, Debug)]
pub enum Renamed {
    /// The file has its new name, and these attributes. If the vessel answered the query before it renamed the file,
    /// these may be the attributes of an earlier file of the same size.
    There(Attrs),
    /// The file has neither the old nor the new name: another process on the vessel has probably removed it.
    Taken,
    /// The vessel reports success, but denies the account permission to check that the file has its new name.
    Unseen,
}

impl Remote {
    /// Returns whether SFTP can flush open files to the vessel's disk.
    pub fn fsync(&self) -> bool {
        self.capabilities().fsync() && !self.0.channel.files().refuses_fsync()
    }

    /// Returns whether a rename atomically replaces an existing file.
    pub fn replaces_at_once(&self) -> bool {
        self.capabilities().posix_rename() && !self.0.channel.files().refuses_posix_rename()
    }

    /// Returns whether a rename may have failed because a file with the new name exists. Both this file and the source
    /// `from` must exist; a directory with the new name does not count. `found` is the result of querying the new name.
    /// A file that the account may not query counts as existing.
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

    /// Renames a file or a directory to a name that does not exist.
    pub async fn rename_to_new(&self, from: &RemotePath, to: &RemotePath) -> Result<(), RemoteError> {
        let renamed = self.0.channel.files().rename(from.as_bytes(), to.as_bytes()).await;
        renamed.map_err(|e| RemoteError::from_sftp(&e, format_args!("renaming {from} to {to}")))
    }

    /// Renames a file or a link to its final name, and replaces an existing file. The replacement is atomic if the
    /// vessel supports that. `size` is the size of the file in bytes; `None` for a link.
    ///
    /// Queries the new name in the same round trip, to verify the vessel's reply to the rename.
    pub async fn rename_over(
        &self,
        from: &RemotePath,
        to: &RemotePath,
        size: Option<u64>,
    ) -> Result<Renamed, RemoteError> {
        let files = self.0.channel.files();
        let what = || format!("renaming {from} to {to}");
        let error = |e: SftpError| RemoteError::from_sftp(&e, what());
        let plain = || async { join(files.rename(from.as_bytes(), to.as_bytes()), self.look(to)).await };
        let (mut renamed, mut found) = if self.replaces_at_once() {
            // This `join` polls, and therefore sends, the rename first; `tokio::join!` could poll the query first.
            join(files.posix_rename(from.as_bytes(), to.as_bytes()), self.look(to)).await
        } else {
            plain().await
        };
        if renamed.is_err() && files.refuses_posix_rename() && self.capabilities().posix_rename() {
            (renamed, found) = Box::pin(plain()).await;
        }
        // The server may reject a rename because the new name exists, but report only a general failure.
        if let Err(e @ SftpError::Status { .. }) = &renamed
            && !self.replaces_at_once()
            && !e.is_not_found()
            && Box::pin(self.is_in_the_way(from, &found)).await
        {
            Box::pin(self.remove(to)).await?;
            (renamed, found) = Box::pin(plain()).await;
        }
        renamed.map_err(error)?;
        let is_it = |attrs: &Attrs| !attrs.is_dir() && (size.is_none() || attrs.size.is_none() || attrs.size == size);
        let found = match found {
            Err(e) if e.is_refusal() => return Ok(Renamed::Unseen),
            Ok(Some(attrs)) if is_it(&attrs) => return Ok(Renamed::There(attrs)),
            found => found?,
        };
        // The vessel may have handled the query before the rename, so the new name is queried again.
        match self.look(to).await? {
            Some(attrs) if is_it(&attrs) => Ok(Renamed::There(attrs)),
            // A process that watches the directory has probably removed the file already.
            None if found.is_none() && self.look(from).await?.is_none() => Ok(Renamed::Taken),
            Some(Attrs { size: Some(is), .. }) if size.is_some() => {
                let expected = size.unwrap_or_default();
                let why = format_args!("the file has {is} bytes after the rename; expected {expected}");
                Err(RemoteError::new(ErrorKind::Failed, what(), why))
            }
            _ => {
                let why = "the vessel reported success, but the renamed file does not exist";
                Err(RemoteError::new(ErrorKind::Failed, what(), why))
            }
        }
    }
}
