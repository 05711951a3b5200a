//! SFTP version 3 on the file system of this host, with the same answers as OpenSSH's sftp-server.
//!
//! Each session handles one request at a time; [`Files::work`] runs every request on a blocking thread. Relative paths
//! start at `home`. Links can't be created or read. Requests follow links, except `lstat`, `remove` and `rename`. This
//! module does not access the SSH channel.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Buf;
use russh_sftp::extensions::{FSYNC, LIMITS, STATVFS};
use russh_sftp::protocol::{
    Attrs, Data, ExtendedReply, File as Entry, FileAttributes, Handle, Name, OpenFlags, Packet, Status, StatusCode,
    Version,
};
use russh_sftp::server::Handler;
use rustix::fs::{CWD, OFlags, RenameFlags, renameat_with, statvfs};
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::check_file::{self, CHECK_FILE_NAME};
use super::quirks::Quirks;
use super::status::Refusal;
use super::{Options, attributes};

/// The maximum size of a packet, received or sent, as in OpenSSH.
pub(super) const MAX_PACKET: u32 = 256 * 1024;
/// Maximum number of bytes in one read or write: the packet size minus 1 KiB for the other fields.
const MAX_DATA: u32 = MAX_PACKET - 1024;
const MAX_HANDLES: usize = 1000;
/// Maximum number of names in one answer to READDIR.
const NAMES_AT_ONCE: usize = 100;
const POSIX_RENAME: &str = "posix-rename@openssh.com";

type Answer<T> = Result<T, Refusal>;

/// The file system as one SFTP session sees it.
pub(super) struct Files {
    home: PathBuf,
    quirks: Quirks,
    open: HashMap<String, Open>,
    /// The number of the next handle. All sessions of the vessel share this counter, so that handles are unique.
    next_handle: Arc<AtomicU64>,
    /// Makes the task tracker wait until russh-sftp's task, which can't be joined, has dropped this value.
    _token: TaskTrackerToken,
}

#[derive(Clone)]
enum Open {
    File(Arc<File>),
    Directory(Arc<Mutex<Listing>>),
}

struct Listing {
    path: PathBuf,
    dots: std::vec::IntoIter<&'static str>,
    entries: fs::ReadDir,
}

impl Files {
    pub(super) fn new(options: &Options, next_handle: Arc<AtomicU64>, token: TaskTrackerToken) -> Self {
        let (home, quirks) = (options.home.clone(), options.quirks.clone());
        Self { home, quirks, open: HashMap::new(), next_handle, _token: token }
    }

