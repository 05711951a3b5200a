//! One delivery, from wherever it stands to its acknowledgement.

use std::time::Instant;

use super::ours::probe_beside;
use super::publish::{looks_like, seen};
use super::session::{Session, source_changed};
use super::upload_parts::{Held, PartsUpload, held};
use super::verify::Verdict;
use crate::clock::to_the_millisecond;
use crate::fault::{Cause, Fault, Scope};
use crate::ledger::LastDelivered;
use crate::monitor::Event;
use crate::names::RemotePath;
use crate::records::{Delivery, DeliveryState, Seen, Verified, Version, VersionKind};
use crate::settings::Assembly;
use crate::transport::{Attrs, GrowingHash, RemoteError};

/// How often bad chunks are sent again before the file is parked.
const REPAIRS: usize = 3;

/// How a delivery ended that did not fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Acknowledged,
    Superseded,
}

/// What a delivery has come to before its file is published.
enum Prepared {
    /// The assembly is verified, flushed and has its mode and time: all it lacks is its name.
    Assembly(Verified),
    /// The vessel has the version under its final name already.
    AlreadyThere(Verified),
    /// Nobody wants it any more.
    Superseded,
}

impl Session {
    /// Takes a delivery to its end. Each step may be repeated, so a delivery can be dropped at any point.
    ///
    /// Hundreds of small files are on their way at once: what is rare or large among the steps is boxed, for each of them
    /// would have room for all of it otherwise (19 KB).
    pub(super) async fn deliver(&self, delivery: &Delivery) -> Result<Outcome, Fault> {
        let started = Instant::now();
        let destination = self.destination(&delivery.version)?;
        match delivery.version.kind {
            VersionKind::File => {}
            VersionKind::Directory | VersionKind::Link => Box::pin(self.prove_elsewhere_first(delivery)).await?,
            VersionKind::Gone => self.refuse_own_place(delivery)?,
        }
        match delivery.version.kind {
            VersionKind::File => {}
            VersionKind::Directory => return Box::pin(self.deliver_directory(delivery, &destination)).await,
            VersionKind::Link => return Box::pin(self.deliver_link(delivery, &destination)).await,
            VersionKind::Gone => return Box::pin(self.deliver_gone(delivery, &destination)).await,
        }
        self.refuse_own_place(delivery)?;
        let assembly = self.assembly(delivery)?;
        if delivery.state == DeliveryState::Publishing && self.was_taken(delivery, &assembly, &destination).await? {
            return self.acknowledge(delivery, Verified::Taken, started).await;
        }
        let last = self.last_delivered(delivery).await?;
        let prepared = if delivery.version.plan().count() > 1 || last.is_some() {
            Box::pin(self.prepare_large(delivery, &assembly, &destination, last)).await?
        } else {
            self.prepare_small(delivery, &assembly, &destination).await?
        };
        let verified = match prepared {
            Prepared::Assembly(verified) => {
                Box::pin(self.prove_elsewhere(delivery, &assembly, false)).await?;
                // The last moment at which a newer version keeps this one from appearing.
                if !self.enter(delivery, DeliveryState::Publishing).await? {
                    return Ok(Outcome::Superseded);
                }
                self.publish(&delivery.version, &assembly, &destination).await?;
                verified
            }
            Prepared::AlreadyThere(verified) => {
                Box::pin(self.prove_elsewhere(delivery, &assembly, true)).await?;
                self.dress_found(&delivery.version, &destination).await?;
                self.flush_found(&destination).await?;
                self.remove_leftovers(delivery, &assembly).await?;
                self.found(&delivery.version, delivery.version.stamp.size);
                verified
            }
            Prepared::Superseded => return Ok(Outcome::Superseded),
        };
        self.acknowledge(delivery, verified, started).await
    }

