//! Implements [`Moves`] in SQLite's SQL.

use async_trait::async_trait;
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use super::rows::version_columns;
use super::transitions::settle;
use super::{Result, Sqlite, json, rows, signatures};
use crate::ledger::{MovedEntry, Moves, OriginThere, SameStamp, SimilarFile};
use crate::names::{DirectoryName, RelPath, VesselName};
use crate::records::{Delivery, DeliveryId, HeldVersion, NewVersion, Verified, Version, VersionId};

/// Number of acknowledgements per transaction.
const STEP: usize = 2048;

/// The query for files with the same content. `$indexed` is the condition for which an index is used, `$other` a
/// further condition.
macro_rules! copies {
    ($indexed:literal, $other:literal) => {
        concat!(
            "SELECT ",
            version_columns!(),
            ", d.seen_size, d.seen_mtime
              FROM version v CROSS JOIN delivery d ON d.version = v.id AND d.vessel = ?1
              WHERE v.kind = 'file' AND v.size >= 1048576 AND ",
            $indexed,
            " AND +",
            $other,
            " AND v.id <> ?3 AND d.state = 'acknowledged'
                AND d.place = coalesce(
                    (SELECT number FROM place p WHERE p.vessel = d.vessel AND p.directory = v.directory), 0)
                AND NOT EXISTS (
                    SELECT 1 FROM version later CROSS JOIN delivery ld ON ld.version = later.id AND ld.vessel = d.vessel
                    WHERE later.replaces = v.id AND ld.state = 'acknowledged')
              ORDER BY v.id DESC LIMIT 4"
        )
    };
}

#[async_trait]
impl Moves for Sqlite {
    async fn same_stamp(&self, directory: &DirectoryName, versions: &[NewVersion]) -> Result<Vec<SameStamp>> {
        let found = sqlx::query(
            "SELECT i.key AS at, v.id, v.path, v.ended_at IS NULL AS current FROM json_each(?1) i CROSS JOIN version v
             WHERE v.kind <> 'gone' AND v.inode = i.value ->> 4 AND v.mtime = i.value ->> 2 AND v.size = i.value ->> 1
               AND v.mtime_nanos = i.value ->> 3 AND v.kind = i.value ->> 8 AND v.directory = ?2
               AND v.path <> unhex(i.value ->> 0)
             ORDER BY i.key, current DESC, v.id DESC",
        )
        .bind(json::versions(versions.iter().map(|new| (new, None))))
        .bind(directory.as_str())
        .fetch_all(&self.readers)
        .await?;
        let origin = |row: &SqliteRow| -> Result<SameStamp> {
            Ok(SameStamp {
                at: usize::try_from(row.try_get::<i64, _>("at")?).unwrap_or(usize::MAX),
                version: VersionId(row.try_get("id")?),
                path: rows::rel_path(row)?,
                is_current: row.try_get("current")?,
            })
        };
        found.iter().map(origin).collect()
    }

