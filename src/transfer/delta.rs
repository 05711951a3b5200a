//! Delta transfer: only the changed bytes of a file are sent. The vessel copies the unchanged bytes from the version
//! delivered before to the assembly of the new version.
//!
//! The assembly is built from start to end, so its size tells how much is done, and a later attempt may continue with
//! or without a delta. If the server supports `copy-data`, copies and writes are sent in one burst; otherwise the
//! changes are uploaded as parts, and one shell command joins the parts and the unchanged ranges.
//!
//! The whole assembly is verified by its hash as always, and chunks that differ are sent again. After a failed attempt,
//! the next attempt sends the whole file.

use std::ops::Range;

use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};

use super::attributes::looks_like;
use super::clone_file::clone_file;
use super::delta_plan::{DeltaPlan, Step};
use super::growing_hash::{grown, hash_as_it_grows};
use super::ranges::HeldPart;
use super::resume_state::ResumeState;
use super::signing::{signature, wish};
use super::sweep::remove_parts;
use super::transfers::{Transfers, source_fault};
use super::write::{Taken, is_hole, note_sent, write_range};
use crate::fault::{Fault, Scope};
use crate::ledger::LastDelivered;
use crate::link::{Session, UploadTurn};
use crate::local::Source;
use crate::names::RemotePath;
use crate::records::{Delivery, Version};
use crate::settings::{Assembly, Delta as Wish};
use crate::signature::Signature;
use crate::transport::{Attrs, GrowingHash, Ingredient, OpenFlags, RemoteError, RemoteFile, Sent};

/// Maximum bytes per copy request, and maximum number of unanswered requests. Higher limits would delay other transfers
/// on the channel.
const COPY: u64 = 2 << 20;
const UNANSWERED: usize = 32;
/// The same limits for copies of whole files. Such a transfer sends only copy requests.
const COPY_WHOLE: u64 = 16 << 20;
const UNANSWERED_WHOLE: usize = 4;
/// Number of bytes by which the assembly grows between two updates of its hash.
const GROWN: u64 = 8 << 20;
/// Limits for copying by shell command: minimum bytes per copy, because each copy starts a process; maximum number of
/// steps in a command; maximum number of concurrent part uploads.
const LEAST_COPY: u64 = 128 << 10;
const STEPS: usize = 4096;
const PARTS_AT_ONCE: usize = 16;
/// A delta must copy at least 1/`WORTH` of the bytes; otherwise sending the whole file over several channels is faster.
const WORTH: u64 = 4;

/// A delta transfer of the rest of a file: the plan, the number of bytes already joined, and the ranges in existing
/// parts.
pub(super) struct Delta {
    plan: DeltaPlan,
    joined: u64,
    held: Vec<HeldPart>,
    old: Old,
}

/// The file on the vessel from which bytes are copied.
#[derive(Clone)]
struct Old {
    path: RemotePath,
    /// The open file. Its bytes stay readable even if a program or another delivery replaces the file before the copy
    /// begins.
    opened: Option<RemoteFile>,
    /// Whether the whole file is copied.
    is_whole: bool,
}

impl Delta {
    /// Plans to copy the rest of a file from another file on the vessel with the same content.
    pub(super) fn whole(size: u64, held: &ResumeState, path: RemotePath, opened: Option<RemoteFile>) -> Self {
        let ResumeState { joined, parts } = held;
        let plan = DeltaPlan::whole(size).after(*joined);
        Self { plan, joined: *joined, held: parts.clone(), old: Old { path, opened, is_whole: true } }
    }

    /// Plans to build the rest of a file from a file on the vessel with some of its blocks. Returns `None` if that is
    /// impossible or saves too little.
    pub(super) fn from_blocks(
        session: &Session,
        (old, new): (&Signature, &Signature),
        held: &ResumeState,
        path: RemotePath,
        opened: Option<RemoteFile>,
    ) -> Option<Self> {
        let ResumeState { joined, parts } = held;
        let plan = DeltaPlan::new(old, new).after(*joined);
        let plan = if copies_in_order(session) { plan } else { plan.without_short_copies(LEAST_COPY) };
        let (kept, sent) = (plan.kept_bytes(), plan.sent_bytes());
        let is_worth_it = kept > 0 && kept.saturating_mul(WORTH) >= kept + sent;
        let is_possible = copies_in_order(session) || plan.steps().len() <= STEPS;
        tracing::debug!(
            vessel = %session.link.settings.name, from = %path, kept, sent, steps = plan.steps().len(), is_worth_it,
            "Compared a file with one on the vessel"
        );
        let old = Old { path, opened, is_whole: false };
        (is_worth_it && is_possible).then_some(Self { plan, joined: *joined, held: parts.clone(), old })
    }

