//! Finds out why a write failed. SFTP reports the same status "failure" for a full disk, a read-only file system and a
//! name that is too long.

use super::error::{ErrorKind, RemoteError};
use super::remote::Remote;
use crate::names::RemotePath;

/// The longest name on Linux and the BSDs, and the longest path on Linux, in bytes. The BSDs allow only shorter paths.
const LONGEST_NAME: usize = 255;
const LONGEST_PATH: usize = 4095;

fn longest_name_in(path: &RemotePath) -> usize {
    path.as_bytes().split(|byte| *byte == b'/').map(<[u8]>::len).max().unwrap_or(0)
}

fn name_too_long(at: &RemotePath, most: u64) -> RemoteError {
    let (path, longest) = (at.as_bytes().len(), longest_name_in(at));
    let why = format_args!(
        "the path has {path} bytes (at most {LONGEST_PATH}), and its longest component has {longest} (at most {most})"
    );
    RemoteError::new(ErrorKind::BadName, format_args!("the name {at} is too long for the vessel"), why)
}

impl Remote {
    /// Replaces the error of a failed write to `at` by a more specific one, if the reason can be found. `needed` is the
    /// number of bytes that were still to be written.
    pub async fn explain(&self, error: RemoteError, at: &RemotePath, needed: u64) -> RemoteError {
        let error = self.explain_by_place(error, at, needed).await;
        let is_odd = std::str::from_utf8(at.as_bytes()).is_err();
        let may_be_the_name = matches!(error.kind, ErrorKind::Failed | ErrorKind::NotFound | ErrorKind::BadName);
        if is_odd && may_be_the_name && longest_name_in(at) <= LONGEST_NAME {
            let what = format_args!("{at} is not valid UTF-8, and the vessel may not accept such names");
            return RemoteError::new(ErrorKind::BadName, what, &error);
        }
        error
    }

    async fn explain_by_place(&self, error: RemoteError, at: &RemotePath, needed: u64) -> RemoteError {
        if !matches!(error.kind, ErrorKind::Failed | ErrorKind::BadName | ErrorKind::NoSpace { .. }) {
            return error;
        }
        // Checks the length first, because the request for free space also fails for a name that is too long.
        if longest_name_in(at) > LONGEST_NAME || at.as_bytes().len() > LONGEST_PATH {
            return name_too_long(at, LONGEST_NAME as u64);
        }
        let Ok(Some(space)) = self.space(at).await else { return error };
        if space.longest_name > 0 && longest_name_in(at) as u64 > space.longest_name {
            return name_too_long(at, space.longest_name);
        }
        if space.read_only {
            let why = "the file system is read-only";
            return RemoteError::new(ErrorKind::ReadOnly, format_args!("writing to {at}"), why);
        }
        if space.free_files == 0 {
            let kind = ErrorKind::NoSpace { free: space.free };
            let why = "no inode is free for another file";
            return RemoteError::new(kind, format_args!("the file system of {at} is full"), why);
        }
        if space.free < needed.max(1) {
            let why = format_args!("{} bytes are free, {needed} bytes are needed", space.free);
            let kind = ErrorKind::NoSpace { free: space.free };
            return RemoteError::new(kind, format_args!("the file system of {at} is full"), why);
        }
        error
    }
}
