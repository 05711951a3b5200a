//! Creates directories, and removes directories and files, on all kinds of servers.

use std::time::Duration;

use futures_util::future::join;

use super::error::{ErrorKind, RemoteError};
use super::remote::{Remote, found};
use super::sftp::{Attrs, SftpError};
use super::stat;
use crate::names::RemotePath;

/// The permission bits of directories that [`Remote::make_dirs`] creates.
const MODE: u32 = 0o755;
/// From this round-trip time on, a request that may turn out unnecessary costs less than waiting for the reply to an
/// earlier request.
const LONG: Duration = Duration::from_millis(20);

impl Remote {
    /// Creates one directory with the given permission bits.
    pub async fn make_dir(&self, path: &RemotePath, mode: u32) -> Result<(), RemoteError> {
        let made = self.main_channel().files().mkdir(path.as_bytes(), mode).await;
        made.map_err(|e| RemoteError::from_sftp(&e, format_args!("creating the directory {path}")))
    }

    /// Creates a directory and its missing parents.
    pub async fn make_dirs(&self, path: &RemotePath) -> Result<(), RemoteError> {
        self.make_dirs_noting(path, &mut Vec::new()).await
    }

    /// Creates a directory and its missing parents, as [`Self::make_dirs`] does. Adds the created directories to
    /// `made`, the deepest first, even if a later step fails.
    pub async fn make_dirs_noting(&self, path: &RemotePath, made: &mut Vec<RemotePath>) -> Result<(), RemoteError> {
        let mut missing = Vec::new();
        let mut next = Some(path.clone());
        while let Some(directory) = next {
            // If the round-trip time is long, the query and the creation are sent together. The creation does not
            // change an existing directory.
            let ahead = async {
                match self.main_channel().round_trip() >= LONG {
                    true => self.make_dir(&directory, MODE).await.is_ok(),
                    false => false,
                }
            };
            let (there, is_made) = join(self.look_through(&directory), ahead).await;
            if is_made {
                made.insert(0, directory);
                break;
            }
            let there = match there {
                Err(e) if e.is_refusal() => {
                    self.make_unseen(&directory, made).await?;
                    break;
                }
                there => there?,
            };
            match there {
                Some(attrs) => {
                    usable(&directory, &attrs)?;
                    break;
                }
                None => {
                    next = directory.parent();
                    missing.push(directory);
                }
            }
        }
        for directory in missing.into_iter().rev() {
            match self.make_dir(&directory, MODE).await {
                Ok(()) => made.insert(0, directory),
                // Another process may have created the directory at the same moment.
                Err(e) => match self.look_through(&directory).await {
                    Ok(Some(attrs)) if attrs.is_dir() => {}
                    Err(again) if again.is_connection() => return Err(again),
                    _ => return Err(e),
                },
            }
        }
        Ok(())
    }

    /// Creates a directory and its parents on a vessel that denies permission to query them. A directory that can't be
    /// created may exist already; the creation of the first file shows whether it does.
    async fn make_unseen(&self, path: &RemotePath, made: &mut Vec<RemotePath>) -> Result<(), RemoteError> {
        let mut missing = Vec::new();
        let mut next = Some(path.clone());
        while let Some(directory) = next.take() {
            match self.make_dir(&directory, MODE).await {
                Ok(()) => made.insert(0, directory),
                Err(e) if e.is_connection() => return Err(e),
                Err(e) if e.is_not_found() => {
                    next = directory.parent();
                    missing.push(directory);
                }
                Err(e) => tracing::debug!("Cannot create the directory; assuming that it exists: {e}"),
            }
        }
        for directory in missing.into_iter().rev() {
            self.make_dir(&directory, MODE).await?;
            made.insert(0, directory);
        }
        Ok(())
    }

    /// Removes a file. A missing file counts as removed.
    pub async fn remove(&self, path: &RemotePath) -> Result<(), RemoteError> {
        let removed = self.main_channel().files().remove(path.as_bytes()).await;
        found(self.unless_missing(path, removed).await, || format!("removing {path}")).map(|_| ())
    }

    /// Removes an empty directory. A missing directory counts as removed.
    pub async fn remove_dir(&self, path: &RemotePath) -> Result<(), RemoteError> {
        let removed = self.main_channel().files().rmdir(path.as_bytes()).await;
        found(self.unless_missing(path, removed).await, || format!("removing the directory {path}")).map(|_| ())
    }

    /// Converts an unspecific failure of a removal to "no such file" if the path does not exist.
    async fn unless_missing(&self, path: &RemotePath, removed: Result<(), SftpError>) -> Result<(), SftpError> {
        match removed {
            Err(e @ SftpError::Status { code: 4, .. }) if !e.is_not_found() => {
                match stat::at(self.main_channel().files(), path.as_bytes()).await {
                    Err(missing) if missing.is_not_found() => Err(missing),
                    _ => Err(e),
                }
            }
            removed => removed,
        }
    }
}

/// Checks that a path is a directory. A path of unknown type counts as a directory.
fn usable(directory: &RemotePath, attrs: &Attrs) -> Result<(), RemoteError> {
    if attrs.is_dir() || !attrs.has_kind() {
        return Ok(());
    }
    let (kind, why) = if attrs.is_link() {
        // The vessel is a target on this host, where links are not followed. An SFTP server would follow the link.
        (ErrorKind::Link, "the path is a symbolic link, which Transport = local does not follow")
    } else {
        // On the shore, a directory may have replaced a file of this name. The file on the vessel is then about to be
        // deleted, so a retry can succeed.
        (ErrorKind::Failed, "the path is not a directory")
    };
    Err(RemoteError::new(kind, format_args!("using {directory}"), why))
}
