//! The life cycle of versions: recorded, complete, ended. Each function runs in the caller's transaction, and uses the
//! same number of statements for any number of versions.

use std::collections::{HashMap, HashSet};

use sqlx::{PgConnection, Row};

use super::current_versions::version_at;
use super::listeners::Listeners;
use super::new_versions::{self, new_versions};
use super::ranks::{expires_at, rank};
use super::{Result, rows};
use crate::ledger::places::sorted_names;
use crate::names::{DirectoryName, RelPath, VesselName};
use crate::records::{NewVersion, VersionKind};

/// Ends versions and supersedes their open deliveries. A complete version that vanished counts as retired, or as
/// expired if no vessel acknowledged it.
async fn end(transaction: &mut PgConnection, versions: &[i64], ending: &str, now: i64) -> Result<()> {
    sqlx::query(
        "UPDATE delivery SET state = 'superseded', parked = false
         WHERE state NOT IN ('acknowledged', 'superseded') AND version = ANY ($1)",
    )
    .bind(versions)
    .execute(&mut *transaction)
    .await?;
    // `ORDER BY` makes the planner use the index by version; otherwise it would read all deliveries that were ever
    // acknowledged. `OFFSET` prevents it from ignoring the order.
    sqlx::query(
        "UPDATE version v SET ended_at = $1, ending = CASE WHEN NOT (v.complete AND $2 = 'vanished') THEN $2
             WHEN EXISTS (SELECT 1 FROM delivery d WHERE d.version = v.id AND d.state = 'acknowledged'
                 ORDER BY d.vessel OFFSET 0) THEN 'retired'
             ELSE 'expired' END
         WHERE v.ended_at IS NULL AND v.id = ANY ($3)",
    )
    .bind(now)
    .bind(ending)
    .bind(versions)
    .execute(&mut *transaction)
    .await?;
    Ok(())
}

/// The current versions at some paths (`$1`) of a directory (`$2`).
pub(super) const VANISHED: &str =
    concat!("SELECT v.id, v.path, v.complete FROM (SELECT DISTINCT unnest($1::bytea[])) i (path), ", version_at!("$2"));

/// Ends the versions of `paths`, because their sources no longer exist. Returns the paths of the versions that were not
/// complete, and whether a notice was recorded.
pub(super) async fn end_vanished(
    transaction: &mut PgConnection,
    directory: &DirectoryName,
    paths: &[RelPath],
    now: i64,
    listeners: &Listeners,
) -> Result<(Vec<RelPath>, bool)> {
    let held =
        sqlx::query(VANISHED).bind(rows::paths(paths)).bind(directory.as_str()).fetch_all(&mut *transaction).await?;
    if held.is_empty() {
        return Ok((Vec::new(), false));
    }
    let ids = rows::ids(&held)?;
    let noted = listeners.note_retired(transaction, &ids, now).await?;
    end(transaction, &ids, "vanished", now).await?;
    let mut dropped = Vec::new();
    for row in &held {
        if !row.try_get::<bool, _>("complete")? {
            dropped.push(rows::rel_path(row)?);
        }
    }
    Ok((dropped, noted))
}

/// Marks a version as forgotten: its path still holds the version, and the version's open deliveries are superseded.
/// Returns `false` when the version has ended, is complete, or was already forgotten.
pub(super) async fn forget(transaction: &mut PgConnection, version: i64, now: i64) -> Result<bool> {
    let forgotten = sqlx::query(
        "UPDATE version SET forgotten_at = $1
         WHERE id = $2 AND ended_at IS NULL AND NOT complete AND forgotten_at IS NULL",
    )
    .bind(now)
    .bind(version)
    .execute(&mut *transaction)
    .await?;
    if forgotten.rows_affected() == 0 {
        return Ok(false);
    }
    sqlx::query(
        "UPDATE delivery SET state = 'superseded', parked = false
         WHERE version = $1 AND state NOT IN ('acknowledged', 'superseded')",
    )
    .bind(version)
    .execute(&mut *transaction)
    .await?;
    Ok(true)
}

/// Marks all incomplete versions that a directory holds now as forgotten; returns the number of marked versions.
pub(super) async fn forget_all(transaction: &mut PgConnection, directory: &DirectoryName, now: i64) -> Result<u64> {
    sqlx::query(
        "UPDATE delivery SET state = 'superseded', parked = false
         WHERE state NOT IN ('acknowledged', 'superseded') AND version IN (
             SELECT id FROM version
             WHERE directory = $1 AND ended_at IS NULL AND NOT complete AND forgotten_at IS NULL)",
    )
    .bind(directory.as_str())
    .execute(&mut *transaction)
    .await?;
    let forgotten = sqlx::query(
        "UPDATE version SET forgotten_at = $1
         WHERE directory = $2 AND ended_at IS NULL AND NOT complete AND forgotten_at IS NULL",
    )
    .bind(now)
    .bind(directory.as_str())
    .execute(&mut *transaction)
    .await?;
    Ok(forgotten.rows_affected())
}

