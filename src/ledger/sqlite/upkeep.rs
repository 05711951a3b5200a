//! Implements [`Upkeep`] in SQLite's SQL, in short steps.

use std::time::Duration;

use async_trait::async_trait;
use sqlx::sqlite::SqliteRow;
use sqlx::{Row, Sqlite as Db, SqlitePool, Transaction};

use super::{Result, Sqlite, json, rows};
use crate::ledger::{Retiree, Step, Upkeep};
use crate::names::{DirectoryName, RelPath, VesselName};
use crate::records::{PathRate, VersionId};

/// Number of consecutive version numbers that one step covers.
const STEP: i64 = 2000;
/// Number of free pages that the file may keep: they are not released, because SQLite reuses free pages before the file
/// grows.
const MAY_STAY_FREE: i64 = 1024;
/// A file without incremental vacuum is rewritten only if it has at least this number of free pages, and if at least a
/// quarter of all pages are free.
const WORTH_A_VACUUM: i64 = 4096;

#[async_trait]
impl Upkeep for Sqlite {
    async fn shell_refused(&self, vessel: &VesselName, why: Option<&str>) -> Result<()> {
        sqlx::query(
            "INSERT INTO vessel (name, shell_refused_at, shell_refusal) VALUES (?1, iif(?2 IS NULL, NULL, ?3), ?2)
             ON CONFLICT (name) DO UPDATE SET shell_refused_at = iif(?2 IS NULL, NULL, ?3), shell_refusal = ?2",
        )
        .bind(vessel.as_str())
        .bind(why)
        .bind(self.now())
        .execute(&self.writer)
        .await?;
        Ok(())
    }

