//! Implements [`Store`] in SQLite's SQL.
//!
//! Queries use the reading connections, updates the writing connection. Updates that many tasks make concurrently go
//! through the [`group`](super::group); other updates run in transactions of their own.

use std::sync::Arc;

use async_trait::async_trait;
use futures_util::TryStreamExt;
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use super::group::Entry;
use super::ranks::{rank, rank_anew};
use super::rows::{current_columns, version_columns};
use super::transitions::{end_vanished, forget, forget_all, insert, last_of_each_path, supersede};
use super::{Readers, Result, Sqlite, json, rows, signatures};
use crate::digest::Digest;
use crate::ledger::{CurrentVersion, LastDelivered, Parked, Pause, Reports, Store};
use crate::names::{DirectoryName, InstanceId, RelPath, VesselName};
use crate::records::{
    Backlog, Delivery, DeliveryId, DeliveryState, HeldVersion, NewVersion, Remains, Verified, Version, VersionId,
};
use crate::signature::Signature;

#[async_trait]
impl Store for Sqlite {
    fn instance(&self) -> InstanceId {
        self.instance
    }

    fn reports(&self) -> Arc<dyn Reports> {
        Arc::new(Readers(self.readers.clone()))
    }

    async fn admit(&self, directory: &DirectoryName, versions: &[NewVersion], vessels: &[VesselName]) -> Result<()> {
        let now = self.now();
        let versions = last_of_each_path(versions);
        let mut transaction = self.writer.begin().await?;
        let versions = supersede(&mut transaction, directory, versions, now).await?;
        if !versions.is_empty() {
            insert(&mut transaction, directory, &versions, vessels, now).await?;
        }
        Ok(transaction.commit().await?)
    }

    async fn reconcile(&self, directory: &DirectoryName, vessels: &[VesselName]) -> Result<()> {
        super::reconcile::reconcile(&self.writer, directory, vessels, self.now()).await
    }

    async fn current(&self, directory: &DirectoryName) -> Result<Vec<CurrentVersion>> {
        // Converts row by row, because the rows of SQLite take several times the memory of the records.
        let mut rows = sqlx::query(concat!(
            "SELECT ",
            current_columns!(),
            " FROM version v WHERE v.directory = ? AND v.ended_at IS NULL ORDER BY v.path"
        ))
        .bind(directory.as_str())
        .fetch(&self.readers);
        let mut current = Vec::new();
        while let Some(row) = rows.try_next().await? {
            current.push(rows::current(&row)?);
        }
        Ok(current)
    }

    async fn current_after(
        &self,
        directory: &DirectoryName,
        after: Option<&RelPath>,
        limit: u32,
    ) -> Result<Vec<CurrentVersion>> {
        let mut rows = sqlx::query(concat!(
            "SELECT ",
            current_columns!(),
            " FROM version v WHERE v.directory = ? AND v.ended_at IS NULL AND v.path > ? ORDER BY v.path LIMIT ?"
        ))
        .bind(directory.as_str())
        .bind(after.map_or(&[][..], RelPath::as_bytes))
        .bind(limit)
        .fetch(&self.readers);
        let mut current = Vec::new();
        while let Some(row) = rows.try_next().await? {
            current.push(rows::current(&row)?);
        }
        Ok(current)
    }

    async fn current_at(&self, directory: &DirectoryName, paths: &[RelPath]) -> Result<Vec<CurrentVersion>> {
        sqlx::query(concat!(
            "SELECT ",
            current_columns!(),
            " FROM json_each(?1) i CROSS JOIN version v
              WHERE v.directory = ?2 AND v.path = unhex(i.value) AND v.ended_at IS NULL"
        ))
        .bind(json::paths(paths))
        .bind(directory.as_str())
        .fetch_all(&self.readers)
        .await?
        .iter()
        .map(rows::current)
        .collect()
    }

    async fn current_below(&self, directory: &DirectoryName, above: &[RelPath]) -> Result<Vec<CurrentVersion>> {
        let found = sqlx::query(concat!(
            "SELECT ",
            current_columns!(),
            " FROM json_each(?1) i CROSS JOIN version v
              WHERE v.directory = ?2 AND v.path > unhex(i.value ->> 0) AND v.path < unhex(i.value ->> 1)
                AND v.ended_at IS NULL"
        ))
        .bind(json::ranges_below(above))
        .bind(directory.as_str())
        .fetch_all(&self.readers)
        .await?;
        let mut below: Vec<CurrentVersion> = found.iter().map(rows::current).collect::<Result<_>>()?;
        below.sort_unstable_by(|a, b| a.path.cmp(&b.path));
        below.dedup_by(|a, b| a.path == b.path);
        Ok(below)
    }

