//! The assembly written directly: files of one chunk, which have nothing to join, and others where nothing joins.

use std::sync::atomic::Ordering;

use super::growing_hash::{grown, hash_as_it_grows};
use super::ownership::may_resume;
use super::publish::{finish_open, flushes_together};
use super::transfers::source_fault;
use super::write::{Taken, write_range};
use crate::fault::{Cause, Fault, Scope};
use crate::link::Job;
use crate::link::Session;
use crate::local::Source;
use crate::names::RemotePath;
use crate::records::{Delivery, DeliveryState, Version};
use crate::transport::{Attrs, GrowingHash, OpenFlags, RemoteError, RemoteFile, SftpChannel};

/// Files up to this size, in bytes, go out in one burst with all that follows their bytes.
const BURST: u64 = 255 << 10;

/// Opens the assembly on the channel with the least to do; also says how many bytes of the version it holds already.
pub(super) async fn open_assembly(
    session: &Session,
    delivery: &Delivery,
    assembly: &RemotePath,
) -> Result<(RemoteFile, u64), Fault> {
    let channel = session.channels.idlest();
    // What lies there before the first attempt is not of this delivery, whatever its name says.
    if delivery.state != DeliveryState::Pending
        && !session.streams_only.load(Ordering::Relaxed)
        && let Some((file, held)) = open_again(session, &channel, &delivery.version, assembly).await?
    {
        session.found(&delivery.version, held);
        return Ok((file, held));
    }
    Ok((session.open_ours(&channel, assembly, OpenFlags::FRESH, delivery.version.stamp.size).await?, 0))
}

/// Opens what an earlier attempt left; `None` where there is nothing that can be gone on with.
async fn open_again(
    session: &Session,
    channel: &SftpChannel,
    version: &Version,
    assembly: &RemotePath,
) -> Result<Option<(RemoteFile, u64)>, Fault> {
    let nothing = |e: RemoteError| if e.is_connection() { Err(e.fault()) } else { Ok(None) };
    let there = match session.remote.look(assembly).await {
        Ok(Some(attrs)) => attrs,
        Ok(None) => return Ok(None),
        Err(e) => return nothing(e),
    };
    if !may_resume(session, version, assembly, &there).await.map_err(|e| e.fault())? {
        return Ok(None);
    }
    let file = match session.open_there(channel, assembly, OpenFlags::WRITE_EXISTING).await {
        Ok(file) => file,
        Err(e) => return nothing(e),
    };
    // Asked after it was opened: some servers empty what is opened for writing.
    match file.attrs().await {
        Ok(Attrs { size: Some(held), .. }) if held <= version.stamp.size => Ok(Some((file, held))),
        Ok(_) => Ok(None),
        Err(e) => nothing(e),
    }
}

/// Writes what is missing of a file of one chunk, and finishes it.
pub(super) async fn write_small(
    session: &Session,
    delivery: &Delivery,
    source: &Source,
    (file, held): (RemoteFile, u64),
) -> Result<(), Fault> {
    let version = &delivery.version;
    let size = version.stamp.size;
    let (path, alone) = (file.path().clone(), !flushes_together(session));
    if held == 0 && (1..=BURST.min(session.remote.capabilities().bytes_per_write())).contains(&size) {
        let read = source.read(0, size).await;
        let bytes = read.map_err(|error| source_fault(version, &error))?;
        session.limit.take(size).await;
        let sent = file.send(0, bytes).await;
        let sent = session.explained(sent, &path, size).await?;
        // The vessel takes them in this order, so nobody waits for the answer to the write first.
        let (taken, finished) = tokio::join!(sent.taken(), finish_open(session, version, file, alone));
        session.sent(version, session.explained(taken, &path, size).await?);
        return session.explained(finished, &path, 1).await;
    }
    let job = session.channels.job(size - held);
    let written = write_and_finish(session, version, source, (file, held), &job, (None, alone)).await;
    or_as_one_stream(session, version, source, &path, written.map(|_| ())).await
}

/// Writes what is missing of a large file in order, going on from what an earlier attempt left; gives the vessel's
/// hash of it, which may still be going on. The file has its mode and time then, and is flushed.
pub(super) async fn write_assembly<'s>(
    session: &'s Session,
    delivery: &Delivery,
    source: &Source,
    assembly: &RemotePath,
) -> Result<Option<GrowingHash<'s>>, Fault> {
    let version = &delivery.version;
    let _turn = session.large_upload.lock().await;
    let (file, held) = open_assembly(session, delivery, assembly).await?;
    let job = session.channels.job(version.stamp.size - held);
    let hash = hash_as_it_grows(session, assembly).await;
    match write_and_finish(session, version, source, (file, held), &job, (hash, true)).await {
        Ok(hash) => Ok(hash),
        Err(fault) => or_as_one_stream(session, version, source, assembly, Err(fault)).await.map(|()| None),
    }
}

/// Writes a file from `held` on, chunk by chunk, and finishes it on the handle that wrote it: nothing is opened for
/// writing again afterwards, for some servers begin a new file then.
async fn write_and_finish<'a>(
    session: &'a Session,
    version: &Version,
    source: &Source,
    (file, held): (RemoteFile, u64),
    job: &Job,
    (mut hash, alone): (Option<GrowingHash<'a>>, bool),
) -> Result<Option<GrowingHash<'a>>, Fault> {
    let path = file.path().clone();
    for chunk in 0..version.plan().count() {
        let range = version.plan().range(chunk);
        let rest = range.start.max(held)..range.end;
        if !rest.is_empty() {
            let taken = Taken::of(job);
            let taken = if session.streams_only.load(Ordering::Relaxed) { taken.over() } else { taken };
            write_range(session, version, source, &file, rest, 0, &taken).await?;
        }
        hash = grown(hash).await;
    }
    let finished = finish_open(session, version, file, alone).await;
    session.explained(finished, &path, 1).await?;
    Ok(hash)
}

/// Where writing a file failed on a vessel that is there, writes all of it once more, into a new file, every byte in
/// its order: some servers take no other way, and none says so.
pub(super) async fn or_as_one_stream(
    session: &Session,
    version: &Version,
    source: &Source,
    assembly: &RemotePath,
    written: Result<(), Fault>,
) -> Result<(), Fault> {
    let Err(fault) = written else { return Ok(()) };
    let helps = fault.scope <= Scope::File && fault.cause != Cause::Source && fault.cause != Cause::Space;
    if !helps || session.remote.is_lost() || session.streams_only.swap(true, Ordering::Relaxed) {
        return Err(fault);
    }
    tracing::debug!(vessel = %session.settings.name, file = %version.path, "Rewriting the file as one stream: {fault}");
    rewrite(session, version, source, assembly).await
}

pub(super) async fn rewrite(
    session: &Session,
    version: &Version,
    source: &Source,
    assembly: &RemotePath,
) -> Result<(), Fault> {
    let file = session.open_ours(session.remote.main_channel(), assembly, OpenFlags::FRESH, version.stamp.size).await?;
    let job = session.channels.job(0);
    write_and_finish(session, version, source, (file, 0), &job, (None, true)).await.map(|_| ())
}
