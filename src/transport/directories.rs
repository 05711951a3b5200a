//! Making directories, and removing them and files, on servers of every manner.

use super::error::{ErrorKind, RemoteError};
use super::remote::{Remote, found};
use super::sftp::{Attrs, SftpError};
use super::stat;
use crate::names::RemotePath;

/// The mode of directories that are made on the way.
const MODE: u32 = 0o755;

impl Remote {
    /// Makes one directory with the given permission bits, exactly.
    pub async fn make_dir(&self, path: &RemotePath, mode: u32) -> Result<(), RemoteError> {
        let made = self.main_channel().files().mkdir(path.as_bytes(), mode).await;
        made.map_err(|e| RemoteError::from_sftp(&e, format_args!("creating the directory {path}")))
    }

    /// Makes a directory and those above it, where they are missing.
    pub async fn make_dirs(&self, path: &RemotePath) -> Result<(), RemoteError> {
        self.make_dirs_noting(path, &mut Vec::new()).await
    }

    /// As [`Self::make_dirs`]; those that were made are in `made` afterwards, the lowest first, also where it failed.
    pub async fn make_dirs_noting(&self, path: &RemotePath, made: &mut Vec<RemotePath>) -> Result<(), RemoteError> {
        let mut missing = Vec::new();
        let mut next = Some(path.clone());
        while let Some(directory) = next {
            let there = match self.look_through(&directory).await {
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
                // Someone else may have made it at the same moment.
                Err(e) => match self.look_through(&directory).await {
                    Ok(Some(attrs)) if attrs.is_dir() => {}
                    Err(again) if again.is_connection() => return Err(again),
                    _ => return Err(e),
                },
            }
        }
        Ok(())
    }

    /// Makes a directory where the vessel lets nobody look, and those above it. What can't be made may be there: the first
    /// file tells.
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
                Err(e) => tracing::debug!("Assuming that the directory exists: {e}"),
            }
        }
        for directory in missing.into_iter().rev() {
            self.make_dir(&directory, MODE).await?;
            made.insert(0, directory);
        }
        Ok(())
    }

    /// Removes a file; one that isn't there is as good as removed.
    pub async fn remove(&self, path: &RemotePath) -> Result<(), RemoteError> {
        let removed = self.main_channel().files().remove(path.as_bytes()).await;
        found(self.unless_missing(path, removed).await, || format!("removing {path}")).map(|_| ())
    }

    /// Removes an empty directory; one that isn't there is as good as removed.
    pub async fn remove_dir(&self, path: &RemotePath) -> Result<(), RemoteError> {
        let removed = self.main_channel().files().rmdir(path.as_bytes()).await;
        found(self.unless_missing(path, removed).await, || format!("removing the directory {path}")).map(|_| ())
    }

    /// A failure that says no more may mean that nothing is there, which a look tells.
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

/// Whether files can be put below what is there.
fn usable(directory: &RemotePath, attrs: &Attrs) -> Result<(), RemoteError> {
    if attrs.is_dir() || !attrs.has_kind() {
        return Ok(());
    }
    let (kind, why) = if attrs.is_link() {
        // An SFTP server says what it leads to; on this host no link is followed.
        (ErrorKind::Link, "it is a symbolic link, which Transport = local does not follow")
    } else {
        // A file that a directory has replaced may be about to go.
        (ErrorKind::Failed, "it is not a directory")
    };
    Err(RemoteError::new(kind, format_args!("using {directory}"), why))
}
