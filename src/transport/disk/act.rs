//! Carries out the requests for a target on this host, each by one or few system calls for a name in an open directory.
//! Links are never followed.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};

use bytes::Bytes;
use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Gid, Mode, OFlags, RenameFlags, StatVfsMountFlags, Timespec, Timestamps, Uid, chmodat,
    chownat, copy_file_range, fstat, fstatvfs, futimens, mkdirat, openat, readlinkat, renameat, renameat_with, statat,
    symlinkat, syncfs, unlinkat, utimensat,
};
use rustix::io::Errno;

use super::mount_roots::At;
use super::refused;
use crate::transport::sftp::{Attrs, OpenFlags, SftpError, Space};

/// How many bytes are copied at once if the kernel can't copy directly from one file to the other.
const PIECE: usize = 256 << 10;
const PERMISSIONS: u32 = 0o7777;
/// The bits of [`OpenFlags`] for `SSH_FXF_CREAT`, `SSH_FXF_TRUNC` and `SSH_FXF_EXCL`.
const CREATE: u32 = 0x08;
const TRUNCATE: u32 = 0x10;
const EXCLUSIVE: u32 = 0x20;
/// How often the creation of a file is retried if another process repeatedly creates a file of the same name.
const TRIES: usize = 3;

type Done<T> = Result<T, SftpError>;

fn errno(error: Errno) -> SftpError {
    refused(error.into())
}

/// Opens a file without blocking, because opening a FIFO without a writer would block forever.
fn open_at(at: &At<'_>, flags: OFlags, mode: u32) -> Done<File> {
    let flags = flags | OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NONBLOCK | OFlags::NOFOLLOW;
    openat(&at.directory, at.name, flags, Mode::from_raw_mode(mode & PERMISSIONS)).map(File::from).map_err(errno)
}

pub(super) fn open(at: &At<'_>, flags: OpenFlags, mode: u32) -> Done<File> {
    if flags.0 & OpenFlags::READ.0 != 0 {
        return open_at(at, OFlags::RDONLY, 0);
    }
    let has = |all: u32| flags.0 & all == all;
    if has(CREATE | EXCLUSIVE) {
        return make(at, mode);
    }
    // Another user who can write to the directory may have created a file or link of this name, so an existing file or
    // link is removed instead of truncated.
    if has(CREATE | TRUNCATE) {
        return make_anew(at, mode);
    }
    let opened = open_at(at, OFlags::WRONLY, 0);
    let foreign = match &opened {
        Ok(file) => !is_ours(at, file)?,
        Err(_) => look(at).is_ok_and(|there| !there.is_file()),
    };
    match opened {
        Ok(file) if !foreign => Ok(file),
        Err(e) if !(foreign || has(CREATE) && e.is_not_found()) => Err(e),
        _ if has(CREATE) => make_anew(at, mode),
        _ => {
            remove(at, false)?;
            Err(errno(Errno::NOENT))
        }
    }
}

/// Creates a file. Fails if the name exists.
fn make(at: &At<'_>, mode: u32) -> Done<File> {
    let made = open_at(at, OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL, mode & 0o777)?;
    at.owners.note(&made.metadata().map_err(refused)?);
    Ok(made)
}

/// Creates a file in place of an existing file or link of the same name, if there is one.
fn make_anew(at: &At<'_>, mode: u32) -> Done<File> {
    let mut made = make(at, mode);
    for _ in 0..TRIES {
        if made.is_ok() || look(at).is_err() {
            break;
        }
        remove(at, false)?;
        made = make(at, mode);
    }
    made
}

/// Returns whether data may be written to an open file: it must be a regular file with the same owner as files that
/// this process creates, and must not have a second name through which another user can access it.
fn is_ours(at: &At<'_>, file: &File) -> Done<bool> {
    let found = file.metadata().map_err(refused)?;
    Ok(found.is_file() && found.nlink() <= 1 && at.owners.have(&found))
}

