//! Adjusts the deliveries of a directory to the vessels that take the directory now, and to its current places on these
//! vessels.
//!
//! A directory may hold a million files, each with deliveries to hundreds of vessels. So each transaction handles a
//! limited number of paths, in the order of the paths.

use async_trait::async_trait;
use sqlx::sqlite::SqliteRow;
use sqlx::{Row, Sqlite as Db, SqlitePool, Transaction};

use super::group::Entry;
use super::ranks::{expires_at, rank, rank_anew};
use super::transitions::settle_versions;
use super::{Result, Sqlite, json, queues};
use crate::ledger::Places;
use crate::ledger::places::sorted_names;
use crate::names::{DirectoryName, RemotePath, VesselName};
use crate::records::{Delivery, DeliveryCost, Host, Seen, Verified, VersionId};

/// Maximum number of deliveries per transaction. A transaction of this size takes some tens of milliseconds.
const STEP: usize = 1000;

/// Pages over the versions that a directory holds now; each page is handled in a transaction of its own.
struct Pages<'a> {
    writer: &'a SqlitePool,
    directory: &'a DirectoryName,
    /// Versions per page.
    most: i64,
    after: Vec<u8>,
    ended: bool,
}

impl<'a> Pages<'a> {
    fn new(writer: &'a SqlitePool, directory: &'a DirectoryName, vessels: usize) -> Self {
        let most = i64::try_from(STEP / vessels.clamp(1, STEP)).unwrap_or(1);
        Self { writer, directory, most, after: Vec::new(), ended: false }
    }

    /// Starts a transaction for the next page. Returns the transaction and the numbers of the page's versions as a JSON
    /// array; `None` after the last page.
    async fn next(&mut self) -> Result<Option<(Transaction<'static, Db>, String)>> {
        if self.ended {
            return Ok(None);
        }
        let mut transaction = self.writer.begin().await?;
        let rows = sqlx::query(
            "SELECT id, path FROM version WHERE directory = ? AND ended_at IS NULL AND path > ? ORDER BY path LIMIT ?",
        )
        .bind(self.directory.as_str())
        .bind(&self.after)
        .bind(self.most)
        .fetch_all(&mut *transaction)
        .await?;
        self.ended = rows.len() < usize::try_from(self.most).unwrap_or(usize::MAX);
        let Some(last) = rows.last() else { return Ok(None) };
        self.after = last.try_get("path")?;
        let ids: Vec<i64> = rows.iter().map(|row| row.try_get("id")).collect::<sqlx::Result<_>>()?;
        Ok(Some((transaction, json::numbers(ids.into_iter()))))
    }
}

/// Restarts the deliveries that went, or were to go, to an earlier place. Returns the number of restarted deliveries.
async fn send_to_new_places(
    transaction: &mut Transaction<'_, Db>,
    directory: &DirectoryName,
    (versions, vessels): (&str, &str),
    now: i64,
) -> Result<u64> {
    let moved = sqlx::query(concat!(
        "UPDATE delivery AS d SET state = iif(d.touched AND d.state <> 'acknowledged', 'uploading', 'pending'),
             touched = d.touched AND d.state <> 'acknowledged', place = p.number, due_at = ?4, failures = 0, reason = NULL,
             parked = 0, acknowledged_at = NULL, verified = NULL, seen_size = NULL, seen_mtime = NULL, rank = ",
        rank_anew!(),
        " FROM place p
         WHERE d.version IN (SELECT value FROM json_each(?1)) AND d.vessel IN (SELECT value FROM json_each(?2))
           AND p.vessel = d.vessel AND p.directory = ?3 AND d.place <> p.number AND d.state <> 'superseded'",
    ))
    .bind(versions)
    .bind(vessels)
    .bind(directory.as_str())
    .bind(now)
    .execute(&mut **transaction)
    .await?;
    Ok(moved.rows_affected())
}

