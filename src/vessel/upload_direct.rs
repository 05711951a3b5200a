//! The assembly written directly: files of one chunk, which have nothing to join, and others where nothing joins.

use std::sync::atomic::Ordering;

use super::channel_pool::Job;
use super::session::{Session, source_fault};
use super::upload_parts::grown;
use super::write::Taken;
use crate::fault::{Cause, Fault, Scope};
use crate::local::Source;
use crate::names::RemotePath;
use crate::records::{Delivery, DeliveryState, Version};
use crate::transport::{Attrs, GrowingHash, Lane, OpenFlags, RemoteError, RemoteFile};

/// Files up to this size, in bytes, go out in one burst with all that follows their bytes.
const BURST: u64 = 255 << 10;

impl Session {
    /// Opens the assembly on the lane with the least to do; also says how many bytes of the version it holds already.
    pub(super) async fn open_assembly(
        &self,
        delivery: &Delivery,
        assembly: &RemotePath,
    ) -> Result<(RemoteFile, u64), Fault> {
        let lane = self.lanes.idlest();
        // What lies there before the first attempt is not of this delivery, whatever its name says.
        if delivery.state != DeliveryState::Pending
            && !self.streams_only.load(Ordering::Relaxed)
            && let Some((file, held)) = self.open_again(&lane, &delivery.version, assembly).await?
        {
            self.found(&delivery.version, held);
            return Ok((file, held));
        }
        Ok((self.open_ours(&lane, assembly, OpenFlags::FRESH, delivery.version.stamp.size).await?, 0))
    }

    /// Opens what an earlier attempt left; `None` where there is nothing that can be gone on with.
    async fn open_again(
        &self,
        lane: &Lane,
        version: &Version,
        assembly: &RemotePath,
    ) -> Result<Option<(RemoteFile, u64)>, Fault> {
        let nothing = |e: RemoteError| if e.is_connection() { Err(e.fault()) } else { Ok(None) };
        let there = match self.remote.look(assembly).await {
            Ok(Some(attrs)) => attrs,
            Ok(None) => return Ok(None),
            Err(e) => return nothing(e),
        };
        if !self.may_resume(version, assembly, &there).await.map_err(|e| e.fault())? {
            return Ok(None);
        }
        let file = match self.open_there(lane, assembly, OpenFlags::WRITE_EXISTING).await {
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
        &self,
        delivery: &Delivery,
        source: &Source,
        (file, held): (RemoteFile, u64),
    ) -> Result<(), Fault> {
        let version = &delivery.version;
        let size = version.stamp.size;
        let (path, alone) = (file.path().clone(), !self.flushes_together());
        if held == 0 && (1..=BURST.min(self.remote.capabilities().bytes_per_write())).contains(&size) {
            let read = source.read(0, size).await;
            let bytes = read.map_err(|error| source_fault(version, &error))?;
            self.vessel.limit.take(size).await;
            let sent = file.send(0, bytes).await;
            let sent = self.explained(sent, &path, size).await?;
            // The vessel takes them in this order, so nobody waits for the answer to the write first.
            let (taken, finished) = tokio::join!(sent.taken(), self.finish_open(version, file, alone));
            self.sent(version, self.explained(taken, &path, size).await?);
            return self.explained(finished, &path, 1).await;
        }
        let job = self.lanes.job(size - held);
        let written = self.write_and_finish(version, source, (file, held), &job, (None, alone)).await;
        self.or_as_one_stream(version, source, &path, written.map(|_| ())).await
    }

    /// Writes what is missing of a large file in order, going on from what an earlier attempt left; gives the vessel's
    /// hash of it, which may still be going on. The file has its mode and time then, and is flushed.
    pub(super) async fn write_assembly(
        &self,
        delivery: &Delivery,
        source: &Source,
        assembly: &RemotePath,
    ) -> Result<Option<GrowingHash<'_>>, Fault> {
        let version = &delivery.version;
        let _turn = self.large_upload.lock().await;
        let (file, held) = self.open_assembly(delivery, assembly).await?;
        let job = self.lanes.job(version.stamp.size - held);
        let hash = self.hash_as_it_grows(assembly).await;
        match self.write_and_finish(version, source, (file, held), &job, (hash, true)).await {
            Ok(hash) => Ok(hash),
            Err(fault) => self.or_as_one_stream(version, source, assembly, Err(fault)).await.map(|()| None),
        }
    }

