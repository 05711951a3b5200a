//! Publish: mode, time, flush, and the one rename that makes the file appear.

use super::attributes::{dress, keep_odd_time, times};
use super::ownership::undressed;
use crate::fault::Fault;
use crate::link::Session;
use crate::names::RemotePath;
use crate::records::{Version, VersionKind};
use crate::rights::CopyOf;
use crate::transport::{Attrs, OpenFlags, RemoteError, RemoteFile, Renamed};

/// Renames the finished and verified assembly to its destination. Whether that could be seen.
pub(crate) async fn publish(
    session: &Session,
    version: &Version,
    assembly: &RemotePath,
    destination: &RemotePath,
) -> Result<bool, Fault> {
    let size = (version.kind == VersionKind::File).then_some(version.stamp.size);
    let renamed = session.remote.rename_over(assembly, destination, size).await;
    let renamed = session.explained(renamed, destination, 0).await?;
    if renamed == Renamed::Taken {
        tracing::debug!(
            vessel = %session.settings.name, file = %version.path,
            "A program on the vessel took the file right after the rename"
        )
    }
    flush_name(session, destination).await?;
    Ok(renamed != Renamed::Unseen)
}

/// Gives a whole assembly its mode and time, and flushes it. It is not opened for writing: some servers empty what is.
pub(super) async fn finish(session: &Session, version: &Version, assembly: &RemotePath) -> Result<(), Fault> {
    let file = match session.remote.open(assembly, OpenFlags::READ, 0).await {
        Err(e) if e.is_refusal() => return finish_unopened(session, version, assembly).await,
        opened => session.explained(opened, assembly, 0).await?,
    };
    let finished = finish_open(session, version, file, true).await;
    session.explained(finished, assembly, 0).await
}

/// The same by its path, where the vessel lets nobody read it.
async fn finish_unopened(session: &Session, version: &Version, assembly: &RemotePath) -> Result<(), Fault> {
    dress(session, version, assembly, CopyOf::File, version.mode, 0).await?;
    let dated = Attrs { times: times(&version.stamp), ..Attrs::default() };
    if let Err(e) = session.remote.set(assembly, dated).await {
        let undressed = undressed(session, version, assembly, e).await;
        session.explained(undressed, assembly, 0).await?;
    }
    let flushed = async {
        keep_odd_time(session, version, assembly).await?;
        flush_by_command(session, assembly).await
    };
    session.explained(flushed.await, assembly, 0).await
}

/// As [`finish`], for one that is open; closes it. One that isn't `alone` is flushed with others later.
pub(super) async fn finish_open(
    session: &Session,
    version: &Version,
    file: RemoteFile,
    alone: bool,
) -> Result<(), RemoteError> {
    let (path, by_sftp) = (file.path().clone(), session.remote.fsync());
    // Apart, and first: changing the owner takes bits of the mode away, and the mode goes by what came of it.
    let mode = match version.owner {
        None => CopyOf::File.plain(version.mode),
        Some(owner) => {
            if let Err(e) = file.set(Attrs { owner: Some(owner), ..Attrs::default() }).await {
                tracing::warn!(vessel = %session.settings.name, file = %version.path, "{e}");
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
        && let Err(again) = session.remote.set(&path, attrs).await
    {
        tracing::debug!(vessel = %session.settings.name, file = %version.path, "{again}");
        undressed(session, version, &path, e).await?;
    }
    keep_odd_time(session, version, &path).await?;
    if alone && !(by_sftp && session.remote.fsync()) { flush_by_command(session, &path).await } else { Ok(()) }
}

/// Whether many files can be flushed at once, which is cheaper than one by one.
pub(super) fn flushes_together(session: &Session) -> bool {
    session.remote.capabilities().sync_file_system
}

/// Flushes a file along with others.
pub(super) async fn flush_together(session: &Session, path: &RemotePath) -> Result<(), Fault> {
    match session.commands.flush(path).await {
        Ok(true) => Ok(()),
        Ok(false) => Err(Fault::attempt(format_args!("{path} could not be flushed on the vessel"))),
        Err(e) => Err(e.fault()),
    }
}

/// Flushes a file with the vessel's `sync`, where it has one.
pub(super) async fn flush_by_command(session: &Session, path: &RemotePath) -> Result<(), RemoteError> {
    if session.remote.capabilities().sync && !session.commands.flush(path).await? {
        tracing::warn!(vessel = %session.settings.name, file = %path, "The vessel could not flush the file");
    }
    Ok(())
}

/// Flushes the directory, without which the new name may not outlive a power cut.
pub(super) async fn flush_name(session: &Session, destination: &RemotePath) -> Result<(), Fault> {
    if !session.remote.capabilities().sync {
        return Ok(());
    }
    // Named by what lies in it: it may be where a file system is mounted, and that one is meant.
    let directory = destination.parent().unwrap_or_else(|| RemotePath::new(".")).join(".");
    session.commands.flush(&directory).await.map(|_| ()).map_err(|e| e.fault())
}