/// Returns the last version of each path; drops earlier versions of the same path.
pub(super) fn last_of_each_path(versions: &[NewVersion]) -> Vec<&NewVersion> {
    let last: HashMap<_, _> = versions.iter().enumerate().map(|(at, new)| (&new.path, at)).collect();
    versions.iter().enumerate().filter(|(at, new)| last[&new.path] == *at).map(|(_, new)| new).collect()
}

/// A version to be recorded, and the number of the version that it replaces, if any.
pub(super) type Successor<'a> = (&'a NewVersion, Option<i64>);

/// Ends the versions that the paths hold now, unless the new version is equal. Returns the new versions to be recorded:
/// leaves out equal ones, and `Gone` and `Skipped` versions that replace nothing.
pub(super) async fn supersede<'a>(
    transaction: &mut PgConnection,
    directory: &DirectoryName,
    versions: Vec<&'a NewVersion>,
    now: i64,
) -> Result<Vec<Successor<'a>>> {
    let new: Vec<Successor<'a>> = versions.iter().map(|new| (*new, None)).collect();
    let statement = sqlx::query(concat!(
        "SELECT v.id, i.at - 1 AS at, v.size = i.size AND v.mtime = i.mtime AND v.mtime_nanos = i.mtime_nanos
             AND v.inode = i.inode AND v.mode = i.mode AND v.kind = i.kind
             AND v.uid IS NOT DISTINCT FROM i.uid AND v.gid IS NOT DISTINCT FROM i.gid
             AND (v.digest = '' OR i.digest = '' OR v.digest = i.digest) AS stays
         FROM ",
        new_versions!(),
        ", ",
        version_at!("$16")
    ));
    let held = new_versions::bind(statement, &new).bind(directory.as_str()).fetch_all(&mut *transaction).await?;
    let (mut replaced, mut stay) = (HashMap::new(), HashSet::new());
    for row in held {
        let (at, id): (i64, i64) = (row.try_get("at")?, row.try_get("id")?);
        let new = usize::try_from(at).ok().and_then(|at| versions.get(at));
        // The entry was moved away from this path, but the path already holds another version, which stays.
        let is_other = new.is_some_and(|new| new.kind == VersionKind::Gone && new.origin.is_some_and(|it| it.0 != id));
        if is_other || row.try_get("stays")? {
            stay.insert(at);
        } else {
            replaced.insert(at, id);
        }
    }
    if !replaced.is_empty() {
        end(transaction, &replaced.values().copied().collect::<Vec<_>>(), "superseded", now).await?;
    }
    let successors = (0..).zip(versions).filter(|(at, _)| !stay.contains(at));
    let successors = successors.map(|(at, new)| (new, replaced.get(&at).copied()));
    let needs_none = |kind| !matches!(kind, VersionKind::Gone | VersionKind::Skipped);
    Ok(successors.filter(|(new, replaces)| needs_none(new.kind) || replaces.is_some()).collect())
}

