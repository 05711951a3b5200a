//! Implements [`Store`] in PostgreSQL's SQL.
//!
//! Queries use the reading connections, updates the writing connection. Updates that many tasks make concurrently go
//! through the [`group`](super::group); other updates run in transactions of their own.

use std::sync::Arc;

use async_trait::async_trait;
use sqlx::Row;
use sqlx::postgres::PgRow;

use super::group::Entry;
use super::ranks::{rank, rank_anew};
use super::rows::version_columns;
use super::transitions::{end_vanished, forget, forget_all, insert, last_of_each_path, supersede};
use super::{Postgres, Readers, Result, current_versions, rows, signatures};
use crate::digest::Digest;
use crate::ledger::{CurrentVersion, LastDelivered, LedgerError, Outage, Parked, Pause, Reports, Store, Work};
use crate::names::{DirectoryName, InstanceId, RelPath, VesselName};
use crate::records::{
    Backlog, Delivery, DeliveryId, DeliveryState, HeldVersion, NewVersion, Remains, Verified, Version, VersionId,
};
use crate::signature::Signature;

/// The versions that a version (`$1`) replaced, directly or indirectly, and that have a delivery to the current place
/// on a vessel (`$2`), newest first.
pub(super) const HELD_BEFORE: &str = concat!(
    "WITH RECURSIVE before (id, steps) AS (
         SELECT replaces, 1 FROM version WHERE id = $1 AND replaces IS NOT NULL
         UNION ALL
         SELECT v.replaces, b.steps + 1 FROM before b JOIN version v ON v.id = b.id
         WHERE v.replaces IS NOT NULL AND b.steps < 64)
     SELECT ",
    version_columns!(),
    ", d.seen_size, d.seen_mtime FROM before b JOIN version v ON v.id = b.id
      JOIN delivery d ON d.version = v.id AND d.vessel = $2
      WHERE d.place = coalesce(
          (SELECT number FROM place p WHERE p.vessel = d.vessel AND p.directory = v.directory), 0)
      ORDER BY v.id + 0 DESC"
);

#[async_trait]
impl Store for Postgres {
    fn instance(&self) -> InstanceId {
        self.instance
    }

    fn reports(&self) -> Arc<dyn Reports> {
        Arc::new(Readers::Shared(self.connections.clone()))
    }

    fn for_work(&self, work: &Work) -> Option<Arc<dyn Store>> {
        self.part_for(work).map(|part| Arc::new(part) as Arc<dyn Store>)
    }

    fn outage(&self) -> Option<Arc<Outage>> {
        self.connections.outage()
    }

    fn sure_for(&self) -> std::time::Duration {
        self.connections.margin()
    }

    async fn surely_ours(&self) -> Result<()> {
        self.connections.surely_ours().await?;
        match &self.work {
            Some(work) if !self.shares.has(work) => Err(LedgerError::NotOurs { work: work.name.clone() }),
            _ => Ok(()),
        }
    }

    async fn admit(&self, directory: &DirectoryName, versions: &[NewVersion], vessels: &[VesselName]) -> Result<()> {
        let now = self.now();
        let admitted = self.lasting(|pools| async move {
            let mut write = pools.begin().await?;
            let versions = supersede(&mut write, directory, last_of_each_path(versions), now).await?;
            if !versions.is_empty() {
                insert(&mut write, directory, &versions, vessels, now).await?;
            }
            write.commit().await
        });
        admitted.await
    }

    async fn reconcile(&self, directory: &DirectoryName, vessels: &[VesselName]) -> Result<()> {
        super::reconcile::reconcile(self, directory, vessels).await
    }

    async fn current(&self, directory: &DirectoryName) -> Result<Vec<CurrentVersion>> {
        current_versions::all(self, directory).await
    }

    async fn current_after(
        &self,
        directory: &DirectoryName,
        after: Option<&RelPath>,
        limit: u32,
    ) -> Result<Vec<CurrentVersion>> {
        current_versions::after(self, directory, after, limit).await
    }

    async fn current_at(&self, directory: &DirectoryName, paths: &[RelPath]) -> Result<Vec<CurrentVersion>> {
        current_versions::at(self, directory, paths).await
    }

    async fn current_below(&self, directory: &DirectoryName, above: &[RelPath]) -> Result<Vec<CurrentVersion>> {
        current_versions::below(self, directory, above).await
    }

    async fn count_current(&self, directory: &DirectoryName) -> Result<u64> {
        current_versions::count(self, directory).await
    }

