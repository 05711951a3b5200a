//! Verification of uploads, and repair of chunks that arrived damaged.

use std::sync::atomic::Ordering;

use super::publish::finish_open;
use super::transfers::{Transfers, source_changed};
use super::upload_direct::{or_as_one_stream, rewrite};
use super::verify::{Verdict, verify};
use super::write::{Taken, write_range};
use crate::fault::{Cause, Fault};
use crate::link::Session;
use crate::local::Source;
use crate::names::RemotePath;
use crate::records::{Delivery, Verified, Version};
use crate::transport::{Attrs, GrowingHash, OpenFlags};

/// How often bad chunks are sent again before the file is parked.
pub(super) const REPAIRS: usize = 3;

/// Verifies the assembly and sends bad chunks again; also returns whether that was needed. `hash` is the vessel's own
/// hash, computed while the assembly grew.
pub(super) async fn verify_and_repair(
    transfers: &Transfers,
    delivery: &Delivery,
    assembly: &RemotePath,
    hash: Option<GrowingHash<'_>>,
) -> Result<(Verified, bool), Fault> {
    let session = &transfers.session;
    let version = &delivery.version;
    if let Some(hash) = hash {
        let (found, wanted) = tokio::join!(hash.finish(version.stamp.size), transfers.digest(version));
        match found {
            Ok(found) if found == wanted? => return Ok((Verified::ByVessel, false)),
            // The bad chunks are found below, when the stored file is hashed.
            Ok(_) => {}
            Err(e) => tracing::debug!(vessel = %session.link.settings.name, file = %version.path, "{e}"),
        }
    }
    for repairs in 0..REPAIRS {
        let bad = match verify(transfers, version, assembly).await? {
            Verdict::Good(verified) => return Ok((verified, repairs > 0)),
            Verdict::Bad(bad) => bad,
        };
        tracing::warn!(
            vessel = %session.link.settings.name, file = %version.path, chunks = ?bad,
            "The file arrived damaged; sending the bad chunks again"
        );
        // A changed source would explain the damage and make a repair pointless.
        let source = transfers.open_source(version).await?;
        repair(session, version, &source, assembly, &bad).await?;
    }
    match verify(transfers, version, assembly).await? {
        Verdict::Good(verified) => Ok((verified, true)),
        Verdict::Bad(_) => {
            transfers.open_source(version).await.map_err(|_| source_changed(version))?;
            Err(Fault::file(format_args!("the file arrived damaged {} times in a row", REPAIRS + 1))
                .mend("check the vessel's disk and memory")
                .of(Cause::Damaged))
        }
    }
}

/// Sends the bad chunks of the assembly again and finishes it, or the whole file if the vessel can't change it in
/// place.
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

/// Rewrites the bad chunks in place. Returns `false` if the vessel truncates a file that is opened for writing.
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