    /// Writes a file from `held` on, chunk by chunk, and finishes it on the handle that wrote it: nothing is opened for
    /// writing again afterwards, for some servers begin a new file then.
    async fn write_and_finish<'a>(
        &'a self,
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
                let taken = if self.streams_only.load(Ordering::Relaxed) { taken.over() } else { taken };
                self.write_range(version, source, &file, rest, 0, &taken).await?;
            }
            hash = grown(hash).await;
        }
        let finished = self.finish_open(version, file, alone).await;
        self.explained(finished, &path, 1).await?;
        Ok(hash)
    }

    /// Where writing a file failed on a vessel that is there, writes all of it once more, into a new file, every byte in
    /// its order: some servers take no other way, and none says so.
    async fn or_as_one_stream(
        &self,
        version: &Version,
        source: &Source,
        assembly: &RemotePath,
        written: Result<(), Fault>,
    ) -> Result<(), Fault> {
        let Err(fault) = written else { return Ok(()) };
        let helps = fault.scope <= Scope::File && fault.cause != Cause::Source && fault.cause != Cause::Space;
        if !helps || self.remote.is_lost() || self.streams_only.swap(true, Ordering::Relaxed) {
            return Err(fault);
        }
        tracing::debug!(vessel = %self.vessel.settings.name, file = %version.path, "written anew as one stream: {fault}");
        self.rewrite(version, source, assembly).await
    }

    async fn rewrite(&self, version: &Version, source: &Source, assembly: &RemotePath) -> Result<(), Fault> {
        let file = self.open_ours(self.remote.lane(), assembly, OpenFlags::FRESH, version.stamp.size).await?;
        let job = self.lanes.job(0);
        self.write_and_finish(version, source, (file, 0), &job, (None, true)).await.map(|_| ())
    }

    /// Has the vessel hash an assembly while it grows, where it can.
    pub(super) async fn hash_as_it_grows(&self, assembly: &RemotePath) -> Option<GrowingHash<'_>> {
        let tool = self.remote.capabilities().hash_tool?;
        self.remote.hash_as_it_grows(tool, assembly).await.ok()
    }

    /// Sends some chunks of the assembly again, where its hash showed them to be bad, and finishes it; all of it where the
    /// vessel can't change a file in place.
    pub(super) async fn repair(
        &self,
        version: &Version,
        source: &Source,
        assembly: &RemotePath,
        bad: &[u64],
    ) -> Result<(), Fault> {
        if self.streams_only.load(Ordering::Relaxed) {
            return self.rewrite(version, source, assembly).await;
        }
        let written = match self.repair_in_place(version, source, assembly, bad).await {
            Ok(true) => return Ok(()),
            Ok(false) => Err(Fault::attempt(format_args!("{assembly} can't be changed in place on the vessel"))),
            Err(fault) => Err(fault),
        };
        self.or_as_one_stream(version, source, assembly, written).await
    }

    /// `false` where the vessel empties a file that is opened for writing.
    async fn repair_in_place(
        &self,
        version: &Version,
        source: &Source,
        assembly: &RemotePath,
        bad: &[u64],
    ) -> Result<bool, Fault> {
        let size = version.stamp.size;
        let before = match self.remote.look(assembly).await {
            // Whether it is empty once it is open could not be told.
            Err(e) if e.is_refusal() => return Ok(false),
            before => before.map_err(|e| e.fault())?.and_then(|attrs| attrs.size),
        };
        let file = self.open_ours(self.remote.lane(), assembly, OpenFlags::WRITE_EXISTING, size).await?;
        if file.attrs().await.map_err(|e| e.fault())?.size != before {
            return Ok(false);
        }
        let cut = file.set(Attrs { size: Some(size), ..Attrs::default() }).await;
        self.explained(cut, assembly, size).await?;
        let job = self.lanes.job(0);
        for chunk in bad {
            let range = version.plan().range(*chunk);
            self.write_range(version, source, &file, range, 0, &Taken::of(&job).over()).await?;
        }
        let finished = self.finish_open(version, file, true).await;
        self.explained(finished, assembly, 1).await?;
        Ok(true)
    }
}
