//! Queries for the current versions of a directory's paths.

use futures_util::TryStreamExt;

use super::rows::current_columns;
use super::{Postgres, Result, rows};
use crate::ledger::CurrentVersion;
use crate::names::{DirectoryName, RelPath, VesselName};

/// The current version `v` of the directory `$directory` at the path `i.path`. Without `OFFSET 0`, as long as there are
/// no statistics, the planner may compare every version of the directory with every path.
macro_rules! version_at {
    ($directory:literal) => {
        concat!(
            "LATERAL (SELECT * FROM version WHERE directory = ",
            $directory,
            " AND path_key(path) = path_key(i.path) AND ended_at IS NULL OFFSET 0) v"
        )
    };
}
pub(super) use version_at;

/// The current versions `v` of the directory `$directory` below the path `i.path`. The range of keys may contain other
/// versions too, because the keys of long paths are not sorted exactly like the paths. So the paths themselves are
/// compared too.
macro_rules! versions_below {
    ($directory:literal) => {
        concat!(
            "LATERAL (
                 SELECT * FROM version WHERE directory = ",
            $directory,
            " AND path_key(path) >= substring(i.path || '/'::bytea FROM 1 FOR 968)
                 AND path_key(path) <= substring(i.path || '0'::bytea FROM 1 FOR 968)
                     || CASE WHEN octet_length(i.path) >= 968 THEN decode(repeat('ff', 64), 'hex') ELSE ''::bytea END
                 AND path > i.path || '/'::bytea AND path < i.path || '0'::bytea AND ended_at IS NULL OFFSET 0) v"
        )
    };
}
pub(super) use versions_below;

pub(super) async fn all(ledger: &Postgres, directory: &DirectoryName) -> Result<Vec<CurrentVersion>> {
    let current = ledger.lasting(|pools| async move {
        // Converts row by row, because the rows take several times the memory of the records.
        let mut rows = sqlx::query(concat!(
            "SELECT ",
            current_columns!(),
            " FROM version v WHERE v.directory = $1 AND v.ended_at IS NULL ORDER BY path_key(v.path)"
        ))
        .bind(directory.as_str())
        .fetch(&pools.readers);
        let mut current = Vec::new();
        while let Some(row) = rows.try_next().await? {
            current.push(rows::current(&row)?);
        }
        Ok(current)
    });
    let mut current: Vec<CurrentVersion> = current.await?;
    // The keys of long paths are not sorted exactly like the paths.
    current.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(current)
}

pub(super) async fn after(
    ledger: &Postgres,
    directory: &DirectoryName,
    after: Option<&RelPath>,
    limit: u32,
) -> Result<Vec<CurrentVersion>> {
    let current = ledger.lasting(|pools| async move {
        let mut rows = sqlx::query(concat!(
            "SELECT ",
            current_columns!(),
            " FROM version v WHERE v.directory = $1 AND v.ended_at IS NULL AND path_key(v.path) > path_key($2)
              ORDER BY path_key(v.path) LIMIT $3"
        ))
        .bind(directory.as_str())
        .bind(after.map_or(&[][..], RelPath::as_bytes))
        .bind(i64::from(limit))
        .fetch(&pools.readers);
        let mut current = Vec::new();
        while let Some(row) = rows.try_next().await? {
            current.push(rows::current(&row)?);
        }
        Ok(current)
    });
    current.await
}

/// The current versions at some paths (`$1`) of a directory (`$2`), each once.
pub(super) const AT: &str =
    concat!("SELECT ", current_columns!(), " FROM (SELECT DISTINCT unnest($1::bytea[])) i (path), ", version_at!("$2"));

pub(super) async fn at(ledger: &Postgres, directory: &DirectoryName, paths: &[RelPath]) -> Result<Vec<CurrentVersion>> {
    let found = ledger.lasting(|pools| async move {
        let statement = sqlx::query(AT).bind(rows::paths(paths)).bind(directory.as_str());
        Ok(statement.fetch_all(&pools.readers).await?)
    });
    found.await?.iter().map(rows::current).collect()
}

pub(super) async fn below(
    ledger: &Postgres,
    directory: &DirectoryName,
    above: &[RelPath],
) -> Result<Vec<CurrentVersion>> {
    let found = ledger.lasting(|pools| async move {
        let statement = sqlx::query(concat!(
            "SELECT ",
            current_columns!(),
            " FROM unnest($1::bytea[]) i (path), ",
            versions_below!("$2")
        ))
        .bind(rows::paths(above))
        .bind(directory.as_str());
        Ok(statement.fetch_all(&pools.readers).await?)
    });
    let mut below: Vec<CurrentVersion> = found.await?.iter().map(rows::current).collect::<Result<_>>()?;
    below.sort_unstable_by(|a, b| a.path.cmp(&b.path));
    below.dedup_by(|a, b| a.path == b.path);
    Ok(below)
}

pub(super) async fn count(ledger: &Postgres, directory: &DirectoryName) -> Result<u64> {
    let count = ledger.lasting(|pools| async move {
        let statement = sqlx::query_scalar("SELECT count(*) FROM version WHERE directory = $1 AND ended_at IS NULL");
        Ok(statement.bind(directory.as_str()).fetch_one(&pools.readers).await?)
    });
    Ok(i64::cast_unsigned(count.await?))
}

pub(super) async fn is_open_below(
    ledger: &Postgres,
    vessel: &VesselName,
    directory: &DirectoryName,
    above: &RelPath,
) -> Result<bool> {
    let open = ledger.lasting(|pools| async move {
        let statement = sqlx::query_scalar(concat!(
            "SELECT EXISTS (
                 SELECT 1 FROM unnest($1::bytea[]) i (path), ",
            versions_below!("$2"),
            " JOIN delivery d ON d.version = v.id AND d.vessel = $3
                 WHERE d.state NOT IN ('acknowledged', 'superseded'))"
        ))
        .bind(rows::paths(std::slice::from_ref(above)))
        .bind(directory.as_str())
        .bind(vessel.as_str());
        Ok(statement.fetch_one(&pools.readers).await?)
    });
    open.await
}
