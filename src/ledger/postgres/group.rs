//! Group commit: updates that arrive during a transaction share the next transaction.
//!
//! A transaction costs some round trips to the database and a flush of the database's log. So one task writes for all
//! callers, as with SQLite: it takes the updates that have arrived, runs one statement per kind of update, commits, and
//! answers the callers. A cancelled caller withdraws its update, but an update that the task has already taken may
//! still be applied.

use std::collections::HashSet;
use std::sync::Arc;

use sqlx::{PgConnection, Row};
use tokio::sync::{mpsc, oneshot};

use super::connections::Connections;
use super::doubt::Doubt;
use super::lease::Lease;
use super::listeners::Listeners;
use super::rows::signed;
use super::transitions::settle;
use super::{Result, rows};
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
    /// The work that the update belongs to.
    work: Option<Arc<Lease>>,
    answer: oneshot::Sender<Result<bool>>,
}

/// The sender of updates to the writing task. The task ends when the sender is dropped.
pub(super) struct Group(mpsc::UnboundedSender<Waiting>);

impl Group {
    /// Starts the writing task on the caller's runtime.
    pub(super) fn start(connections: Arc<Connections>, clock: Clock, listeners: Listeners) -> Self {
        let (sender, waiting) = mpsc::unbounded_channel();
        tokio::spawn(write(connections, clock, listeners, waiting));
        Self(sender)
    }

    /// Applies an update, which belongs to `work`, to the delivery or version with the number `id`. Adds `cost` to the
    /// delivery's cost. Returns `false` when there is no such record, or when its state doesn't allow the update.
    pub(super) async fn make(
        &self,
        work: Option<Arc<Lease>>,
        entry: Entry,
        id: i64,
        cost: Option<DeliveryCost>,
    ) -> Result<bool> {
        let ended = || LedgerError::from(sqlx::Error::WorkerCrashed);
        let (answer, answered) = oneshot::channel();
        self.0.send(Waiting { entry, id, cost, work, answer }).map_err(|_| ended())?;
        answered.await.map_err(|_| ended())?
    }

    /// Returns whether the writing task is running.
    pub(super) fn is_running(&self) -> bool {
        !self.0.is_closed()
    }
}

async fn write(
    connections: Arc<Connections>,
    clock: Clock,
    listeners: Listeners,
    mut waiting: mpsc::UnboundedReceiver<Waiting>,
) {
    let mut group = Vec::new();
    while waiting.recv_many(&mut group, MOST).await > 0 {
        // A cancelled caller may have made a newer update of the delivery meanwhile, so its older update is dropped.
        group.retain(|one| !one.answer.is_closed());
        group.sort_by(|a, b| a.entry.cmp(&b.entry));
        let made = make_all(&connections, clock.now_ms(), &listeners, &group).await;
        let mut made = made.map(Vec::into_iter);
        for one in group.drain(..) {
            let made = match &mut made {
                Ok(made) => made.next().unwrap_or_else(|| Err(sqlx::Error::WorkerCrashed.into())),
                Err(error) => Err(error.clone()),
            };
            one.answer.send(made).ok();
        }
    }
}

/// One update: its kind, the number of the delivery or version, and the cost to be added.
type One<'a> = (&'a Entry, i64, Option<DeliveryCost>);

/// Applies the updates of a group in one transaction. Returns for each update whether the state of its delivery or
/// version allowed it. Skips updates that are not allowed, and updates whose work this shore has lost. After any other
/// error, no update of the group is applied.
async fn make_all(
    connections: &Connections,
    now: i64,
    listeners: &Listeners,
    group: &[Waiting],
) -> Result<Vec<Result<bool>>> {
    if group.is_empty() {
        return Ok(Vec::new());
    }
    let mut work: Vec<Arc<Lease>> = Vec::new();
    for one in group.iter().filter_map(|one| one.work.as_ref()) {
        if !work.iter().any(|known| known == one) {
            work.push(one.clone());
        }
    }
    let doubt = Doubt::new();
    let (made, noted) = connections
        .lasting(|pools| {
            let (doubt, work) = (&doubt, &work);
            async move {
                if let Some(made) = doubt.resolved(&pools).await? {
                    return Ok(made);
                }
                let (mut write, lost) = pools.begin_for(work).await?;
                let lost_of = |one: &Waiting| one.work.as_ref().filter(|work| lost.contains(*work)).cloned();
                let ours = group.iter().filter(|one| lost_of(one).is_none());
                let ours: Vec<One<'_>> = ours.map(|one| (&one.entry, one.id, one.cost)).collect();
                let (made, noted) = make(&mut write, now, listeners, &ours).await?;
                let mut made = made.into_iter();
                let answers = group.iter().map(|one| match lost_of(one) {
                    Some(work) => Err(LedgerError::NotOurs { work: work.name.clone() }),
                    None => Ok(made.next().unwrap_or_default()),
                });
                let answers: Vec<Result<bool>> = answers.collect();
                doubt.commit(write, (answers, noted)).await
            }
        })
        .await?;
    listeners.ring_if(noted);
    Ok(made)
}

