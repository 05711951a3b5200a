//! Signatures of delivered files: recorded, queried, and dropped once no vessel has their version as its last one.

use sqlx::{SqlitePool, sqlite::SqliteRow};

use super::{Result, rows};
use crate::ledger::LastDelivered;
use crate::names::VesselName;
use crate::records::Version;
use crate::signature::Signature;

/// Records the signature of a version. Drops the signature of an earlier version of the path when no vessel has that
/// version as the last one that it acknowledged.
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

/// Returns the version of the same path that a vessel acknowledged last, considering only versions with a signature.
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