/// Records versions, and a pending delivery of each version to each vessel.
pub(super) async fn insert(
    transaction: &mut PgConnection,
    directory: &DirectoryName,
    versions: &[Successor<'_>],
    vessels: &[VesselName],
    now: i64,
) -> Result<()> {
    // A skipped version is treated as forgotten: its path holds the version, and no vessel gets it.
    let statement = sqlx::query(concat!(
        "INSERT INTO version (directory, path, size, mtime, mtime_nanos, inode, mode, digest, chunk_size, kind, target, uid,
             gid, replaces, admitted_at, moved_from, forgotten_at)
         SELECT $16, i.path, i.size, i.mtime, i.mtime_nanos, i.inode, i.mode, i.digest, i.chunk_size, i.kind, i.target,
             i.uid, i.gid, i.replaces, $17, i.origin, CASE WHEN i.kind = 'skipped' THEN $17::bigint END
         FROM ",
        new_versions!(),
        " ORDER BY i.at RETURNING id"
    ));
    let inserted = new_versions::bind(statement, versions).bind(directory.as_str()).bind(now);
    let ids = rows::ids(&inserted.fetch_all(&mut *transaction).await?)?;
    if versions.iter().any(|(new, _)| new.moved_with.is_some()) {
        let moved_with = versions.iter().map(|(new, _)| new.moved_with.as_ref().map(RelPath::as_bytes));
        sqlx::query(
            "UPDATE version v SET waits_for = above.id
             FROM unnest($1::bigint[], $2::bytea[]) i (id, moved_with)
                 , LATERAL (
                     SELECT id FROM version WHERE directory = $3 AND path_key(path) = path_key(i.moved_with)
                         AND ended_at IS NULL AND moved_from IS NOT NULL OFFSET 0) above
             WHERE v.id = i.id AND i.moved_with IS NOT NULL",
        )
        .bind(&ids)
        .bind(moved_with.collect::<Vec<_>>())
        .bind(directory.as_str())
        .execute(&mut *transaction)
        .await?;
    }
    // A negative size stands for a size of 2^63 or more, see `signed`.
    sqlx::query(concat!(
        "INSERT INTO delivery (version, vessel, large, state, due_at, token, place, queue, rank, expires_at)
         SELECT v.id, n.vessel, v.size < 0 OR v.size > v.chunk_size, 'pending', $1, random_token(),
             coalesce((SELECT number FROM place p WHERE p.vessel = n.vessel AND p.directory = $2), 0),
             q.directory, ",
        rank!(),
        ", ",
        expires_at!(),
        "
         FROM version v CROSS JOIN unnest($4::text[]) WITH ORDINALITY n (vessel, at)
             LEFT JOIN queue q ON q.directory = $2 AND q.ordering IS NOT NULL
         WHERE v.id = ANY ($3) AND v.kind <> 'skipped' ORDER BY v.id, n.at"
    ))
    .bind(now)
    .bind(directory.as_str())
    .bind(&ids)
    .bind(rows::names(vessels))
    .execute(&mut *transaction)
    .await?;
    if versions.iter().any(|(new, _)| new.kind != VersionKind::Skipped) {
        // The new deliveries are for `vessels`. So a record that the directory was reconciled for another set of
        // vessels is no longer true.
        sqlx::query("DELETE FROM reconciled WHERE directory = $1 AND vessels <> $2")
            .bind(directory.as_str())
            .bind(sorted_names(vessels))
            .execute(&mut *transaction)
            .await?;
    }
    Ok(())
}

/// The SQL condition for a version `v` to be complete: no delivery of it is open, at least one delivery was
/// acknowledged or expired, and the version was not forgotten.
macro_rules! is_complete {
    () => {
        "(v.forgotten_at IS NULL
          AND NOT EXISTS (SELECT 1 FROM delivery d WHERE d.version = v.id AND d.state NOT IN ('acknowledged', 'superseded'))
          AND EXISTS (SELECT 1 FROM delivery d
              WHERE d.version = v.id AND (d.state = 'acknowledged' OR d.expired_at IS NOT NULL)))"
    };
}

/// Marks the versions of `deliveries`, which were just acknowledged or have just expired, as complete if `is_complete`
/// is true for them. A complete `gone` version ends as retired.
pub(super) async fn settle(transaction: &mut PgConnection, deliveries: &[i64], now: i64) -> Result<()> {
    let settle = concat!(
        "UPDATE version v SET complete = true, ended_at = CASE WHEN v.kind = 'gone' THEN $2::bigint END,
             ending = CASE WHEN v.kind = 'gone' THEN 'retired' END
         WHERE v.id = ANY (ARRAY(SELECT d.version FROM delivery d WHERE d.id = ANY ($1)))
           AND NOT v.complete AND v.ended_at IS NULL AND ",
        is_complete!()
    );
    sqlx::query(settle).bind(deliveries).bind(now).execute(&mut *transaction).await?;
    Ok(())
}

/// Recomputes whether versions are complete.
pub(super) async fn settle_versions(transaction: &mut PgConnection, versions: &[i64], now: i64) -> Result<()> {
    let settle = concat!(
        "UPDATE version v SET complete = NOT v.complete
         WHERE v.id = ANY ($1) AND v.ended_at IS NULL AND v.complete <> ",
        is_complete!()
    );
    sqlx::query(settle).bind(versions).execute(&mut *transaction).await?;
    sqlx::query(
        "UPDATE version SET ended_at = $1, ending = 'retired'
         WHERE id = ANY ($2) AND complete AND ended_at IS NULL AND kind = 'gone'",
    )
    .bind(now)
    .bind(versions)
    .execute(&mut *transaction)
    .await?;
    Ok(())
}
