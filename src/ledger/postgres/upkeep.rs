//! Implements [`Upkeep`] in PostgreSQL's SQL, in short steps.

use std::time::Duration;

use async_trait::async_trait;
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};

use super::doubt::Doubt;
use super::write::Pools;
use super::{Postgres, Result, rows};
use crate::ledger::{Retiree, Step, Upkeep};
use crate::names::{DirectoryName, RelPath, VesselName};
use crate::records::{PathRate, VersionId};

/// Number of consecutive version numbers that one step covers.
const STEP: i64 = 2000;

#[async_trait]
impl Upkeep for Postgres {
    async fn shell_refused(&self, vessel: &VesselName, why: Option<&str>) -> Result<()> {
        let now = self.now();
        let refused = self.lasting(|pools| {
            let statement = sqlx::query(
                "INSERT INTO vessel (name, shell_refused_at, shell_refusal)
                 VALUES ($1, CASE WHEN $2::text IS NOT NULL THEN $3::bigint END, $2)
                 ON CONFLICT (name) DO UPDATE
                     SET shell_refused_at = excluded.shell_refused_at, shell_refusal = excluded.shell_refusal",
            )
            .bind(vessel.as_str())
            .bind(why.map(rows::text))
            .bind(now);
            async move { pools.write_one(statement).await.map(drop) }
        });
        refused.await
    }

    async fn shell_refusal(&self, vessel: &VesselName) -> Result<Option<(i64, String)>> {
        let refusal = self.lasting(|pools| async move {
            let statement = sqlx::query_as(
                "SELECT shell_refused_at, coalesce(shell_refusal, '') FROM vessel
                 WHERE name = $1 AND shell_refused_at IS NOT NULL",
            );
            Ok(statement.bind(vessel.as_str()).fetch_optional(&pools.readers).await?)
        });
        refusal.await
    }

    async fn path_carried(&self, vessel: &VesselName, path: PathRate) -> Result<()> {
        let now = self.now();
        let carried = self.lasting(|pools| {
            let statement = sqlx::query(
                "INSERT INTO vessel (name, path_at, path_rate, path_round_trip) VALUES ($1, $2, $3, $4)
                 ON CONFLICT (name) DO UPDATE SET path_at = $2, path_rate = $3, path_round_trip = $4",
            )
            .bind(vessel.as_str())
            .bind(now)
            .bind(i64::try_from(path.rate).unwrap_or(i64::MAX))
            .bind(i64::try_from(path.round_trip.as_micros()).unwrap_or(i64::MAX));
            async move { pools.write_one(statement).await.map(drop) }
        });
        carried.await
    }

    async fn path(&self, vessel: &VesselName) -> Result<Option<(i64, PathRate)>> {
        let path = self.lasting(|pools| async move {
            let statement = sqlx::query_as(
                "SELECT path_at, path_rate, path_round_trip FROM vessel WHERE name = $1 AND path_at IS NOT NULL",
            );
            Ok(statement.bind(vessel.as_str()).fetch_optional(&pools.readers).await?)
        });
        let path: Option<(i64, i64, i64)> = path.await?;
        Ok(path.map(|(at, rate, round_trip)| {
            let round_trip = Duration::from_micros(u64::try_from(round_trip).unwrap_or_default());
            (at, PathRate { rate: u64::try_from(rate).unwrap_or_default(), round_trip })
        }))
    }

    async fn moved_to(&self, names: &[(VersionId, RelPath)]) -> Result<()> {
        let ids: Vec<i64> = names.iter().map(|(version, _)| version.0).collect();
        let paths: Vec<&[u8]> = names.iter().map(|(_, path)| path.as_bytes()).collect();
        let moved = self.lasting(|pools| {
            let statement = sqlx::query(
                "UPDATE version v SET processed = i.path FROM unnest($1::bigint[], $2::bytea[]) i (id, path)
                 WHERE v.id = i.id",
            )
            .bind(&ids)
            .bind(&paths);
            async move { pools.write_one(statement).await.map(drop) }
        });
        moved.await
    }

    async fn retirees(&self, directory: &DirectoryName, after: VersionId) -> Result<Step<Vec<Retiree>>> {
        let found = self.lasting(|pools| async move {
            let statement = sqlx::query(
                "SELECT id, coalesce(processed, path) AS path, size, mtime, mtime_nanos, inode, ended_at FROM version
                 WHERE id > $1 AND id <= $2 AND directory = $3 AND kind = 'file' AND (ended_at IS NULL OR ending = 'retired')
                 ORDER BY id",
            )
            .bind(after.0)
            .bind(after.0.saturating_add(STEP))
            .bind(directory.as_str());
            Ok((statement.fetch_all(&pools.readers).await?, next_step(&pools, after).await?))
        });
        let retiree = |row: &PgRow| -> Result<Retiree> {
            Ok(Retiree {
                version: VersionId(row.try_get("id")?),
                processed: rows::rel_path(row)?,
                stamp: rows::stamp(row)?,
                retired_at: row.try_get("ended_at")?,
            })
        };
        let (found, next) = found.await?;
        Ok(Step { found: found.iter().map(retiree).collect::<Result<_>>()?, next })
    }

