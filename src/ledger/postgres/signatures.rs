//! Records, queries and deletes the signatures of delivered files. A signature is needed as long as its version is the
//! last version of the path that some vessel acknowledged.

use sqlx::postgres::PgRow;

use super::rows::version_columns;
use super::{Postgres, Result, rows};
use crate::ledger::moves::averages;
use crate::ledger::{LastDelivered, MOST_SAMPLED, SimilarFile};
use crate::names::VesselName;
use crate::records::{HeldVersion, Version};
use crate::signature::Signature;

/// Records the signature of a version, and its sample blocks, by which [`similar`] finds the version. Deletes the
/// signatures of earlier versions of the path, but keeps those of the versions that some vessel acknowledged last.
pub(super) async fn enter(store: &Postgres, version: &Version, signature: &Signature) -> Result<()> {
    let (outline, samples) = (signature.to_bytes(), signature.samples());
    let entered = store.lasting(|pools| {
        let (outline, samples) = (&outline, &samples);
        async move {
            let mut write = pools.begin().await?;
            sqlx::query(
                "INSERT INTO outline (version, directory, path, outline) VALUES ($1, $2, $3, $4)
                 ON CONFLICT (version) DO UPDATE SET outline = excluded.outline",
            )
            .bind(version.id.0)
            .bind(version.directory.as_str())
            .bind(version.path.as_bytes())
            .bind(&outline[..])
            .execute(&mut *write)
            .await?;
            sqlx::query(
                "DELETE FROM outline o WHERE o.directory = $1 AND path_key(o.path) = path_key($2) AND o.version < $3
                 AND NOT EXISTS (
                     SELECT 1 FROM delivery d WHERE d.version = o.version AND d.state = 'acknowledged' AND NOT EXISTS (
                         SELECT 1 FROM outline later JOIN delivery other ON other.version = later.version
                         WHERE later.directory = $1 AND path_key(later.path) = path_key($2) AND later.version > o.version
                           AND other.vessel = d.vessel AND other.state = 'acknowledged'))",
            )
            .bind(version.directory.as_str())
            .bind(version.path.as_bytes())
            .bind(version.id.0)
            .execute(&mut *write)
            .await?;
            sqlx::query("DELETE FROM outline_sample WHERE version = $1").bind(version.id.0).execute(&mut *write).await?;
            sqlx::query("INSERT INTO outline_sample (block, version) SELECT block, $2 FROM unnest($1::bigint[]) i (block)")
                .bind(samples)
                .bind(version.id.0)
                .execute(&mut *write)
                .await?;
            sqlx::query(
                "DELETE FROM outline_sample WHERE version IN (
                     SELECT version FROM outline WHERE directory = $1 ORDER BY version DESC LIMIT 8 OFFSET $2)",
            )
            .bind(version.directory.as_str())
            .bind(MOST_SAMPLED)
            .execute(&mut *write)
            .await?;
            write.commit().await
        }
    });
    entered.await
}

/// Returns the signature of a version; `None` when no signature was recorded.
pub(super) async fn of_version(store: &Postgres, version: &Version) -> Result<Option<Signature>> {
    let row = store.lasting(|pools| async move {
        let statement = sqlx::query("SELECT outline FROM outline WHERE version = $1").bind(version.id.0);
        Ok(statement.fetch_optional(&pools.readers).await?)
    });
    row.await?.as_ref().map(rows::signature).transpose()
}

/// Of the versions of a path (`$2`) that have a signature, the one that a vessel (`$3`) acknowledged last. Without
/// `OFFSET 0`, the planner may start with all acknowledged deliveries.
pub(super) const LAST_DELIVERED: &str = "SELECT v.size, v.mtime, v.mtime_nanos, v.inode, o.outline
     FROM outline o
     JOIN LATERAL (SELECT state, acknowledged_at FROM delivery WHERE version = o.version AND vessel = $3 OFFSET 0) d ON true
     JOIN version v ON v.id = o.version
     WHERE o.directory = $1 AND path_key(o.path) = path_key($2) AND d.state = 'acknowledged'
     ORDER BY d.acknowledged_at + 0 DESC, o.version DESC LIMIT 1";

/// Returns the version of the same path that a vessel acknowledged last. Ignores versions without a signature.
pub(super) async fn last_delivered(
    store: &Postgres,
    vessel: &VesselName,
    version: &Version,
) -> Result<Option<LastDelivered>> {
    let row = store.lasting(|pools| async move {
        let statement = sqlx::query(LAST_DELIVERED)
            .bind(version.directory.as_str())
            .bind(version.path.as_bytes())
            .bind(vessel.as_str());
        Ok(statement.fetch_optional(&pools.repeaters).await?)
    });
    let last = |row: &PgRow| Ok(LastDelivered { stamp: rows::stamp(row)?, signature: rows::signature(row)? });
    row.await?.as_ref().map(last).transpose()
}

/// Returns the average block lengths of the newest 64 signatures of other paths in a version's directory.
pub(super) async fn averages_beside(store: &Postgres, version: &Version) -> Result<Vec<u32>> {
    let found = store.lasting(|pools| async move {
        let statement = sqlx::query_scalar(
            "SELECT DISTINCT substr(newest.outline, 1, 4) FROM (
                 SELECT outline FROM outline WHERE directory = $1 AND path <> $2 ORDER BY version DESC LIMIT 64) newest",
        )
        .bind(version.directory.as_str())
        .bind(version.path.as_bytes());
        Ok(statement.fetch_all(&pools.readers).await?)
    });
    let found: Vec<Vec<u8>> = found.await?;
    Ok(averages(&found))
}

/// Returns other files of a version's directory whose sample blocks include some of `blocks`; files with the most of
/// these blocks come first. The vessel acknowledged the files and no newer version has replaced them there.
pub(super) async fn similar(
    store: &Postgres,
    vessel: &VesselName,
    version: &Version,
    blocks: &[i64],
) -> Result<Vec<SimilarFile>> {
    let found = store.lasting(|pools| async move {
        let statement = sqlx::query(concat!(
            "SELECT ",
            version_columns!(),
            ", d.seen_size, d.seen_mtime, o.outline
              FROM (
                  SELECT s.version, count(*) AS shared FROM unnest($1::bigint[]) i (block), LATERAL (
                      SELECT n.version FROM outline_sample n WHERE n.block = i.block ORDER BY n.version DESC LIMIT 16) s
                  GROUP BY s.version) f
              JOIN version v ON v.id = f.version
              JOIN delivery d ON d.version = v.id AND d.vessel = $2
              JOIN outline o ON o.version = v.id
              WHERE v.directory = $3 AND v.path <> $4 AND d.state = 'acknowledged'
                AND d.place = coalesce(
                    (SELECT number FROM place p WHERE p.vessel = d.vessel AND p.directory = v.directory), 0)
                AND NOT EXISTS (
                    SELECT 1 FROM version later JOIN delivery ld ON ld.version = later.id AND ld.vessel = d.vessel
                    WHERE later.replaces = v.id AND ld.state = 'acknowledged')
              ORDER BY f.shared DESC, v.id DESC LIMIT 4"
        ))
        .bind(blocks)
        .bind(vessel.as_str())
        .bind(version.directory.as_str())
        .bind(version.path.as_bytes());
        Ok(statement.fetch_all(&pools.readers).await?)
    });
    let file = |row: &PgRow| {
        let held = HeldVersion { version: rows::version(row)?, seen: rows::seen(row)? };
        Ok(SimilarFile { held, signature: rows::signature(row)? })
    };
    found.await?.iter().map(file).collect()
}