    /// Runs one request on a blocking thread.
    async fn work<T: Send + 'static>(
        &self,
        request: &'static str,
        act: impl FnOnce() -> Answer<T> + Send + 'static,
    ) -> Answer<T> {
        let answer = tokio::task::spawn_blocking(act).await;
        let answer = answer.unwrap_or_else(|_| Err(Refusal::new(StatusCode::Failure, "the request was abandoned")));
        if let Err(refusal) = &answer {
            tracing::trace!(request, ?refusal, "Embedded vessel: rejected a request");
        }
        answer
    }

    /// Resolves a path of the client. Rejects a path with the replacement character: russh-sftp has already replaced
    /// invalid UTF-8 in `path`, so the path may name another file than the client meant.
    fn path(&self, path: &str) -> Answer<PathBuf> {
        if path.contains(char::REPLACEMENT_CHARACTER) {
            return Err(Refusal::new(StatusCode::Failure, "file names must be valid UTF-8"));
        }
        Ok(self.place(Path::new(path)))
    }

    fn place(&self, path: &Path) -> PathBuf {
        self.quirks.place(&self.home, path)
    }

    fn max_handles(&self) -> usize {
        self.quirks.max_handles.unwrap_or(MAX_HANDLES)
    }

    fn keep(&mut self, id: u32, open: Open) -> Handle {
        let handle = self.next_handle.fetch_add(1, Ordering::Relaxed).to_string();
        self.open.insert(handle.clone(), open);
        Handle { id, handle }
    }

    fn check_room(&self) -> Answer<()> {
        let full = self.open.len() >= self.max_handles();
        if full { Err(Refusal::new(StatusCode::Failure, "too many open handles")) } else { Ok(()) }
    }

    fn file(&self, handle: &str) -> Answer<Arc<File>> {
        match self.open.get(handle) {
            Some(Open::File(file)) => Ok(file.clone()),
            _ => Err(Refusal::new(StatusCode::Failure, "no such file handle")),
        }
    }

    fn directory(&self, handle: &str) -> Answer<Arc<Mutex<Listing>>> {
        match self.open.get(handle) {
            Some(Open::Directory(listing)) => Ok(listing.clone()),
            _ => Err(Refusal::new(StatusCode::Failure, "no such directory handle")),
        }
    }

    /// Handles a request on one path whose answer is only a status.
    async fn on_path(
        &self,
        id: u32,
        request: &'static str,
        path: &str,
        act: impl FnOnce(&Path) -> Answer<()> + Send + 'static,
    ) -> Answer<Status> {
        let path = self.path(path)?;
        self.work(request, move || act(&path)).await?;
        Ok(done(id))
    }

    async fn posix_rename(&self, id: u32, mut data: &[u8]) -> Answer<Packet> {
        let (from, to) = (self.place(word(&mut data)?.as_ref()), self.place(word(&mut data)?.as_ref()));
        self.work("posix-rename", move || Ok(fs::rename(from, to)?)).await?;
        Ok(Packet::Status(done(id)))
    }

    async fn fsync(&self, id: u32, mut data: &[u8]) -> Answer<Packet> {
        let handle = word(&mut data)?;
        let file = self.file(handle.to_str().unwrap_or_default())?;
        self.work("fsync", move || Ok(file.sync_all()?)).await?;
        Ok(Packet::Status(done(id)))
    }

    async fn check_file(&self, id: u32, mut data: &[u8]) -> Answer<Packet> {
        let Some(quirk) = self.quirks.check_file else { return Err(StatusCode::OpUnsupported.into()) };
        let path = self.place(word(&mut data)?.as_ref());
        let _algorithms = word(&mut data)?;
        let rest = data.to_vec();
        let data = self.work("check-file", move || check_file::answer(quirk, &path, &rest)).await?;
        Ok(Packet::ExtendedReply(ExtendedReply { id, data }))
    }

    async fn statvfs(&self, id: u32, mut data: &[u8]) -> Answer<Packet> {
        let path = self.place(word(&mut data)?.as_ref());
        let fs = self.work("statvfs", move || Ok(statvfs(&path)?)).await?;
        let numbers = [
            fs.f_bsize,
            fs.f_frsize,
            fs.f_blocks,
            fs.f_bfree,
            fs.f_bavail,
            fs.f_files,
            fs.f_ffree,
            fs.f_favail,
            fs.f_fsid,
            fs.f_flag.bits(),
            fs.f_namemax,
        ];
        Ok(reply(id, &numbers))
    }
}

impl Handler for Files {
    type Error = Refusal;

    fn unimplemented(&self) -> Refusal {
        StatusCode::OpUnsupported.into()
    }

    async fn init(&mut self, _version: u32, _extensions: HashMap<String, String>) -> Answer<Version> {
        let mut version = Version::new();
        for (name, revision) in [(POSIX_RENAME, "1"), (FSYNC, "1"), (STATVFS, "2"), (LIMITS, "1")] {
            version.extensions.insert(name.into(), revision.into());
        }
        version.extensions.extend(self.quirks.check_file.map(|quirk| {
            let (name, value) = check_file::announced(quirk);
            (name.into(), value.into())
        }));
        Ok(version)
    }

