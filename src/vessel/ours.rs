//! Which files on a vessel are ours: made by this account, and not what somebody put there under their name.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use super::visit::{OURS, Visit};
use crate::fault::Fault;
use crate::names::{InstanceId, RemotePath, assembly_name};
use crate::records::Version;
use crate::rights::CopyOf;
use crate::transport::{Attrs, ErrorKind, Lane, OpenFlags, Remote, RemoteError, RemoteFile};

/// Opens a file that is not there yet. A file or link under its name is removed first, never written to: somebody may have
/// planted it.
pub(super) async fn open_new(remote: &Remote, lane: &Lane, path: &RemotePath) -> Result<RemoteFile, RemoteError> {
    match lane.open(path, OpenFlags::NEW, OURS).await {
        Err(e) if !e.is_connection() && !e.is_not_found() => {}
        opened => return opened,
    }
    // When this fails, what counts is that the file can't be opened.
    let _ = remote.remove(path).await;
    match lane.open(path, OpenFlags::NEW, OURS).await {
        // Nothing is there: a server that doesn't know how to open only what is new.
        Err(e) if !e.is_connection() && is_gone_or_unseen(remote, path).await => {
            tracing::debug!("opened without O_EXCL: {e}");
            lane.open(path, OpenFlags::FRESH, OURS).await
        }
        opened => opened,
    }
}

async fn is_gone_or_unseen(remote: &Remote, path: &RemotePath) -> bool {
    match remote.look(path).await {
        Ok(there) => there.is_none(),
        Err(e) => e.is_refusal(),
    }
}

/// Finds out who owns the files that this account makes in a directory, by making one; `None` where the vessel doesn't tell.
///
/// File systems may give all files one owner (FAT), and NFS servers may give root's files another.
pub(super) async fn owner_in(remote: &Remote, probe: &RemotePath) -> Result<Option<u32>, RemoteError> {
    let file = open_new(remote, remote.lane(), probe).await?;
    // In one burst, which the vessel answers in this order.
    let (attrs, closed, removed) = tokio::join!(file.attrs(), file.clone().close(), remote.remove(probe));
    closed.and(removed)?;
    Ok(attrs?.owner.map(|(user, _)| user))
}

/// The owners of the files that this account makes, by directory, as far as they were asked for on this connection.
#[derive(Default)]
pub(super) struct Owners(Mutex<HashMap<RemotePath, Option<u32>>>);

impl Owners {
    /// The owner of what is made in a directory.
    async fn of(
        &self,
        remote: &Remote,
        instance: InstanceId,
        directory: &RemotePath,
    ) -> Result<Option<u32>, RemoteError> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(directory).copied();
        if let Some(owner) = known {
            return Ok(owner);
        }
        // An assembly's name, of no delivery: one that a cut leaves goes with the directory.
        let probe = directory.join(assembly_name(instance, 0, Some(fastrand::u64(..))));
        let owner = match owner_in(remote, &probe).await {
            Err(e) if e.is_connection() => return Err(e),
            owner => owner.unwrap_or_default(),
        };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(directory.clone(), owner);
        Ok(owner)
    }
}

impl Visit {
    /// Whether a file belongs to another user than one that we would make in its place; not where the vessel doesn't tell.
    /// The owner that a version's copy is given is as good.
    pub(super) async fn is_foreign(
        &self,
        version: &Version,
        path: &RemotePath,
        attrs: &Attrs,
    ) -> Result<bool, RemoteError> {
        let Some((owner, _)) = attrs.owner else { return Ok(false) };
        if version.owner.is_some_and(|(given, _)| given == owner) {
            return Ok(false);
        }
        let directory = path.parent().unwrap_or_else(|| RemotePath::new("."));
        let ours = self.owners.of(&self.remote, self.instance, &directory).await?;
        Ok(ours.is_some_and(|ours| ours != owner))
    }

    /// Whether a file that an earlier attempt left may be written to: a regular file with our mode and our owner, and, where
    /// others can write to its directory, with one name. Somebody may have put another in its place.
    pub(super) async fn may_resume(
        &self,
        version: &Version,
        path: &RemotePath,
        attrs: &Attrs,
    ) -> Result<bool, RemoteError> {
        let mode_is_ours = attrs.mode.is_none_or(|mode| [OURS, version.mode & 0o7777].contains(&(mode & 0o7777)));
        if (attrs.has_kind() && !attrs.is_file()) || !mode_is_ours {
            return Ok(false);
        }
        // On this host, opening it asks for its owner and its names.
        if self.remote.is_this_host() {
            return Ok(true);
        }
        if self.is_foreign(version, path, attrs).await? {
            return Ok(false);
        }
        let directory = path.parent().unwrap_or_else(|| RemotePath::new("."));
        let shared = match self.remote.look_through(&directory).await {
            Ok(Some(there)) => {
                there.mode.is_some_and(|mode| mode & 0o022 != 0) || self.is_foreign(version, path, &there).await?
            }
            Err(e) if e.is_connection() => return Err(e),
            Ok(None) | Err(_) => false,
        };
        if !shared {
            return Ok(true);
        }
        match self.remote.links(path).await {
            Ok(links) => Ok(links == 1),
            Err(e) if e.is_connection() => Err(e),
            Err(_) => Ok(false),
        }
    }

    /// Whether a file under its final name has other rights than its version, and an owner who alone can change them.
    pub(super) async fn is_of_others_rights(
        &self,
        version: &Version,
        path: &RemotePath,
        attrs: &Attrs,
    ) -> Result<bool, Fault> {
        let same = attrs.mode.is_none_or(|mode| mode & 0o7777 == CopyOf::File.plain(version.mode));
        Ok(!same && self.is_foreign(version, path, attrs).await.map_err(|e| e.fault())?)
    }

    /// What follows where a file can't be given its mode or time. One that is not ours was put in place of ours, and is not
    /// published; else a file system without modes (FAT) is no reason to go without the file.
    pub(super) async fn undressed(
        &self,
        version: &Version,
        path: &RemotePath,
        error: RemoteError,
    ) -> Result<(), RemoteError> {
        if error.is_connection() {
            return Err(error);
        }
        if error.kind == ErrorKind::Denied
            && let Some(attrs) = self.remote.look(path).await?
            && self.is_foreign(version, path, &attrs).await?
        {
            let why = "it belongs to another user, who has put it in the place of ours";
            return Err(RemoteError::new(ErrorKind::Failed, format_args!("setting the mode of {path}"), why));
        }
        tracing::warn!(vessel = %self.vessel.settings.name, file = %version.path, "{error}");
        Ok(())
    }
}
