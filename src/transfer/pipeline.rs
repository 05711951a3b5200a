//! One delivery, from its current state to its acknowledgement.

use std::time::Instant;

use super::acknowledge::{Outcome, acknowledge, acknowledge_seen, enter, seen_there};
use super::attributes::looks_like;
use super::copy_source::{self, CopySource, note_saved};
use super::delta::{self, Delta, copies_in_order};
use super::end_in_shell::{self, End, may_end};
use super::existing::{already_there, flush_found, may_be_taken, remove_leftovers, update_owner_and_mode, was_taken};
use super::move_file::{FileMove, move_file};
use super::move_tree::move_tree;
use super::moved_files::wait_for_copies;
use super::publish::{finish, publish};
use super::resume_state::{ResumeState, resume_state};
use super::same_host::{is_proven, prove_elsewhere, prove_elsewhere_first, refuse_own_place};
use super::send_to_loop::{self, Sent, may_have_gone, remove_loop_files};
use super::signing;
use super::similar_file::{self, OpenSimilar};
use super::space_check::destination_space;
use super::transfers::Transfers;
use super::tree::{deliver_directory, deliver_gone, deliver_link};
use super::upload_direct::{open_assembly, write_assembly, write_small};
use super::upload_state::{PartsUpload, goes_in_parts};
use super::verify::{verify_and_repair, verify_small};
use crate::compression::Codec;
use crate::fault::Fault;
use crate::ledger::LastDelivered;
use crate::link::{MOST_BYTES, open_new};
use crate::local::Source;
use crate::names::RemotePath;
use crate::records::{Delivery, DeliveryState, Verified, VersionKind};
use crate::transport::{Attrs, GrowingHash, Renamed};

/// State of a delivery before its file is published.
enum Prepared {
    /// The assembly is verified, flushed and has its mode and time; only the rename is left. If ranges were compressed,
    /// also their format and the number of bytes that were sent.
    Assembly(Verified, Option<(Codec, u64)>),
    /// The vessel already has the version under its final name.
    AlreadyThere(Verified),
    /// The file was verified and published. The fields are those of [`Prepared::Assembly`].
    Published(Verified, Option<(Codec, u64)>),
    /// The delivery was superseded.
    Superseded,
}

/// Runs a delivery to its end. Each step may be repeated, so a delivery can be dropped at any point.
///
/// Hundreds of small files are delivered concurrently. Rare or large steps are boxed; otherwise every delivery would
/// reserve memory for all of these steps.
pub(crate) async fn deliver(transfers: &Transfers, delivery: &Delivery) -> Result<Outcome, Fault> {
    let (started, session) = (Instant::now(), &transfers.session);
    session.costs.begin(delivery);
    let destination = transfers.destination(&delivery.version)?;
    match delivery.version.kind {
        VersionKind::File => deliver_file(transfers, delivery, &destination, started).await,
        VersionKind::Directory => {
            Box::pin(prove_elsewhere_first(transfers, delivery)).await?;
            if delivery.origin.is_some() && Box::pin(move_tree(transfers, delivery, &destination)).await? {
                return Ok(Outcome::Acknowledged);
            }
            session.change(delivery.id, Box::pin(deliver_directory(transfers, delivery, &destination))).await
        }
        VersionKind::Link => {
            Box::pin(prove_elsewhere_first(transfers, delivery)).await?;
            session.change(delivery.id, Box::pin(deliver_link(transfers, delivery, &destination))).await
        }
        VersionKind::Gone => {
            refuse_own_place(transfers, delivery)?;
            session.change(delivery.id, Box::pin(deliver_gone(transfers, delivery, &destination))).await
        }
        // The ledger creates no deliveries of skipped versions.
        VersionKind::Skipped => Ok(Outcome::Superseded),
    }
}

