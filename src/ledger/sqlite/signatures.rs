//! Records, queries and deletes the signatures of delivered files. A signature is needed as long as its version is the
//! last version of the path that some vessel acknowledged.

use sqlx::{SqlitePool, sqlite::SqliteRow};

use super::rows::version_columns;
use super::{Result, json, rows};
use crate::ledger::moves::averages;
use crate::ledger::{LastDelivered, MOST_SAMPLED, SimilarFile};
use crate::names::VesselName;
use crate::records::{HeldVersion, Version};
use crate::signature::Signature;

/// Records the signature of a version, and its sample blocks, by which [`similar`] finds the version. Deletes the
/// signatures of earlier versions of the path, but keeps those of the versions that some vessel acknowledged last.
pub(super) async fn enter(writer: &SqlitePool, version: &Version, signature: &Signature) -> Result<()> {
    let mut transaction = writer.begin().await?;
    sqlx::query("INSERT OR REPLACE INTO outline (directory, path, version, outline) VALUES (?, ?, ?, ?)")
        .bind(version.directory.as_str())
        .bind(version.path.as_bytes())
        .bind(version.id.0)
        .bind(signature.to_bytes())
        .execute(&mut *transaction)
        .await?;
    sqlx::query(
        "DELETE FROM outline AS o WHERE o.directory = ?1 AND o.path = ?2 AND o.version < ?3 AND NOT EXISTS (
             SELECT 1 FROM delivery d WHERE d.version = o.version AND d.state = 'acknowledged' AND NOT EXISTS (
                 SELECT 1 FROM outline later JOIN delivery other ON other.version = later.version
                 WHERE later.directory = ?1 AND later.path = ?2 AND later.version > o.version
                   AND other.vessel = d.vessel AND other.state = 'acknowledged'))",
    )
    .bind(version.directory.as_str())
    .bind(version.path.as_bytes())
    .bind(version.id.0)
    .execute(&mut *transaction)
    .await?;
    // The trigger `outline_dropped` does not run when a row is replaced, so old samples are deleted here.
    sqlx::query("DELETE FROM outline_sample WHERE version = ?").bind(version.id.0).execute(&mut *transaction).await?;
    sqlx::query("INSERT OR IGNORE INTO outline_sample (block, version) SELECT value, ?2 FROM json_each(?1)")
        .bind(json::numbers(signature.samples().into_iter()))
        .bind(version.id.0)
        .execute(&mut *transaction)
        .await?;
    sqlx::query(
        "DELETE FROM outline_sample WHERE version IN (
             SELECT version FROM outline WHERE directory = ? ORDER BY version DESC LIMIT 8 OFFSET ?)",
    )
    .bind(version.directory.as_str())
    .bind(MOST_SAMPLED)
    .execute(&mut *transaction)
    .await?;
    Ok(transaction.commit().await?)
}

/// Returns the signature of a version; `None` when no signature was recorded.
pub(super) async fn of_version(readers: &SqlitePool, version: &Version) -> Result<Option<Signature>> {
    let row = sqlx::query("SELECT outline FROM outline WHERE directory = ? AND path = ? AND version = ?")
        .bind(version.directory.as_str())
        .bind(version.path.as_bytes())
        .bind(version.id.0)
        .fetch_optional(readers)
        .await?;
    row.as_ref().map(rows::signature).transpose()
}

/// Returns the version of the same path that a vessel acknowledged last. Ignores versions without a signature.
pub(super) async fn last_delivered(
    readers: &SqlitePool,
    vessel: &VesselName,
    version: &Version,
) -> Result<Option<LastDelivered>> {
    let row = sqlx::query(
        "SELECT v.size, v.mtime, v.mtime_nanos, v.inode, o.outline
         FROM outline o JOIN delivery d ON d.version = o.version JOIN version v ON v.id = o.version
         WHERE o.directory = ? AND o.path = ? AND d.vessel = ? AND d.state = 'acknowledged'
         ORDER BY d.acknowledged_at DESC, o.version DESC LIMIT 1",
    )
    .bind(version.directory.as_str())
    .bind(version.path.as_bytes())
    .bind(vessel.as_str())
    .fetch_optional(readers)
    .await?;
    let last = |row: &SqliteRow| Ok(LastDelivered { stamp: rows::stamp(row)?, signature: rows::signature(row)? });
    row.as_ref().map(last).transpose()
}

/// Returns the average block lengths of the newest 64 signatures of other paths in a version's directory.
pub(super) async fn averages_beside(readers: &SqlitePool, version: &Version) -> Result<Vec<u32>> {
    let found: Vec<Vec<u8>> = sqlx::query_scalar(
        "SELECT DISTINCT substr(o.outline, 1, 4) FROM (
             SELECT version FROM outline WHERE directory = ? AND path <> ? ORDER BY version DESC LIMIT 64) newest
         CROSS JOIN outline o ON o.version = newest.version",
    )
    .bind(version.directory.as_str())
    .bind(version.path.as_bytes())
    .fetch_all(readers)
    .await?;
    Ok(averages(&found))
}

/// Returns other files of a version's directory whose sample blocks include some of `blocks`; files with the most of
/// these blocks come first. The vessel acknowledged the files and no newer version has replaced them there.
pub(super) async fn similar(
    readers: &SqlitePool,
    vessel: &VesselName,
    version: &Version,
    blocks: &[i64],
) -> Result<Vec<SimilarFile>> {
    let found = sqlx::query(concat!(
        "SELECT ",
        version_columns!(),
        ", d.seen_size, d.seen_mtime, o.outline
          FROM (
              SELECT s.version, count(*) AS shared FROM json_each(?1) i CROSS JOIN outline_sample s
              ON s.block = i.value AND s.version IN (
                  SELECT n.version FROM outline_sample n WHERE n.block = i.value ORDER BY n.version DESC LIMIT 16)
              GROUP BY s.version) f
          CROSS JOIN version v ON v.id = f.version
          CROSS JOIN delivery d ON d.version = v.id AND d.vessel = ?2
          CROSS JOIN outline o ON o.version = v.id
          WHERE v.directory = ?3 AND v.path <> ?4 AND d.state = 'acknowledged'
            AND d.place = coalesce(
                (SELECT number FROM place p WHERE p.vessel = d.vessel AND p.directory = v.directory), 0)
            AND NOT EXISTS (
                SELECT 1 FROM version later CROSS JOIN delivery ld ON ld.version = later.id AND ld.vessel = d.vessel
                WHERE later.replaces = v.id AND ld.state = 'acknowledged')
          ORDER BY f.shared DESC, v.id DESC LIMIT 4"
    ))
    .bind(json::numbers(blocks.iter().copied()))
    .bind(vessel.as_str())
    .bind(version.directory.as_str())
    .bind(version.path.as_bytes())
    .fetch_all(readers)
    .await?;
    let file = |row: &SqliteRow| {
        let held = HeldVersion { version: rows::version(row)?, seen: rows::seen(row)? };
        Ok(SimilarFile { held, signature: rows::signature(row)? })
    };
    found.iter().map(file).collect()
}