    async fn prune(&self, ended_before: i64, after: VersionId) -> Result<Step<u64>> {
        let doubt = &Doubt::new();
        let pruned = self.lasting(|pools| async move {
            let found = match doubt.resolved(&pools).await? {
                Some(found) => found,
                None => {
                    let mut write = pools.begin().await?;
                    let found = prune(&mut write, ended_before, after).await?;
                    doubt.commit(write, found).await?
                }
            };
            Ok(Step { found, next: next_step(&pools, after).await? })
        });
        pruned.await
    }

    async fn compact(&self) -> Result<bool> {
        // Nothing to do: the server's autovacuum makes the space of removed rows usable again.
        Ok(false)
    }

    async fn close(&self) -> Result<()> {
        self.shut().await
    }

    async fn probe(&self) -> Result<()> {
        let probed =
            self.lasting(
                |pools| async move { pools.write_one(sqlx::query("UPDATE instance SET id = id")).await.map(drop) },
            );
        tokio::select! {
            probed = probed => probed,
            () = self.connections.went_away() => self.connections.readers_now().map(drop),
        }
    }
}

/// The versions with numbers above `$1` and up to `$2` that ended before the time `$3` and may be removed.
///
/// Keeps an ended version that a vessel still holds: the vessel acknowledged this version, but not yet the current
/// version of the path. This version must stay reachable from the current version through the chain of `replaces`.
/// Without `OFFSET 0`, the planner may use an index of all acknowledged or superseded deliveries.
pub(super) const PRUNABLE: &str = "SELECT v.id FROM version v
     WHERE v.id > $1 AND v.id <= $2 AND v.ended_at < $3
       AND NOT EXISTS (SELECT 1 FROM notice n WHERE n.version = v.id)
       AND NOT EXISTS (
           SELECT 1 FROM (SELECT state, touched FROM delivery WHERE version = v.id OFFSET 0) d
           WHERE d.state = 'superseded' AND d.touched)
       AND NOT EXISTS (
           SELECT 1 FROM (
               SELECT id FROM version WHERE directory = v.directory AND path_key(path) = path_key(v.path) AND ended_at IS NULL
               OFFSET 0) held, LATERAL (
               SELECT vessel, state FROM delivery WHERE version = v.id OFFSET 0) d
           WHERE d.state = 'acknowledged' AND NOT EXISTS (
               SELECT 1 FROM (SELECT state FROM delivery WHERE version = held.id AND vessel = d.vessel OFFSET 0) later
               WHERE later.state = 'acknowledged'))";

/// Removes the ended versions of one step. Returns their number.
async fn prune(transaction: &mut PgConnection, ended_before: i64, after: VersionId) -> Result<u64> {
    let ids: Vec<i64> = sqlx::query_scalar(PRUNABLE)
        .bind(after.0)
        .bind(after.0.saturating_add(STEP))
        .bind(ended_before)
        .fetch_all(&mut *transaction)
        .await?;
    if ids.is_empty() {
        return Ok(0);
    }
    take_out_of_chains(transaction, &ids).await?;
    for statement in ["DELETE FROM delivery WHERE version = ANY ($1)", "DELETE FROM version WHERE id = ANY ($1)"] {
        sqlx::query(statement).bind(&ids).execute(&mut *transaction).await?;
    }
    Ok(ids.len() as u64)
}

/// For each of `versions`, links its successor to its predecessor, so that a path's chain of `replaces` stays
/// connected.
async fn take_out_of_chains(transaction: &mut PgConnection, versions: &[i64]) -> Result<()> {
    let replaced: Vec<i64> = sqlx::query_scalar(
        "SELECT i.id FROM unnest($1::bigint[]) i (id) WHERE EXISTS (SELECT 1 FROM version v WHERE v.replaces = i.id)
         ORDER BY i.id DESC",
    )
    .bind(versions)
    .fetch_all(&mut *transaction)
    .await?;
    // The newest version comes first, because several versions of one chain may be removed together.
    for version in replaced {
        sqlx::query("UPDATE version SET replaces = (SELECT replaces FROM version WHERE id = $1) WHERE replaces = $1")
            .bind(version)
            .execute(&mut *transaction)
            .await?;
    }
    Ok(())
}

/// Returns the version after which the next step begins; `None` if the step that began after `after` was the last one.
async fn next_step(pools: &Pools, after: VersionId) -> Result<Option<VersionId>> {
    let next = after.0.saturating_add(STEP);
    let last: Option<i64> = sqlx::query_scalar("SELECT max(id) FROM version").fetch_one(&pools.readers).await?;
    Ok(last.filter(|last| *last > next).map(|_| VersionId(next)))
}