    /// Returns how many bytes are still to be sent.
    pub(super) fn sent_bytes(&self) -> u64 {
        self.plan.sent_bytes()
    }

    /// Returns how many bytes are still to be copied on the vessel.
    pub(super) fn kept_bytes(&self) -> u64 {
        self.plan.kept_bytes()
    }
}

/// Returns the version of the path that was last delivered to this vessel; `None` if a delta is not tried.
pub(super) async fn last_delivered(transfers: &Transfers, delivery: &Delivery) -> Result<Option<LastDelivered>, Fault> {
    let session = &transfers.session;
    let version = &delivery.version;
    let too_small = version.stamp.size < Signature::SMALLEST_FILE;
    if too_small || delivery.failures > 0 || wish(transfers, version) == Wish::No {
        return Ok(None);
    }
    transfers.ledger.last_delivered(&session.link.settings.name, version).await.map_err(|e| e.fault())
}

/// Plans how to build the file from the last delivered version, which the vessel has under the final name with the
/// attributes `there`. Returns `None` if the vessel's file is not that version, or if a delta is impossible or saves
/// too little.
pub(super) async fn plan(
    transfers: &Transfers,
    version: &Version,
    source: &Source,
    held: &ResumeState,
    there: Option<&Attrs>,
    last: Option<&LastDelivered>,
) -> Result<Option<Delta>, Fault> {
    let session = &transfers.session;
    let Some(last) = last.filter(|last| there.is_some_and(|there| looks_like(&last.stamp, there))) else {
        return Ok(None);
    };
    if !copies_in_order(session) && !copies_by_command(session) {
        return Ok(None);
    }
    let average = Signature::average_for(version.stamp.size, Some(last.signature.average()));
    let Some(signature) = signature(transfers, version, source, average).await? else { return Ok(None) };
    let signatures = (&last.signature, &*signature);
    Ok(Delta::from_blocks(session, signatures, held, transfers.destination(version)?, None))
}

pub(super) fn copies_in_order(session: &Session) -> bool {
    session.remote.capabilities().copy_data()
}

pub(super) fn copies_by_command(session: &Session) -> bool {
    session.remote.capabilities().shell && session.link.settings.assembly == Assembly::Cat
}

/// Builds the assembly as planned. Returns the vessel's hash of the assembly if it was computed while the assembly
/// grew.
pub(super) async fn apply<'s>(
    transfers: &'s Transfers,
    delivery: &Delivery,
    source: &Source,
    (assembly, destination): (&RemotePath, &RemotePath),
    delta: &Delta,
) -> Result<Option<GrowingHash<'s>>, Fault> {
    let session = &transfers.session;
    let size = delivery.version.stamp.size;
    let (is_whole, is_moved) = (delta.old.is_whole && delta.joined == 0, delivery.origin.is_some());
    // A moved file is not cloned by its path, because another delivery may give this path to another file.
    if is_whole && !is_moved && clone_file(transfers, &delta.old.path, assembly, size).await? {
        session.found(&delivery.version, size);
        return Ok(None);
    }
    // A file that is only copied uses no bandwidth.
    let is_large = delivery.version.plan().count() > 1 && !delta.old.is_whole;
    let turn = if is_large { Some(session.large_upload(delivery).await) } else { None };
    let applying = Applying { session, delivery, source, assembly, destination, delta, turn };
    session.found(&delivery.version, delta.joined);
    let applied =
        if copies_in_order(session) { applying.in_order().await } else { applying.by_command().await.map(|()| None) };
    match applied {
        // A full disk or an unusable TempDir must not block smaller files. So this file's parts are removed to free
        // space, and the fault is limited to the place or to this file.
        Err(full) if matches!(full.scope, Scope::Place | Scope::Vessel) && !session.remote.is_lost() => {
            applying.remove_parts().await?;
            let is_place = full.scope == Scope::Place && copies_in_order(session);
            Err(Fault { scope: if is_place { Scope::Place } else { Scope::File }, ..full })
        }
        applied => applied,
    }
}