    async fn held_before(&self, version: VersionId, vessel: &VesselName) -> Result<Vec<HeldVersion>> {
        let found = self.lasting(|pools| async move {
            let statement = sqlx::query(HELD_BEFORE).bind(version.0).bind(vessel.as_str());
            Ok(statement.fetch_all(&pools.repeaters).await?)
        });
        let held = |row: &PgRow| Ok(HeldVersion { version: rows::version(row)?, seen: rows::seen(row)? });
        found.await?.iter().map(held).collect()
    }

    async fn is_open_below(&self, vessel: &VesselName, directory: &DirectoryName, above: &RelPath) -> Result<bool> {
        current_versions::is_open_below(self, vessel, directory, above).await
    }

    async fn vanished(&self, directory: &DirectoryName, paths: &[RelPath]) -> Result<Vec<RelPath>> {
        let now = self.now();
        let doubt = &super::doubt::Doubt::new();
        let vanished = self.lasting(|pools| async move {
            if let Some(vanished) = doubt.resolved(&pools).await? {
                return Ok(vanished);
            }
            let mut write = pools.begin().await?;
            let vanished = end_vanished(&mut write, directory, paths, now, &self.listeners).await?;
            doubt.commit(write, vanished).await
        });
        let (dropped, noted) = vanished.await?;
        self.listeners.ring_if(noted);
        Ok(dropped)
    }

    async fn retirable(&self, directory: &DirectoryName, after: VersionId, limit: u32) -> Result<Vec<Version>> {
        let found = self.lasting(|pools| async move {
            let statement = sqlx::query(concat!(
                "SELECT ",
                version_columns!(),
                " FROM version v WHERE v.directory = $1 AND v.complete AND v.ended_at IS NULL AND v.kind = 'file'
                   AND v.id > $2 ORDER BY v.id LIMIT $3"
            ))
            .bind(directory.as_str())
            .bind(after.0)
            .bind(i64::from(limit));
            Ok(statement.fetch_all(&pools.readers).await?)
        });
        found.await?.iter().map(rows::version).collect()
    }

    async fn retired(&self, versions: &[VersionId]) -> Result<()> {
        if versions.is_empty() {
            return Ok(());
        }
        let (now, ids) = (self.now(), versions.iter().map(|version| version.0).collect::<Vec<_>>());
        let retired = self.lasting(|pools| {
            let ids = &ids;
            async move {
                let mut write = pools.begin().await?;
                let noted = self.listeners.note_retired(&mut write, ids, now).await?;
                // `ORDER BY` makes the planner use the index by version; otherwise it would read all deliveries that
                // were ever acknowledged. `OFFSET` prevents it from ignoring the order.
                sqlx::query(
                    "UPDATE version v SET ended_at = $1, ending = CASE WHEN
                         EXISTS (SELECT 1 FROM delivery d WHERE d.version = v.id AND d.state = 'acknowledged'
                             ORDER BY d.vessel OFFSET 0)
                         THEN 'retired' ELSE 'expired' END
                     WHERE v.id = ANY ($2) AND v.complete AND v.ended_at IS NULL",
                )
                .bind(now)
                .bind(ids)
                .execute(&mut *write)
                .await?;
                write.commit().await?;
                Ok(noted)
            }
        });
        self.listeners.ring_if(retired.await?);
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
        self.make(Entry::Hashed(*digest.as_bytes()), version.0).await.map(drop)
    }

    async fn keep_signature_of(&self, version: &Version, signature: &Signature) -> Result<()> {
        signatures::enter(self, version, signature).await
    }

    async fn signature(&self, version: &Version) -> Result<Option<Signature>> {
        signatures::of_version(self, version).await
    }

    async fn last_delivered(&self, vessel: &VesselName, version: &Version) -> Result<Option<LastDelivered>> {
        signatures::last_delivered(self, vessel, version).await
    }

    async fn enter(&self, delivery: DeliveryId, state: DeliveryState) -> Result<bool> {
        self.make(Entry::State(state.as_str()), delivery.0).await
    }

    async fn acknowledge(&self, delivery: DeliveryId, verified: Verified) -> Result<bool> {
        self.make(Entry::Acknowledged(verified.as_str()), delivery.0).await
    }

    async fn put_off(&self, delivery: DeliveryId, reason: &str, due_at: i64, parked: bool) -> Result<()> {
        let entry = Entry::PutOff { reason: reason.to_owned(), due_at, parked };
        self.make(entry, delivery.0).await.map(drop)
    }