    async fn count_current(&self, directory: &DirectoryName) -> Result<u64> {
        let count: i64 = sqlx::query_scalar("SELECT count(*) FROM version WHERE directory = ? AND ended_at IS NULL")
            .bind(directory.as_str())
            .fetch_one(&self.readers)
            .await?;
        Ok(count.cast_unsigned())
    }

    async fn held_before(&self, version: VersionId, vessel: &VesselName) -> Result<Vec<HeldVersion>> {
        sqlx::query(concat!(
            "WITH RECURSIVE before (id, steps) AS (
                 SELECT replaces, 1 FROM version WHERE id = ?1 AND replaces IS NOT NULL
                 UNION ALL
                 SELECT v.replaces, b.steps + 1 FROM before b JOIN version v ON v.id = b.id
                 WHERE v.replaces IS NOT NULL AND b.steps < 64)
             SELECT ",
            version_columns!(),
            ", d.seen_size, d.seen_mtime FROM before b CROSS JOIN version v ON v.id = b.id CROSS JOIN delivery d ON d.version = v.id AND d.vessel = ?2
              WHERE d.place = coalesce(
                  (SELECT number FROM place p WHERE p.vessel = d.vessel AND p.directory = v.directory), 0)
              ORDER BY v.id DESC"
        ))
        .bind(version.0)
        .bind(vessel.as_str())
        .fetch_all(&self.readers)
        .await?
        .iter()
        .map(|row| Ok(HeldVersion { version: rows::version(row)?, seen: rows::seen(row)? }))
        .collect()
    }

    async fn is_open_below(&self, vessel: &VesselName, directory: &DirectoryName, above: &RelPath) -> Result<bool> {
        let open: i64 = sqlx::query_scalar(
            "SELECT EXISTS (
                 SELECT 1 FROM json_each(?1) i CROSS JOIN version v CROSS JOIN delivery d ON d.version = v.id
                 WHERE v.directory = ?2 AND v.path > unhex(i.value ->> 0) AND v.path < unhex(i.value ->> 1)
                   AND v.ended_at IS NULL AND d.vessel = ?3 AND d.state NOT IN ('acknowledged', 'superseded'))",
        )
        .bind(json::ranges_below(std::slice::from_ref(above)))
        .bind(directory.as_str())
        .bind(vessel.as_str())
        .fetch_one(&self.readers)
        .await?;
        Ok(open > 0)
    }

    async fn vanished(&self, directory: &DirectoryName, paths: &[RelPath]) -> Result<Vec<RelPath>> {
        let mut transaction = self.writer.begin().await?;
        let (dropped, noted) = end_vanished(&mut transaction, directory, paths, self.now(), &self.listeners).await?;
        transaction.commit().await?;
        self.listeners.ring_if(noted);
        Ok(dropped)
    }

    async fn retirable(&self, directory: &DirectoryName, after: VersionId, limit: u32) -> Result<Vec<Version>> {
        sqlx::query(concat!(
            "SELECT ",
            version_columns!(),
            " FROM version v WHERE v.directory = ? AND v.complete = 1 AND v.ended_at IS NULL AND v.kind = 'file' AND v.id > ?
              ORDER BY v.id LIMIT ?"
        ))
        .bind(directory.as_str())
        .bind(after.0)
        .bind(limit)
        .fetch_all(&self.readers)
        .await?
        .iter()
        .map(rows::version)
        .collect()
    }

    async fn retired(&self, versions: &[VersionId]) -> Result<()> {
        if versions.is_empty() {
            return Ok(());
        }
        let (now, ids) = (self.now(), json::numbers(versions.iter().map(|version| version.0)));
        let mut transaction = self.writer.begin().await?;
        let noted = self.listeners.note_retired(&mut transaction, &ids, now).await?;
        sqlx::query(
            "UPDATE version AS v SET ended_at = ?, ending = iif(
                 EXISTS (SELECT 1 FROM delivery d WHERE d.version = v.id AND d.state = 'acknowledged'), 'retired', 'expired')
             WHERE id IN (SELECT value FROM json_each(?)) AND complete = 1 AND ended_at IS NULL",
        )
        .bind(now)
        .bind(ids)
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        self.listeners.ring_if(noted);
        Ok(())
    }

    async fn next_due_beside(
        &self,
        vessel: &VesselName,
        large: bool,
        limit: u32,
        held_back: &[DirectoryName],
    ) -> Result<Vec<Delivery>> {
        super::due::next_due(self, vessel, large, limit, held_back).await
    }

    async fn next_due_at_beside(&self, vessel: &VesselName, held_back: &[DirectoryName]) -> Result<Option<i64>> {
        super::due::next_due_at(self, vessel, held_back).await
    }

    async fn hashed(&self, version: VersionId, digest: &Digest) -> Result<()> {
        self.group.make(Entry::Hashed(*digest.as_bytes()), version.0).await.map(drop)
    }

    async fn keep_signature_of(&self, version: &Version, signature: &Signature) -> Result<()> {
        signatures::enter(&self.writer, version, signature).await
    }

    async fn signature(&self, version: &Version) -> Result<Option<Signature>> {
        signatures::of_version(&self.readers, version).await
    }

    async fn last_delivered(&self, vessel: &VesselName, version: &Version) -> Result<Option<LastDelivered>> {
        signatures::last_delivered(&self.readers, vessel, version).await
    }

    async fn enter(&self, delivery: DeliveryId, state: DeliveryState) -> Result<bool> {
        self.group.make(Entry::State(state.as_str()), delivery.0).await
    }

    async fn acknowledge(&self, delivery: DeliveryId, verified: Verified) -> Result<bool> {
        self.group.make(Entry::Acknowledged(verified.as_str()), delivery.0).await
    }

    async fn put_off(&self, delivery: DeliveryId, reason: &str, due_at: i64, parked: bool) -> Result<()> {
        let entry = Entry::PutOff { reason: reason.to_owned(), due_at, parked };
        self.group.make(entry, delivery.0).await.map(drop)
    }

    async fn hurry(&self, vessel: &VesselName) -> Result<()> {
        let mut transaction = self.writer.begin().await?;
        for statement in [
            "UPDATE delivery SET due_at = ?1
             WHERE vessel = ?2 AND large IN (0, 1) AND due_at > ?1 AND queue IS NULL
               AND state NOT IN ('acknowledged', 'superseded')",
            "UPDATE delivery SET due_at = ?1
             WHERE vessel = ?2 AND queue IN (SELECT directory FROM queue) AND large IN (0, 1) AND due_at > ?1
               AND state NOT IN ('acknowledged', 'superseded')",
        ] {
            sqlx::query(statement).bind(self.now()).bind(vessel.as_str()).execute(&mut *transaction).await?;
        }
        Ok(transaction.commit().await?)
    }

    async fn retry(&self, deliveries: &[DeliveryId]) -> Result<()> {
        sqlx::query(concat!(
            "UPDATE delivery AS d SET due_at = ?1, failures = 0, rank = ",
            rank_anew!(),
            " WHERE id IN (SELECT value FROM json_each(?2)) AND state NOT IN ('acknowledged', 'superseded')",
        ))
        .bind(self.now())
        .bind(json::numbers(deliveries.iter().map(|delivery| delivery.0)))
        .execute(&self.writer)
        .await?;
        Ok(())
    }

    async fn forget(&self, version: VersionId) -> Result<bool> {
        let mut transaction = self.writer.begin().await?;
        let forgotten = forget(&mut transaction, version.0, self.now()).await?;
        transaction.commit().await?;
        Ok(forgotten)
    }

    async fn forget_all(&self, directory: &DirectoryName) -> Result<u64> {
        let mut transaction = self.writer.begin().await?;
        let forgotten = forget_all(&mut transaction, directory, self.now()).await?;
        transaction.commit().await?;
        Ok(forgotten)
    }

    async fn pause(&self, vessel: &VesselName, pause: Option<&Pause>) -> Result<()> {
        sqlx::query(
            "INSERT INTO vessel (name, paused_at, paused_until, pause_note) VALUES (?1, iif(?2, ?3, NULL), ?4, ?5)
             ON CONFLICT (name) DO UPDATE SET
                 paused_at = iif(?2, coalesce(paused_at, ?3), NULL), paused_until = ?4, pause_note = ?5",
        )
        .bind(vessel.as_str())
        .bind(pause.is_some())
        .bind(self.now())
        .bind(pause.and_then(|pause| pause.until))
        .bind(pause.and_then(|pause| pause.note.as_deref()))
        .execute(&self.writer)
        .await?;
        Ok(())
    }

    async fn paused(&self) -> Result<Vec<VesselName>> {
        let names: Vec<String> = sqlx::query_scalar(
            "SELECT name FROM vessel WHERE paused_at IS NOT NULL AND (paused_until IS NULL OR paused_until > ?)
                 ORDER BY name",
        )
        .bind(self.now())
        .fetch_all(&self.readers)
        .await?;
        Ok(names.iter().map(|name| VesselName::new(name)).collect())
    }

    async fn ended_pauses(&self) -> Result<(Vec<VesselName>, Option<i64>)> {
        let pauses: Vec<(String, i64)> = sqlx::query_as(
            "SELECT name, paused_until FROM vessel WHERE paused_at IS NOT NULL AND paused_until IS NOT NULL
             ORDER BY paused_until, name",
        )
        .fetch_all(&self.readers)
        .await?;
        let now = self.now();
        let next = pauses.iter().map(|(_, until)| *until).find(|until| *until > now);
        let ended = pauses.iter().filter(|(_, until)| *until <= now).map(|(name, _)| VesselName::new(name));
        Ok((ended.collect(), next))
    }

    async fn away(&self, vessel: &VesselName, reason: Option<&str>) -> Result<()> {
        sqlx::query(
            "INSERT INTO vessel (name, away_at, away_reason) VALUES (?1, iif(?2 IS NULL, NULL, ?3), ?2)
             ON CONFLICT (name) DO UPDATE
                 SET away_at = iif(?2 IS NULL, NULL, coalesce(away_at, ?3)), away_reason = ?2",
        )
        .bind(vessel.as_str())
        .bind(reason)
        .bind(self.now())
        .execute(&self.writer)
        .await?;
        Ok(())
    }

    async fn remains(&self, vessel: &VesselName, after: DeliveryId, limit: u32) -> Result<Vec<Remains>> {
        let rows = sqlx::query(
            "SELECT d.id AS delivery, d.token, v.id AS version, v.directory, v.path
             FROM delivery d JOIN version v ON v.id = d.version
             WHERE d.vessel = ? AND d.state = 'superseded' AND d.touched = 1 AND d.id > ?
             ORDER BY d.id LIMIT ?",
        )
        .bind(vessel.as_str())
        .bind(after.0)
        .bind(limit)
        .fetch_all(&self.readers)
        .await?;
        let remains = |row| -> Result<Remains> {
            Ok(Remains {
                delivery: DeliveryId(Row::try_get(row, "delivery")?),
                version: VersionId(Row::try_get(row, "version")?),
                directory: rows::directory(row)?,
                path: rows::rel_path(row)?,
                token: rows::token(row)?,
            })
        };
        rows.iter().map(remains).collect()
    }

    async fn beat(&self) -> Result<()> {
        sqlx::query("SELECT 1").execute(&self.readers).await?;
        // No delivery has the number 0, so this update changes nothing, but it takes the same path as all updates of
        // deliveries.
        self.group.make(Entry::Swept, 0).await.map(drop)
    }

    async fn swept(&self, delivery: DeliveryId) -> Result<()> {
        self.group.make(Entry::Swept, delivery.0).await.map(drop)
    }

    async fn is_open(&self, delivery: DeliveryId) -> Result<bool> {
        let open: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM delivery WHERE id = ? AND state NOT IN ('acknowledged', 'superseded')",
        )
        .bind(delivery.0)
        .fetch_one(&self.readers)
        .await?;
        Ok(open > 0)
    }

    async fn backlog(&self) -> Result<Vec<Backlog>> {
        let rows = sqlx::query(
            "SELECT vessel, sum(waiting) AS waiting, sum(waiting_bytes) AS waiting_bytes, sum(parked) AS parked,
                 sum(acknowledged) AS acknowledged
             FROM tally GROUP BY vessel ORDER BY vessel",
        )
        .fetch_all(&self.readers)
        .await?;
        let backlog = |row: &SqliteRow| -> Result<Backlog> {
            let number = |column| Ok::<u64, sqlx::Error>(row.try_get::<i64, _>(column)?.cast_unsigned());
            Ok(Backlog {
                vessel: VesselName::new(row.try_get("vessel")?),
                waiting: number("waiting")?,
                waiting_bytes: number("waiting_bytes")?,
                parked: number("parked")?,
                acknowledged: number("acknowledged")?,
            })
        };
        rows.iter().map(backlog).collect()
    }

    async fn parked(&self, limit: u32) -> Result<Vec<Parked>> {
        let rows = sqlx::query(
            "SELECT d.vessel, v.directory, v.path, coalesce(d.reason, '') AS reason
             FROM delivery d CROSS JOIN version v ON v.id = d.version WHERE d.parked = 1 ORDER BY d.id LIMIT ?",
        )
        .bind(limit)
        .fetch_all(&self.readers)
        .await?;
        let parked = |row: &SqliteRow| -> Result<Parked> {
            Ok(Parked {
                vessel: VesselName::new(row.try_get("vessel")?),
                directory: rows::directory(row)?,
                path: rows::rel_path(row)?,
                reason: row.try_get("reason")?,
            })
        };
        rows.iter().map(parked).collect()
    }
}