async fn make(
    transaction: &mut PgConnection,
    now: i64,
    listeners: &Listeners,
    group: &[One<'_>],
) -> Result<(Vec<bool>, bool)> {
    let (mut made, mut noted) = (Vec::with_capacity(group.len()), false);
    for alike in group.chunk_by(|(a, ..), (b, ..)| a == b) {
        let (entry, ids) = (alike[0].0, alike.iter().map(|(_, id, _)| *id).collect::<Vec<_>>());
        noted |= match entry {
            Entry::Acknowledged(_) => listeners.note_delivered(transaction, (&ids, None), now).await?,
            Entry::AcknowledgedAt { place, .. } => {
                listeners.note_delivered(transaction, (&ids, Some(*place)), now).await?
            }
            Entry::PutOff { reason, parked: true, .. } => listeners.note_parked(transaction, &ids, reason, now).await?,
            _ => false,
        };
        let taken = make_alike(transaction, now, entry, (&ids, alike)).await?;
        made.extend(ids.iter().map(|id| taken.contains(id)));
    }
    Ok((made, noted))
}

/// Applies one update to many deliveries or versions. Returns the numbers of the records whose state allowed the
/// update.
async fn make_alike(
    transaction: &mut PgConnection,
    now: i64,
    entry: &Entry,
    (ids, alike): (&[i64], &[One<'_>]),
) -> Result<HashSet<i64>> {
    let statement = match entry {
        Entry::State(state) => sqlx::query(
            // A new attempt has not copied from another file yet, so `made_from` and `saved_bytes` are cleared.
            "UPDATE delivery SET state = $2, touched = true, parked = false,
                 made_from = CASE WHEN $2 <> 'uploading' THEN made_from END,
                 saved_bytes = CASE WHEN $2 <> 'uploading' THEN saved_bytes END
             WHERE id = ANY ($1) AND state NOT IN ('acknowledged', 'superseded') RETURNING id",
        )
        .bind(ids)
        .bind(*state),
        Entry::PutOff { reason, due_at, parked } => sqlx::query(
            "UPDATE delivery SET reason = $2, due_at = $3, parked = $4, failures = failures + 1, rank = NULL
             WHERE id = ANY ($1) AND state NOT IN ('acknowledged', 'superseded') RETURNING id",
        )
        .bind(ids)
        .bind(rows::text(reason))
        .bind(due_at)
        .bind(parked),
        Entry::Acknowledged(verified) => sqlx::query(
            "UPDATE delivery SET state = 'acknowledged', parked = false, reason = NULL, failures = 0,
                 acknowledged_at = $2, verified = $3, expired_at = NULL
             WHERE id = ANY ($1) AND (state <> 'superseded' OR expired_at IS NOT NULL) RETURNING id",
        )
        .bind(ids)
        .bind(now)
        .bind(*verified),
        Entry::AcknowledgedAt { verified, place, seen } => {
            let (written, link) = rows::costs(alike.iter().map(|(.., cost)| *cost));
            sqlx::query(
                "UPDATE delivery d SET state = 'acknowledged', parked = false, reason = NULL, failures = 0,
                     acknowledged_at = $2, verified = $3, seen_size = $5, seen_mtime = $6, expired_at = NULL,
                     written_bytes = coalesce(d.written_bytes + c.written, d.written_bytes, c.written),
                     link_bytes = coalesce(d.link_bytes + c.link, d.link_bytes, c.link)
                 FROM unnest($1::bigint[], $7::bigint[], $8::bigint[]) c (id, written, link)
                 WHERE d.id = c.id AND (d.state <> 'superseded' OR d.expired_at IS NOT NULL) AND d.place = $4
                 RETURNING d.id",
            )
            .bind(ids)
            .bind(now)
            .bind(*verified)
            .bind(place.0)
            .bind(seen.map(|seen| signed(seen.size)))
            .bind(seen.map(|seen| seen.mtime))
            .bind(written)
            .bind(link)
        }
        // Only superseded deliveries are updated: if the vessel takes the directory again, the delivery is open and may
        // have sent new parts, so `touched` must stay set.
        Entry::Swept => {
            sqlx::query("UPDATE delivery SET touched = false WHERE id = ANY ($1) AND state = 'superseded' RETURNING id")
                .bind(ids)
        }
        Entry::Hashed(digest) => {
            sqlx::query("UPDATE version SET digest = $2 WHERE id = ANY ($1) AND digest = '' RETURNING id")
                .bind(ids)
                .bind(&digest[..])
        }
    };
    let taken = statement.fetch_all(&mut *transaction).await?;
    if matches!(entry, Entry::Acknowledged(_) | Entry::AcknowledgedAt { .. }) {
        settle(transaction, ids, now).await?;
    }
    taken.iter().map(|row| Ok(row.try_get(0)?)).collect()
}
