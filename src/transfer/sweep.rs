//! Removes the remains of superseded deliveries from the vessel. Removes only files whose names identify them as
//! temporary files of this instance.

use std::collections::HashSet;
use std::future::pending;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::stream::{self, StreamExt, TryStreamExt};
use tokio::task::JoinSet;

use super::transfers::Transfers;
use crate::fault::Fault;
use crate::link::{LateFile, Session, Which, loop_assembly, probe_beside};
use crate::names::{OurFile, RemotePath, assembly_name, probe_name};
use crate::records::{DeliveryId, Remains};
use crate::transport::RemoteError;

/// Number of remains fetched from the ledger at once.
const BATCH: u32 = 256;
/// Number of parts removed concurrently.
const AT_ONCE: usize = 64;
/// Maximum number of attempts to remove a marker.
const TRIES: usize = 3;
/// Number of assemblies removed concurrently.
const ASSEMBLIES_AT_ONCE: usize = 32;

/// The deliveries that are running in a session; clones share them. A sweep skips these deliveries, because a delivery
/// that is superseded while it runs may create its assembly again. A sweep must query the ledger first and read this
/// set afterwards, because a delivery may start in between.
#[derive(Clone, Default)]
pub(crate) struct RunningDeliveries(Arc<Mutex<HashSet<DeliveryId>>>);

impl RunningDeliveries {
    fn change<T>(&self, change: impl FnOnce(&mut HashSet<DeliveryId>) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Adds a delivery that is about to run.
    pub(crate) fn add(&self, delivery: DeliveryId) {
        self.change(|running| running.insert(delivery));
    }

    /// Removes a delivery that has ended. Its remains, if any, are left to the next sweep.
    pub(crate) fn remove(&self, delivery: DeliveryId) {
        self.change(|running| running.remove(&delivery));
    }

    fn contains(&self, delivery: DeliveryId) -> bool {
        self.change(|running| running.contains(&delivery))
    }
}

/// The cleanup tasks of one session. They run concurrently with the deliveries, and no delivery waits for them.
#[derive(Default)]
pub(crate) struct Sweeping {
    tasks: JoinSet<Result<Swept, Fault>>,
    /// Whether a task is removing remains.
    under_way: bool,
    /// Whether another removal was requested while one is running.
    again: bool,
    running: RunningDeliveries,
}

/// Kind of a finished task.
enum Swept {
    Remains,
    Strays,
    Markers,
}

impl Sweeping {
    pub(crate) fn new(running: RunningDeliveries) -> Self {
        Self { running, ..Self::default() }
    }

    /// Starts to remove parts that belong to no open delivery.
    pub(crate) fn begin_strays(&mut self, transfers: &Arc<Transfers>) {
        let transfers = transfers.clone();
        self.tasks.spawn(async move { sweep_strays(&transfers).await.map(|()| Swept::Strays) });
    }

    /// Starts to remove the remains of superseded deliveries that are not running. If a removal is already running,
    /// starts another one after it.
    pub(crate) fn begin_remains(&mut self, transfers: &Arc<Transfers>) {
        if self.under_way {
            self.again = true;
            return;
        }
        let (transfers, running) = (transfers.clone(), self.running.clone());
        self.under_way = true;
        self.tasks.spawn(async move { sweep_remains(&transfers, &running).await.map(|()| Swept::Remains) });
    }

    /// Starts to remove the markers that the loop for small files has left for acknowledged deliveries, if there are
    /// any.
    pub(crate) fn begin_markers(&mut self, transfers: &Arc<Transfers>) {
        let markers = std::mem::take(&mut *transfers.markers.lock().unwrap_or_else(PoisonError::into_inner));
        if !markers.is_empty() {
            let transfers = transfers.clone();
            self.tasks.spawn(async move { remove_markers(&transfers, markers).await.map(|()| Swept::Markers) });
        }
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.tasks.is_empty()
    }

