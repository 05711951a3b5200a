//! Which files on a vessel are ours: made by this account, and not what somebody put there under their name.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use super::session::{OURS, Session};
use crate::fault::Fault;
use crate::names::{OurFile, RemotePath};
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
pub(super) struct Owners(Mutex<HashMap<Option<RemotePath>, Option<u32>>>);

impl Owners {
    /// The owner of what is made beside an assembly.
    async fn beside(&self, remote: &Remote, assembly: &RemotePath) -> Result<Option<u32>, RemoteError> {
        let (directory, probe) = (assembly.parent(), probe_beside(assembly));
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&directory).copied();
        if let Some(owner) = known {
            // An attempt that was cut off has left it.
            return match remote.remove(&probe).await {
                Err(e) if e.is_connection() => Err(e),
                _ => Ok(owner),
            };
        }
        let owner = match owner_in(remote, &probe).await {
            Err(e) if e.is_connection() => return Err(e),
            owner => owner.unwrap_or_default(),
        };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(directory, owner);
        Ok(owner)
    }
}

/// The name of the file that is made beside an assembly to see whose our files are: that of another assembly of the same
/// delivery, always the same, so that what a cut leaves is found again.
pub(super) fn probe_beside(assembly: &RemotePath) -> RemotePath {
    let path = assembly.as_bytes();
    let bare = path.strip_suffix(b".tmp").unwrap_or(path);
    let (head, token) = bare.split_at(bare.len().saturating_sub(16));
    let number = std::str::from_utf8(token).ok().and_then(|token| u64::from_str_radix(token, 16).ok());
    match number.filter(|_| head.ends_with(b"-")) {
        Some(number) => RemotePath::new([head, format!("{:016x}.tmp", !number).as_bytes()].concat()),
        None => RemotePath::new([bare, b"-0000000000000000.tmp"].concat()),
    }
}

impl Session {
    /// Whether a file belongs to another user than one that we would make beside an assembly; not where the vessel doesn't tell.
    /// The owner that a version's copy is given is as good.
    async fn is_foreign(&self, version: &Version, assembly: &RemotePath, attrs: &Attrs) -> Result<bool, RemoteError> {
        let Some((owner, _)) = attrs.owner else { return Ok(false) };
        if version.owner.is_some_and(|(given, _)| given == owner) {
            return Ok(false);
        }
        let ours = self.owners.beside(&self.remote, assembly).await?;
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

    /// Whether a path is that of an assembly.
    pub(super) fn is_assembly(&self, path: &RemotePath) -> bool {
        let name = path.as_bytes().rsplit(|byte| *byte == b'/').next().unwrap_or_default();
        matches!(OurFile::parse(self.instance, name), Some(OurFile::Assembly { .. }))
    }

    /// Whether a file under its final name has other rights than its version, and an owner who alone can change them.
    pub(super) async fn is_of_others_rights(
        &self,
        version: &Version,
        assembly: &RemotePath,
        attrs: &Attrs,
    ) -> Result<bool, Fault> {
        let same = attrs.mode.is_none_or(|mode| mode & 0o7777 == CopyOf::File.plain(version.mode));
        Ok(!same && self.is_foreign(version, assembly, attrs).await.map_err(|e| e.fault())?)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::{InstanceId, assembly_name};

    #[test]
    fn the_file_that_is_made_beside_an_assembly_is_known_as_ours_and_is_another() {
        let instance = InstanceId::new(7);
        for token in [None, Some(0), Some(u64::MAX), Some(0x1234)] {
            let assembly = RemotePath::new("/in").join(assembly_name(instance, 12, token));
            let probe = probe_beside(&assembly);
            assert_ne!(probe, assembly);
            assert_eq!(probe, probe_beside(&assembly));
            let name = probe.as_bytes().strip_prefix(b"/in/").unwrap();
            assert_eq!(OurFile::parse(instance, name), Some(OurFile::Assembly { delivery: 12 }), "{probe}");
        }
    }
}
