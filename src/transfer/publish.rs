//! Publishing: mode, time, flush, and the one rename that makes the file visible.

use super::attributes::{keep_odd_time, set_owner_and_mode, times};
use super::ownership::check_attribute_error;
use crate::fault::Fault;
use crate::link::Session;
use crate::names::RemotePath;
use crate::records::{Version, VersionKind};
use crate::rights::CopyOf;
use crate::transport::{Attrs, OpenFlags, RemoteError, RemoteFile, Renamed};

/// Renames the finished and verified assembly to its destination.
pub(crate) async fn publish(
    session: &Session,
    version: &Version,
    assembly: &RemotePath,
    destination: &RemotePath,
) -> Result<Renamed, Fault> {
    let size = (version.kind == VersionKind::File).then_some(version.stamp.size);
    let renamed = session.remote.rename_over(assembly, destination, size).await;
    let renamed = session.explained(renamed, destination, 0).await?;
    if matches!(renamed, Renamed::Taken) {
        tracing::debug!(
            vessel = %session.link.settings.name, file = %version.path,
            "A program on the vessel removed or moved the file right after the rename"
        )
    }
    flush_name(session, destination).await?;
    Ok(renamed)
}

/// Sets the mode and time of a complete assembly and flushes it. Opens the assembly for reading only, because some
/// servers truncate a file that is opened for writing.
pub(super) async fn finish(session: &Session, version: &Version, assembly: &RemotePath) -> Result<(), Fault> {
    let file = match session.remote.open(assembly, OpenFlags::READ, 0).await {
        Err(e) if e.is_refusal() => return finish_unopened(session, version, assembly).await,
        opened => session.explained(opened, assembly, 0).await?,
    };
    let finished = finish_open(session, version, file, true).await;
    session.explained(finished, assembly, 0).await
}

/// Finishes an assembly like [`finish`], but by its path, because the vessel does not allow reading the file.
async fn finish_unopened(session: &Session, version: &Version, assembly: &RemotePath) -> Result<(), Fault> {
    set_owner_and_mode(session, version, assembly, CopyOf::File, version.mode, 0).await?;
    let dated = Attrs { times: times(&version.stamp), ..Attrs::default() };
    if let Err(e) = session.remote.set(assembly, dated).await {
        let checked = check_attribute_error(session, version, assembly, e).await;
        session.explained(checked, assembly, 0).await?;
    }
    let flushed = async {
        keep_odd_time(session, version, assembly).await?;
        flush_by_command(session, assembly).await
    };
    session.explained(flushed.await, assembly, 0).await
}

/// Finishes an open file like [`finish`] and closes it. Without `alone`, the caller must flush the file later, together
/// with other files.
pub(super) async fn finish_open(
    session: &Session,
    version: &Version,
    file: RemoteFile,
    alone: bool,
) -> Result<(), RemoteError> {
    let (path, by_sftp) = (file.path().clone(), session.remote.fsync());
    // The owner is set separately and first: changing it clears mode bits, and the mode depends on the resulting owner.
    let mode = match version.owner {
        None => CopyOf::File.plain(version.mode),
        Some(owner) => {
            if let Err(e) = file.set(Attrs { owner: Some(owner), ..Attrs::default() }).await {
                tracing::warn!(vessel = %session.link.settings.name, file = %version.path, "{e}");
            }
            let there = match file.attrs().await {
                Err(e) if e.is_refusal() => None,
                attrs => attrs?.owner,
            };
            CopyOf::File.owned(version.mode, owner, there)
        }
    };
    let attrs = Attrs { mode: Some(mode), times: times(&version.stamp), ..Attrs::default() };
    // An error is tolerated unless another user replaced the file: a file system without modes (FAT) must not block the
    // delivery.
    if let Err(e) = file.finish(attrs, alone && by_sftp).await? {
        let by_path = async {
            let Err(again) = session.remote.set(&path, attrs).await else { return Ok(()) };
            tracing::debug!(vessel = %session.link.settings.name, file = %version.path, "{again}");
            check_attribute_error(session, version, &path, e).await
        };
        Box::pin(by_path).await?;
    }
    keep_odd_time(session, version, &path).await?;
    if alone && !(by_sftp && session.remote.fsync()) { flush_by_command(session, &path).await } else { Ok(()) }
}

/// Returns whether the vessel can flush many files at once, which is cheaper than one by one.
pub(super) fn flushes_together(session: &Session) -> bool {
    session.remote.capabilities().sync_file_system
}

/// Flushes a file in one command with other files that wait to be flushed.
pub(super) async fn flush_together(session: &Session, path: &RemotePath) -> Result<(), Fault> {
    match session.commands.flush(path).await {
        Ok(true) => Ok(()),
        Ok(false) => Err(Fault::attempt(format_args!("{path} could not be flushed on the vessel"))),
        Err(e) => Err(e.fault()),
    }
}

/// Flushes a file with the vessel's `sync`, if it has one.
pub(super) async fn flush_by_command(session: &Session, path: &RemotePath) -> Result<(), RemoteError> {
    if session.remote.capabilities().sync && !session.commands.flush(path).await? {
        tracing::warn!(vessel = %session.link.settings.name, file = %path, "The vessel could not flush the file");
    }
    Ok(())
}

/// Flushes the directory of the destination; otherwise the new name may be lost in a power failure.
pub(super) async fn flush_name(session: &Session, destination: &RemotePath) -> Result<(), Fault> {
    if !session.remote.capabilities().sync {
        return Ok(());
    }
    // The trailing `.` selects the file system mounted at the directory, if it is a mount point.
    let directory = destination.parent().unwrap_or_else(|| RemotePath::new(".")).join(".");
    session.commands.flush(&directory).await.map(|_| ()).map_err(|e| e.fault())
}