/// Delivers a file by the cheapest possible means. Does nothing if a program on the vessel consumed the file already;
/// otherwise the file is moved or copied on the vessel, sent to the loop for small files, or uploaded.
async fn deliver_file(
    transfers: &Transfers,
    delivery: &Delivery,
    destination: &RemotePath,
    started: Instant,
) -> Result<Outcome, Fault> {
    let session = &transfers.session;
    refuse_own_place(transfers, delivery)?;
    let assembly = transfers.assembly(delivery)?;
    if may_be_taken(session, delivery) && Box::pin(was_taken(transfers, delivery, &assembly, destination)).await? {
        return Box::pin(acknowledge(transfers, delivery, Verified::Taken, started, None)).await;
    }
    let _running = delivery.origin.is_some().then(|| transfers.moved_files.begin(delivery.id));
    if delivery.origin.is_some() {
        match Box::pin(move_file(transfers, delivery, &assembly, destination)).await? {
            FileMove::Done => {
                return Box::pin(acknowledge(transfers, delivery, Verified::Moved, started, None)).await;
            }
            FileMove::Superseded => return Ok(Outcome::Superseded),
            FileMove::No => {}
        }
    }
    let found = find_there(transfers, delivery).await?;
    let hashed;
    let delivery = match &found.copied {
        // The known digest is passed on, so that the source is not read again to compute it.
        Some(copied) if delivery.version.digest.is_none() => {
            let mut delivery = delivery.clone();
            delivery.version.entry.digest = Some(copied.digest);
            hashed = delivery;
            &hashed
        }
        _ => delivery,
    };
    let is_whole = found.last.is_none() && found.copied.is_none();
    if is_whole && send_to_loop::may_go(transfers, delivery, destination) {
        match Box::pin(send_to_loop::send(transfers, delivery, &assembly, destination)).await? {
            Sent::Delivered => {
                return Box::pin(acknowledge(transfers, delivery, Verified::ByVessel, started, None)).await;
            }
            Sent::Superseded => return Ok(Outcome::Superseded),
            Sent::No => {}
        }
    }
    let prepared = if delivery.version.plan().count() > 1 || !is_whole {
        Box::pin(prepare_large(transfers, delivery, &assembly, destination, found)).await?
    } else {
        prepare_small(transfers, delivery, &assembly, destination).await?
    };
    complete(transfers, delivery, (&assembly, destination), prepared, started).await
}

/// Finds the files on the vessel from which the new file can be made.
async fn find_there(transfers: &Transfers, delivery: &Delivery) -> Result<There, Fault> {
    let last = delta::last_delivered(transfers, delivery).await?;
    // A file that was not read yet, and of which the vessel has an earlier version, is compared with that version while
    // it is hashed. In that case, no other file with the same content is searched for.
    let is_compared = last.is_some() && delivery.version.digest.is_none() && delivery.origin.is_none();
    let copied = match !is_compared && copy_source::is_possible(transfers, delivery) {
        true => Box::pin(copy_source::find(transfers, delivery)).await?,
        false => None,
    };
    let similar = match copied.is_none() && last.is_none() && similar_file::is_possible(transfers, delivery) {
        true => Box::pin(similar_file::find(transfers, delivery)).await?,
        false => Vec::new(),
    };
    if copied.is_none() && last.is_none() && delivery.version.plan().count() == 1 {
        // Nothing is copied, so no other delivery needs to wait for this one.
        transfers.moved_files.secured(delivery.id);
    }
    Ok(There { last, copied, similar })
}

/// Gives a prepared file its final name, if it has not got it yet, and acknowledges it.
async fn complete(
    transfers: &Transfers,
    delivery: &Delivery,
    (assembly, destination): (&RemotePath, &RemotePath),
    prepared: Prepared,
    started: Instant,
) -> Result<Outcome, Fault> {
    let session = &transfers.session;
    let (verified, compressed, renamed) = match prepared {
        Prepared::Assembly(verified, compressed) => {
            match is_proven(transfers, delivery) {
                true => refuse_own_place(transfers, delivery)?,
                false => Box::pin(prove_elsewhere(transfers, delivery, assembly, false)).await?,
            }
            if delivery.origin.is_some() {
                Box::pin(wait_for_copies(transfers, delivery)).await?;
            }
            // The last point at which a newer version can prevent this one from being published.
            if !enter(transfers, delivery, DeliveryState::Publishing).await? {
                return Ok(Outcome::Superseded);
            }
            let publishing = publish(session, &delivery.version, assembly, destination);
            let renamed = session.change(delivery.id, publishing).await?;
            (verified, compressed, Some(renamed))
        }
        Prepared::AlreadyThere(verified) => {
            Box::pin(prove_elsewhere(transfers, delivery, assembly, true)).await?;
            session.change(delivery.id, update_owner_and_mode(session, &delivery.version, destination)).await?;
            flush_found(session, destination).await?;
            remove_leftovers(transfers, delivery, assembly).await?;
            session.found(&delivery.version, delivery.version.stamp.size);
            (verified, None, None)
        }
        Prepared::Published(verified, compressed) => (verified, compressed, None),
        Prepared::Superseded => return Ok(Outcome::Superseded),
    };
    let seen = match renamed {
        Some(Renamed::There(attrs)) if looks_like(&delivery.version.stamp, &attrs) => None,
        _ => seen_there(transfers, &delivery.version).await?,
    };
    acknowledge_seen(transfers, delivery, (verified, seen), started, compressed).await
}

/// Files on the vessel from which a version may be made.
struct There {
    /// An earlier version of the file.
    last: Option<LastDelivered>,
    /// A file with the same content.
    copied: Option<CopySource>,
    /// Other files that have blocks of the version.
    similar: Vec<OpenSimilar>,
}