/// A delta transfer in progress.
struct Applying<'v, 'a> {
    session: &'v Session,
    delivery: &'a Delivery,
    source: &'a Source,
    assembly: &'a RemotePath,
    destination: &'a RemotePath,
    delta: &'a Delta,
    turn: Option<UploadTurn<'v>>,
}

impl<'v> Applying<'v, '_> {
    fn size(&self) -> u64 {
        self.delivery.version.stamp.size
    }

    /// Lets the next large file begin, because no byte of this one is left to send.
    fn all_sent(&self) {
        self.turn.iter().for_each(UploadTurn::pass_on);
    }

    /// Sends copies and writes in the order of the file over one channel, with many requests in flight.
    async fn in_order(&self) -> Result<Option<GrowingHash<'v>>, Fault> {
        if !self.delta.held.is_empty() {
            self.remove_parts().await?;
        }
        let session = self.session;
        // The main channel is used because it stays open as long as the session.
        let channel = session.remote.main_channel();
        let old = match &self.delta.old {
            Old { opened: Some(opened), .. } => opened.clone(),
            Old { path, .. } => session.explained(channel.open(path, OpenFlags::READ, 0).await, path, 0).await?,
        };
        let flags = if self.delta.joined == 0 { OpenFlags::FRESH } else { OpenFlags::WRITE_EXISTING };
        let new = session.open_ours(channel, self.assembly, flags, self.size() - self.delta.joined).await?;
        let built = self.build(&old, &new).await;
        if built.is_err() && !session.remote.is_lost() {
            // Requests after the failed one may have been executed, so the assembly is truncated to its correct bytes.
            let cut = new.set(Attrs { size: Some(self.delta.joined), ..Attrs::default() }).await;
            session.explained(cut, self.assembly, 0).await?;
        }
        let hash = built?;
        session.explained(new.close().await, self.assembly, 1).await?;
        Ok(hash)
    }

    async fn build(&self, old: &RemoteFile, new: &RemoteFile) -> Result<Option<GrowingHash<'v>>, Fault> {
        let job = self.session.channels.job(self.delta.plan.sent_bytes());
        let taken = Taken::of(&job);
        let (version, destination) = (&self.delivery.version, Some(self.destination));
        let mut hash = hash_as_it_grows(self.session, version, self.assembly, destination).await;
        let mut unanswered = FuturesUnordered::new();
        let most = if self.delta.old.is_whole { UNANSWERED_WHOLE } else { UNANSWERED };
        let mut untold = 0;
        for step in self.delta.plan.steps() {
            let mut at = step.range.start;
            while at < step.range.end {
                let asked = self.ask(step, at, old, new).await?;
                at += asked.length;
                unanswered.push(asked.answer());
                // Processes the answers that have arrived. Waits for more only if too many requests are unanswered.
                loop {
                    let is_full = unanswered.len() >= most;
                    let next = unanswered.next();
                    let Some(answer) = (if is_full { next.await } else { next.now_or_never().flatten() }) else {
                        break;
                    };
                    untold += self.note(answer, &taken).await?;
                }
                if untold >= GROWN {
                    (hash, untold) = (grown(hash).await, 0);
                }
            }
        }
        self.all_sent();
        while let Some(answer) = unanswered.next().await {
            self.note(answer, &taken).await?;
        }
        Ok(grown(hash).await)
    }

    /// Sends the next request of a step, a copy or a write, for the bytes from offset `at`.
    async fn ask(&self, step: &Step, at: u64, old: &RemoteFile, new: &RemoteFile) -> Result<Asked, Fault> {
        let session = self.session;
        let most = step.range.end - at;
        let most_copied = if self.delta.old.is_whole { COPY_WHOLE } else { COPY };
        let (sent, kept) = match step.from {
            Some(from) => (new.copy(at, old, from + (at - step.range.start), most.min(most_copied)).await, true),
            None => {
                let worth = session.bytes_per_write(new);
                let read = self.source.read(at, most.min(worth)).await;
                let bytes = read.map_err(|error| source_fault(&self.delivery.version, &error))?;
                let length = bytes.len() as u64;
                if is_hole(&bytes) {
                    (new.send_zeros(at, length).await, false)
                } else {
                    let _turn = session.may_send(&self.delivery.version, length, new.route()).await;
                    session.wrote(&self.delivery.version, length);
                    (new.send(at, bytes).await, false)
                }
            }
        };
        let sent = session.explained(sent, self.assembly, self.size() - at).await?;
        Ok(Asked { length: sent.length(), sent, kept })
    }

    /// Records the answer to a request. Returns the number of bytes that the request covers.
    async fn note(&self, (answer, kept): Answer, taken: &Taken<'_>) -> Result<u64, Fault> {
        let bytes = self.session.explained(answer, self.assembly, 1).await?;
        if kept {
            self.session.found(&self.delivery.version, bytes);
        } else {
            note_sent(self.session, &self.delivery.version, bytes, taken);
        }
        Ok(bytes)
    }

    /// Uploads the changed ranges as parts, then builds the assembly with one shell command on the vessel.
    async fn by_command(&self) -> Result<(), Fault> {
        let session = self.session;
        session.prepare_temp_dir().await?;
        let sent: Vec<&Range<u64>> = self.delta.plan.sent().collect();
        let useless = self.delta.held.iter().filter(|held| !sent.iter().any(|range| is_beginning_of(held, range)));
        for held in useless {
            session.remote.remove(&held.path(session, self.delivery)).await.map_err(|e| e.fault())?;
        }
        if self.delta.joined == 0 {
            // No bytes are joined yet, so nothing in an existing file with the assembly's name is needed.
            session.remote.remove(self.assembly).await.map_err(|e| e.fault())?;
        }
        let job = session.channels.job(self.delta.plan.sent_bytes());
        let taken = Taken::of(&job);
        let (mut sent, mut uploading) = (sent.into_iter(), FuturesUnordered::new());
        loop {
            uploading
                .extend(sent.by_ref().take(PARTS_AT_ONCE - uploading.len()).map(|range| self.upload(range, &taken)));
            let Some(uploaded) = uploading.next().await else { break };
            uploaded?;
        }
        self.all_sent();
        let ingredients: Vec<_> = self.delta.plan.steps().iter().map(|step| self.ingredient(step)).collect();
        let range = self.delta.joined..self.size();
        let built = session.remote.build(self.assembly, range, &ingredients, Some(&self.delta.old.path)).await;
        session.explained(built, self.assembly, self.size() - self.delta.joined).await?;
        session.found(&self.delivery.version, self.delta.plan.kept_bytes());
        Ok(())
    }

    fn ingredient(&self, step: &Step) -> Ingredient {
        match step.from {
            Some(from) => Ingredient::Range(from..from + step.length()),
            None => Ingredient::Part(self.session.part(self.delivery.id, step.range.start)),
        }
    }

    /// Uploads a range as a part, resuming a part left by an earlier attempt.
    async fn upload(&self, range: &Range<u64>, taken: &Taken<'_>) -> Result<(), Fault> {
        let session = self.session;
        let held = self.delta.held.iter().find(|held| is_beginning_of(held, range)).map(|held| held.range.end);
        let (at, flags) = held.map_or((range.start, OpenFlags::FRESH), |end| (end, OpenFlags::WRITE));
        let part = session.part(self.delivery.id, range.start);
        session.found(&self.delivery.version, at - range.start);
        let file = session.open_ours(session.remote.main_channel(), &part, flags, range.end - at).await?;
        write_range(session, &self.delivery.version, self.source, &file, at..range.end, range.start, taken).await?;
        session.explained(file.close().await, &part, 1).await
    }

    async fn remove_parts(&self) -> Result<(), Fault> {
        remove_parts(self.session, |delivery| delivery == self.delivery.id.0).await.map_err(|e| e.fault())
    }
}

/// Returns whether a part starts where the range starts, does not extend beyond it, and is not compressed.
fn is_beginning_of(held: &HeldPart, range: &Range<u64>) -> bool {
    held.stream.is_none() && held.range.start == range.start && held.range.end <= range.end
}

/// A request in flight, and whether the vessel copies its bytes instead of receiving them.
struct Asked {
    sent: Sent,
    length: u64,
    kept: bool,
}

type Answer = (Result<u64, RemoteError>, bool);

impl Asked {
    async fn answer(self) -> Answer {
        (self.sent.taken().await, self.kept)
    }
}