    async fn shell_refusal(&self, vessel: &VesselName) -> Result<Option<(i64, String)>> {
        let select =
            "SELECT shell_refused_at, shell_refusal FROM vessel WHERE name = ? AND shell_refused_at IS NOT NULL";
        let row = sqlx::query(select).bind(vessel.as_str()).fetch_optional(&self.readers).await?;
        row.map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).transpose()
    }

    async fn path_carried(&self, vessel: &VesselName, path: PathRate) -> Result<()> {
        sqlx::query(
            "INSERT INTO vessel (name, path_at, path_rate, path_round_trip) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT (name) DO UPDATE SET path_at = ?2, path_rate = ?3, path_round_trip = ?4",
        )
        .bind(vessel.as_str())
        .bind(self.now())
        .bind(i64::try_from(path.rate).unwrap_or(i64::MAX))
        .bind(i64::try_from(path.round_trip.as_micros()).unwrap_or(i64::MAX))
        .execute(&self.writer)
        .await?;
        Ok(())
    }

    async fn path(&self, vessel: &VesselName) -> Result<Option<(i64, PathRate)>> {
        let select = "SELECT path_at, path_rate, path_round_trip FROM vessel WHERE name = ? AND path_at IS NOT NULL";
        let row = sqlx::query(select).bind(vessel.as_str()).fetch_optional(&self.readers).await?;
        let path = |row: SqliteRow| -> Result<(i64, PathRate)> {
            let (rate, round_trip): (i64, i64) = (row.try_get(1)?, row.try_get(2)?);
            let round_trip = Duration::from_micros(u64::try_from(round_trip).unwrap_or_default());
            Ok((row.try_get(0)?, PathRate { rate: u64::try_from(rate).unwrap_or_default(), round_trip }))
        };
        row.map(path).transpose()
    }

    async fn moved_to(&self, names: &[(VersionId, RelPath)]) -> Result<()> {
        let mut transaction = self.writer.begin().await?;
        for (version, path) in names {
            sqlx::query("UPDATE version SET processed = ? WHERE id = ?")
                .bind(path.as_bytes())
                .bind(version.0)
                .execute(&mut *transaction)
                .await?;
        }
        Ok(transaction.commit().await?)
    }

    async fn retirees(&self, directory: &DirectoryName, after: VersionId) -> Result<Step<Vec<Retiree>>> {
        let found = sqlx::query(
            "SELECT id, coalesce(processed, path) AS path, size, mtime, mtime_nanos, inode, ended_at FROM version
             WHERE id > ?1 AND id <= ?2 AND directory = ?3 AND kind = 'file' AND (ended_at IS NULL OR ending = 'retired')
             ORDER BY id",
        )
        .bind(after.0)
        .bind(after.0.saturating_add(STEP))
        .bind(directory.as_str())
        .fetch_all(&self.readers)
        .await?;
        let retiree = |row: &SqliteRow| -> Result<Retiree> {
            Ok(Retiree {
                version: VersionId(row.try_get("id")?),
                processed: rows::rel_path(row)?,
                stamp: rows::stamp(row)?,
                retired_at: row.try_get("ended_at")?,
            })
        };
        let found = found.iter().map(retiree).collect::<Result<_>>()?;
        Ok(Step { found, next: next_step(&self.readers, after).await? })
    }

    async fn prune(&self, ended_before: i64, after: VersionId) -> Result<Step<u64>> {
        let mut transaction = self.writer.begin().await?;
        // Keeps an ended version that a vessel still holds: the vessel acknowledged this version, but not yet the
        // current version of the path. This version must stay reachable from the current version through the chain of
        // `replaces`.
        let ids: Vec<i64> = sqlx::query_scalar(
            "SELECT v.id FROM version v
             WHERE v.id > ?1 AND v.id <= ?2 AND v.ended_at < ?3
               AND NOT EXISTS (SELECT 1 FROM notice n WHERE n.version = v.id)
               AND NOT EXISTS (SELECT 1 FROM delivery d WHERE d.version = v.id AND d.state = 'superseded' AND d.touched = 1)
               AND NOT EXISTS (
                   SELECT 1 FROM version now JOIN delivery d ON d.version = v.id
                   WHERE now.directory = v.directory AND now.path = v.path AND now.ended_at IS NULL AND d.state = 'acknowledged'
                     AND NOT EXISTS (SELECT 1 FROM delivery later WHERE later.version = now.id AND later.vessel = d.vessel
                         AND later.state = 'acknowledged'))",
        )
        .bind(after.0)
        .bind(after.0.saturating_add(STEP))
        .bind(ended_before)
        .fetch_all(&mut *transaction)
        .await?;
        let numbers = json::numbers(ids.iter().copied());
        if !ids.is_empty() {
            take_out_of_chains(&mut transaction, &numbers).await?;
            sqlx::query("DELETE FROM delivery WHERE version IN (SELECT value FROM json_each(?))")
                .bind(&numbers)
                .execute(&mut *transaction)
                .await?;
            sqlx::query("DELETE FROM version WHERE id IN (SELECT value FROM json_each(?))")
                .bind(&numbers)
                .execute(&mut *transaction)
                .await?;
        }
        transaction.commit().await?;
        Ok(Step { found: ids.len() as u64, next: next_step(&self.readers, after).await? })
    }

    async fn compact(&self) -> Result<bool> {
        let row = sqlx::query(
            "SELECT auto_vacuum, freelist_count AS free, page_count AS pages
             FROM pragma_auto_vacuum, pragma_freelist_count, pragma_page_count",
        )
        .fetch_one(&self.writer)
        .await?;
        let (mode, free, pages): (i64, i64, i64) =
            (row.try_get("auto_vacuum")?, row.try_get("free")?, row.try_get("pages")?);
        if mode != 0 {
            if free > MAY_STAY_FREE {
                sqlx::query("PRAGMA incremental_vacuum(256)").fetch_all(&self.writer).await?;
            }
            return Ok(free > MAY_STAY_FREE);
        }
        let waiting: i64 =
            sqlx::query_scalar("SELECT coalesce(sum(waiting), 0) FROM tally").fetch_one(&self.readers).await?;
        if waiting == 0 && free >= WORTH_A_VACUUM && free * 4 >= pages {
            sqlx::query("PRAGMA auto_vacuum = INCREMENTAL").execute(&self.writer).await?;
            sqlx::query("VACUUM").execute(&self.writer).await?;
        }
        Ok(false)
    }

    async fn close(&self) -> Result<()> {
        self.shut().await
    }

    async fn probe(&self) -> Result<()> {
        sqlx::query("UPDATE instance SET id = id").execute(&self.writer).await?;
        Ok(())
    }
}