/// Returns those of `vessels`, a JSON array, that may have deliveries of this directory for an earlier place, with the
/// numbers of their current places.
async fn unsettled(writer: &SqlitePool, directory: &DirectoryName, vessels: &str) -> Result<Vec<(String, i64)>> {
    Ok(sqlx::query_as(
        "SELECT vessel, number FROM place
         WHERE directory = ? AND vessel IN (SELECT value FROM json_each(?)) AND settled = 0",
    )
    .bind(directory.as_str())
    .bind(vessels)
    .fetch_all(writer)
    .await?)
}

/// Records that all deliveries of a directory use these places. Skips a vessel whose place has changed meanwhile.
async fn settled(writer: &SqlitePool, directory: &DirectoryName, places: &[(String, i64)]) -> Result<()> {
    let mut transaction = writer.begin().await?;
    for (vessel, number) in places {
        sqlx::query("UPDATE place SET settled = 1 WHERE directory = ? AND vessel = ? AND number = ?")
            .bind(directory.as_str())
            .bind(vessel)
            .bind(number)
            .execute(&mut *transaction)
            .await?;
    }
    Ok(transaction.commit().await?)
}

/// Returns whether it is recorded that all deliveries of a directory fit these vessels (a sorted JSON array), their
/// places and the directory's queue.
async fn is_reconciled(writer: &SqlitePool, directory: &DirectoryName, vessels: &str) -> Result<bool> {
    let is_reconciled: bool = sqlx::query_scalar(
        "SELECT EXISTS (SELECT 1 FROM reconciled WHERE directory = ?1 AND vessels = ?2 AND settled = 1)
             AND NOT EXISTS (SELECT 1 FROM queue WHERE directory = ?1 AND settled = 0)
             AND NOT EXISTS (SELECT 1 FROM place WHERE directory = ?1 AND settled = 0
                 AND vessel IN (SELECT value FROM json_each(?2)))",
    )
    .bind(directory.as_str())
    .bind(vessels)
    .fetch_one(writer)
    .await?;
    Ok(is_reconciled)
}

pub(super) async fn reconcile(
    writer: &SqlitePool,
    directory: &DirectoryName,
    vessels: &[VesselName],
    now: i64,
) -> Result<()> {
    let (names, sorted) = (json::names(vessels), sorted_names(vessels));
    if is_reconciled(writer, directory, &sorted).await? {
        return Ok(());
    }
    // If versions are admitted for other vessels meanwhile, the admission removes this row.
    sqlx::query("INSERT OR REPLACE INTO reconciled (directory, vessels) VALUES (?, ?)")
        .bind(directory.as_str())
        .bind(&sorted)
        .execute(writer)
        .await?;
    let places = unsettled(writer, directory, &names).await?;
    let mut pages = Pages::new(writer, directory, vessels.len());
    let is_unsettled = queues::is_unsettled(writer, directory).await?;
    while let Some((mut transaction, versions)) = pages.next().await? {
        // `due_at` is the time of admission, so that an added vessel gets the oldest files first. A negative size means
        // a size of 2^63 or more, see `signed`.
        sqlx::query(concat!(
            "INSERT INTO delivery (version, vessel, large, state, due_at, token, place, queue, rank, expires_at)
             SELECT v.id, n.value, v.size < 0 OR v.size > v.chunk_size, 'pending', min(v.admitted_at, ?4), random(),
                 coalesce((SELECT number FROM place p WHERE p.vessel = n.value AND p.directory = ?3), 0),
                 q.directory, ",
            rank!(),
            ", ",
            expires_at!(),
            " FROM json_each(?1) i CROSS JOIN version v ON v.id = i.value CROSS JOIN json_each(?2) n
                 LEFT JOIN queue q ON q.directory = ?3 AND q.ordering IS NOT NULL
             WHERE v.forgotten_at IS NULL
             ORDER BY n.key, v.id
             ON CONFLICT (version, vessel) DO UPDATE
                 SET state = iif(touched, 'uploading', 'pending'), due_at = excluded.due_at, failures = 0, reason = NULL,
                     place = excluded.place, queue = excluded.queue, rank = excluded.rank, expires_at = excluded.expires_at
                 WHERE state = 'superseded' AND expired_at IS NULL"
        ))
        .bind(&versions)
        .bind(&names)
        .bind(directory.as_str())
        .bind(now)
        .execute(&mut *transaction)
        .await?;
        send_to_new_places(&mut transaction, directory, (&versions, &names), now).await?;
        sqlx::query(
            "UPDATE delivery SET state = 'superseded', parked = 0
             WHERE state NOT IN ('acknowledged', 'superseded') AND version IN (SELECT value FROM json_each(?))
               AND vessel NOT IN (SELECT value FROM json_each(?))",
        )
        .bind(&versions)
        .bind(&names)
        .execute(&mut *transaction)
        .await?;
        if is_unsettled {
            queues::requeue(&mut transaction, directory, &versions).await?;
        }
        settle_versions(&mut transaction, &versions, now).await?;
        transaction.commit().await?;
    }
    if is_unsettled {
        queues::settled(writer, directory).await?;
    }
    settled(writer, directory, &places).await?;
    sqlx::query("UPDATE reconciled SET settled = 1 WHERE directory = ? AND vessels = ?")
        .bind(directory.as_str())
        .bind(&sorted)
        .execute(writer)
        .await?;
    Ok(())
}