    async fn hurry(&self, vessel: &VesselName) -> Result<()> {
        let now = self.now();
        let hurried = self.lasting(|pools| async move {
            let mut write = pools.begin().await?;
            for statement in [
                "UPDATE delivery SET due_at = $1
                 WHERE vessel = $2 AND large = ANY ('{f,t}') AND due_at > $1 AND queue IS NULL
                   AND state NOT IN ('acknowledged', 'superseded')",
                "UPDATE delivery SET due_at = $1
                 WHERE vessel = $2 AND queue = ANY (ARRAY(SELECT directory FROM queue)) AND large = ANY ('{f,t}')
                   AND due_at > $1 AND queue IS NOT NULL AND state NOT IN ('acknowledged', 'superseded')",
            ] {
                sqlx::query(statement).bind(now).bind(vessel.as_str()).execute(&mut *write).await?;
            }
            write.commit().await
        });
        hurried.await
    }

    async fn retry(&self, deliveries: &[DeliveryId]) -> Result<()> {
        let (now, ids) = (self.now(), deliveries.iter().map(|delivery| delivery.0).collect::<Vec<_>>());
        let retried = self.lasting(|pools| {
            let statement = sqlx::query(concat!(
                "UPDATE delivery d SET due_at = $1, failures = 0, rank = ",
                rank_anew!(),
                " WHERE id = ANY ($2) AND state NOT IN ('acknowledged', 'superseded')",
            ))
            .bind(now)
            .bind(&ids);
            async move { pools.write_one(statement).await.map(drop) }
        });
        retried.await
    }

    async fn forget(&self, version: VersionId) -> Result<bool> {
        let now = self.now();
        let doubt = &super::doubt::Doubt::new();
        let forgotten = self.lasting(|pools| async move {
            if let Some(forgotten) = doubt.resolved(&pools).await? {
                return Ok(forgotten);
            }
            let mut write = pools.begin().await?;
            let forgotten = forget(&mut write, version.0, now).await?;
            doubt.commit(write, forgotten).await
        });
        forgotten.await
    }

    async fn forget_all(&self, directory: &DirectoryName) -> Result<u64> {
        let now = self.now();
        let doubt = &super::doubt::Doubt::new();
        let forgotten = self.lasting(|pools| async move {
            if let Some(forgotten) = doubt.resolved(&pools).await? {
                return Ok(forgotten);
            }
            let mut write = pools.begin().await?;
            let forgotten = forget_all(&mut write, directory, now).await?;
            doubt.commit(write, forgotten).await
        });
        forgotten.await
    }

    async fn pause(&self, vessel: &VesselName, pause: Option<&Pause>) -> Result<()> {
        let now = self.now();
        let paused = self.lasting(|pools| {
            let statement = sqlx::query(
                "INSERT INTO vessel AS v (name, paused_at, paused_until, pause_note)
                 VALUES ($1, CASE WHEN $2 THEN $3::bigint END, $4, $5)
                 ON CONFLICT (name) DO UPDATE SET
                     paused_at = CASE WHEN $2 THEN coalesce(v.paused_at, $3) END, paused_until = $4, pause_note = $5",
            )
            .bind(vessel.as_str())
            .bind(pause.is_some())
            .bind(now)
            .bind(pause.and_then(|pause| pause.until))
            .bind(pause.and_then(|pause| pause.note.as_deref()).map(rows::text));
            async move { pools.write_one(statement).await.map(drop) }
        });
        paused.await
    }

    async fn paused(&self) -> Result<Vec<VesselName>> {
        let now = self.now();
        let names = self.lasting(|pools| async move {
            let statement = sqlx::query_scalar(
                "SELECT name FROM vessel WHERE paused_at IS NOT NULL AND (paused_until IS NULL OR paused_until > $1)
                 ORDER BY name",
            );
            Ok(statement.bind(now).fetch_all(&pools.readers).await?)
        });
        let names: Vec<String> = names.await?;
        Ok(names.iter().map(|name| VesselName::new(name)).collect())
    }

    async fn ended_pauses(&self) -> Result<(Vec<VesselName>, Option<i64>)> {
        let pauses = self.lasting(|pools| async move {
            let statement = sqlx::query_as(
                "SELECT name, paused_until FROM vessel WHERE paused_at IS NOT NULL AND paused_until IS NOT NULL
                 ORDER BY paused_until, name",
            );
            Ok(statement.fetch_all(&pools.readers).await?)
        });
        let (pauses, now): (Vec<(String, i64)>, _) = (pauses.await?, self.now());
        let next = pauses.iter().map(|(_, until)| *until).find(|until| *until > now);
        let ended = pauses.iter().filter(|(_, until)| *until <= now).map(|(name, _)| VesselName::new(name));
        Ok((ended.collect(), next))
    }

