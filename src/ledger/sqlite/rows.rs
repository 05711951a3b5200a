//! Converts rows into records. Rejects values that the types of the records don't allow.

use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use super::Result;
use crate::digest::Digest;
use crate::ledger::{CurrentVersion, LedgerError};
use crate::names::{DirectoryName, RelPath};
use crate::records::{DeliveryState, Entry, FileStamp, Seen, Traits, Version, VersionId, VersionKind};
use crate::signature::Signature;

/// The columns that [`version`] reads; the query must call the table `v`.
macro_rules! version_columns {
    () => {
        "v.id AS version, v.directory, v.path, v.size, v.mtime, v.mtime_nanos, v.inode, v.mode, v.digest, v.chunk_size, v.kind,
         v.target, v.uid, v.gid"
    };
}

/// The columns that [`current`] reads; the query must call the table `v`.
macro_rules! current_columns {
    () => {
        "v.path, v.size, v.mtime, v.mtime_nanos, v.inode, v.mode, v.kind, v.uid, v.gid"
    };
}
pub(super) use {current_columns, version_columns};

fn corrupt(what: impl std::fmt::Display) -> LedgerError {
    LedgerError::Corrupt(what.to_string())
}

/// Converts a number to a signed integer of SQLite with the same bits, so numbers of 2^63 or more become negative.
pub(super) fn signed(number: u64) -> i64 {
    number.cast_signed()
}

pub(super) fn rel_path(row: &SqliteRow) -> Result<RelPath> {
    RelPath::new(row.try_get::<Vec<u8>, _>("path")?).map_err(corrupt)
}

/// Reads a path from a column that may be null.
pub(super) fn optional_path(row: &SqliteRow, column: &str) -> Result<Option<RelPath>> {
    row.try_get::<Option<Vec<u8>>, _>(column)?.map(|bytes| RelPath::new(bytes).map_err(corrupt)).transpose()
}

pub(super) fn token(row: &SqliteRow) -> Result<Option<u64>> {
    Ok(row.try_get::<Option<i64>, _>("token")?.map(i64::cast_unsigned))
}

pub(super) fn directory(row: &SqliteRow) -> Result<DirectoryName> {
    Ok(DirectoryName::new(row.try_get("directory")?))
}

pub(super) fn stamp(row: &SqliteRow) -> Result<FileStamp> {
    Ok(FileStamp {
        size: row.try_get::<i64, _>("size")?.cast_unsigned(),
        mtime: row.try_get("mtime")?,
        mtime_nanos: row.try_get("mtime_nanos")?,
        inode: row.try_get::<i64, _>("inode")?.cast_unsigned(),
    })
}

pub(super) fn current(row: &SqliteRow) -> Result<CurrentVersion> {
    let traits = Traits { kind: kind(row)?, stamp: stamp(row)?, mode: row.try_get("mode")?, owner: owner(row)? };
    Ok(CurrentVersion { path: rel_path(row)?, traits })
}

pub(super) fn kind(row: &SqliteRow) -> Result<VersionKind> {
    let word: &str = row.try_get("kind")?;
    let kind = VersionKind::ALL.into_iter().find(|kind| kind.as_str() == word);
    kind.ok_or_else(|| corrupt(format_args!("unknown kind of version {word:?}")))
}

fn owner(row: &SqliteRow) -> Result<Option<(u32, u32)>> {
    let (user, group): (Option<u32>, Option<u32>) = (row.try_get("uid")?, row.try_get("gid")?);
    Ok(user.zip(group))
}

pub(super) fn version(row: &SqliteRow) -> Result<Version> {
    let entry = Entry {
        path: rel_path(row)?,
        kind: kind(row)?,
        stamp: stamp(row)?,
        mode: row.try_get("mode")?,
        owner: owner(row)?,
        target: row.try_get("target")?,
        digest: digest(row)?,
        chunk_size: row.try_get::<i64, _>("chunk_size")?.cast_unsigned(),
    };
    Ok(Version { id: VersionId(row.try_get("version")?), directory: directory(row)?, entry })
}

/// Reads the recorded state of a vessel's copy; `None` when no state was recorded.
pub(super) fn seen(row: &SqliteRow) -> Result<Option<Seen>> {
    let (size, mtime): (Option<i64>, Option<i64>) = (row.try_get("seen_size")?, row.try_get("seen_mtime")?);
    Ok(size.zip(mtime).map(|(size, mtime)| Seen { size: size.cast_unsigned(), mtime }))
}

pub(super) fn signature(row: &SqliteRow) -> Result<Signature> {
    Signature::from_bytes(row.try_get("outline")?).ok_or_else(|| corrupt("invalid file signature"))
}

pub(super) fn digest(row: &SqliteRow) -> Result<Option<Digest>> {
    Ok(match row.try_get::<&[u8], _>("digest")? {
        [] => None,
        bytes => Some(Digest::from_bytes(bytes).ok_or_else(|| corrupt("digest is not 32 bytes long"))?),
    })
}

pub(super) fn state(row: &SqliteRow) -> Result<DeliveryState> {
    let word: &str = row.try_get("state")?;
    let state = DeliveryState::ALL.into_iter().find(|state| state.as_str() == word);
    state.ok_or_else(|| corrupt(format_args!("unknown delivery state {word:?}")))
}

/// Returns the bytes of a digest; empty when the file has not been hashed yet.
pub(super) fn digest_bytes(digest: &Option<Digest>) -> &[u8] {
    digest.as_ref().map_or(&[], |digest| digest.as_bytes())
}