#[async_trait]
impl Places for Sqlite {
    async fn locate(&self, directory: &DirectoryName, locations: &[(VesselName, RemotePath)]) -> Result<()> {
        let mut transaction = self.writer.begin().await?;
        for (vessel, location) in locations {
            sqlx::query(
                "INSERT INTO place (vessel, directory, location) VALUES (?, ?, ?)
                 ON CONFLICT (vessel, directory) DO UPDATE
                     SET location = excluded.location, number = number + 1, settled = 0
                     WHERE location <> excluded.location",
            )
            .bind(vessel.as_str())
            .bind(directory.as_str())
            .bind(location.as_bytes())
            .execute(&mut *transaction)
            .await?;
        }
        Ok(transaction.commit().await?)
    }

    async fn meet(&self, vessel: &VesselName, host: &Host) -> Result<u64> {
        enter_host(&self.writer, vessel, host).await?;
        let directories: Vec<String> =
            sqlx::query_scalar("SELECT directory FROM place WHERE vessel = ? AND settled = 0 ORDER BY directory")
                .bind(vessel.as_str())
                .fetch_all(&self.writer)
                .await?;
        let (one, mut due) = (json::names(std::slice::from_ref(vessel)), 0);
        for directory in directories.iter().map(|name| DirectoryName::new(name)) {
            let places = unsettled(&self.writer, &directory, &one).await?;
            let mut pages = Pages::new(&self.writer, &directory, 1);
            while let Some((mut transaction, versions)) = pages.next().await? {
                let now = self.now();
                due += send_to_new_places(&mut transaction, &directory, (&versions, &one), now).await?;
                settle_versions(&mut transaction, &versions, now).await?;
                transaction.commit().await?;
            }
            settled(&self.writer, &directory, &places).await?;
        }
        Ok(due)
    }

    async fn resend(
        &self,
        directory: &DirectoryName,
        version: Option<VersionId>,
        vessels: &[VesselName],
    ) -> Result<u64> {
        let names = json::names(vessels);
        if let Some(version) = version {
            let mut transaction = self.writer.begin().await?;
            let one = json::numbers(std::iter::once(version.0));
            let due = resend(&mut transaction, (&one, &names), self.now()).await?;
            transaction.commit().await?;
            return Ok(due);
        }
        let (mut due, mut pages) = (0, Pages::new(&self.writer, directory, vessels.len()));
        while let Some((mut transaction, versions)) = pages.next().await? {
            due += resend(&mut transaction, (&versions, &names), self.now()).await?;
            transaction.commit().await?;
        }
        Ok(due)
    }

    async fn acknowledge_there(
        &self,
        delivery: &Delivery,
        verified: Verified,
        seen: Option<Seen>,
        cost: Option<DeliveryCost>,
    ) -> Result<bool> {
        let entry = Entry::AcknowledgedAt { verified: verified.as_str(), place: delivery.place, seen };
        self.group.make_at_cost(entry, delivery.id.0, cost).await
    }
}

