//! What happens to a version: it is entered, becomes complete, and ends. Steps inside a caller's transaction.

use sqlx::{Sqlite, Transaction};

use super::Result;
use super::rows::signed;
use crate::names::{DirectoryName, RelPath};
use crate::records::NewVersion;

/// Ends the version that a path holds, and with it its open deliveries. What was complete and is gone counts as retired.
pub(super) async fn end_current(
    transaction: &mut Transaction<'_, Sqlite>,
    directory: &DirectoryName,
    path: &RelPath,
    ending: &str,
    now: i64,
) -> Result<()> {
    sqlx::query(
        "UPDATE delivery SET state = 'superseded', parked = 0
         WHERE state NOT IN ('acknowledged', 'superseded')
           AND version IN (SELECT id FROM version WHERE directory = ? AND path = ? AND ended_at IS NULL)",
    )
    .bind(directory.as_str())
    .bind(path.as_bytes())
    .execute(&mut **transaction)
    .await?;
    sqlx::query(
        "UPDATE version SET ended_at = ?1, ending = CASE WHEN complete = 1 AND ?2 = 'vanished' THEN 'retired' ELSE ?2 END
         WHERE directory = ?3 AND path = ?4 AND ended_at IS NULL",
    )
    .bind(now)
    .bind(ending)
    .bind(directory.as_str())
    .bind(path.as_bytes())
    .execute(&mut **transaction)
    .await?;
    Ok(())
}

/// Enters a version and gives its number.
pub(super) async fn insert_version(
    transaction: &mut Transaction<'_, Sqlite>,
    directory: &DirectoryName,
    new: &NewVersion,
    now: i64,
) -> Result<i64> {
    let chunks: Vec<u8> = new.chunks.iter().flat_map(|digest| *digest.as_bytes()).collect();
    let inserted = sqlx::query(
        "INSERT INTO version (directory, path, size, mtime, mtime_nanos, inode, mode, digest, chunk_size, chunks, admitted_at)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(directory.as_str())
    .bind(new.path.as_bytes())
    .bind(signed(new.stamp.size))
    .bind(new.stamp.mtime)
    .bind(new.stamp.mtime_nanos)
    .bind(signed(new.stamp.inode))
    .bind(new.mode)
    .bind(&new.digest.as_bytes()[..])
    .bind(signed(new.chunk_size))
    .bind(chunks)
    .bind(now)
    .execute(&mut **transaction)
    .await?;
    Ok(inserted.last_insert_rowid())
}

/// What makes a version `v` complete: no delivery of it is open and at least one was acknowledged.
macro_rules! is_complete {
    () => {
        "NOT EXISTS (SELECT 1 FROM delivery d WHERE d.version = v.id AND d.state NOT IN ('acknowledged', 'superseded'))
         AND EXISTS (SELECT 1 FROM delivery d WHERE d.version = v.id AND d.state = 'acknowledged')"
    };
}

/// Enters whether a version is complete.
pub(super) async fn settle(transaction: &mut Transaction<'_, Sqlite>, version: i64) -> Result<()> {
    let settle = concat!("UPDATE version AS v SET complete = ", is_complete!(), " WHERE id = ? AND ended_at IS NULL");
    sqlx::query(settle).bind(version).execute(&mut **transaction).await?;
    Ok(())
}

/// Enters which of the versions that a directory holds are complete.
pub(super) async fn settle_all(transaction: &mut Transaction<'_, Sqlite>, directory: &DirectoryName) -> Result<()> {
    let settle =
        concat!("UPDATE version AS v SET complete = ", is_complete!(), " WHERE directory = ? AND ended_at IS NULL");
    sqlx::query(settle).bind(directory.as_str()).execute(&mut **transaction).await?;
    Ok(())
}

/// Whether a path holds just this version.
pub(super) async fn is_current(
    transaction: &mut Transaction<'_, Sqlite>,
    directory: &DirectoryName,
    new: &NewVersion,
) -> Result<bool> {
    let id: Option<i64> = sqlx::query_scalar(
        "SELECT id FROM version WHERE directory = ? AND path = ? AND ended_at IS NULL
         AND size = ? AND mtime = ? AND mtime_nanos = ? AND inode = ? AND digest = ?",
    )
    .bind(directory.as_str())
    .bind(new.path.as_bytes())
    .bind(signed(new.stamp.size))
    .bind(new.stamp.mtime)
    .bind(new.stamp.mtime_nanos)
    .bind(signed(new.stamp.inode))
    .bind(&new.digest.as_bytes()[..])
    .fetch_optional(&mut **transaction)
    .await?;
    Ok(id.is_some())
}