    /// Whether a file that was about to get its name when the connection broke is at neither of its names: whoever waits for
    /// files there has taken it, unless the settings say that nobody does.
    async fn was_taken(
        &self,
        delivery: &Delivery,
        assembly: &RemotePath,
        destination: &RemotePath,
    ) -> Result<bool, Fault> {
        let consumed = self.vessel.directories.get(&delivery.version.directory).is_some_and(|(it, _)| it.consumed);
        let Some(directory) = destination.parent().filter(|_| consumed) else { return Ok(false) };
        let (before, after, above) = tokio::join!(
            self.remote.look(assembly),
            self.remote.look(destination),
            self.remote.look_through(&directory)
        );
        match (before, after, above) {
            // The directory is what tells it from a file system that was lost.
            (Ok(None), Ok(None), Ok(Some(above))) => Ok(above.is_dir()),
            (Err(e), ..) | (_, Err(e), _) | (.., Err(e)) if e.is_connection() => Err(e.fault()),
            _ => Ok(false),
        }
    }

    /// A file of several chunks, or one of which the vessel was given (`last`) an earlier version: every round trip is small
    /// beside it, and it may have come a long way already.
    async fn prepare_large(
        &self,
        delivery: &Delivery,
        assembly: &RemotePath,
        destination: &RemotePath,
        last: Option<LastDelivered>,
    ) -> Result<Prepared, Fault> {
        // Announced first: further connections to a vessel far away take longer than all that is asked before the upload.
        // What may be sent as a delta needs none.
        let in_parts = self.goes_in_parts(delivery);
        let is_sent_whole = in_parts && last.is_none();
        let job = is_sent_whole.then(|| self.lanes.job(delivery.version.stamp.size));
        let looking = async {
            match in_parts || last.is_some() {
                true => held(self, delivery, assembly).await,
                false => Ok(Held::default()),
            }
        };
        let (there, made, held, room) = tokio::join!(
            self.remote.look(destination),
            self.make_dirs_above(assembly),
            looking,
            self.room_for(&delivery.version)
        );
        let (old, last) = (there.as_ref().ok().copied().flatten(), last.as_ref());
        if let Some(verified) = self.already_there(delivery, destination, there).await? {
            return Ok(Prepared::AlreadyThere(verified));
        }
        made?;
        let held = held?;
        room?.ensure(delivery.version.stamp.size - held.joined)?;
        if !self.enter(delivery, DeliveryState::Uploading).await? {
            return Ok(Prepared::Superseded);
        }
        let source = self.open_source(&delivery.version).await?;
        let delta = self.delta(&delivery.version, &source, &held, old.as_ref(), last).await?;
        self.outline_on_the_way(&delivery.version, &source, old.as_ref(), last);
        let mut is_finished = false;
        let hash = if let Some(delta) = delta {
            self.apply(delivery, &source, assembly, &delta).await?
        } else if in_parts {
            let job = job.unwrap_or_else(|| self.lanes.job(delivery.version.stamp.size));
            PartsUpload::prepare(self, delivery, source.clone(), assembly.clone(), job, held).await?.run().await?
        } else {
            is_finished = true;
            self.write_assembly(delivery, &source, assembly).await?
        };
        if !self.enter(delivery, DeliveryState::Verifying).await? {
            return Ok(Prepared::Superseded);
        }
        // Flushing takes as long as hashing, and neither minds the other.
        let finishing = async { if is_finished { Ok(()) } else { self.finish(&delivery.version, assembly).await } };
        let (verified, finished) = tokio::join!(self.verify_and_repair(delivery, assembly, hash), finishing);
        let (verified, repaired) = verified?;
        if !repaired {
            finished?;
        }
        self.keep_outline(&delivery.version, &source, old.as_ref(), last).await?;
        Ok(Prepared::Assembly(verified))
    }

    /// A file of one chunk: what counts is how often an answer is waited for.
    async fn prepare_small(
        &self,
        delivery: &Delivery,
        assembly: &RemotePath,
        destination: &RemotePath,
    ) -> Result<Prepared, Fault> {
        if !self.enter(delivery, DeliveryState::Uploading).await? {
            return Ok(Prepared::Superseded);
        }
        let source = self.open_source(&delivery.version).await?;
        self.make_dirs_above(assembly).await?;
        let (there, file) = tokio::join!(self.remote.look(destination), self.open_assembly(delivery, assembly));
        let old = there.as_ref().ok().copied().flatten();
        if let Some(verified) = self.already_there(delivery, destination, there).await? {
            return Ok(Prepared::AlreadyThere(verified));
        }
        self.write_small(delivery, &source, file?).await?;
        let verified = self.check_small(delivery, assembly).await?;
        self.keep_outline(&delivery.version, &source, old.as_ref(), None).await?;
        Ok(Prepared::Assembly(verified))
    }