/// Restarts acknowledged deliveries of versions. Returns the number of restarted deliveries.
async fn resend(transaction: &mut Transaction<'_, Db>, (versions, vessels): (&str, &str), now: i64) -> Result<u64> {
    let due = sqlx::query(concat!(
        "UPDATE delivery AS d SET state = 'pending', touched = 0, due_at = ?3, failures = 0, reason = NULL,
             acknowledged_at = NULL, verified = NULL, rank = ",
        rank_anew!(),
        " WHERE version IN (SELECT value FROM json_each(?1)) AND vessel IN (SELECT value FROM json_each(?2))
           AND state = 'acknowledged'
           AND EXISTS (SELECT 1 FROM version v WHERE v.id = version AND v.ended_at IS NULL AND v.forgotten_at IS NULL)",
    ))
    .bind(versions)
    .bind(vessels)
    .bind(now)
    .execute(&mut **transaction)
    .await?;
    settle_versions(transaction, versions, now).await?;
    Ok(due.rows_affected())
}

/// Records a vessel's host. If the host differs from the recorded one, gives each of the vessel's places a new number.
async fn enter_host(writer: &SqlitePool, vessel: &VesselName, host: &Host) -> Result<()> {
    let mut transaction = writer.begin().await?;
    let is_other = is_other_host(&mut transaction, vessel, host).await?;
    if is_other {
        sqlx::query("DELETE FROM host_key WHERE vessel = ?").bind(vessel.as_str()).execute(&mut *transaction).await?;
        // This also covers directories without a recorded place, because their earlier deliveries went to the previous
        // host.
        sqlx::query(
            "INSERT INTO place (vessel, directory, location, number)
             SELECT vessel, directory, x'', 1 FROM tally WHERE vessel = ?
             ON CONFLICT (vessel, directory) DO UPDATE SET number = number + 1, settled = 0",
        )
        .bind(vessel.as_str())
        .execute(&mut *transaction)
        .await?;
    }
    sqlx::query("INSERT OR REPLACE INTO host (vessel, address, account) VALUES (?, ?, ?)")
        .bind(vessel.as_str())
        .bind(&host.address)
        .bind(&host.account)
        .execute(&mut *transaction)
        .await?;
    if let Some((algorithm, fingerprint)) = &host.key {
        sqlx::query("INSERT OR REPLACE INTO host_key (vessel, algorithm, fingerprint) VALUES (?, ?, ?)")
            .bind(vessel.as_str())
            .bind(algorithm)
            .bind(fingerprint)
            .execute(&mut *transaction)
            .await?;
    }
    Ok(transaction.commit().await?)
}

/// Returns whether `host` differs from the recorded host of the vessel. Hosts differ if their accounts differ, or if
/// their keys of the same algorithm differ. If no key of the same algorithm is recorded, the addresses are compared
/// instead.
async fn is_other_host(transaction: &mut Transaction<'_, Db>, vessel: &VesselName, host: &Host) -> Result<bool> {
    let before = sqlx::query("SELECT address, account FROM host WHERE vessel = ?")
        .bind(vessel.as_str())
        .fetch_optional(&mut **transaction)
        .await?;
    let Some(before) = before else { return Ok(false) };
    let text = |row: &SqliteRow, column| row.try_get::<String, _>(column);
    if text(&before, "account")? != host.account {
        return Ok(true);
    }
    let algorithm = host.key.as_ref().map(|(algorithm, _)| algorithm.as_str());
    let known: Option<String> =
        sqlx::query_scalar("SELECT fingerprint FROM host_key WHERE vessel = ? AND algorithm = ?")
            .bind(vessel.as_str())
            .bind(algorithm)
            .fetch_optional(&mut **transaction)
            .await?;
    Ok(match (known, &host.key) {
        (Some(known), Some((_, shown))) => known != *shown,
        _ => text(&before, "address")? != host.address,
    })
}
