//! Listing a directory.

use bytes::Bytes;

use super::wire::{Attrs, Reply, kind, put_string};
use super::{Sftp, SftpError, unexpected};

impl Sftp {
    /// Whether a path can be listed, which tells a directory from a file where the vessel says no more of it. Asked once: a
    /// refusal is an answer here, and no sign that too many files are open.
    pub async fn can_list(&self, path: &[u8]) -> Result<(), SftpError> {
        let handle = self.opened_once(kind::OPENDIR, |out| put_string(out, path)).await?;
        let read = self.on_path(kind::READDIR, &handle.0, None).await;
        self.close(handle).await?;
        match read? {
            Reply::Names(_) | Reply::Status { code: 1, .. } => Ok(()),
            other => Err(unexpected(other)),
        }
    }

    /// The entries of a directory but for `.` and `..`, at most `most` of them.
    ///
    /// Two questions are on their way at any time: the answer that a listing is at its end costs no round trip of its own.
    pub async fn list(&self, path: &[u8], most: usize) -> Result<Vec<(Bytes, Attrs)>, SftpError> {
        let handle = self.opened(kind::OPENDIR, |out| put_string(out, path)).await?;
        let send = |kind| self.session.send(kind, Bytes::new(), |out| put_string(out, &handle.0));
        let mut entries = Vec::new();
        let mut returned = 0;
        let mut next = send(kind::READDIR).await?;
        let outcome = loop {
            let coming = std::mem::replace(&mut next, send(kind::READDIR).await?);
            match coming.wait().await? {
                // Some servers say so that the listing is at its end.
                Reply::Names(names) if names.is_empty() => break Ok(()),
                Reply::Names(names) => {
                    returned += names.len();
                    let real = names.into_iter().filter(|(name, _)| *name != b"."[..] && *name != b".."[..]);
                    // A copy: the name alone, without the packet it came in.
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
        // Nothing hangs on the answer.
        send(kind::CLOSE).await?;
        outcome.map(|()| entries)
    }
}