    /// Verifies the assembly of a small file, and flushes it along with others.
    async fn check_small(&self, delivery: &Delivery, assembly: &RemotePath) -> Result<Verified, Fault> {
        let version = &delivery.version;
        let wanted = self.digest(version).await?;
        let (found, flushed) = self.commands.check(assembly, version.stamp.size).await.map_err(|e| e.fault())?;
        let (verified, repaired) = if found == Some(wanted) {
            (Verified::ByVessel, false)
        } else {
            Box::pin(self.verify_and_repair(delivery, assembly, None)).await?
        };
        if !repaired && self.flushes_together() && !flushed {
            self.flush_together(assembly).await?;
        }
        Ok(verified)
    }

    /// Whether a file goes up in parts that `cat` joins; else it is written straight into its assembly.
    fn goes_in_parts(&self, delivery: &Delivery) -> bool {
        delivery.version.plan().count() > 1
            && self.remote.capabilities().shell
            && self.vessel.settings.assembly == Assembly::Cat
    }

    pub(super) async fn make_dirs_above(&self, assembly: &RemotePath) -> Result<(), Fault> {
        match assembly.parent() {
            Some(directory) => self.make_dirs(&directory).await,
            None => Ok(()),
        }
    }

    pub(super) async fn enter(&self, delivery: &Delivery, state: DeliveryState) -> Result<bool, Fault> {
        self.vessel.ledger.enter(delivery.id, state).await.map_err(|e| e.fault())
    }

    /// Whether the vessel has this version under its final name: the reply to a rename was lost, or a ledger was.
    async fn already_there(
        &self,
        delivery: &Delivery,
        destination: &RemotePath,
        there: Result<Option<Attrs>, RemoteError>,
    ) -> Result<Option<Verified>, Fault> {
        let version = &delivery.version;
        let there = match there {
            // Whoever may not look may still write.
            Err(e) if e.is_refusal() => return Ok(None),
            there => there,
        };
        let Some(attrs) = self.explained(there, destination, 0).await? else { return Ok(None) };
        if attrs.is_dir() {
            return self.make_way(version, destination).await.map(|()| None);
        }
        let assembly = self.assembly(delivery)?;
        let published = delivery.state == DeliveryState::Publishing && attrs.size == Some(version.stamp.size);
        let as_before = delivery.seen.is_some() && delivery.seen == seen(&attrs);
        if !published && !as_before && !looks_like(&version.stamp, &attrs) {
            return Ok(None);
        }
        match Box::pin(self.verify(version, destination)).await {
            Ok(Verdict::Good(Verified::BySize | Verified::Not)) => Ok(None),
            // Another user's, whose rights can't be set: ours takes its place.
            Ok(Verdict::Good(_)) if self.is_of_others_rights(version, &assembly, &attrs).await? => Ok(None),
            Ok(Verdict::Good(verified)) => Ok(Some(verified)),
            Ok(Verdict::Bad(_)) => Ok(None),
            Err(fault) if self.remote.is_lost() || fault.scope > Scope::File => Err(fault),
            // One that we can't read can still be replaced.
            Err(_) => Ok(None),
        }
    }

    /// Removes what this and earlier attempts left of a delivery that turned out to be done.
    async fn remove_leftovers(&self, delivery: &Delivery, assembly: &RemotePath) -> Result<(), Fault> {
        self.remote.remove(assembly).await.map_err(|e| e.fault())?;
        if delivery.state != DeliveryState::Pending {
            self.remote.remove(&probe_beside(assembly)).await.map_err(|e| e.fault())?;
        }
        if delivery.state != DeliveryState::Pending && self.goes_in_parts(delivery) {
            self.remove_parts(|other| other == delivery.id.0).await.map_err(|e| e.fault())?;
        }
        Ok(())
    }

