//! Repairs chunks that arrived damaged.

use std::sync::atomic::Ordering;

use super::publish::finish_open;
use super::upload_direct::{or_as_one_stream, rewrite};
use super::write::{Taken, write_range};
use crate::fault::Fault;
use crate::link::Session;
use crate::local::Source;
use crate::names::RemotePath;
use crate::records::Version;
use crate::transport::{Attrs, OpenFlags};

/// Sends the bad chunks of the assembly again and finishes the assembly. If the vessel can't change files in place,
/// sends the whole file again.
pub(super) async fn repair(
    session: &Session,
    version: &Version,
    source: &Source,
    assembly: &RemotePath,
    bad: &[u64],
) -> Result<(), Fault> {
    if session.streams_only.load(Ordering::Relaxed) {
        return rewrite(session, version, source, assembly).await;
    }
    let written = match repair_in_place(session, version, source, assembly, bad).await {
        Ok(true) => return Ok(()),
        Ok(false) => Err(Fault::attempt(format_args!("{assembly} can't be changed in place on the vessel"))),
        Err(fault) => Err(fault),
    };
    or_as_one_stream(session, version, source, assembly, written).await
}

/// Rewrites the bad chunks in place. Returns `false` if the vessel truncates a file that is opened for writing, or does
/// not report the file's size.
pub(super) async fn repair_in_place(
    session: &Session,
    version: &Version,
    source: &Source,
    assembly: &RemotePath,
    bad: &[u64],
) -> Result<bool, Fault> {
    let size = version.stamp.size;
    let before = match session.remote.look(assembly).await {
        // Without the size, it can't be checked whether opening truncates the file.
        Err(e) if e.is_refusal() => return Ok(false),
        before => before.map_err(|e| e.fault())?.and_then(|attrs| attrs.size),
    };
    let file = session.open_ours(session.remote.main_channel(), assembly, OpenFlags::WRITE_EXISTING, size).await?;
    if file.attrs().await.map_err(|e| e.fault())?.size != before {
        return Ok(false);
    }
    let cut = file.set(Attrs { size: Some(size), ..Attrs::default() }).await;
    session.explained(cut, assembly, size).await?;
    let job = session.channels.job(0);
    for chunk in bad {
        let range = version.plan().range(*chunk);
        write_range(session, version, source, &file, range, 0, &Taken::of(&job).over()).await?;
    }
    let finished = finish_open(session, version, file, true).await;
    session.explained(finished, assembly, 1).await?;
    Ok(true)
}