impl There {
    fn is_empty(&self) -> bool {
        self.last.is_none() && self.copied.is_none() && self.similar.is_empty()
    }
}

/// Prepares a file of several chunks, a file of which the vessel received an earlier version, or a file whose content
/// the vessel has. The file's size justifies additional round trips, which find out how many bytes earlier attempts
/// have sent.
async fn prepare_large(
    transfers: &Transfers,
    delivery: &Delivery,
    assembly: &RemotePath,
    destination: &RemotePath,
    mut found: There,
) -> Result<Prepared, Fault> {
    let session = &transfers.session;
    // The job is announced to the channels before the queries, because opening further connections to a distant vessel
    // takes longer than all queries. A file that may be sent as a delta needs no further connections.
    let in_parts = goes_in_parts(session, delivery);
    let is_sent_whole = in_parts && found.is_empty();
    let job = is_sent_whole.then(|| session.channels.job(delivery.version.stamp.size));
    let looking = async {
        match in_parts || !found.is_empty() {
            true => resume_state(session, delivery, assembly).await,
            false => Ok(ResumeState::default()),
        }
    };
    // On a long network path, the assembly of a first attempt is created meanwhile. The state is recorded first, so
    // that the assembly is removed if the attempt fails.
    let opens = is_sent_whole && delivery.state == DeliveryState::Pending && session.is_far();
    if opens && !enter(transfers, delivery, DeliveryState::Uploading).await? {
        return Ok(Prepared::Superseded);
    }
    let opening = async {
        match opens {
            // If this fails, the upload opens the assembly again and reports the error.
            true => open_new(&session.remote, session.remote.main_channel(), assembly).await.ok(),
            false => None,
        }
    };
    // These requests are sent in this order, so the directory is created before the assembly in it.
    let (made, opened, held, there, space) = tokio::join! {
        biased;
        session.change(delivery.id, session.make_dirs_above(assembly)),
        opening,
        looking,
        session.remote.look(destination),
        destination_space(transfers, &delivery.version)
    };
    let old = there.as_ref().ok().copied().flatten();
    if let Some(verified) = already_there(transfers, delivery, destination, there).await? {
        return Ok(Prepared::AlreadyThere(verified));
    }
    made?;
    let held = held?;
    space?.ensure(delivery.version.stamp.size - held.joined)?;
    if !enter(transfers, delivery, DeliveryState::Uploading).await? {
        return Ok(Prepared::Superseded);
    }
    let source = transfers.open_source(&delivery.version).await?;
    let (delta, base) = plan_copies(transfers, delivery, &source, &held, old.as_ref(), &mut found).await?;
    let (mut is_finished, mut compressed) = (false, None);
    let hash = if let Some(delta) = delta {
        let hash = delta::apply(transfers, delivery, &source, (assembly, destination), &delta).await?;
        transfers.moved_files.secured(delivery.id);
        hash
    } else if in_parts {
        let job = job.unwrap_or_else(|| session.channels.job(delivery.version.stamp.size));
        let paths = (assembly.clone(), destination.clone());
        let upload = PartsUpload::prepare(session, delivery, source.clone(), paths, (job, opened), held);
        let hash = upload.run().await?;
        compressed = upload.compressed();
        hash
    } else {
        is_finished = true;
        write_assembly(session, delivery, &source, assembly).await?
    };
    if !enter(transfers, delivery, DeliveryState::Verifying).await? {
        return Ok(Prepared::Superseded);
    }
    let ended = match is_finished {
        false => verify_and_finish(transfers, delivery, (assembly, destination), hash).await?,
        true => {
            let (verified, _) = verify_and_repair(transfers, delivery, assembly, hash).await?;
            Finished::Assembly(verified, false)
        }
    };
    let prepared = match ended {
        Finished::Superseded => return Ok(Prepared::Superseded),
        Finished::Published => Prepared::Published(Verified::ByVessel, compressed),
        Finished::Assembly(verified, repaired) => {
            if repaired && compressed.is_some() {
                session.link.compressor.failed();
            }
            Prepared::Assembly(verified, compressed)
        }
    };
    match &found.copied {
        Some(copied) => copied.note(transfers, delivery).await?,
        None => {
            signing::keep_signature(transfers, &delivery.version, &source, old.as_ref(), found.last.as_ref()).await?
        }
    }
    if let Some((base, bytes)) = base {
        note_saved(transfers, delivery, base.held(), bytes).await?;
    }
    Ok(prepared)
}

