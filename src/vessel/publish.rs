//! Publish: mode, time, flush, and the one rename that makes the file appear.

use std::sync::atomic::Ordering;

use super::session::Session;
use crate::fault::Fault;
use crate::names::RemotePath;
use crate::records::{FileStamp, Seen, Version, VersionKind};
use crate::rights::CopyOf;
use crate::transport::{Attrs, OpenFlags, RemoteError, RemoteFile, Renamed};

impl Session {
    /// Renames the finished and verified assembly to its destination. Whether that could be seen.
    pub(super) async fn publish(
        &self,
        version: &Version,
        assembly: &RemotePath,
        destination: &RemotePath,
    ) -> Result<bool, Fault> {
        let size = (version.kind == VersionKind::File).then_some(version.stamp.size);
        let renamed = self.remote.rename_over(assembly, destination, size).await;
        let renamed = self.explained(renamed, destination, 0).await?;
        if renamed == Renamed::Taken {
            tracing::debug!(vessel = %self.vessel.settings.name, file = %version.path, "taken at once")
        }
        self.flush_name(destination).await?;
        Ok(renamed != Renamed::Unseen)
    }

    /// Gives a whole assembly its mode and time, and flushes it. It is not opened for writing: some servers empty what is.
    pub(super) async fn finish(&self, version: &Version, assembly: &RemotePath) -> Result<(), Fault> {
        let file = match self.remote.open(assembly, OpenFlags::READ, 0).await {
            Err(e) if e.is_refusal() => return self.finish_unopened(version, assembly).await,
            opened => self.explained(opened, assembly, 0).await?,
        };
        let finished = self.finish_open(version, file, true).await;
        self.explained(finished, assembly, 0).await
    }

    /// The same by its path, where the vessel lets nobody read it.
    async fn finish_unopened(&self, version: &Version, assembly: &RemotePath) -> Result<(), Fault> {
        self.dress(version, assembly, CopyOf::File, version.mode, 0).await?;
        let dated = Attrs { times: times(&version.stamp), ..Attrs::default() };
        if let Err(e) = self.remote.set(assembly, dated).await {
            let undressed = self.undressed(version, assembly, e).await;
            self.explained(undressed, assembly, 0).await?;
        }
        let flushed = async {
            self.keep_odd_time(version, assembly).await?;
            self.flush_by_command(assembly).await
        };
        self.explained(flushed.await, assembly, 0).await
    }

    /// As [`Self::finish`], for one that is open; closes it. One that isn't `alone` is flushed with others later.
    pub(super) async fn finish_open(
        &self,
        version: &Version,
        file: RemoteFile,
        alone: bool,
    ) -> Result<(), RemoteError> {
        let (path, by_sftp) = (file.path().clone(), self.remote.fsync());
        // Apart, and first: changing the owner takes bits of the mode away, and the mode goes by what came of it.
        let mode = match version.owner {
            None => CopyOf::File.plain(version.mode),
            Some(owner) => {
                if let Err(e) = file.set(Attrs { owner: Some(owner), ..Attrs::default() }).await {
                    tracing::warn!(vessel = %self.vessel.settings.name, file = %version.path, "{e}");
                }
                let there = match file.attrs().await {
                    Err(e) if e.is_refusal() => None,
                    attrs => attrs?.owner,
                };
                CopyOf::File.owned(version.mode, owner, there)
            }
        };
        let attrs = Attrs { mode: Some(mode), times: times(&version.stamp), ..Attrs::default() };
        // A file system without modes (FAT) is no reason to keep the file back.
        if let Err(e) = file.finish(attrs, alone && by_sftp).await?
            && let Err(again) = self.remote.set(&path, attrs).await
        {
            tracing::debug!(vessel = %self.vessel.settings.name, file = %version.path, "{again}");
            self.undressed(version, &path, e).await?;
        }
        self.keep_odd_time(version, &path).await?;
        if alone && !(by_sftp && self.remote.fsync()) { self.flush_by_command(&path).await } else { Ok(()) }
    }

