//! Implements [`Moves`] in PostgreSQL's SQL.

use async_trait::async_trait;
use sqlx::Row;
use sqlx::postgres::PgRow;

use super::current_versions::versions_below;
use super::new_versions::{self, new_versions};
use super::rows::version_columns;
use super::transitions::settle;
use super::{Postgres, Result, rows, signatures};
use crate::ledger::{MovedEntry, Moves, OriginThere, SameStamp, SimilarFile};
use crate::names::{DirectoryName, RelPath, VesselName};
use crate::records::{Delivery, DeliveryId, HeldVersion, NewVersion, Verified, Version, VersionId};

/// Number of acknowledgements per transaction.
const STEP: usize = 2048;

/// The query for files with the same content. `$indexed` is a condition that has an index, `$other` another condition.
/// Without `OFFSET 0`, the planner may start with all acknowledged deliveries.
macro_rules! copies {
    ($indexed:literal, $other:literal) => {
        concat!(
            "SELECT ",
            version_columns!(),
            ", d.seen_size, d.seen_mtime
              FROM version v
              JOIN LATERAL (SELECT * FROM delivery WHERE version = v.id AND vessel = $1 OFFSET 0) d ON true
              WHERE v.kind = 'file' AND v.size >= 1048576 AND ",
            $indexed,
            " AND ",
            $other,
            " AND v.id <> $3 AND d.state = 'acknowledged'
                AND d.place = coalesce(
                    (SELECT number FROM place p WHERE p.vessel = d.vessel AND p.directory = v.directory), 0)
                AND NOT EXISTS (
                    SELECT 1 FROM version later,
                        LATERAL (SELECT state FROM delivery WHERE version = later.id AND vessel = $1 OFFSET 0) ld
                    WHERE later.replaces = v.id AND ld.state = 'acknowledged')
              ORDER BY v.id + 0 DESC LIMIT 4"
        )
    };
}

pub(super) const COPIES_BY_DIGEST: &str = copies!("v.digest = $4", "v.size = $2");
pub(super) const COPIES_BY_SIZE: &str = copies!("v.size = $2", "v.digest <> ''");

/// For each new version, the newest file of at least 1 MiB in the directory with the same inode, if it has another
/// path.
pub(super) const SAME_INODE: &str = concat!(
    "SELECT i.at - 1 AS at, ",
    version_columns!(),
    " FROM ",
    new_versions!(),
    ", LATERAL (
         SELECT * FROM (SELECT * FROM version WHERE kind <> 'gone' AND inode = i.inode OFFSET 0) same
         WHERE kind = 'file' AND size >= 1048576 AND directory = $16 ORDER BY id + 0 DESC LIMIT 1) v
     WHERE v.path <> i.path ORDER BY i.at"
);