    async fn away(&self, vessel: &VesselName, reason: Option<&str>) -> Result<()> {
        let now = self.now();
        let entered = self.lasting(|pools| {
            let statement = sqlx::query(
                "INSERT INTO vessel AS v (name, away_at, away_reason)
                 VALUES ($1, CASE WHEN $2::text IS NOT NULL THEN $3::bigint END, $2)
                 ON CONFLICT (name) DO UPDATE
                     SET away_at = CASE WHEN $2 IS NOT NULL THEN coalesce(v.away_at, $3) END, away_reason = $2",
            )
            .bind(vessel.as_str())
            .bind(reason.map(rows::text))
            .bind(now);
            async move { pools.write_one(statement).await.map(drop) }
        });
        entered.await
    }

    async fn remains(&self, vessel: &VesselName, after: DeliveryId, limit: u32) -> Result<Vec<Remains>> {
        let found = self.lasting(|pools| async move {
            let statement = sqlx::query(
                "SELECT d.id AS delivery, d.token, v.id AS version, v.directory, v.path
                 FROM delivery d JOIN version v ON v.id = d.version
                 WHERE d.vessel = $1 AND d.state = 'superseded' AND d.touched AND d.id > $2
                 ORDER BY d.id LIMIT $3",
            )
            .bind(vessel.as_str())
            .bind(after.0)
            .bind(i64::from(limit));
            Ok(statement.fetch_all(&pools.readers).await?)
        });
        let remains = |row: &PgRow| -> Result<Remains> {
            Ok(Remains {
                delivery: DeliveryId(row.try_get("delivery")?),
                version: VersionId(row.try_get("version")?),
                directory: rows::directory(row)?,
                path: rows::rel_path(row)?,
                token: rows::token(row)?,
            })
        };
        found.await?.iter().map(remains).collect()
    }

    async fn beat(&self) -> Result<()> {
        // While the database is unavailable, the program waits for it and counts as alive, because a restart would not
        // help.
        if self.outage().is_some() {
            return match self.group.is_running() {
                true => Ok(()),
                false => Err(sqlx::Error::WorkerCrashed.into()),
            };
        }
        let beat = self.lasting(|pools| async move { Ok(sqlx::query("SELECT 1").execute(&pools.readers).await?) });
        tokio::select! {
            beat = async {
                beat.await?;
                // No delivery has the number 0, so this update changes nothing, but it takes the same path as all
                // updates of deliveries.
                self.make(Entry::Swept, 0).await.map(drop)
            } => beat,
            () = self.connections.went_away() => Ok(()),
        }
    }

    async fn swept(&self, delivery: DeliveryId) -> Result<()> {
        self.make(Entry::Swept, delivery.0).await.map(drop)
    }

    async fn is_open(&self, delivery: DeliveryId) -> Result<bool> {
        let open = self.lasting(|pools| async move {
            let statement = sqlx::query_scalar(
                "SELECT EXISTS (SELECT 1 FROM delivery WHERE id = $1 AND state NOT IN ('acknowledged', 'superseded'))",
            );
            Ok(statement.bind(delivery.0).fetch_one(&pools.readers).await?)
        });
        open.await
    }

    async fn backlog(&self) -> Result<Vec<Backlog>> {
        let found = self.lasting(|pools| async move {
            let statement = sqlx::query(
                "SELECT vessel, sum(waiting)::bigint AS waiting, sum(waiting_bytes)::bigint AS waiting_bytes,
                     sum(parked)::bigint AS parked, sum(acknowledged)::bigint AS acknowledged
                 FROM tally GROUP BY vessel ORDER BY vessel",
            );
            Ok(statement.fetch_all(&pools.readers).await?)
        });
        let backlog = |row: &PgRow| -> Result<Backlog> {
            Ok(Backlog {
                vessel: rows::vessel(row, "vessel")?,
                waiting: rows::number(row, "waiting")?,
                waiting_bytes: rows::number(row, "waiting_bytes")?,
                parked: rows::number(row, "parked")?,
                acknowledged: rows::number(row, "acknowledged")?,
            })
        };
        found.await?.iter().map(backlog).collect()
    }

    async fn parked(&self, limit: u32) -> Result<Vec<Parked>> {
        let found = self.lasting(|pools| async move {
            let statement = sqlx::query(
                "SELECT d.vessel, v.directory, v.path, coalesce(d.reason, '') AS reason
                 FROM delivery d JOIN version v ON v.id = d.version WHERE d.parked ORDER BY d.id LIMIT $1",
            );
            Ok(statement.bind(i64::from(limit)).fetch_all(&pools.readers).await?)
        });
        let parked = |row: &PgRow| -> Result<Parked> {
            Ok(Parked {
                vessel: rows::vessel(row, "vessel")?,
                directory: rows::directory(row)?,
                path: rows::rel_path(row)?,
                reason: row.try_get("reason")?,
            })
        };
        found.await?.iter().map(parked).collect()
    }
}