    /// Gives a file a time that SFTP can't carry, where the vessel has a shell that can; else says once that it can't.
    async fn keep_odd_time(&self, version: &Version, path: &RemotePath) -> Result<(), RemoteError> {
        let time = version.stamp.mtime;
        if u32::try_from(time).is_ok() || self.remote.is_this_host() {
            return Ok(());
        }
        if self.remote.capabilities().shell && self.remote.touch(path, time).await? {
            return Ok(());
        }
        if !self.vessel.told_of_times.swap(true, Ordering::Relaxed) {
            let vessel = &self.vessel.settings.name;
            tracing::warn!(
                %vessel, file = %version.path, seconds_since_1970 = time,
                "the vessel can't keep times before 1970 or after 2106: SFTP doesn't carry them, and no `touch -d` is there; \
                 such files get the time of their delivery"
            );
        }
        Ok(())
    }

    /// Whether many files can be flushed at once, which is cheaper than one by one.
    pub(super) fn flushes_together(&self) -> bool {
        self.remote.capabilities().sync_file_system
    }

    /// Flushes a file along with others.
    pub(super) async fn flush_together(&self, path: &RemotePath) -> Result<(), Fault> {
        match self.commands.flush(path).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(Fault::attempt(format_args!("{path} could not be flushed on the vessel"))),
            Err(e) => Err(e.fault()),
        }
    }

    /// Flushes a file with the vessel's `sync`, where it has one.
    async fn flush_by_command(&self, path: &RemotePath) -> Result<(), RemoteError> {
        if self.remote.capabilities().sync && !self.commands.flush(path).await? {
            tracing::warn!(vessel = %self.vessel.settings.name, file = %path, "the vessel could not flush it");
        }
        Ok(())
    }

    async fn flush(&self, file: &RemoteFile) -> Result<(), RemoteError> {
        if self.remote.fsync() { file.flush().await } else { self.flush_by_command(file.path()).await }
    }

    /// Gives a file that was found under its final name the mode and owner that it has here by now.
    pub(super) async fn dress_found(&self, version: &Version, destination: &RemotePath) -> Result<(), Fault> {
        let there = self.remote.look(destination).await.map_err(|e| e.fault())?;
        // What is behind a link is none of ours.
        let Some(there) = there.filter(Attrs::is_file) else { return Ok(()) };
        let same = there.mode.is_some_and(|mode| mode & 0o7777 == CopyOf::File.plain(version.mode));
        if same && version.owner.is_none() {
            return Ok(());
        }
        self.dress(version, destination, CopyOf::File, version.mode, 0).await
    }

    /// Flushes a file that was found under its final name: nobody knows whether it ever was.
    pub(super) async fn flush_found(&self, destination: &RemotePath) -> Result<(), Fault> {
        let file = self.remote.open(destination, OpenFlags::READ, 0).await.map_err(|e| e.fault())?;
        self.flush(&file).await.map_err(|e| e.fault())?;
        file.close().await.map_err(|e| e.fault())?;
        self.flush_name(destination).await
    }

    /// Flushes the directory, without which the new name may not outlive a power cut.
    pub(super) async fn flush_name(&self, destination: &RemotePath) -> Result<(), Fault> {
        if !self.remote.capabilities().sync {
            return Ok(());
        }
        // Named by what lies in it: it may be where a file system is mounted, and that one is meant.
        let directory = destination.parent().unwrap_or_else(|| RemotePath::new(".")).join(".");
        self.commands.flush(&directory).await.map(|_| ()).map_err(|e| e.fault())
    }
}

/// Both times, whole seconds.
pub(super) fn times(stamp: &FileStamp) -> Option<(i64, i64)> {
    Some((stamp.mtime, stamp.mtime))
}

/// A time as SFTP tells it: of one that it can't carry, servers send the lower 32 bits.
fn told(seconds: i64) -> i64 {
    seconds.rem_euclid(1 << 32)
}

/// What a file on the vessel looks like, as far as that shows without reading it.
pub(super) fn seen(attrs: &Attrs) -> Option<Seen> {
    let (size, (_, modified)) = attrs.size.zip(attrs.times).filter(|_| attrs.is_file())?;
    Some(Seen { size, mtime: told(modified) })
}

/// Whether a file on the vessel looks like a version with this stamp, as far as that shows without reading it.
pub(super) fn looks_like(stamp: &FileStamp, attrs: &Attrs) -> bool {
    seen(attrs) == Some(Seen { size: stamp.size, mtime: told(stamp.mtime) })
}
