//! Converts rows into records. Rejects values that the types of the records don't allow. Lists of records are passed to
//! statements as arrays, one array for each column.

use std::borrow::Cow;

use sqlx::Row;
use sqlx::postgres::PgRow;

use super::Result;
use crate::digest::Digest;
use crate::ledger::{CurrentVersion, LedgerError};
use crate::names::{DirectoryName, RelPath, VesselName};
use crate::records::{DeliveryCost, DeliveryState, Entry, FileStamp, Seen, Traits, Version, VersionId, VersionKind};
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

pub(super) fn corrupt(what: impl std::fmt::Display) -> LedgerError {
    LedgerError::Corrupt(what.to_string())
}

/// Makes a text storable in PostgreSQL, which rejects the NUL character (U+0000).
pub(super) fn text(text: &str) -> Cow<'_, str> {
    match text.contains('\0') {
        true => text.replace('\0', "\u{fffd}").into(),
        false => text.into(),
    }
}

/// Converts a number to a signed integer of PostgreSQL with the same bits, so numbers of 2^63 or more become negative.
pub(super) fn signed(number: u64) -> i64 {
    number.cast_signed()
}

/// Returns names of vessels as an array.
pub(super) fn names(vessels: &[VesselName]) -> Vec<&str> {
    vessels.iter().map(VesselName::as_str).collect()
}

/// Returns names of directories as an array.
pub(super) fn directories(directories: &[DirectoryName]) -> Vec<&str> {
    directories.iter().map(DirectoryName::as_str).collect()
}

/// Returns paths as an array.
pub(super) fn paths(paths: &[RelPath]) -> Vec<&[u8]> {
    paths.iter().map(RelPath::as_bytes).collect()
}

/// Returns costs as two arrays: written bytes, and bytes on the link.
pub(super) fn costs(costs: impl Iterator<Item = Option<DeliveryCost>>) -> (Vec<Option<i64>>, Vec<Option<i64>>) {
    costs.map(|cost| (cost.map(|cost| signed(cost.written)), cost.and_then(|cost| cost.link).map(signed))).unzip()
}

pub(super) fn ids(rows: &[PgRow]) -> Result<Vec<i64>> {
    Ok(rows.iter().map(|row| row.try_get("id")).collect::<sqlx::Result<_>>()?)
}

pub(super) fn number(row: &PgRow, column: &str) -> Result<u64> {
    Ok(row.try_get::<i64, _>(column)?.cast_unsigned())
}

/// Reads a number that must fit into a `u32`.
pub(super) fn small(row: &PgRow, column: &str) -> Result<u32> {
    u32::try_from(row.try_get::<i64, _>(column)?).map_err(|_| corrupt(format_args!("{column} is not a 32-bit number")))
}

pub(super) fn rel_path(row: &PgRow) -> Result<RelPath> {
    RelPath::new(row.try_get::<Vec<u8>, _>("path")?).map_err(corrupt)
}

/// Reads a path from a column that may be null.
pub(super) fn optional_path(row: &PgRow, column: &str) -> Result<Option<RelPath>> {
    row.try_get::<Option<Vec<u8>>, _>(column)?.map(|bytes| RelPath::new(bytes).map_err(corrupt)).transpose()
}

pub(super) fn token(row: &PgRow) -> Result<Option<u64>> {
    Ok(row.try_get::<Option<i64>, _>("token")?.map(i64::cast_unsigned))
}

pub(super) fn directory(row: &PgRow) -> Result<DirectoryName> {
    Ok(DirectoryName::new(row.try_get("directory")?))
}

pub(super) fn vessel(row: &PgRow, column: &str) -> Result<VesselName> {
    Ok(VesselName::new(row.try_get(column)?))
}

pub(super) fn stamp(row: &PgRow) -> Result<FileStamp> {
    Ok(FileStamp {
        size: number(row, "size")?,
        mtime: row.try_get("mtime")?,
        mtime_nanos: small(row, "mtime_nanos")?,
        inode: number(row, "inode")?,
    })
}

pub(super) fn current(row: &PgRow) -> Result<CurrentVersion> {
    let traits = Traits { kind: kind(row)?, stamp: stamp(row)?, mode: small(row, "mode")?, owner: owner(row)? };
    Ok(CurrentVersion { path: rel_path(row)?, traits })
}

pub(super) fn kind(row: &PgRow) -> Result<VersionKind> {
    let word: &str = row.try_get("kind")?;
    let kind = VersionKind::ALL.into_iter().find(|kind| kind.as_str() == word);
    kind.ok_or_else(|| corrupt(format_args!("unknown kind of version {word:?}")))
}

fn owner(row: &PgRow) -> Result<Option<(u32, u32)>> {
    match row.try_get::<Option<i64>, _>("uid")?.zip(row.try_get::<Option<i64>, _>("gid")?) {
        Some(_) => Ok(Some((small(row, "uid")?, small(row, "gid")?))),
        None => Ok(None),
    }
}

pub(super) fn version(row: &PgRow) -> Result<Version> {
    let entry = Entry {
        path: rel_path(row)?,
        kind: kind(row)?,
        stamp: stamp(row)?,
        mode: small(row, "mode")?,
        owner: owner(row)?,
        target: row.try_get("target")?,
        digest: digest(row)?,
        chunk_size: number(row, "chunk_size")?,
    };
    Ok(Version { id: VersionId(row.try_get("version")?), directory: directory(row)?, entry })
}

/// Reads the recorded state of a vessel's copy; `None` when no state was recorded.
pub(super) fn seen(row: &PgRow) -> Result<Option<Seen>> {
    let (size, mtime): (Option<i64>, Option<i64>) = (row.try_get("seen_size")?, row.try_get("seen_mtime")?);
    Ok(size.zip(mtime).map(|(size, mtime)| Seen { size: size.cast_unsigned(), mtime }))
}

pub(super) fn signature(row: &PgRow) -> Result<Signature> {
    Signature::from_bytes(row.try_get("outline")?).ok_or_else(|| corrupt("invalid file signature"))
}

pub(super) fn digest(row: &PgRow) -> Result<Option<Digest>> {
    Ok(match row.try_get::<&[u8], _>("digest")? {
        [] => None,
        bytes => Some(Digest::from_bytes(bytes).ok_or_else(|| corrupt("digest is not 32 bytes long"))?),
    })
}

pub(super) fn state(row: &PgRow) -> Result<DeliveryState> {
    let word: &str = row.try_get("state")?;
    let state = DeliveryState::ALL.into_iter().find(|state| state.as_str() == word);
    state.ok_or_else(|| corrupt(format_args!("unknown delivery state {word:?}")))
}

/// Returns the bytes of a digest; empty when the file has not been hashed yet.
pub(super) fn digest_bytes(digest: &Option<Digest>) -> &[u8] {
    digest.as_ref().map_or(&[], |digest| digest.as_bytes())
}
