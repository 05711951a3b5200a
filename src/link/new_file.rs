//! Creation of new files on the vessel, and detection of their owner. An *assembly* is the hidden temporary file next
//! to a destination in which a file is put together.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use crate::names::RemotePath;
use crate::transport::{OpenFlags, Remote, RemoteError, RemoteFile, SftpChannel};

/// Mode of a file while it is being assembled.
pub(crate) const OURS: u32 = 0o600;

/// Creates a file and opens it. An existing file or link of that name is removed, not written to, because another user
/// may have put it there.
pub(crate) async fn open_new(
    remote: &Remote,
    channel: &SftpChannel,
    path: &RemotePath,
) -> Result<RemoteFile, RemoteError> {
    match channel.open(path, OpenFlags::NEW, OURS).await {
        Err(e) if !e.is_connection() && !e.is_not_found() => {}
        opened => return opened,
    }
    // An error of the removal is ignored, because the second open reports an error of its own.
    let _ = remote.remove(path).await;
    match channel.open(path, OpenFlags::NEW, OURS).await {
        // As far as can be checked, the path does not exist, so the server seems not to support exclusive creation.
        Err(e) if !e.is_connection() && is_gone_or_unseen(remote, path).await => {
            tracing::debug!("The vessel cannot create a file exclusively, so the file is opened without O_EXCL: {e}");
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

/// Returns the owner of the files that this account creates in a directory, by creating and removing the file `probe`
/// there. `None` if the vessel does not report owners.
///
/// File systems may give all files one owner (FAT), and NFS servers may map root's files to another user.
pub(crate) async fn owner_in(remote: &Remote, probe: &RemotePath) -> Result<Option<u32>, RemoteError> {
    let file = open_new(remote, remote.main_channel(), probe).await?;
    // The three requests are sent together; the vessel handles them in this order.
    let (attrs, closed, removed) = tokio::join!(file.attrs(), file.clone().close(), remote.remove(probe));
    closed.and(removed)?;
    Ok(attrs?.owner.map(|(user, _)| user))
}

/// For each directory, the owner of the files that this account creates there, as queried on this connection.
#[derive(Default)]
pub(crate) struct Owners(Mutex<HashMap<Option<RemotePath>, Option<u32>>>);

impl Owners {
    /// Takes over the known owners from an earlier connection to the same host.
    pub(crate) fn learn_from(&self, earlier: &Self) {
        let known = earlier.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend(known);
    }

    /// Returns the owner of the files that this account creates in the directory of an assembly.
    pub(crate) async fn beside(&self, remote: &Remote, assembly: &RemotePath) -> Result<Option<u32>, RemoteError> {
        let (directory, probe) = (assembly.parent(), probe_beside(assembly));
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&directory).copied();
        if let Some(owner) = known {
            // A cancelled attempt may have left the probe file, so it is removed again.
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

/// Returns the path of the probe file that is created beside an assembly to detect the owner of new files.
pub(crate) fn probe_beside(assembly: &RemotePath) -> RemotePath {
    name_beside(assembly, u64::MAX)
}

/// Returns the path of the assembly that the loop in the vessel's shell uses. It differs from the path that is used
/// over SFTP. Otherwise an abandoned loop could publish a file that is still being written over SFTP.
pub(crate) fn loop_assembly(assembly: &RemotePath) -> RemotePath {
    name_beside(assembly, LOOP)
}

/// The bits in which the token in the name of the loop's assembly differs from the token of the SFTP assembly.
const LOOP: u64 = 0x5555_5555_5555_5555;

/// Returns another path in the assembly's directory: an assembly name of the same delivery, with another token. The
/// path is always the same for the same assembly, so that a leftover file is recognised and removed.
fn name_beside(assembly: &RemotePath, bits: u64) -> RemotePath {
    let path = assembly.as_bytes();
    let bare = path.strip_suffix(b".tmp").unwrap_or(path);
    let (head, token) = bare.split_at(bare.len().saturating_sub(16));
    let number = std::str::from_utf8(token).ok().and_then(|token| u64::from_str_radix(token, 16).ok());
    match number.filter(|_| head.ends_with(b"-")) {
        Some(number) => RemotePath::new([head, format!("{:016x}.tmp", number ^ bits).as_bytes()].concat()),
        None => RemotePath::new([bare, format!("-{:016x}.tmp", !bits).as_bytes()].concat()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::{InstanceId, OurFile, assembly_name};

    #[test]
    fn the_files_that_are_made_beside_an_assembly_are_known_as_ours_and_are_others() {
        let instance = InstanceId::new(7);
        for token in [None, Some(0), Some(u64::MAX), Some(0x1234)] {
            let assembly = RemotePath::new("/in").join(assembly_name(instance, 12, token));
            let (probe, other) = (probe_beside(&assembly), loop_assembly(&assembly));
            assert!(probe != assembly && other != assembly && probe != other);
            assert_eq!((&probe, &other), (&probe_beside(&assembly), &loop_assembly(&assembly)));
            for made in [probe, other] {
                let name = made.as_bytes().strip_prefix(b"/in/").unwrap();
                assert_eq!(OurFile::parse(instance, name), Some(OurFile::Assembly { delivery: 12 }), "{made}");
            }
        }
    }
}