pub(super) fn look(at: &At<'_>) -> Done<Attrs> {
    let found = statat(&at.directory, at.name, AtFlags::SYMLINK_NOFOLLOW).map_err(errno)?;
    let owner = (found.st_uid, found.st_gid);
    Ok(attrs(found.st_size as u64, owner, found.st_mode, (found.st_atime, found.st_mtime)))
}

pub(super) fn look_at_file(file: &File) -> Done<Attrs> {
    let found = file.metadata().map_err(refused)?;
    let times = (found.atime(), found.mtime());
    Ok(attrs(found.len(), (found.uid(), found.gid()), found.mode(), times))
}

/// Returns attributes as SFTP reports them, but also with times before 1970 and after 2106.
fn attrs(size: u64, owner: (u32, u32), mode: u32, times: (i64, i64)) -> Attrs {
    Attrs { size: Some(size), owner: Some(owner), mode: Some(mode), times: Some(times), kind: None }
}

fn timestamps((access, change): (i64, i64)) -> Timestamps {
    let at = |seconds: i64| Timespec { tv_sec: seconds, tv_nsec: 0 };
    Timestamps { last_access: at(access), last_modification: at(change) }
}

/// Sets attributes of a file or directory. Fails for a link.
pub(super) fn set(at: &At<'_>, set: &Attrs) -> Done<()> {
    if let Some(size) = set.size {
        open_at(at, OFlags::WRONLY, 0)?.set_len(size).map_err(refused)?;
    }
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened = openat(&at.directory, at.name, flags, Mode::empty()).map_err(errno)?;
    let found = fstat(&opened).map_err(errno)?;
    if !matches!(FileType::from_raw_mode(found.st_mode), FileType::RegularFile | FileType::Directory) {
        return Err(errno(Errno::LOOP));
    }
    // This path refers to the open file even if another file has taken over its name. Using the path requires no
    // permission to read the file.
    let opened = format!("/proc/self/fd/{}", opened.as_raw_fd());
    // The owner must be set first, because changing the owner clears mode bits.
    if let Some((user, group)) = set.owner {
        let (user, group) = (Uid::from_raw(user), Gid::from_raw(group));
        chownat(CWD, &opened, Some(user), Some(group), AtFlags::empty()).map_err(errno)?;
    }
    if let Some(mode) = set.mode {
        chmodat(CWD, &opened, Mode::from_raw_mode(mode & PERMISSIONS), AtFlags::empty()).map_err(errno)?;
    }
    if let Some(times) = set.times {
        utimensat(CWD, &opened, &timestamps(times), AtFlags::empty()).map_err(errno)?;
    }
    Ok(())
}

/// Sets owner and times of a link itself. A link has neither size nor mode.
pub(super) fn set_link(at: &At<'_>, set: &Attrs) -> Done<()> {
    if let Some((user, group)) = set.owner {
        let (user, group) = (Uid::from_raw(user), Gid::from_raw(group));
        chownat(&at.directory, at.name, Some(user), Some(group), AtFlags::SYMLINK_NOFOLLOW).map_err(errno)?;
    }
    if let Some(times) = set.times {
        utimensat(&at.directory, at.name, &timestamps(times), AtFlags::SYMLINK_NOFOLLOW).map_err(errno)?;
    }
    Ok(())
}

pub(super) fn set_file(file: &File, set: &Attrs) -> Done<()> {
    if let Some(size) = set.size {
        file.set_len(size).map_err(refused)?;
    }
    if let Some((user, group)) = set.owner {
        std::os::unix::fs::fchown(file, Some(user), Some(group)).map_err(refused)?;
    }
    if let Some(mode) = set.mode {
        file.set_permissions(PermissionsExt::from_mode(mode & PERMISSIONS)).map_err(refused)?;
    }
    if let Some(times) = set.times {
        futimens(file, &timestamps(times)).map_err(errno)?;
    }
    Ok(())
}

pub(super) fn remove(at: &At<'_>, directory: bool) -> Done<()> {
    let flags = if directory { AtFlags::REMOVEDIR } else { AtFlags::empty() };
    unlinkat(&at.directory, at.name, flags).map_err(errno)
}

