//! Takes over the assemblies of the shore that delivered to this vessel before this shore.

use std::collections::BTreeMap;

use futures_util::stream::{self, StreamExt, TryStreamExt};

use super::send_to_loop::loop_marker;
use super::sweep::remove_with_companions;
use super::transfers::Transfers;
use crate::fault::Fault;
use crate::link::{Session, Which, loop_assembly};
use crate::names::{RemotePath, assembly_name};
use crate::records::{DeliveryId, DeliveryState, FormerAssembly};
use crate::transport::RemoteError;

/// Number of deliveries whose assemblies are renamed concurrently.
const AT_ONCE: usize = 256;

/// Takes over the assemblies that another shore has begun on the vessel: renames them to the names that this shore
/// uses, and removes those of superseded deliveries. Must be called before the first delivery: late requests of the
/// other shore then find no file, so they can neither truncate an assembly that is being verified nor publish it.
///
/// A file whose assembly can't be renamed is sent again; the record stays for the next session.
pub(crate) async fn take_over_assemblies(transfers: &Transfers) -> Result<(), Fault> {
    let (session, ledger) = (&transfers.session, &transfers.ledger);
    let former = ledger.former_assemblies(&session.link.settings.name).await.map_err(|e| e.fault())?;
    let mut by_delivery: BTreeMap<DeliveryId, Vec<FormerAssembly>> = BTreeMap::new();
    // The path of an assembly is unknown if its directory is not configured. The record stays until it is configured.
    for one in former.into_iter().filter(|one| transfers.directories.get(&one.directory).is_some()) {
        by_delivery.entry(one.delivery).or_default().push(one);
    }
    let mut taken: Vec<i64> = stream::iter(by_delivery.into_values())
        .map(async |names| match take_over(transfers, &names).await {
            Ok(()) => Ok(names.iter().map(|one| one.number).collect()),
            Err(e) if e.is_connection() => Err(e.fault()),
            Err(e) => {
                tracing::debug!(
                    vessel = %session.link.settings.name,
                    "Cannot take over an unfinished file of another shore: {e}"
                );
                begin_anew(transfers, &names[0]).await.map(|()| Vec::new())
            }
        })
        .buffer_unordered(AT_ONCE)
        .try_concat()
        .await?;
    if taken.is_empty() {
        return Ok(());
    }
    taken.sort_unstable();
    let vessel = &session.link.settings.name;
    tracing::debug!(%vessel, "Took over {} unfinished files of another shore", taken.len());
    ledger.forget_former_assemblies(&taken).await.map_err(|e| e.fault())
}

/// Takes over the assembly of one delivery, and the assembly of the loop in the vessel's shell. `names` are the former
/// names, the latest first.
async fn take_over(transfers: &Transfers, names: &[FormerAssembly]) -> Result<(), RemoteError> {
    let session = &transfers.session;
    let (mut has_assembly, mut has_loops) = (false, false);
    for one in names {
        let Some((directory, _)) = transfers.directories.get(&one.directory) else { return Ok(()) };
        let destination = session.link.settings.destination(&directory, &one.path);
        let Some(parent) = destination.parent() else { return Ok(()) };
        let named = |token| parent.join(assembly_name(session.link.instance, one.delivery.0, token));
        let former = named(one.former);
        if one.current.is_some() {
            let now = named(one.current);
            has_assembly = has_assembly || rename_if_there(session, &former, &now).await?;
            has_loops = has_loops || rename_if_there(session, &loop_assembly(&former), &loop_assembly(&now)).await?;
        }
        remove_with_companions(session, &former).await?;
        session.late_files.add(one.delivery, Which::Any, [loop_assembly(&former), former]);
    }
    Ok(())
}

/// Restarts a delivery whose assembly could not be renamed. Otherwise the next attempt would find no assembly under the
/// new name, and conclude that a program on the vessel has removed the published file.
async fn begin_anew(transfers: &Transfers, one: &FormerAssembly) -> Result<(), Fault> {
    let session = &transfers.session;
    transfers.ledger.enter(one.delivery, DeliveryState::Uploading).await.map_err(|e| e.fault())?;
    session.remote.remove(&loop_marker(session, one.delivery, one.size)).await.map_err(|e| e.fault())
}

/// Renames a file; returns `false` if it does not exist.
async fn rename_if_there(session: &Session, from: &RemotePath, to: &RemotePath) -> Result<bool, RemoteError> {
    match session.remote.rename_to_new(from, to).await {
        Ok(()) => Ok(true),
        Err(e) if e.is_connection() => Err(e),
        // Not every server has a separate status for a missing file.
        Err(e) => match session.remote.look(from).await? {
            None => Ok(false),
            Some(_) => Err(e),
        },
    }
}
