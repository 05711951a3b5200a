//! New files on the vessel, and who owns them.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use crate::names::RemotePath;
use crate::transport::{OpenFlags, Remote, RemoteError, RemoteFile, SftpChannel};

/// The mode of a file that is being put together.
pub(crate) const OURS: u32 = 0o600;

/// Opens a file that is not there yet. A file or link under its name is removed first, never written to: somebody may have
/// planted it.
pub(crate) async fn open_new(
    remote: &Remote,
    channel: &SftpChannel,
    path: &RemotePath,
) -> Result<RemoteFile, RemoteError> {
    match channel.open(path, OpenFlags::NEW, OURS).await {
        Err(e) if !e.is_connection() && !e.is_not_found() => {}
        opened => return opened,
    }
    // When this fails, what counts is that the file can't be opened.
    let _ = remote.remove(path).await;
    match channel.open(path, OpenFlags::NEW, OURS).await {
        // Nothing is there: a server that doesn't know how to open only what is new.
        Err(e) if !e.is_connection() && is_gone_or_unseen(remote, path).await => {
            tracing::debug!("Opening without O_EXCL: {e}");
            channel.open(path, OpenFlags::FRESH, OURS).await
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
pub(crate) async fn owner_in(remote: &Remote, probe: &RemotePath) -> Result<Option<u32>, RemoteError> {
    let file = open_new(remote, remote.main_channel(), probe).await?;
    // In one burst, which the vessel answers in this order.
    let (attrs, closed, removed) = tokio::join!(file.attrs(), file.clone().close(), remote.remove(probe));
    closed.and(removed)?;
    Ok(attrs?.owner.map(|(user, _)| user))
}

/// The owners of the files that this account makes, by directory, as far as they were asked for on this connection.
#[derive(Default)]
pub(crate) struct Owners(Mutex<HashMap<Option<RemotePath>, Option<u32>>>);

impl Owners {
    /// The owner of what is made beside an assembly.
    pub(crate) async fn beside(&self, remote: &Remote, assembly: &RemotePath) -> Result<Option<u32>, RemoteError> {
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
pub(crate) fn probe_beside(assembly: &RemotePath) -> RemotePath {
    let path = assembly.as_bytes();
    let bare = path.strip_suffix(b".tmp").unwrap_or(path);
    let (head, token) = bare.split_at(bare.len().saturating_sub(16));
    let number = std::str::from_utf8(token).ok().and_then(|token| u64::from_str_radix(token, 16).ok());
    match number.filter(|_| head.ends_with(b"-")) {
        Some(number) => RemotePath::new([head, format!("{:016x}.tmp", !number).as_bytes()].concat()),
        None => RemotePath::new([bare, b"-0000000000000000.tmp"].concat()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::{InstanceId, OurFile, assembly_name};

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