    /// Waits until a task has ended; `None` if none is running.
    pub(crate) async fn ended(&mut self, transfers: &Arc<Transfers>) -> Option<Result<(), Fault>> {
        let ended = self.tasks.join_next().await?;
        let swept = match ended {
            Ok(Ok(swept)) => swept,
            Ok(Err(fault)) => return Some(Err(fault)),
            Err(e) => return Some(Err(Fault::daemon(format_args!("a cleanup task crashed: {e}")))),
        };
        if matches!(swept, Swept::Remains) {
            self.under_way = false;
            if std::mem::take(&mut self.again) {
                self.begin_remains(transfers);
            }
        }
        Some(Ok(()))
    }
}

/// Removes the remains of superseded deliveries that are not running.
///
/// Remains that can't be removed stay in the ledger for the next sweep. They must not delay deliveries.
async fn sweep_remains(transfers: &Transfers, running: &RunningDeliveries) -> Result<(), Fault> {
    let session = &transfers.session;
    let (name, mut after) = (&session.link.settings.name, DeliveryId(0));
    loop {
        let mut remains = transfers.ledger.remains(name, after, BATCH).await.map_err(|e| e.fault())?;
        let Some(last) = remains.last() else { return Ok(()) };
        after = last.delivery;
        remains.retain(|r| !running.contains(r.delivery));
        let deliveries: HashSet<i64> = remains.iter().map(|r| r.delivery.0).collect();
        if !deliveries.is_empty()
            && !tolerate(session, remove_parts(session, |delivery| deliveries.contains(&delivery)).await)?
        {
            return Ok(());
        }
        stream::iter(&remains)
            .map(Ok)
            .try_for_each_concurrent(ASSEMBLIES_AT_ONCE, async |one| sweep_one(transfers, one).await)
            .await?;
    }
}

async fn sweep_one(transfers: &Transfers, one: &Remains) -> Result<(), Fault> {
    let session = &transfers.session;
    let (vessel, ledger) = (&session.link.settings.name, &transfers.ledger);
    // Since the ledger was queried, the delivery may have been reopened, because the vessel takes the directory again.
    // Then its assembly may be resumed.
    if ledger.is_open(one.delivery).await.map_err(|e| e.fault())? {
        return Ok(());
    }
    if tolerate(session, remove_assembly(transfers, one).await)? {
        ledger.swept(one.delivery).await.map_err(|e| e.fault())?;
        tracing::debug!(%vessel, file = %one.path, "Removed the unfinished file of a superseded delivery");
    }
    Ok(())
}

/// Removes this instance's parts whose delivery is no longer open, even if the ledger lists no remains of that
/// delivery; and removes the probe file of a session that ended early.
async fn sweep_strays(transfers: &Transfers) -> Result<(), Fault> {
    let session = &transfers.session;
    let listed = files_in_temp_dir(session).await;
    let (mut strays, mut asked) = (HashSet::new(), HashSet::new());
    for file in listed.as_ref().into_iter().flatten() {
        match file {
            OurFile::Part { delivery, .. } | OurFile::Compressed { delivery, .. } if asked.insert(*delivery) => {
                if !transfers.ledger.is_open(DeliveryId(*delivery)).await.map_err(|e| e.fault())? {
                    strays.insert(*delivery);
                }
            }
            // This session may be using the file at this moment. That does no harm: the file's owner is read from the
            // open file, and a missing file counts as removed.
            OurFile::Probe => {
                let probe = session.link.settings.temp_dir.join(probe_name(session.link.instance));
                tolerate(session, session.remote.remove(&probe).await)?;
            }
            OurFile::Part { .. } | OurFile::Compressed { .. } | OurFile::Assembly { .. } => {}
        }
    }
    if tolerate(session, listed)? && !strays.is_empty() {
        tolerate(session, remove_parts(session, |delivery| strays.contains(&delivery)).await)?;
    }
    Ok(())
}

/// Removes temporary files once more, in case late requests have created them again; never returns.
pub(crate) async fn sweep_late(session: Arc<Session>, running: RunningDeliveries) {
    loop {
        let late = session.late_files.due().await;
        if running.contains(late.delivery) {
            // The running attempt may use the name, so the file is due again later.
            session.late_files.add(late.delivery, late.which, [late.path]);
        } else if tolerate(&session, remove_late(&session, &late).await).is_err() {
            // The connection is lost. The next session takes over the late files.
            session.late_files.add(late.delivery, late.which, [late.path]);
            return pending().await;
        }
    }
}

/// Removes a late file, unless a later attempt may continue with it.
async fn remove_late(session: &Session, late: &LateFile) -> Result<(), RemoteError> {
    let is_meant = match late.which {
        Which::Any => true,
        Which::Empty => session.remote.look(&late.path).await?.is_some_and(|file| file.size == Some(0)),
    };
    if is_meant { session.remote.remove(&late.path).await } else { Ok(()) }
}

/// Removes markers. If the connection is lost meanwhile, the next session removes them in [`sweep_strays`].
async fn remove_markers(transfers: &Transfers, markers: Vec<RemotePath>) -> Result<(), Fault> {
    let session = &transfers.session;
    stream::iter(markers)
        .map(Ok)
        .try_for_each_concurrent(AT_ONCE, async |marker| {
            for _ in 0..TRIES {
                if tolerate(session, session.remote.remove(&marker).await)? {
                    break;
                }
            }
            Ok(())
        })
        .await
}

/// Returns `false` if a sweeping step failed. Only a lost connection is an error.
fn tolerate<T>(session: &Session, result: Result<T, RemoteError>) -> Result<bool, Fault> {
    match result {
        Ok(_) => Ok(true),
        Err(e) if e.is_connection() => Err(e.fault()),
        Err(e) => {
            tracing::debug!(vessel = %session.link.settings.name, "Cannot remove the remains of a delivery: {e}");
            Ok(false)
        }
    }
}

async fn files_in_temp_dir(session: &Session) -> Result<Vec<OurFile>, RemoteError> {
    let listed = session.remote.list(&session.link.settings.temp_dir).await?;
    Ok(listed.iter().filter_map(|(name, _)| OurFile::parse(session.link.instance, name)).collect())
}

pub(super) async fn remove_parts(session: &Session, unwanted: impl Fn(i64) -> bool) -> Result<(), RemoteError> {
    let temp_dir = &session.link.settings.temp_dir;
    let listed = match session.remote.list(temp_dir).await {
        // Without a listing, the parts of a delivery can't be found.
        Err(e) if e.is_refusal() => return Ok(()),
        listed => listed?,
    };
    let is_unwanted = |name: &[u8]| match OurFile::parse(session.link.instance, name) {
        Some(OurFile::Part { delivery, .. } | OurFile::Compressed { delivery, .. }) => unwanted(delivery),
        _ => false,
    };
    let unwanted = listed.iter().filter(|(name, _)| is_unwanted(name)).map(|(name, _)| temp_dir.join(name));
    stream::iter(unwanted)
        .map(Ok)
        .try_for_each_concurrent(AT_ONCE, async |path| session.remote.remove(&path).await)
        .await
}

async fn remove_assembly(transfers: &Transfers, remains: &Remains) -> Result<(), RemoteError> {
    let session = &transfers.session;
    // The path on the vessel is unknown if the directory is no longer configured.
    let Some((directory, _)) = transfers.directories.get(&remains.directory) else { return Ok(()) };
    let destination = session.link.settings.destination(&directory, &remains.path);
    let Some(parent) = destination.parent() else { return Ok(()) };
    let assembly = parent.join(assembly_name(session.link.instance, remains.delivery.0, remains.token));
    remove_with_companions(session, &assembly).await?;
    session.late_files.add_superseded(remains.delivery, assembly.clone(), loop_assembly(&assembly));
    Ok(())
}

/// Removes an assembly, the assembly of the loop in the vessel's shell, and the probe file beside them.
pub(super) async fn remove_with_companions(session: &Session, assembly: &RemotePath) -> Result<(), RemoteError> {
    session.remote.remove(assembly).await?;
    session.remote.remove(&loop_assembly(assembly)).await?;
    session.remote.remove(&probe_beside(assembly)).await
}