    async fn extended(&mut self, id: u32, request: String, data: Vec<u8>) -> Answer<Packet> {
        match request.as_str() {
            POSIX_RENAME => self.posix_rename(id, &data).await,
            FSYNC => self.fsync(id, &data).await,
            STATVFS => self.statvfs(id, &data).await,
            LIMITS => Ok(reply(id, &[MAX_PACKET.into(), MAX_DATA.into(), MAX_DATA.into(), self.max_handles() as u64])),
            CHECK_FILE_NAME => self.check_file(id, &data).await,
            _ => Err(self.unimplemented()),
        }
    }

    async fn realpath(&mut self, id: u32, path: String) -> Answer<Name> {
        let path = self.path(&path)?;
        let real = self.work("realpath", move || Ok(real_path(&path)?)).await?;
        let real = self.quirks.shown(real);
        Ok(Name { id, files: vec![Entry::dummy(real.to_string_lossy())] })
    }

    async fn open(&mut self, id: u32, path: String, flags: OpenFlags, wanted: FileAttributes) -> Answer<Handle> {
        self.check_room()?;
        let path = self.path(&path)?;
        let mut options = OpenOptions::from(flags);
        // Without NONBLOCK, opening a FIFO without a writer would block the thread for ever.
        options.mode(attributes::mode(&wanted, 0o666)).custom_flags(OFlags::NONBLOCK.bits() as i32);
        let file = self.work("open", move || Ok(options.open(path)?)).await?;
        Ok(self.keep(id, Open::File(Arc::new(file))))
    }

    async fn close(&mut self, id: u32, handle: String) -> Answer<Status> {
        let open = self.open.remove(&handle).ok_or(Refusal::new(StatusCode::Failure, "no such handle"))?;
        self.work("close", move || {
            drop(open);
            Ok(())
        })
        .await?;
        Ok(done(id))
    }

    async fn read(&mut self, id: u32, handle: String, offset: u64, len: u32) -> Answer<Data> {
        let file = self.file(&handle)?;
        let data = self.work("read", move || read_at(&file, offset, len.min(MAX_DATA) as usize)).await?;
        Ok(Data { id, data })
    }

    async fn write(&mut self, id: u32, handle: String, offset: u64, data: Vec<u8>) -> Answer<Status> {
        let file = self.file(&handle)?;
        self.work("write", move || Ok(file.write_all_at(&data, offset)?)).await?;
        Ok(done(id))
    }

    async fn stat(&mut self, id: u32, path: String) -> Answer<Attrs> {
        let path = self.path(&path)?;
        let attrs = self.work("stat", move || Ok(attributes::of(&fs::metadata(path)?))).await?;
        Ok(Attrs { id, attrs })
    }

    async fn lstat(&mut self, id: u32, path: String) -> Answer<Attrs> {
        let path = self.path(&path)?;
        let attrs = self.work("lstat", move || Ok(attributes::of(&fs::symlink_metadata(path)?))).await?;
        Ok(Attrs { id, attrs })
    }

    async fn fstat(&mut self, id: u32, handle: String) -> Answer<Attrs> {
        let file = self.file(&handle)?;
        let attrs = self.work("fstat", move || Ok(attributes::of(&file.metadata()?))).await?;
        Ok(Attrs { id, attrs })
    }

    async fn setstat(&mut self, id: u32, path: String, attrs: FileAttributes) -> Answer<Status> {
        self.on_path(id, "setstat", &path, move |path| attributes::set_path(path, &attrs)).await
    }

    async fn fsetstat(&mut self, id: u32, handle: String, attrs: FileAttributes) -> Answer<Status> {
        let file = self.file(&handle)?;
        self.work("fsetstat", move || attributes::set_file(&file, &attrs)).await?;
        Ok(done(id))
    }

    async fn opendir(&mut self, id: u32, path: String) -> Answer<Handle> {
        self.check_room()?;
        let path = self.path(&path)?;
        let listing = self.work("opendir", move || Ok(Listing::open(path)?)).await?;
        Ok(self.keep(id, Open::Directory(Arc::new(Mutex::new(listing)))))
    }

