//! Requests on paths: status, attributes, links, directories, renames, removals, and free space.

use bytes::{Bytes, BytesMut};

use super::space::Space;
use super::wire::{Attrs, Reader, Reply, kind, put_string};
use super::{Sftp, SftpError, attrs, note_refusal, status, unexpected};

impl Sftp {
    /// Returns the attributes of a path without following a link.
    pub async fn lstat(&self, path: &[u8]) -> Result<Attrs, SftpError> {
        self.or_missing(path, self.lstat_once(path).await).await
    }

    pub(super) async fn lstat_once(&self, path: &[u8]) -> Result<Attrs, SftpError> {
        attrs(self.on_path(kind::LSTAT, path, None).await?)
    }

    /// Returns the attributes of a path, following links.
    pub async fn stat(&self, path: &[u8]) -> Result<Attrs, SftpError> {
        self.or_missing(path, self.stat_once(path).await).await
    }

    pub(super) async fn stat_once(&self, path: &[u8]) -> Result<Attrs, SftpError> {
        attrs(self.on_path(kind::STAT, path, None).await?)
    }

    /// Sets attributes of a path.
    pub async fn setstat(&self, path: &[u8], set: Attrs) -> Result<(), SftpError> {
        status(self.on_path(kind::SETSTAT, path, Some(set)).await?)
    }

    /// Removes a file.
    pub async fn remove(&self, path: &[u8]) -> Result<(), SftpError> {
        status(self.on_path(kind::REMOVE, path, None).await?)
    }

    /// Creates a directory.
    pub async fn mkdir(&self, path: &[u8], mode: u32) -> Result<(), SftpError> {
        status(self.on_path(kind::MKDIR, path, Some(Attrs { mode: Some(mode), ..Attrs::default() })).await?)
    }

    /// Removes an empty directory.
    pub async fn rmdir(&self, path: &[u8]) -> Result<(), SftpError> {
        status(self.on_path(kind::RMDIR, path, None).await?)
    }

    /// Creates a symbolic link. The arguments are in the order that OpenSSH expects, which is not that of the draft
    /// (section 4.1 of OpenSSH's PROTOCOL file).
    pub async fn symlink(&self, target: &[u8], link: &[u8]) -> Result<(), SftpError> {
        status(self.session.request(kind::SYMLINK, Bytes::new(), |out| put_two(out, target, link)).await?)
    }

    /// Returns the target of a symbolic link.
    pub async fn readlink(&self, path: &[u8]) -> Result<Bytes, SftpError> {
        match self.on_path(kind::READLINK, path, None).await? {
            Reply::Names(names) => names.into_iter().next().map(|(target, _)| target).ok_or(SftpError::Garbled),
            other => Err(unexpected(other)),
        }
    }

    /// Returns the canonical absolute path of a path.
    pub async fn realpath(&self, path: &[u8]) -> Result<Bytes, SftpError> {
        match self.on_path(kind::REALPATH, path, None).await? {
            Reply::Names(names) => names.into_iter().next().map(|(real, _)| real).ok_or(SftpError::Garbled),
            other => Err(unexpected(other)),
        }
    }

    /// Sets attributes of a path without following a link (`lsetstat@openssh.com`).
    pub async fn lsetstat(&self, path: &[u8], set: Attrs) -> Result<(), SftpError> {
        let fill = |out: &mut BytesMut| {
            put_string(out, path);
            set.put(out);
        };
        status(self.extended("lsetstat@openssh.com", fill).await?)
    }

    /// Renames a path. Fails when the new name exists.
    pub async fn rename(&self, from: &[u8], to: &[u8]) -> Result<(), SftpError> {
        status(self.session.request(kind::RENAME, Bytes::new(), |out| put_two(out, from, to)).await?)
    }

    /// Renames a path and replaces an existing file of the new name (`posix-rename@openssh.com`).
    pub async fn posix_rename(&self, from: &[u8], to: &[u8]) -> Result<(), SftpError> {
        let renamed = status(self.extended("posix-rename@openssh.com", |out| put_two(out, from, to)).await?);
        note_refusal(&renamed, &self.refuses.posix_rename);
        renamed
    }

    /// Returns the free space of the file system that a path is on (`statvfs@openssh.com`).
    pub async fn statvfs(&self, path: &[u8]) -> Result<Space, SftpError> {
        let told = match self.extended("statvfs@openssh.com", |out| put_string(out, path)).await? {
            Reply::Extended(body) => Ok(Space::read(Reader(body))?),
            other => Err(unexpected(other)),
        };
        self.or_missing(path, told).await
    }
}

fn put_two(out: &mut BytesMut, first: &[u8], second: &[u8]) {
    put_string(out, first);
    put_string(out, second);
}