pub(super) fn make_dir(at: &At<'_>, mode: u32) -> Done<()> {
    mkdirat(&at.directory, at.name, Mode::from_raw_mode(mode & 0o777)).map_err(errno)
}

pub(super) fn make_link(target: &[u8], link: &At<'_>) -> Done<()> {
    symlinkat(OsStr::from_bytes(target), &link.directory, link.name).map_err(errno)
}

pub(super) fn read_link(at: &At<'_>) -> Done<Bytes> {
    let target = readlinkat(&at.directory, at.name, Vec::new()).map_err(errno)?;
    Ok(Bytes::from(target.into_bytes()))
}

pub(super) fn rename(from: &At<'_>, to: &At<'_>, replace: bool) -> Done<()> {
    let renamed = if replace {
        renameat(&from.directory, from.name, &to.directory, to.name)
    } else {
        renameat_with(&from.directory, from.name, &to.directory, to.name, RenameFlags::NOREPLACE)
    };
    renamed.map_err(errno)
}

pub(super) fn flush(at: &At<'_>, whole: bool) -> Done<()> {
    let file = open_at(at, OFlags::RDONLY, 0)?;
    if whole { syncfs(&file).map_err(errno) } else { file.sync_all().map_err(refused) }
}

pub(super) fn space(at: &At<'_>) -> Done<Space> {
    let there = openat(&at.directory, at.name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
        .map_err(errno)?;
    let found = fstatvfs(&there).map_err(errno)?;
    Ok(Space {
        free: found.f_bavail.saturating_mul(found.f_frsize),
        total: found.f_blocks.saturating_mul(found.f_frsize),
        free_files: Space::free_files(found.f_files, found.f_favail),
        read_only: found.f_flag.contains(StatVfsMountFlags::RDONLY),
        longest_name: found.f_namemax,
        fs_id: found.f_fsid,
    })
}

pub(super) fn list(at: &At<'_>, most: usize) -> Done<Vec<(Bytes, Attrs)>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory = openat(&at.directory, at.name, flags, Mode::empty()).map_err(errno)?;
    let mut entries = Vec::new();
    for entry in Dir::read_from(&directory).map_err(errno)? {
        let name = entry.map_err(errno)?.file_name().to_bytes().to_vec();
        if name == b"." || name == b".." {
            continue;
        }
        if entries.len() == most {
            break;
        }
        let directory = directory.try_clone().map_err(refused)?;
        match look(&At { directory, name: OsStr::from_bytes(&name), owners: at.owners }) {
            Ok(attrs) => entries.push((Bytes::from(name), attrs)),
            // The entry was removed in the meantime.
            Err(e) if e.is_not_found() => {}
            Err(e) => return Err(e),
        }
    }
    Ok(entries)
}

/// Reads at most `length` bytes. Returns `None` at the end of the file.
pub(super) fn read(file: &File, offset: u64, length: usize) -> io::Result<Option<Bytes>> {
    let mut bytes = vec![0; length];
    let read = file.read_at(&mut bytes, offset)?;
    bytes.truncate(read);
    Ok((read > 0).then(|| Bytes::from(bytes)))
}

/// Copies a range of a file into another file.
pub(super) fn copy(
    (from, mut from_offset): (&File, u64),
    mut length: u64,
    (to, mut to_offset): (&File, u64),
) -> io::Result<()> {
    while length > 0 {
        let most = usize::try_from(length).unwrap_or(usize::MAX);
        let copied = match copy_file_range(from, Some(&mut from_offset), to, Some(&mut to_offset), most) {
            Ok(copied) => copied,
            // The file system supports no copying by the kernel, or not between these two files.
            Err(Errno::XDEV | Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
                let bytes = read(from, from_offset, most.min(PIECE))?.unwrap_or_default();
                to.write_all_at(&bytes, to_offset)?;
                from_offset += bytes.len() as u64;
                to_offset += bytes.len() as u64;
                bytes.len()
            }
            Err(e) => return Err(e.into()),
        };
        if copied == 0 {
            return Err(io::Error::new(ErrorKind::UnexpectedEof, "the file to copy from is shorter than expected"));
        }
        length -= copied as u64;
    }
    Ok(())
}
