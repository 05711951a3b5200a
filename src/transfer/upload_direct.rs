//! Direct writes into the assembly: for files of one chunk, and for larger files if the vessel can't join parts.

use std::sync::atomic::Ordering;

use super::growing_hash::{grown, hash_as_it_grows};
use super::ownership::may_resume;
use super::publish::{finish_open, flushes_together};
use super::transfers::source_fault;
use super::write::{Taken, write_and_close, write_range};
use crate::fault::{Cause, Fault, Scope};
use crate::link::Job;
use crate::link::{Session, UploadTurn};
use crate::local::Source;
use crate::names::RemotePath;
use crate::records::{Delivery, DeliveryState, Version};
use crate::transport::{Attrs, GrowingHash, OpenFlags, RemoteError, RemoteFile, SftpChannel};

/// Files up to this size, in bytes, are sent in one burst together with the requests that finish them.
const BURST: u64 = 255 << 10;

/// Opens the assembly on the least busy channel. Also returns the number of bytes that the assembly already holds.
pub(super) async fn open_assembly(
    session: &Session,
    delivery: &Delivery,
    assembly: &RemotePath,
) -> Result<(RemoteFile, u64), Fault> {
    let channel = session.channels.idlest();
    // Before the first attempt (`Pending`), an existing file with the assembly's name does not belong to this delivery.
    if delivery.state != DeliveryState::Pending
        && !session.streams_only.load(Ordering::Relaxed)
        && let Some((file, held)) = Box::pin(open_again(session, &channel, &delivery.version, assembly)).await?
    {
        session.found(&delivery.version, held);
        return Ok((file, held));
    }
    if delivery.state != DeliveryState::Pending {
        // An earlier attempt's request to create the assembly may still be in flight, on a connection that was given
        // up.
        session.late_files.add_empty(delivery.id, assembly.clone());
    }
    Ok((session.open_ours(&channel, assembly, OpenFlags::FRESH, delivery.version.stamp.size).await?, 0))
}

/// Opens the assembly of an earlier attempt; `None` if there is none that can be resumed.
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
    // The size is queried after the open, because some servers truncate a file that is opened for writing.
    match file.attrs().await {
        Ok(Attrs { size: Some(held), .. }) if held <= version.stamp.size => Ok(Some((file, held))),
        Ok(_) => Ok(None),
        Err(e) => nothing(e),
    }
}

/// Writes the missing bytes of a file of one chunk, and finishes it. With `only_write`, leaves that to the caller.
pub(super) async fn write_small(
    session: &Session,
    delivery: &Delivery,
    source: &Source,
    (file, held): (RemoteFile, u64),
    only_write: bool,
) -> Result<(), Fault> {
    let version = &delivery.version;
    let size = version.stamp.size;
    let (path, alone) = (file.path().clone(), !flushes_together(session));
    if held == 0 && (1..=BURST.min(session.remote.capabilities().bytes_per_write())).contains(&size) {
        let read = source.read(0, size).await;
        let bytes = read.map_err(|error| source_fault(version, &error))?;
        let turn = session.may_finish(version, size, file.route()).await;
        session.wrote(version, size);
        let sent = file.send(0, bytes).await;
        drop(turn);
        let sent = session.explained(sent, &path, size).await?;
        // The vessel processes requests in the order of sending, so the file can be finished without waiting for the
        // answer to the write.
        let (taken, finished) = tokio::join!(sent.taken(), finish_open(session, version, file, alone));
        session.sent(version, session.explained(taken, &path, size).await?);
        return session.explained(finished, &path, 1).await;
    }
    let job = session.channels.job(size - held);
    let rarely = async {
        let written = match only_write {
            true => {
                let taken = Taken::of(&job);
                let taken = if session.streams_only.load(Ordering::Relaxed) { taken.over() } else { taken };
                write_and_close(session, version, source, file, (held..size, 0), &taken, || None).await.map(|()| None)
            }
            false => write_and_finish(session, version, source, (file, held), &job, (None, alone), None).await,
        };
        or_as_one_stream(session, version, source, &path, written.map(|_| ())).await
    };
    Box::pin(rarely).await
}

/// Writes the missing bytes of a large file in order, sets its mode and time, and flushes it. Returns the vessel's hash
/// of the assembly, which may still be running.
pub(super) async fn write_assembly<'s>(
    session: &'s Session,
    delivery: &Delivery,
    source: &Source,
    assembly: &RemotePath,
) -> Result<Option<GrowingHash<'s>>, Fault> {
    let version = &delivery.version;
    // The assembly is opened before the file's turn to be uploaded, because opening takes a round trip.
    let (file, held) = open_assembly(session, delivery, assembly).await?;
    let turn = session.large_upload(delivery).await;
    let job = session.channels.job(version.stamp.size - held);
    let hash = hash_as_it_grows(session, version, assembly, None).await;
    match write_and_finish(session, version, source, (file, held), &job, (hash, true), Some(&turn)).await {
        Ok(hash) => Ok(hash),
        Err(fault) => or_as_one_stream(session, version, source, assembly, Err(fault)).await.map(|()| None),
    }
}

/// Writes a file from offset `held` on, and finishes it on the same handle, because some servers truncate a file that
/// is opened for writing again. If the vessel hashes the file meanwhile, the file is written chunk by chunk. Passes
/// `turn` on when all bytes are sent.
async fn write_and_finish<'a>(
    session: &'a Session,
    version: &Version,
    source: &Source,
    (file, held): (RemoteFile, u64),
    job: &Job,
    (mut hash, alone): (Option<GrowingHash<'a>>, bool),
    turn: Option<&UploadTurn<'_>>,
) -> Result<Option<GrowingHash<'a>>, Fault> {
    let path = file.path().clone();
    let size = version.stamp.size;
    let all_sent = || turn.into_iter().for_each(UploadTurn::pass_on);
    let mut at = held;
    while at < size {
        // Without a hash, no answer has to be awaited before the end.
        let end = if hash.is_some() { version.plan().range_at(at).end } else { size };
        let taken = Taken::of(job);
        let taken = if session.streams_only.load(Ordering::Relaxed) { taken.over() } else { taken };
        let taken = if end == size { taken.then(&all_sent) } else { taken };
        write_range(session, version, source, &file, at..end, 0, &taken).await?;
        hash = grown(hash).await;
        at = end;
    }
    let finished = finish_open(session, version, file, alone).await;
    session.explained(finished, &path, 1).await?;
    Ok(hash)
}

/// After a failed write, writes the whole file again into a new file, strictly in order, because some servers accept
/// only sequential writes and don't report that. Returns the fault if a retry can't help, or if the session already
/// writes in order.
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
    tracing::debug!(vessel = %session.link.settings.name, file = %version.path, "A write failed; sending the whole file again as one stream: {fault}");
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
    write_and_finish(session, version, source, (file, 0), &job, (None, true), None).await.map(|_| ())
}
