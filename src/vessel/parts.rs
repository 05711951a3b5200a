//! Parts: chunks on their way through TempDir, joined beside the destination by the vessel's own `cat`.
//!
//! Parts are joined while later ones still upload and are removed as they are joined, so that the vessel needs room for
//! the file and a few chunks. How far the assembly has come is told by its size alone, which no crash can falsify by
//! more than a part of the last append; the whole is verified afterwards anyway.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::sync::mpsc;

use super::visit::Visit;
use crate::chunk::ChunkPlan;
use crate::fault::Fault;
use crate::local::SourceFile;
use crate::names::{OurFile, RemotePath};
use crate::records::{Delivery, DeliveryState, Version};
use crate::transport::{Attrs, OpenFlags};

/// Parts that are uploaded at once, so that no round trip is idle between two of them.
const PARTS_AT_ONCE: usize = 2;
/// Parts that one `cat` joins while others still upload; fewer at the end.
const JOIN_AT_ONCE: usize = 4;

/// One file that goes up in parts.
pub(super) struct PartwiseUpload<'a> {
    visit: &'a Visit,
    delivery: &'a Delivery,
    source: Arc<SourceFile>,
    assembly: RemotePath,
    plan: ChunkPlan,
}

impl<'a> PartwiseUpload<'a> {
    pub(super) fn new(visit: &'a Visit, delivery: &'a Delivery, source: Arc<SourceFile>, assembly: RemotePath) -> Self {
        Self { visit, delivery, source, assembly, plan: delivery.version.plan() }
    }

    fn version(&self) -> &Version {
        &self.delivery.version
    }

    /// Uploads and joins whatever is missing. `false`: the delivery was superseded.
    pub(super) async fn run(&self) -> Result<bool, Fault> {
        self.visit.prepare_temp_dir().await?;
        let (joined, held) = self.found().await?;
        let (done, finished) = mpsc::unbounded_channel();
        let uploading = async {
            let turn = self.visit.large_upload.lock().await;
            let uploaded = self.upload(joined, &held, done).await;
            drop(turn);
            uploaded?;
            let ledger = &self.visit.vessel.ledger;
            ledger.enter(self.delivery.id, DeliveryState::Assembling).await.map_err(|e| e.fault())
        };
        let (wanted, ()) = tokio::try_join!(uploading, self.join(joined, finished))?;
        Ok(wanted)
    }

    /// How many chunks are joined already, and how many bytes of each other part the vessel holds.
    async fn found(&self) -> Result<(u64, Vec<u64>), Fault> {
        let count = usize::try_from(self.plan.count()).map_err(|_| Fault::file("too many chunks; raise ChunkSize"))?;
        let mut held = vec![0; count];
        if self.delivery.state == DeliveryState::Pending {
            return Ok((0, held));
        }
        let joined = self.trim_assembly().await?;
        for (name, attrs) in
            self.visit.remote.list(&self.visit.vessel.settings.temp_dir).await.map_err(|e| e.fault())?
        {
            let Some(OurFile::Part { version, chunk }) = OurFile::parse(self.visit.instance, &name) else { continue };
            if version != self.version().id.0 {
                continue;
            }
            match usize::try_from(chunk).ok().and_then(|chunk| held.get_mut(chunk)) {
                // Joined, but not removed any more before the cut.
                _ if chunk < joined => self.remove_part(chunk).await?,
                Some(held) => *held = attrs.size.unwrap_or(0),
                None => {}
            }
        }
        self.visit.taken(self.plan.range(joined).start);
        Ok((joined, held))
    }

    async fn remove_part(&self, chunk: u64) -> Result<(), Fault> {
        self.visit.remote.remove(&self.visit.part(self.version(), chunk)).await.map_err(|e| e.fault())
    }

    /// Cuts the assembly back to whole chunks: an append that was cut off is made again.
    async fn trim_assembly(&self) -> Result<u64, Fault> {
        let attrs = self.visit.remote.look(&self.assembly).await.map_err(|e| e.fault())?;
        let size = attrs.and_then(|attrs| attrs.size).unwrap_or(0);
        let joined = self.plan.whole_within(size);
        let whole = self.plan.range(joined).start;
        if size != whole {
            let cut = self.visit.remote.set(&self.assembly, Attrs { size: Some(whole), ..Attrs::default() }).await;
            self.visit.explained(cut, &self.assembly, 0).await?;
        }
        Ok(joined)
    }

    async fn upload(&self, joined: u64, held: &[u64], done: mpsc::UnboundedSender<u64>) -> Result<(), Fault> {
        use futures_util::{StreamExt, TryStreamExt, stream};
        let done = &done;
        let part = |chunk: u64| async move {
            let held = usize::try_from(chunk).ok().and_then(|chunk| held.get(chunk)).copied().unwrap_or(0);
            self.upload_part(chunk, held).await?;
            // The joiner outlives us, unless it failed, and then that failure counts.
            let _ = done.send(chunk);
            Ok::<_, Fault>(())
        };
        stream::iter(joined..self.plan.count()).map(part).buffer_unordered(PARTS_AT_ONCE).try_collect::<()>().await
    }

    /// Uploads one part from where it stopped. What an earlier connection left is not read back here: the hash of the
    /// whole covers it, and a chunk that it shows to be bad is sent again alone.
    async fn upload_part(&self, chunk: u64, held: u64) -> Result<(), Fault> {
        let range = self.plan.range(chunk);
        let length = range.end - range.start;
        let path = self.visit.part(self.version(), chunk);
        let held = if held > length { 0 } else { held };
        self.visit.taken(held);
        if held == length {
            return Ok(());
        }
        let opened = self.visit.remote.open(&path, OpenFlags::WRITE, 0o600).await;
        let file = self.visit.explained(opened, &path, length).await?;
        let missing = range.start + held..range.end;
        self.visit.write_range(self.version(), &self.source, &file, missing, range.start).await?;
        let closed = file.close().await;
        self.visit.explained(closed, &path, 1).await?;
        tracing::debug!(vessel = %self.visit.vessel.settings.name, file = %self.version().path, chunk, held, "part uploaded");
        Ok(())
    }

    /// Joins parts in order, as they become complete.
    async fn join(&self, mut joined: u64, mut finished: mpsc::UnboundedReceiver<u64>) -> Result<(), Fault> {
        let mut complete = BTreeSet::new();
        loop {
            let next = finished.recv().await;
            complete.extend(next);
            while let Ok(chunk) = finished.try_recv() {
                complete.insert(chunk);
            }
            let mut ready = (joined..).take_while(|chunk| complete.contains(chunk)).count();
            while ready >= JOIN_AT_ONCE || (ready > 0 && next.is_none()) {
                let now = u64::try_from(ready.min(JOIN_AT_ONCE)).unwrap_or(0);
                self.append(joined..joined + now).await?;
                joined += now;
                ready = (joined..).take_while(|chunk| complete.contains(chunk)).count();
            }
            complete = complete.split_off(&joined);
            if next.is_none() {
                return Ok(());
            }
        }
    }

    async fn append(&self, chunks: std::ops::Range<u64>) -> Result<(), Fault> {
        let parts: Vec<RemotePath> = chunks.clone().map(|chunk| self.visit.part(self.version(), chunk)).collect();
        let bytes = self.plan.range(chunks.end - 1).end - self.plan.range(chunks.start).start;
        let appended = self.visit.remote.append(&parts, &self.assembly, bytes).await;
        self.visit.explained(appended, &self.assembly, bytes).await
    }
}