#[async_trait]
impl Moves for Postgres {
    async fn same_stamp(&self, directory: &DirectoryName, versions: &[NewVersion]) -> Result<Vec<SameStamp>> {
        let new: &Vec<_> = &versions.iter().map(|new| (new, None)).collect();
        let found = self.lasting(|pools| async move {
            let statement = sqlx::query(concat!(
                "SELECT i.at - 1 AS at, v.id, v.path, v.ended_at IS NULL AS current FROM ",
                new_versions!(),
                ", LATERAL (
                     SELECT * FROM version WHERE kind <> 'gone' AND inode = i.inode AND mtime = i.mtime AND size = i.size
                       AND mtime_nanos = i.mtime_nanos AND kind = i.kind AND directory = $16 AND path <> i.path OFFSET 0) v
                 ORDER BY i.at, current DESC, v.id DESC"
            ));
            Ok(new_versions::bind(statement, new).bind(directory.as_str()).fetch_all(&pools.readers).await?)
        });
        let origin = |row: &PgRow| -> Result<SameStamp> {
            Ok(SameStamp {
                at: usize::try_from(row.try_get::<i64, _>("at")?).unwrap_or(usize::MAX),
                version: VersionId(row.try_get("id")?),
                path: rows::rel_path(row)?,
                is_current: row.try_get("current")?,
            })
        };
        found.await?.iter().map(origin).collect()
    }

    async fn same_inode(&self, directory: &DirectoryName, versions: &[NewVersion]) -> Result<Vec<(usize, Version)>> {
        let new: &Vec<_> = &versions.iter().map(|new| (new, None)).collect();
        let found = self.lasting(|pools| async move {
            let statement = sqlx::query(SAME_INODE);
            Ok(new_versions::bind(statement, new).bind(directory.as_str()).fetch_all(&pools.readers).await?)
        });
        let one = |row: &PgRow| {
            Ok((usize::try_from(row.try_get::<i64, _>("at")?).unwrap_or(usize::MAX), rows::version(row)?))
        };
        found.await?.iter().map(one).collect()
    }

    async fn versions_in(&self, directory: &DirectoryName, path: &RelPath, limit: u32) -> Result<Vec<Version>> {
        let found = self.lasting(|pools| async move {
            let statement = sqlx::query(concat!(
                "SELECT ",
                version_columns!(),
                " FROM version v WHERE v.directory = $1 AND path_key(v.path) = path_key($2::bytea)
                    AND v.ended_at IS NULL AND v.kind <> 'gone'
                  UNION ALL
                  (SELECT ",
                version_columns!(),
                " FROM unnest(ARRAY[$2::bytea]) i (path), ",
                versions_below!("$1"),
                " WHERE v.kind <> 'gone' ORDER BY path_key(v.path) LIMIT $3)"
            ))
            .bind(directory.as_str())
            .bind(path.as_bytes())
            .bind(i64::from(limit));
            Ok(statement.fetch_all(&pools.readers).await?)
        });
        let mut versions: Vec<Version> = found.await?.iter().map(rows::version).collect::<Result<_>>()?;
        versions.sort_by(|a, b| a.path.cmp(&b.path));
        versions.truncate(limit as usize);
        Ok(versions)
    }

    async fn origin_there(&self, vessel: &VesselName, delivery: &Delivery) -> Result<Option<OriginThere>> {
        let row = self.lasting(|pools| async move {
            let statement = sqlx::query(concat!(
                "SELECT ",
                version_columns!(),
                ", d.seen_size, d.seen_mtime, EXISTS (
                     SELECT 1 FROM version g JOIN delivery gd ON gd.version = g.id AND gd.vessel = d.vessel
                     WHERE g.replaces = v.id AND g.kind = 'gone' AND gd.state <> 'acknowledged') AS free
                  FROM version m JOIN version v ON v.id = m.moved_from
                  JOIN delivery d ON d.version = v.id AND d.vessel = $2
                  WHERE m.id = $1 AND d.state = 'acknowledged' AND d.place = $3"
            ))
            .bind(delivery.version.id.0)
            .bind(vessel.as_str())
            .bind(delivery.place.0);
            Ok(statement.fetch_optional(&pools.readers).await?)
        });
        let there = |row: &PgRow| Ok(OriginThere { held: held(row)?, is_free: row.try_get("free")? });
        row.await?.as_ref().map(there).transpose()
    }

    async fn wanting(&self, vessel: &VesselName, version: VersionId) -> Result<Vec<DeliveryId>> {
        let found = self.lasting(|pools| async move {
            let statement = sqlx::query_scalar(
                "SELECT d.id FROM version v LEFT JOIN version g ON g.id = v.replaces AND g.kind = 'gone'
                 JOIN version m ON m.moved_from = ANY (ARRAY[v.replaces, g.replaces]) AND m.id <> v.id
                 JOIN delivery d ON d.version = m.id AND d.vessel = $2
                 WHERE v.id = $1 AND m.kind = 'file' AND m.size >= 1048576 AND d.failures = 0
                   AND d.state NOT IN ('acknowledged', 'superseded')",
            )
            .bind(version.0)
            .bind(vessel.as_str());
            Ok(statement.fetch_all(&pools.readers).await?)
        });
        let found: Vec<i64> = found.await?;
        Ok(found.into_iter().map(DeliveryId).collect())
    }

    async fn moved_tree(&self, vessel: &VesselName, delivery: &Delivery) -> Result<Vec<MovedEntry>> {
        let found = self.lasting(|pools| async move {
            let statement = sqlx::query(concat!(
                "WITH there AS (
                     SELECT v.id FROM version v
                     WHERE v.directory = $1 AND path_key(v.path) = path_key($2::bytea) AND v.ended_at IS NULL
                     UNION ALL
                     SELECT v.id FROM unnest(ARRAY[$2::bytea]) i (path), ",
                versions_below!("$1"),
                ")
                 SELECT ",
                version_columns!(),
                ", d.seen_size, d.seen_mtime, m.path AS moved_path, md.id AS moved, gd.id AS gone
                  FROM there JOIN version m ON m.id = there.id
                  JOIN delivery md ON md.version = m.id AND md.vessel = $3
                  JOIN version v ON v.id = m.moved_from
                  JOIN delivery d ON d.version = v.id AND d.vessel = $3
                  LEFT JOIN version g ON g.replaces = v.id AND g.kind = 'gone' AND g.ended_at IS NULL
                  LEFT JOIN delivery gd ON gd.version = g.id AND gd.vessel = $3
                      AND gd.state NOT IN ('acknowledged', 'superseded')
                  WHERE md.state NOT IN ('acknowledged', 'superseded') AND d.state = 'acknowledged' AND d.place = md.place
                  ORDER BY m.path"
            ))
            .bind(delivery.version.directory.as_str())
            .bind(delivery.version.path.as_bytes())
            .bind(vessel.as_str());
            Ok(statement.fetch_all(&pools.readers).await?)
        });
        let entry = |row: &PgRow| -> Result<MovedEntry> {
            Ok(MovedEntry {
                delivery: DeliveryId(row.try_get("moved")?),
                gone: row.try_get::<Option<i64>, _>("gone")?.map(DeliveryId),
                held: held(row)?,
                path: match rows::optional_path(row, "moved_path")? {
                    Some(path) => path,
                    None => rows::rel_path(row)?,
                },
            })
        };
        found.await?.iter().map(entry).collect()
    }

    async fn acknowledge_moved(&self, deliveries: &[DeliveryId]) -> Result<()> {
        for some in deliveries.chunks(STEP) {
            let (now, ids) = (self.now(), some.iter().map(|delivery| delivery.0).collect::<Vec<_>>());
            let ids = &ids;
            let acknowledged = self.lasting(|pools| async move {
                let mut write = pools.begin().await?;
                let noted = self.listeners.note_delivered(&mut write, (ids, None), now).await?;
                sqlx::query(
                    "UPDATE delivery d SET state = 'acknowledged', parked = false, reason = NULL, failures = 0,
                         acknowledged_at = $2, verified = CASE WHEN f.kind = 'gone' THEN $3 ELSE $4 END,
                         made_from = f.made_from, seen_size = f.seen_size, seen_mtime = f.seen_mtime,
                         saved_bytes = CASE WHEN f.kind = 'file' THEN f.size END
                     FROM (
                         SELECT md.id, m.kind, m.size, convert_to(o.directory || '/', 'UTF8') || o.path AS made_from,
                             od.seen_size, od.seen_mtime
                         FROM unnest($1::bigint[]) i (id) JOIN delivery md ON md.id = i.id
                         JOIN version m ON m.id = md.version
                         LEFT JOIN version o ON o.id = m.moved_from
                         LEFT JOIN delivery od ON od.version = o.id AND od.vessel = md.vessel) f
                     WHERE d.id = f.id AND d.state NOT IN ('acknowledged', 'superseded')",
                )
                .bind(ids)
                .bind(now)
                .bind(Verified::ByLook.as_str())
                .bind(Verified::Moved.as_str())
                .execute(&mut *write)
                .await?;
                settle(&mut write, ids, now).await?;
                // Copies the signature and its samples to the moved version, so that a later change of the file is sent
                // as a delta.
                for copied in [
                    "INSERT INTO outline (version, directory, path, outline)
                     SELECT m.id, m.directory, m.path, o.outline
                     FROM unnest($1::bigint[]) i (id) JOIN delivery d ON d.id = i.id JOIN version m ON m.id = d.version
                     JOIN outline o ON o.version = m.moved_from WHERE m.kind = 'file' AND m.size >= 1048576
                     ON CONFLICT DO NOTHING",
                    "INSERT INTO outline_sample (block, version) SELECT s.block, m.id
                     FROM unnest($1::bigint[]) i (id) JOIN delivery d ON d.id = i.id JOIN version m ON m.id = d.version
                     JOIN outline_sample s ON s.version = m.moved_from WHERE m.kind = 'file' AND m.size >= 1048576
                     ON CONFLICT DO NOTHING",
                ] {
                    sqlx::query(copied).bind(ids).execute(&mut *write).await?;
                }
                write.commit().await?;
                Ok(noted)
            });
            self.listeners.ring_if(acknowledged.await?);
        }
        Ok(())
    }

    async fn copies_of(&self, vessel: &VesselName, version: &Version) -> Result<Vec<HeldVersion>> {
        let found = self.lasting(|pools| async move {
            let statement = match &version.digest {
                Some(digest) => sqlx::query(COPIES_BY_DIGEST)
                    .bind(vessel.as_str())
                    .bind(rows::signed(version.stamp.size))
                    .bind(version.id.0)
                    .bind(&digest.as_bytes()[..]),
                None => sqlx::query(COPIES_BY_SIZE)
                    .bind(vessel.as_str())
                    .bind(rows::signed(version.stamp.size))
                    .bind(version.id.0),
            };
            Ok(statement.fetch_all(&pools.readers).await?)
        });
        found.await?.iter().map(held).collect()
    }

    async fn averages_beside(&self, version: &Version) -> Result<Vec<u32>> {
        signatures::averages_beside(self, version).await
    }

    async fn similar(&self, vessel: &VesselName, version: &Version, blocks: &[i64]) -> Result<Vec<SimilarFile>> {
        signatures::similar(self, vessel, version, blocks).await
    }

    async fn made_from(&self, delivery: DeliveryId, file: &[u8], bytes: u64) -> Result<()> {
        let made = self.lasting(|pools| {
            let statement = sqlx::query("UPDATE delivery SET made_from = $1, saved_bytes = $2 WHERE id = $3");
            let statement = statement.bind(file).bind(rows::signed(bytes)).bind(delivery.0);
            async move { pools.write_one(statement).await.map(drop) }
        });
        made.await
    }
}

fn held(row: &PgRow) -> Result<HeldVersion> {
    Ok(HeldVersion { version: rows::version(row)?, seen: rows::seen(row)? })
}
