//! Rows into records. The database stores what its types allow; this is where it becomes what the program's types demand.

use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use super::{CurrentVersion, LedgerError};
use crate::digest::Digest;
use crate::names::{DirectoryName, RelPath};
use crate::records::{DeliveryState, FileStamp, Version, VersionId};

type Result<T> = std::result::Result<T, LedgerError>;

fn corrupt(what: impl std::fmt::Display) -> LedgerError {
    LedgerError::Corrupt(what.to_string())
}

/// SQLite's integers are signed: sizes and inodes keep their bits.
pub(super) fn signed(number: u64) -> i64 {
    number.cast_signed()
}

pub(super) fn rel_path(row: &SqliteRow) -> Result<RelPath> {
    RelPath::new(row.try_get::<Vec<u8>, _>("path")?).map_err(corrupt)
}

pub(super) fn directory(row: &SqliteRow) -> Result<DirectoryName> {
    Ok(DirectoryName::new(row.try_get("directory")?))
}

fn stamp(row: &SqliteRow) -> Result<FileStamp> {
    Ok(FileStamp {
        size: row.try_get::<i64, _>("size")?.cast_unsigned(),
        mtime: row.try_get("mtime")?,
        mtime_nanos: row.try_get("mtime_nanos")?,
        inode: row.try_get::<i64, _>("inode")?.cast_unsigned(),
    })
}

pub(super) fn current(row: &SqliteRow) -> Result<CurrentVersion> {
    Ok(CurrentVersion { path: rel_path(row)?, stamp: stamp(row)? })
}

pub(super) fn version(row: &SqliteRow) -> Result<Version> {
    let digest: &[u8] = row.try_get("digest")?;
    Ok(Version {
        id: VersionId(row.try_get("version")?),
        directory: directory(row)?,
        path: rel_path(row)?,
        stamp: stamp(row)?,
        mode: row.try_get("mode")?,
        digest: Digest::from_bytes(digest).ok_or_else(|| corrupt("a digest of another length than 32"))?,
        chunk_size: row.try_get::<i64, _>("chunk_size")?.cast_unsigned(),
    })
}

pub(super) fn state(row: &SqliteRow) -> Result<DeliveryState> {
    let word: &str = row.try_get("state")?;
    let state = DeliveryState::ALL.into_iter().find(|state| state.as_str() == word);
    state.ok_or_else(|| corrupt(format_args!("the delivery state {word:?}")))
}

pub(super) fn digests(bytes: &[u8]) -> Result<Vec<Digest>> {
    let digest = |bytes: &[u8]| Digest::from_bytes(bytes).ok_or_else(|| corrupt("a digest of another length than 32"));
    bytes.chunks(32).map(digest).collect()
}
