//! SFTP version 3 attributes: read from a file, and set on a file.
//!
//! In this protocol, times are whole seconds since 1970, in 32 bits.

use std::fs::{self, File, Metadata, OpenOptions, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, fchown};
use std::path::Path;

use russh_sftp::protocol::FileAttributes;
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, futimens, utimensat};

use super::status::Refusal;

const PERMISSION_BITS: u32 = 0o7777;

/// Returns all attributes of a file. `permissions` includes the bits of the file's type.
pub(super) fn of(metadata: &Metadata) -> FileAttributes {
    FileAttributes {
        size: Some(metadata.size()),
        uid: Some(metadata.uid()),
        gid: Some(metadata.gid()),
        permissions: Some(metadata.mode()),
        atime: Some(seconds(metadata.atime())),
        mtime: Some(seconds(metadata.mtime())),
        ..FileAttributes::default()
    }
}

/// Returns the requested permissions of a new file or directory, or `default`, before the umask is applied.
pub(super) fn mode(attributes: &FileAttributes, default: u32) -> u32 {
    attributes.permissions.map_or(default, |mode| mode & PERMISSION_BITS)
}

/// Sets the given attributes of the file at a path; follows links. Sets the times of access and of modification only if
/// both are given.
pub(super) fn set_path(path: &Path, attributes: &FileAttributes) -> Result<(), Refusal> {
    if let Some(size) = attributes.size {
        OpenOptions::new().write(true).open(path)?.set_len(size)?;
    }
    if let Some(mode) = attributes.permissions {
        fs::set_permissions(path, Permissions::from_mode(mode & PERMISSION_BITS))?;
    }
    if let Some(times) = times(attributes) {
        utimensat(CWD, path, &times, AtFlags::empty())?;
    }
    if attributes.uid.is_some() || attributes.gid.is_some() {
        chown(path, attributes.uid, attributes.gid)?;
    }
    Ok(())
}

/// Sets the given attributes of an open file. Sets the times of access and of modification only if both are given.
pub(super) fn set_file(file: &File, attributes: &FileAttributes) -> Result<(), Refusal> {
    if let Some(size) = attributes.size {
        file.set_len(size)?;
    }
    if let Some(mode) = attributes.permissions {
        file.set_permissions(Permissions::from_mode(mode & PERMISSION_BITS))?;
    }
    if let Some(times) = times(attributes) {
        futimens(file, &times)?;
    }
    if attributes.uid.is_some() || attributes.gid.is_some() {
        fchown(file, attributes.uid, attributes.gid)?;
    }
    Ok(())
}

fn times(attributes: &FileAttributes) -> Option<Timestamps> {
    let at = |seconds: u32| Timespec { tv_sec: seconds.into(), tv_nsec: 0 };
    let (last_access, last_modification) = (at(attributes.atime?), at(attributes.mtime?));
    Some(Timestamps { last_access, last_modification })
}

fn seconds(time: i64) -> u32 {
    u32::try_from(time.max(0)).unwrap_or(u32::MAX)
}