    async fn same_inode(&self, directory: &DirectoryName, versions: &[NewVersion]) -> Result<Vec<(usize, Version)>> {
        let found = sqlx::query(concat!(
            "SELECT i.key AS at, ",
            version_columns!(),
            " FROM json_each(?1) i CROSS JOIN version v ON v.id = (
                  SELECT max(s.id) FROM version s WHERE s.kind <> 'gone' AND s.inode = i.value ->> 4
                    AND s.kind = 'file' AND s.size >= 1048576 AND s.directory = ?2)
              WHERE v.path <> unhex(i.value ->> 0) ORDER BY i.key"
        ))
        .bind(json::versions(versions.iter().map(|new| (new, None))))
        .bind(directory.as_str())
        .fetch_all(&self.readers)
        .await?;
        let one = |row: &SqliteRow| {
            Ok((usize::try_from(row.try_get::<i64, _>("at")?).unwrap_or(usize::MAX), rows::version(row)?))
        };
        found.iter().map(one).collect()
    }

    async fn versions_in(&self, directory: &DirectoryName, path: &RelPath, limit: u32) -> Result<Vec<Version>> {
        let (below, end) = range_below(path);
        sqlx::query(concat!(
            "SELECT ",
            version_columns!(),
            " FROM version v
              WHERE v.directory = ?1 AND v.path >= ?2 AND v.path < ?4 AND (v.path = ?2 OR v.path > ?3)
                AND v.ended_at IS NULL AND v.kind <> 'gone'
              ORDER BY v.path LIMIT ?5"
        ))
        .bind(directory.as_str())
        .bind(path.as_bytes())
        .bind(below)
        .bind(end)
        .bind(limit)
        .fetch_all(&self.readers)
        .await?
        .iter()
        .map(rows::version)
        .collect()
    }

    async fn origin_there(&self, vessel: &VesselName, delivery: &Delivery) -> Result<Option<OriginThere>> {
        let row = sqlx::query(concat!(
            "SELECT ",
            version_columns!(),
            ", d.seen_size, d.seen_mtime, EXISTS (
                 SELECT 1 FROM version g CROSS JOIN delivery gd ON gd.version = g.id AND gd.vessel = d.vessel
                 WHERE g.replaces = v.id AND g.kind = 'gone' AND gd.state <> 'acknowledged') AS free
              FROM version m CROSS JOIN version v ON v.id = m.moved_from
              CROSS JOIN delivery d ON d.version = v.id AND d.vessel = ?2
              WHERE m.id = ?1 AND d.state = 'acknowledged' AND d.place = ?3"
        ))
        .bind(delivery.version.id.0)
        .bind(vessel.as_str())
        .bind(delivery.place.0)
        .fetch_optional(&self.readers)
        .await?;
        let there = |row: &SqliteRow| Ok(OriginThere { held: held(row)?, is_free: row.try_get("free")? });
        row.as_ref().map(there).transpose()
    }

    async fn wanting(&self, vessel: &VesselName, version: VersionId) -> Result<Vec<DeliveryId>> {
        let found: Vec<i64> = sqlx::query_scalar(
            "SELECT d.id FROM version v LEFT JOIN version g ON g.id = v.replaces AND g.kind = 'gone'
             CROSS JOIN version m ON m.moved_from IN (v.replaces, g.replaces) AND m.id <> v.id
             CROSS JOIN delivery d ON d.version = m.id AND d.vessel = ?2
             WHERE v.id = ?1 AND m.kind = 'file' AND m.size >= 1048576 AND d.failures = 0
               AND d.state NOT IN ('acknowledged', 'superseded')",
        )
        .bind(version.0)
        .bind(vessel.as_str())
        .fetch_all(&self.readers)
        .await?;
        Ok(found.into_iter().map(DeliveryId).collect())
    }

    async fn moved_tree(&self, vessel: &VesselName, delivery: &Delivery) -> Result<Vec<MovedEntry>> {
        let path = &delivery.version.path;
        let (below, end) = range_below(path);
        let found = sqlx::query(concat!(
            "SELECT ",
            version_columns!(),
            ", d.seen_size, d.seen_mtime, m.path AS moved_path, md.id AS moved, gd.id AS gone
              FROM version m CROSS JOIN delivery md ON md.version = m.id AND md.vessel = ?5
              CROSS JOIN version v ON v.id = m.moved_from
              CROSS JOIN delivery d ON d.version = v.id AND d.vessel = ?5
              LEFT JOIN version g ON g.replaces = v.id AND g.kind = 'gone' AND g.ended_at IS NULL
              LEFT JOIN delivery gd ON gd.version = g.id AND gd.vessel = ?5
                  AND gd.state NOT IN ('acknowledged', 'superseded')
              WHERE m.directory = ?1 AND m.path >= ?2 AND m.path < ?4 AND (m.path = ?2 OR m.path > ?3)
                AND m.ended_at IS NULL AND md.state NOT IN ('acknowledged', 'superseded')
                AND d.state = 'acknowledged' AND d.place = md.place
              ORDER BY m.path"
        ))
        .bind(delivery.version.directory.as_str())
        .bind(path.as_bytes())
        .bind(below)
        .bind(end)
        .bind(vessel.as_str())
        .fetch_all(&self.readers)
        .await?;
        let entry = |row: &SqliteRow| -> Result<MovedEntry> {
            let path = rows::optional_path(row, "moved_path")?;
            Ok(MovedEntry {
                delivery: DeliveryId(row.try_get("moved")?),
                gone: row.try_get::<Option<i64>, _>("gone")?.map(DeliveryId),
                held: held(row)?,
                path: match path {
                    Some(path) => path,
                    None => rows::rel_path(row)?,
                },
            })
        };
        found.iter().map(entry).collect()
    }

    async fn acknowledge_moved(&self, deliveries: &[DeliveryId]) -> Result<()> {
        for some in deliveries.chunks(STEP) {
            let (now, ids) = (self.now(), json::numbers(some.iter().map(|delivery| delivery.0)));
            let mut transaction = self.writer.begin().await?;
            let noted = self.listeners.note_delivered(&mut transaction, (&ids, None), now).await?;
            sqlx::query(
                "UPDATE delivery AS d SET state = 'acknowledged', parked = 0, reason = NULL, failures = 0,
                     acknowledged_at = ?2, verified = iif(f.kind = 'gone', ?3, ?4), made_from = f.made_from,
                     seen_size = f.seen_size, seen_mtime = f.seen_mtime,
                     saved_bytes = iif(f.kind = 'file', f.size, NULL)
                 FROM (
                     SELECT md.id, m.kind, m.size, CAST(o.directory || '/' || CAST(o.path AS TEXT) AS BLOB) AS made_from, od.seen_size, od.seen_mtime
                     FROM json_each(?1) i CROSS JOIN delivery md ON md.id = i.value
                     CROSS JOIN version m ON m.id = md.version
                     LEFT JOIN version o ON o.id = m.moved_from
                     LEFT JOIN delivery od ON od.version = o.id AND od.vessel = md.vessel) f
                 WHERE d.id = f.id AND d.state NOT IN ('acknowledged', 'superseded')",
            )
            .bind(&ids)
            .bind(now)
            .bind(Verified::ByLook.as_str())
            .bind(Verified::Moved.as_str())
            .execute(&mut *transaction)
            .await?;
            settle(&mut transaction, &ids, now).await?;
            // Copies the signature and its samples to the moved version, so that a later change of the file is sent as
            // a delta.
            for copied in [
                "INSERT OR IGNORE INTO outline (directory, path, version, outline)
                 SELECT m.directory, m.path, m.id, o.outline
                 FROM json_each(?1) i CROSS JOIN delivery d ON d.id = i.value CROSS JOIN version m ON m.id = d.version
                 CROSS JOIN outline o ON o.version = m.moved_from WHERE m.kind = 'file' AND m.size >= 1048576",
                "INSERT OR IGNORE INTO outline_sample (block, version) SELECT s.block, m.id
                 FROM json_each(?1) i CROSS JOIN delivery d ON d.id = i.value CROSS JOIN version m ON m.id = d.version
                 CROSS JOIN outline_sample s ON s.version = m.moved_from WHERE m.kind = 'file' AND m.size >= 1048576",
            ] {
                sqlx::query(copied).bind(&ids).execute(&mut *transaction).await?;
            }
            transaction.commit().await?;
            self.listeners.ring_if(noted);
        }
        Ok(())
    }

    async fn copies_of(&self, vessel: &VesselName, version: &Version) -> Result<Vec<HeldVersion>> {
        let found = match &version.digest {
            Some(digest) => sqlx::query(copies!("v.digest = ?4", "v.size = ?2"))
                .bind(vessel.as_str())
                .bind(rows::signed(version.stamp.size))
                .bind(version.id.0)
                .bind(&digest.as_bytes()[..]),
            None => sqlx::query(copies!("v.size = ?2", "v.digest <> x''"))
                .bind(vessel.as_str())
                .bind(rows::signed(version.stamp.size))
                .bind(version.id.0),
        };
        found.fetch_all(&self.readers).await?.iter().map(held).collect()
    }

    async fn averages_beside(&self, version: &Version) -> Result<Vec<u32>> {
        signatures::averages_beside(&self.readers, version).await
    }

    async fn similar(&self, vessel: &VesselName, version: &Version, blocks: &[i64]) -> Result<Vec<SimilarFile>> {
        signatures::similar(&self.readers, vessel, version, blocks).await
    }

    async fn made_from(&self, delivery: DeliveryId, file: &[u8], bytes: u64) -> Result<()> {
        sqlx::query("UPDATE delivery SET made_from = ?, saved_bytes = ? WHERE id = ?")
            .bind(file)
            .bind(rows::signed(bytes))
            .bind(delivery.0)
            .execute(&self.writer)
            .await?;
        Ok(())
    }
}

fn held(row: &SqliteRow) -> Result<HeldVersion> {
    Ok(HeldVersion { version: rows::version(row)?, seen: rows::seen(row)? })
}

/// Returns the bounds of the paths below a path: `path/` and `path0`. The byte `0` follows the byte `/`.
fn range_below(path: &RelPath) -> (Vec<u8>, Vec<u8>) {
    ([path.as_bytes(), b"/"].concat(), [path.as_bytes(), b"0"].concat())
}
