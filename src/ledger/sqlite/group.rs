//! Group commit: updates that arrive during a transaction share the next transaction.
//!
//! A transaction costs far more than the updates in it, and hundreds of deliveries make updates at the same time. So
//! one task writes for all callers: it takes the updates that have arrived, runs one statement per kind of update,
//! commits, and answers the callers. The task never waits for a group to fill. A cancelled caller withdraws its update,
//! but an update that the task has already taken may still be applied.

use std::collections::HashSet;

use sqlx::sqlite::SqliteRow;
use sqlx::{Row, Sqlite, SqlitePool, Transaction};
use tokio::sync::{mpsc, oneshot};

use super::listeners::Listeners;
use super::rows::signed;
use super::transitions::settle;
use super::{Result, json};
use crate::clock::Clock;
use crate::ledger::LedgerError;
use crate::records::{DeliveryCost, PlaceNumber, Seen};

/// Maximum number of updates in one transaction, which limits the latency to some tens of milliseconds.
const MOST: usize = 2048;

/// An update of a delivery or a version. One statement applies all equal updates of a group.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Entry {
    /// An open delivery enters this [`DeliveryState`](crate::records::DeliveryState).
    State(&'static str),
    /// An attempt at an open delivery failed.
    PutOff { reason: String, due_at: i64, parked: bool },
    /// A delivery was acknowledged; the field is the method of verification.
    Acknowledged(&'static str),
    /// A delivery was acknowledged at `place`. Ignored if the delivery goes to another place now. `seen` is the state
    /// of the vessel's copy.
    AcknowledgedAt { verified: &'static str, place: PlaceNumber, seen: Option<Seen> },
    /// No parts of a superseded delivery are left on the vessel.
    Swept,
    /// The digest of a version that was recorded without a digest.
    Hashed([u8; 32]),
}

struct Waiting {
    entry: Entry,
    id: i64,
    /// The amount to be added to the delivery's cost if the update is applied. Kept apart from `entry`, because updates
    /// with equal entries share a statement.
    cost: Option<DeliveryCost>,
    answer: oneshot::Sender<Result<bool>>,
}

/// The sender of updates to the writing task. The task ends when the sender is dropped.
pub(super) struct Group(mpsc::UnboundedSender<Waiting>);

impl Group {
    /// Starts the writing task on the caller's runtime.
    pub(super) fn start(writer: SqlitePool, clock: Clock, listeners: Listeners) -> Self {
        let (sender, waiting) = mpsc::unbounded_channel();
        tokio::spawn(write(writer, clock, listeners, waiting));
        Self(sender)
    }

    /// Applies an update to the delivery or version with the number `id`. Returns `false` when there is no such record,
    /// or when its state doesn't allow the update.
    pub(super) async fn make(&self, entry: Entry, id: i64) -> Result<bool> {
        self.make_at_cost(entry, id, None).await
    }

    /// Applies an update like [`Group::make`], and adds to the delivery's cost.
    pub(super) async fn make_at_cost(&self, entry: Entry, id: i64, cost: Option<DeliveryCost>) -> Result<bool> {
        let ended = || LedgerError::from(sqlx::Error::WorkerCrashed);
        let (answer, answered) = oneshot::channel();
        self.0.send(Waiting { entry, id, cost, answer }).map_err(|_| ended())?;
        answered.await.map_err(|_| ended())?
    }
}

async fn write(writer: SqlitePool, clock: Clock, listeners: Listeners, mut waiting: mpsc::UnboundedReceiver<Waiting>) {
    let mut group = Vec::new();
    while waiting.recv_many(&mut group, MOST).await > 0 {
        // A cancelled caller may have made a newer update of the delivery since, so its older update is dropped.
        group.retain(|one| !one.answer.is_closed());
        group.sort_by(|a, b| a.entry.cmp(&b.entry));
        let made = make_all(&writer, clock.now_ms(), &listeners, &group).await;
        for (at, one) in group.drain(..).enumerate() {
            one.answer.send(made.as_ref().map(|made| made[at]).map_err(LedgerError::clone)).ok();
        }
    }
}

/// Applies the updates of a group in one transaction. Returns for each update whether the state of its delivery or
/// version allowed it. An update that is not allowed is skipped. After an error, no update of the group is applied.
async fn make_all(writer: &SqlitePool, now: i64, listeners: &Listeners, group: &[Waiting]) -> Result<Vec<bool>> {
    let mut transaction = writer.begin().await?;
    let (mut made, mut noted) = (Vec::with_capacity(group.len()), false);
    for alike in group.chunk_by(|a, b| a.entry == b.entry) {
        let ids = json::numbers(alike.iter().map(|one| one.id));
        noted |= match &alike[0].entry {
            Entry::Acknowledged(_) => listeners.note_delivered(&mut transaction, (&ids, None), now).await?,
            Entry::AcknowledgedAt { place, .. } => {
                listeners.note_delivered(&mut transaction, (&ids, Some(*place)), now).await?
            }
            Entry::PutOff { reason, parked: true, .. } => {
                listeners.note_parked(&mut transaction, &ids, reason, now).await?
            }
            _ => false,
        };
        let ids_and_costs = match &alike[0].entry {
            Entry::AcknowledgedAt { .. } => json::costs(alike.iter().map(|one| (one.id, one.cost))),
            _ => String::new(),
        };
        let taken = make_alike(&mut transaction, now, &alike[0].entry, (&ids, &ids_and_costs)).await?;
        made.extend(alike.iter().map(|one| taken.contains(&one.id)));
    }
    transaction.commit().await?;
    listeners.ring_if(noted);
    Ok(made)
}

/// Applies one update to many deliveries or versions. `ids` is a JSON array of their numbers; `ids_and_costs` also
/// contains the costs, and is used only for acknowledgements at a place. Returns the numbers of the records whose state
/// allowed the update.
async fn make_alike(
    transaction: &mut Transaction<'_, Sqlite>,
    now: i64,
    entry: &Entry,
    (ids, ids_and_costs): (&str, &str),
) -> Result<HashSet<i64>> {
    let statement = match entry {
        Entry::State(state) => sqlx::query(
            // A new attempt has not copied from another file yet, so `made_from` and `saved_bytes` are cleared.
            "UPDATE delivery SET state = ?2, touched = 1, parked = 0, made_from = iif(?2 = 'uploading', NULL, made_from),
                 saved_bytes = iif(?2 = 'uploading', NULL, saved_bytes)
             WHERE id IN (SELECT value FROM json_each(?1)) AND state NOT IN ('acknowledged', 'superseded') RETURNING id",
        )
        .bind(ids)
        .bind(*state),
        Entry::PutOff { reason, due_at, parked } => sqlx::query(
            "UPDATE delivery SET reason = ?2, due_at = ?3, parked = ?4, failures = failures + 1, rank = NULL
             WHERE id IN (SELECT value FROM json_each(?1)) AND state NOT IN ('acknowledged', 'superseded') RETURNING id",
        )
        .bind(ids)
        .bind(reason)
        .bind(due_at)
        .bind(parked),
        Entry::Acknowledged(verified) => sqlx::query(
            "UPDATE delivery SET state = 'acknowledged', parked = 0, reason = NULL, failures = 0,
                 acknowledged_at = ?2, verified = ?3, expired_at = NULL
             WHERE id IN (SELECT value FROM json_each(?1)) AND (state <> 'superseded' OR expired_at IS NOT NULL)
             RETURNING id",
        )
        .bind(ids)
        .bind(now)
        .bind(*verified),
        Entry::AcknowledgedAt { verified, place, seen } => sqlx::query(
            "UPDATE delivery SET state = 'acknowledged', parked = 0, reason = NULL, failures = 0,
                 acknowledged_at = ?2, verified = ?3, seen_size = ?5, seen_mtime = ?6, expired_at = NULL,
                 written_bytes = iif(written_bytes IS NULL, c.value ->> 1, coalesce(written_bytes + (c.value ->> 1), written_bytes)),
                 link_bytes = iif(link_bytes IS NULL, c.value ->> 2, coalesce(link_bytes + (c.value ->> 2), link_bytes))
             FROM json_each(?1) c
             WHERE delivery.id = c.value ->> 0 AND (state <> 'superseded' OR expired_at IS NOT NULL) AND place = ?4
             RETURNING id",
        )
        .bind(ids_and_costs)
        .bind(now)
        .bind(*verified)
        .bind(place.0)
        .bind(seen.map(|seen| signed(seen.size)))
        .bind(seen.map(|seen| seen.mtime)),
        // Only superseded deliveries are updated: if the vessel takes the directory again, the delivery is open and may
        // have sent new parts, so `touched` must stay set.
        Entry::Swept => sqlx::query(
            "UPDATE delivery SET touched = 0
             WHERE id IN (SELECT value FROM json_each(?1)) AND state = 'superseded' RETURNING id",
        )
        .bind(ids),
        Entry::Hashed(digest) => sqlx::query(
            "UPDATE version SET digest = ?2
             WHERE id IN (SELECT value FROM json_each(?1)) AND digest = x'' RETURNING id",
        )
        .bind(ids)
        .bind(&digest[..]),
    };
    let taken = statement.fetch_all(&mut **transaction).await?;
    if matches!(entry, Entry::Acknowledged(_) | Entry::AcknowledgedAt { .. }) {
        settle(transaction, ids, now).await?;
    }
    taken.iter().map(|row: &SqliteRow| Ok(row.try_get(0)?)).collect()
}