/// Plans which ranges of a large file the vessel copies from files that it has. Returns the plan; if it copies blocks
/// of a file with another name, also that file and the number of copied bytes.
async fn plan_copies(
    transfers: &Transfers,
    delivery: &Delivery,
    source: &Source,
    held: &ResumeState,
    old: Option<&Attrs>,
    there: &mut There,
) -> Result<(Option<Delta>, Option<(OpenSimilar, u64)>), Fault> {
    let (version, last) = (&delivery.version, there.last.as_ref());
    let own = match &there.copied {
        Some(copied) => Some(copied.plan(version, held)),
        None => delta::plan(transfers, version, source, held, old, last).await?,
    };
    // The list is taken out of `there`, so that the files that are not used are closed when it is dropped.
    let mut similar = std::mem::take(&mut there.similar);
    if last.is_some() && there.copied.is_none() {
        similar = similar_file::find_better(transfers, delivery, own.as_ref()).await?;
    }
    let better = similar_file::plan(transfers, version, source, held, &similar).await?;
    let (delta, base) = match better {
        Some((better, index)) if own.as_ref().is_none_or(|own| better.sent_bytes() < own.sent_bytes()) => {
            let kept = better.kept_bytes();
            (Some(better), Some((similar.swap_remove(index), kept)))
        }
        _ => (own, None),
    };
    if similar.is_empty() && base.is_none() {
        signing::sign_on_the_way(transfers, version, source, old, last);
    }
    // Other deliveries may replace a file that this delivery keeps open, or from which it copies nothing.
    if there.copied.is_none() && (base.is_none() || copies_in_order(&transfers.session)) {
        transfers.moved_files.secured(delivery.id);
    }
    Ok((delta, base))
}

/// The result of the steps after an assembly is complete.
enum Finished {
    /// The assembly is verified, flushed and has its mode and time. Also whether chunks were sent again.
    Assembly(Verified, bool),
    /// The file has its final name.
    Published,
    /// The delivery was superseded.
    Superseded,
}

/// Verifies a complete assembly, sets its mode and time, and flushes it; also publishes it if one script can do all
/// that.
async fn verify_and_finish(
    transfers: &Transfers,
    delivery: &Delivery,
    (assembly, destination): (&RemotePath, &RemotePath),
    mut hash: Option<GrowingHash<'_>>,
) -> Result<Finished, Fault> {
    let (session, version) = (&transfers.session, &delivery.version);
    if may_end(session, version) {
        match end_in_shell::end(transfers, delivery, assembly, destination, hash.take()).await? {
            End::Published => return Ok(Finished::Published),
            End::Superseded => return Ok(Finished::Superseded),
            End::Verified => {
                finish(session, version, assembly).await?;
                return Ok(Finished::Assembly(Verified::ByVessel, false));
            }
            End::Not => {}
        }
    }
    // Flushing takes as long as hashing, and both can run concurrently.
    let verifying = verify_and_repair(transfers, delivery, assembly, hash);
    let (verified, finished) = tokio::join!(verifying, finish(session, version, assembly));
    let (verified, repaired) = verified?;
    if !repaired {
        finished?;
    }
    Ok(Finished::Assembly(verified, repaired))
}

/// Prepares a file of one chunk with as few round trips as possible.
async fn prepare_small(
    transfers: &Transfers,
    delivery: &Delivery,
    assembly: &RemotePath,
    destination: &RemotePath,
) -> Result<Prepared, Fault> {
    let session = &transfers.session;
    if !enter(transfers, delivery, DeliveryState::Uploading).await? {
        return Ok(Prepared::Superseded);
    }
    let source = transfers.open_source(&delivery.version).await?;
    session.change(delivery.id, session.make_dirs_above(assembly)).await?;
    let cleaning = async {
        match may_have_gone(session, delivery) {
            true => Box::pin(remove_loop_files(session, delivery, assembly)).await,
            false => Ok(()),
        }
    };
    let (there, file, cleaned) =
        tokio::join!(session.remote.look(destination), open_assembly(session, delivery, assembly), cleaning);
    cleaned?;
    let old = there.as_ref().ok().copied().flatten();
    if let Some(verified) = already_there(transfers, delivery, destination, there).await? {
        return Ok(Prepared::AlreadyThere(verified));
    }
    // Many files are verified and flushed by one command, so only large ones get a script of their own.
    let is_ended_alone = delivery.version.stamp.size > MOST_BYTES && may_end(session, &delivery.version);
    write_small(session, delivery, &source, file?, is_ended_alone).await?;
    let prepared = match is_ended_alone {
        false => Prepared::Assembly(verify_small(transfers, delivery, assembly).await?, None),
        true => match Box::pin(verify_and_finish(transfers, delivery, (assembly, destination), None)).await? {
            Finished::Assembly(verified, _) => Prepared::Assembly(verified, None),
            Finished::Published => Prepared::Published(Verified::ByVessel, None),
            Finished::Superseded => return Ok(Prepared::Superseded),
        },
    };
    signing::keep_signature(transfers, &delivery.version, &source, old.as_ref(), None).await?;
    Ok(prepared)
}