/// For each of `versions`, links its successor to its predecessor, so that a path's chain of `replaces` stays
/// connected.
async fn take_out_of_chains(transaction: &mut Transaction<'_, Db>, versions: &str) -> Result<()> {
    let replaced: Vec<i64> = sqlx::query_scalar(
        "SELECT i.value FROM json_each(?) i WHERE EXISTS (SELECT 1 FROM version v WHERE v.replaces = i.value)
         ORDER BY i.value DESC",
    )
    .bind(versions)
    .fetch_all(&mut **transaction)
    .await?;
    // The newest version comes first, because several versions of one chain may be removed together.
    for version in replaced {
        sqlx::query("UPDATE version SET replaces = (SELECT replaces FROM version WHERE id = ?1) WHERE replaces = ?1")
            .bind(version)
            .execute(&mut **transaction)
            .await?;
    }
    Ok(())
}

/// Returns the version after which the next step begins; `None` if the step that began after `after` was the last one.
async fn next_step(readers: &SqlitePool, after: VersionId) -> Result<Option<VersionId>> {
    let next = after.0.saturating_add(STEP);
    let last: Option<i64> = sqlx::query_scalar("SELECT max(id) FROM version").fetch_one(readers).await?;
    Ok(last.filter(|last| *last > next).map(|_| VersionId(next)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use sqlx::ConnectOptions;
    use sqlx::sqlite::SqliteConnectOptions;

    /// Records 6000 ended versions, each about the size of a page.
    async fn fill(store: &Sqlite) {
        sqlx::query(
            "WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 6000)
             INSERT INTO version (directory, path, size, mtime, mtime_nanos, inode, mode, digest, chunk_size, admitted_at,
                 ended_at, ending)
             SELECT 'docs', randomblob(3000), 1, 0, 0, n, 420, x'', 1, 0, 5, 'retired' FROM n",
        )
        .execute(&store.writer)
        .await
        .unwrap();
    }

    async fn pages(store: &Sqlite) -> i64 {
        sqlx::query_scalar("SELECT page_count FROM pragma_page_count").fetch_one(&store.writer).await.unwrap()
    }

    /// Prunes all ended versions and compacts; returns the number of pages before and after.
    async fn forget(store: &Sqlite) -> (i64, i64) {
        let (before, mut at, mut forgotten) = (pages(store).await, Some(VersionId(0)), 0);
        while let Some(after) = at {
            let step = store.prune(6, after).await.unwrap();
            forgotten += step.found;
            at = step.next;
        }
        assert_eq!(forgotten, 6000);
        while store.compact().await.unwrap() {}
        (before, pages(store).await)
    }

    #[tokio::test]
    async fn a_file_gives_back_the_room_that_it_does_not_need_step_by_step() {
        let dir = tempfile::tempdir().unwrap();
        let store = Sqlite::open(&dir.path().join("ledger"), Clock::system()).await.unwrap();
        fill(&store).await;
        let (before, after) = forget(&store).await;
        assert!(before > 6000 && after < before - 3000, "{before} pages became {after}");
    }

    #[tokio::test]
    async fn a_file_of_an_older_program_is_written_anew_once_nothing_waits() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("ledger");
        let mut bare = SqliteConnectOptions::new().filename(&file).create_if_missing(true).connect().await.unwrap();
        sqlx::query("CREATE TABLE other (x)").execute(&mut bare).await.unwrap();
        let store = Sqlite::open(&file, Clock::system()).await.unwrap();
        fill(&store).await;
        sqlx::query("INSERT INTO tally (vessel, directory, waiting) VALUES ('tern', 'docs', 1)")
            .execute(&store.writer)
            .await
            .unwrap();
        let (before, after) = forget(&store).await;
        assert_eq!(before, after, "something waits");
        sqlx::query("UPDATE tally SET waiting = 0").execute(&store.writer).await.unwrap();
        assert!(!store.compact().await.unwrap());
        assert!(pages(&store).await < 200);
    }
}
