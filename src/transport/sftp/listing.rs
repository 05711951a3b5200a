//! Lists directories.

use bytes::Bytes;

use super::wire::{Attrs, Reply, kind, put_string};
use super::{Sftp, SftpError, unexpected};

impl Sftp {
    /// Checks whether a path can be listed, which tells a directory from a file if the vessel reports no file type.
    /// Does not retry, because a rejection is the answer here and not a sign of too many open files.
    pub async fn can_list(&self, path: &[u8]) -> Result<(), SftpError> {
        let handle = self.opened_once(kind::OPENDIR, |out| put_string(out, path)).await?;
        let read = self.on_path(kind::READDIR, &handle.0, None).await;
        self.close(handle).await?;
        match read? {
            Reply::Names(_) | Reply::Status { code: 1, .. } => Ok(()),
            other => Err(unexpected(other)),
        }
    }

    /// Returns the entries of a directory without `.` and `..`, at most `most` of them.
    ///
    /// Keeps two requests in flight, so that the reply "end of listing" needs no round trip of its own.
    pub async fn list(&self, path: &[u8], most: usize) -> Result<Vec<(Bytes, Attrs)>, SftpError> {
        let handle = self.opened(kind::OPENDIR, None, |out| put_string(out, path)).await?;
        let send = |kind| self.session.send(kind, Bytes::new(), |out| put_string(out, &handle.0));
        let mut entries = Vec::new();
        let mut returned = 0;
        let mut next = send(kind::READDIR).await?;
        let outcome = loop {
            let coming = std::mem::replace(&mut next, send(kind::READDIR).await?);
            match coming.wait().await? {
                // Some servers end a listing with an empty list.
                Reply::Names(names) if names.is_empty() => break Ok(()),
                Reply::Names(names) => {
                    returned += names.len();
                    let real = names.into_iter().filter(|(name, _)| *name != b"."[..] && *name != b".."[..]);
                    // Copies the name, so that it does not keep the whole packet in memory.
                    entries.extend(real.map(|(name, attrs)| (Bytes::copy_from_slice(&name), attrs)));
                }
                Reply::Status { code: 1, .. } => break Ok(()),
                other => break Err(unexpected(other)),
            }
            if returned > most {
                entries.truncate(most);
                break Ok(());
            }
        };
        // Sends the close without waiting for the reply, which no caller needs.
        send(kind::CLOSE).await?;
        outcome.map(|()| entries)
    }
}
