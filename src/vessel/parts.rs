//! Parts: chunks on their way through TempDir, joined beside the destination by the vessel's own `cat`.
//!
//! Parts are joined while later ones still upload and are removed as they are joined, so that the vessel needs room for
//! the file and a few chunks. How far the assembly has come is told by its size alone: an append that was cut off is cut
//! away and made again, and an append checks the size before and after, for the `cat` of an earlier session may still run.
//! The whole is verified afterwards anyway.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::sync::{Semaphore, mpsc};

use super::visit::Visit;
use crate::chunk::ChunkPlan;
use crate::fault::{Fault, Scope};
use crate::local::SourceFile;
use crate::names::{OurFile, RemotePath};
use crate::records::{Delivery, DeliveryState, Version};
use crate::transport::{Attrs, OpenFlags};

/// Parts that are uploaded at once, so that no round trip is idle between two of them.
const PARTS_AT_ONCE: usize = 2;
/// Parts that may lie in TempDir, uploading or waiting to be joined: what it must have room for at the most.
const PARTS_IN_TEMP_DIR: usize = 6;

/// One file that goes up in parts.
pub(super) struct PartwiseUpload<'a> {
    visit: &'a Visit,
    delivery: &'a Delivery,
    source: Arc<SourceFile>,
    assembly: RemotePath,
    plan: ChunkPlan,
    /// A place for each part that may lie in TempDir; closed when nobody joins any more.
    places: Semaphore,
}

impl<'a> PartwiseUpload<'a> {
    pub(super) fn new(visit: &'a Visit, delivery: &'a Delivery, source: Arc<SourceFile>, assembly: RemotePath) -> Self {
        Self {
            visit,
            delivery,
            source,
            assembly,
            plan: delivery.version.plan(),
            places: Semaphore::new(PARTS_IN_TEMP_DIR),
        }
    }

    fn version(&self) -> &Version {
        &self.delivery.version
    }

    /// Uploads and joins whatever is missing.
    pub(super) async fn run(&self) -> Result<(), Fault> {
        self.visit.prepare_temp_dir().await?;
        let (joined, held) = self.found().await?;
        let (done, finished) = mpsc::unbounded_channel();
        let joining = async {
            let joined = self.join(joined, finished).await;
            self.places.close();
            joined
        };
        let uploading = async {
            let _turn = self.visit.large_upload.lock().await;
            self.upload(joined, &held, done).await
        };
        // Not `try_join`: parts that are complete are still joined when a later one fails, for that makes room.
        let (uploaded, joined) = tokio::join!(uploading, joining);
        joined?;
        match uploaded {
            Err(fault) if fault.scope == Scope::Vessel && !self.visit.remote.is_lost() => self.make_room(fault).await,
            uploaded => uploaded,
        }
    }

    /// TempDir is full. That concerns this file and no smaller one: our own parts make room, and the file waits.
    async fn make_room(&self, full: Fault) -> Result<(), Fault> {
        let removed = self.visit.remove_parts(|delivery| delivery == self.delivery.id.0).await;
        removed.map_err(|e| e.fault())?;
        Err(Fault { scope: Scope::File, ..full })
    }

    /// How many chunks are joined already, and how many bytes of each other part the vessel holds.
    async fn found(&self) -> Result<(u64, Vec<u64>), Fault> {
        let count = usize::try_from(self.plan.count()).map_err(|_| Fault::file("too many chunks; raise ChunkSize"))?;
        let mut held = vec![0; count];
        if self.delivery.state == DeliveryState::Pending {
            // What lies there before the first attempt is not of this delivery, whatever its name says.
            self.visit.remote.remove(&self.assembly).await.map_err(|e| e.fault())?;
            return Ok((0, held));
        }
        let joined = self.trim_assembly().await?;
        for (name, attrs) in
            self.visit.remote.list(&self.visit.vessel.settings.temp_dir).await.map_err(|e| e.fault())?
        {
            let Some(OurFile::Part { delivery, chunk }) = OurFile::parse(self.visit.instance, &name) else { continue };
            if delivery != self.delivery.id.0 {
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
        self.visit.remote.remove(&self.visit.part(self.delivery, chunk)).await.map_err(|e| e.fault())
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
            // Given back by whoever joins it. Where nobody does any more, his failure is the one that counts.
            let Ok(place) = self.places.acquire().await else { return Ok(()) };
            place.forget();
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
        let path = self.visit.part(self.delivery, chunk);
        let held = if held > length { 0 } else { held };
        self.visit.taken(held);
        if held == length {
            return Ok(());
        }
        let flags = if held == 0 { OpenFlags::FRESH } else { OpenFlags::WRITE };
        let file = self.visit.open_ours(&path, flags, length).await?;
        let missing = range.start + held..range.end;
        self.visit.write_range(self.version(), &self.source, &file, missing, range.start).await?;
        let closed = file.close().await;
        self.visit.explained(closed, &path, 1).await?;
        tracing::debug!(vessel = %self.visit.vessel.settings.name, file = %self.version().path, chunk, held, "part uploaded");
        Ok(())
    }

    /// Joins parts in order: whatever is complete and next, as soon as it is.
    async fn join(&self, mut joined: u64, mut finished: mpsc::UnboundedReceiver<u64>) -> Result<(), Fault> {
        let mut complete = BTreeSet::new();
        while let Some(chunk) = finished.recv().await {
            complete.insert(chunk);
            while let Ok(chunk) = finished.try_recv() {
                complete.insert(chunk);
            }
            let end = (joined..).find(|chunk| !complete.contains(chunk)).unwrap_or(joined);
            if end > joined {
                self.append(joined..end).await?;
                self.places.add_permits(usize::try_from(end - joined).unwrap_or(0));
                joined = end;
                complete = complete.split_off(&joined);
            }
        }
        Ok(())
    }

    async fn append(&self, chunks: std::ops::Range<u64>) -> Result<(), Fault> {
        let parts: Vec<RemotePath> = chunks.clone().map(|chunk| self.visit.part(self.delivery, chunk)).collect();
        let range = self.plan.range(chunks.start).start..self.plan.range(chunks.end - 1).end;
        let appended = self.visit.remote.append(&parts, &self.assembly, range.clone()).await;
        self.visit.explained(appended, &self.assembly, range.end - range.start).await
    }
}