    /// Verifies the assembly, sending bad chunks again; also says whether that was needed. `hash` is the vessel's own, of
    /// the assembly as it grew.
    async fn verify_and_repair(
        &self,
        delivery: &Delivery,
        assembly: &RemotePath,
        hash: Option<GrowingHash<'_>>,
    ) -> Result<(Verified, bool), Fault> {
        let version = &delivery.version;
        if let Some(hash) = hash {
            let (found, wanted) = tokio::join!(hash.finish(version.stamp.size), self.digest(version));
            match found {
                Ok(found) if found == wanted? => return Ok((Verified::ByVessel, false)),
                // Where it went wrong shows when the file is hashed as it lies there.
                Ok(_) => {}
                Err(e) => tracing::debug!(vessel = %self.vessel.settings.name, file = %version.path, "{e}"),
            }
        }
        for repairs in 0..REPAIRS {
            let bad = match self.verify(version, assembly).await? {
                Verdict::Good(verified) => return Ok((verified, repairs > 0)),
                Verdict::Bad(bad) => bad,
            };
            tracing::warn!(
                vessel = %self.vessel.settings.name, file = %version.path, chunks = ?bad,
                "arrived damaged; the bad chunks are sent again"
            );
            // A source that changed under us explains it, and makes a repair pointless.
            let source = self.open_source(version).await?;
            self.repair(version, &source, assembly, &bad).await?;
        }
        match self.verify(version, assembly).await? {
            Verdict::Good(verified) => Ok((verified, true)),
            Verdict::Bad(_) => {
                self.open_source(version).await.map_err(|_| source_changed(version))?;
                Err(Fault::file(format_args!("arrived damaged {} times in a row", REPAIRS + 1))
                    .mend("check the vessel's disk and memory")
                    .of(Cause::Damaged))
            }
        }
    }

    /// What a mirror's file looks like under its final name, where that is not what its source looks like: the vessel may
    /// keep no times, or others. It tells later whether what is there is still that.
    async fn seen_there(&self, version: &Version) -> Result<Option<Seen>, Fault> {
        let is_mirrored = self.vessel.directories.get(&version.directory).is_some_and(|(it, _)| it.is_mirror());
        if version.kind != VersionKind::File || !is_mirrored {
            return Ok(None);
        }
        match self.remote.look(&self.destination(version)?).await {
            Ok(attrs) => Ok(attrs.filter(|attrs| !looks_like(&version.stamp, attrs)).and_then(|attrs| seen(&attrs))),
            Err(e) if e.is_connection() => Err(e.fault()),
            // Nobody who can't look can delete.
            Err(_) => Ok(None),
        }
    }

    pub(super) async fn acknowledge(
        &self,
        delivery: &Delivery,
        verified: Verified,
        started: Instant,
    ) -> Result<Outcome, Fault> {
        let version = &delivery.version;
        let seen = self.seen_there(version).await?;
        if !self.vessel.ledger.acknowledge_there(delivery, verified, seen).await.map_err(|e| e.fault())? {
            return Ok(Outcome::Superseded);
        }
        let (vessel, directory, took) = (&self.vessel.settings.name, &version.directory, started.elapsed());
        tracing::info!(
            %vessel, %directory, file = %version.path, bytes = version.stamp.size, took = ?to_the_millisecond(took), verified = verified.as_str(),
            "{}", match (version.kind, verified) {
                (VersionKind::Gone, Verified::Kept) => "not deleted",
                (VersionKind::Gone, _) => "deleted",
                _ => "delivered",
            }
        );
        let (path, bytes) = (&version.path, version.stamp.size);
        self.vessel.monitor.notice(&Event::Delivered { vessel, directory, path, bytes, took });
        if let Some((_, retire_bell)) = self.vessel.directories.get(directory) {
            retire_bell.ring();
        }
        Ok(Outcome::Acknowledged)
    }
}