    async fn readdir(&mut self, id: u32, handle: String) -> Answer<Name> {
        let listing = self.directory(&handle)?;
        let files = self.work("readdir", move || Ok(locked(&listing).take(NAMES_AT_ONCE))).await?;
        if files.is_empty() { Err(StatusCode::Eof.into()) } else { Ok(Name { id, files }) }
    }

    async fn mkdir(&mut self, id: u32, path: String, attrs: FileAttributes) -> Answer<Status> {
        let mode = attributes::mode(&attrs, 0o777);
        self.on_path(id, "mkdir", &path, move |path| Ok(DirBuilder::new().mode(mode).create(path)?)).await
    }

    async fn rmdir(&mut self, id: u32, path: String) -> Answer<Status> {
        self.on_path(id, "rmdir", &path, |path| Ok(fs::remove_dir(path)?)).await
    }

    async fn remove(&mut self, id: u32, path: String) -> Answer<Status> {
        self.on_path(id, "remove", &path, |path| Ok(fs::remove_file(path)?)).await
    }

    async fn rename(&mut self, id: u32, from: String, to: String) -> Answer<Status> {
        let to = self.path(&to)?;
        // SFTP's own rename never replaces a file; the extension posix-rename does.
        let act = move |from: &Path| Ok(renameat_with(CWD, from, CWD, &to, RenameFlags::NOREPLACE)?);
        self.on_path(id, "rename", &from, act).await
    }
}

impl Listing {
    fn open(path: PathBuf) -> io::Result<Self> {
        let entries = fs::read_dir(&path)?;
        Ok(Self { path, dots: vec![".", ".."].into_iter(), entries })
    }

    /// Returns at most `most` further names; none at the end of the directory. Files that vanish meanwhile are omitted.
    fn take(&mut self, most: usize) -> Vec<Entry> {
        let Self { path, dots, entries } = self;
        let dots = dots.filter_map(|name| Some((name.into(), fs::metadata(path.join(name)).ok()?)));
        let names = entries.filter_map(|entry| {
            let entry = entry.ok()?;
            Some((entry.file_name(), entry.metadata().ok()?))
        });
        let named =
            |(name, metadata): (std::ffi::OsString, _)| Entry::new(name.to_string_lossy(), attributes::of(&metadata));
        dots.chain(names).take(most).map(named).collect()
    }
}

/// Locks the listing. Ignores poisoning, because a panic while listing leaves a consistent state.
fn locked(listing: &Mutex<Listing>) -> MutexGuard<'_, Listing> {
    listing.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Resolves a path like OpenSSH's `realpath`: the last component need not exist.
fn real_path(path: &Path) -> io::Result<PathBuf> {
    match (fs::canonicalize(path), path.parent(), path.file_name()) {
        (Err(error), Some(parent), Some(name)) if error.kind() == io::ErrorKind::NotFound => {
            Ok(fs::canonicalize(parent)?.join(name))
        }
        (real, ..) => real,
    }
}

fn read_at(file: &File, offset: u64, len: usize) -> Answer<Vec<u8>> {
    let mut data = vec![0; len];
    let read = file.read_at(&mut data, offset)?;
    if read == 0 && len > 0 {
        return Err(StatusCode::Eof.into());
    }
    data.truncate(read);
    Ok(data)
}

fn done(id: u32) -> Status {
    Status { id, status_code: StatusCode::Ok, error_message: "Success".into(), language_tag: String::new() }
}

fn reply(id: u32, numbers: &[u64]) -> Packet {
    let data = numbers.iter().flat_map(|number| number.to_be_bytes()).collect();
    Packet::ExtendedReply(ExtendedReply { id, data })
}

/// Removes the next string from the data of an extended request, and returns it.
fn word<'a>(data: &mut &'a [u8]) -> Answer<&'a OsStr> {
    let malformed = || Refusal::new(StatusCode::BadMessage, "the request is truncated");
    let length = data.try_get_u32().map_err(|_| malformed())? as usize;
    let (word, rest) = data.split_at_checked(length).ok_or_else(malformed)?;
    *data = rest;
    Ok(OsStr::from_bytes(word))
}
