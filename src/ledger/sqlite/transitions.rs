//! The life cycle of versions: recorded, complete, ended. Each function runs in the caller's transaction, and uses the
//! same number of statements for any number of versions.

use std::collections::{HashMap, HashSet};

use sqlx::{Row, Sqlite, Transaction};

use super::listeners::Listeners;
use super::ranks::{expires_at, rank};
use super::{Result, json, rows};
use crate::ledger::places::sorted_names;
use crate::names::{DirectoryName, RelPath, VesselName};
use crate::records::{NewVersion, VersionKind};

/// Ends versions and supersedes their open deliveries. `versions` is a JSON array of their numbers. A complete version
/// that vanished counts as retired, or as expired if no vessel acknowledged it.
async fn end(transaction: &mut Transaction<'_, Sqlite>, versions: &str, ending: &str, now: i64) -> Result<()> {
    sqlx::query(
        "UPDATE delivery SET state = 'superseded', parked = 0
         WHERE state NOT IN ('acknowledged', 'superseded') AND version IN (SELECT value FROM json_each(?))",
    )
    .bind(versions)
    .execute(&mut **transaction)
    .await?;
    sqlx::query(
        "UPDATE version AS v SET ended_at = ?1, ending = CASE WHEN complete = 1 AND ?2 = 'vanished' THEN iif(
             EXISTS (SELECT 1 FROM delivery d WHERE d.version = v.id AND d.state = 'acknowledged'), 'retired', 'expired')
             ELSE ?2 END
         WHERE ended_at IS NULL AND id IN (SELECT value FROM json_each(?3))",
    )
    .bind(now)
    .bind(ending)
    .bind(versions)
    .execute(&mut **transaction)
    .await?;
    Ok(())
}

/// Ends the versions of `paths`, because their sources no longer exist. Returns the paths of the versions that were not
/// complete, and whether a notice was recorded.
pub(super) async fn end_vanished(
    transaction: &mut Transaction<'_, Sqlite>,
    directory: &DirectoryName,
    paths: &[RelPath],
    now: i64,
    listeners: &Listeners,
) -> Result<(Vec<RelPath>, bool)> {
    let held = sqlx::query(
        "SELECT v.id, v.path, v.complete FROM json_each(?1) i CROSS JOIN version v
         WHERE v.directory = ?2 AND v.path = unhex(i.value) AND v.ended_at IS NULL",
    )
    .bind(json::paths(paths))
    .bind(directory.as_str())
    .fetch_all(&mut **transaction)
    .await?;
    if held.is_empty() {
        return Ok((Vec::new(), false));
    }
    let ids: Vec<i64> = held.iter().map(|row| row.try_get("id")).collect::<sqlx::Result<_>>()?;
    let ids = json::numbers(ids.into_iter());
    let noted = listeners.note_retired(transaction, &ids, now).await?;
    end(transaction, &ids, "vanished", now).await?;
    let dropped =
        held.iter().filter(|row| row.get::<i64, _>("complete") == 0).map(rows::rel_path).collect::<Result<_>>()?;
    Ok((dropped, noted))
}

/// Marks a version as forgotten: its path still holds the version, and the version's open deliveries are superseded.
/// Returns `false` when the version has ended, is complete, or was already forgotten.
pub(super) async fn forget(transaction: &mut Transaction<'_, Sqlite>, version: i64, now: i64) -> Result<bool> {
    let forgotten = sqlx::query(
        "UPDATE version SET forgotten_at = ?
         WHERE id = ? AND ended_at IS NULL AND complete = 0 AND forgotten_at IS NULL",
    )
    .bind(now)
    .bind(version)
    .execute(&mut **transaction)
    .await?;
    if forgotten.rows_affected() == 0 {
        return Ok(false);
    }
    sqlx::query(
        "UPDATE delivery SET state = 'superseded', parked = 0
         WHERE version = ? AND state NOT IN ('acknowledged', 'superseded')",
    )
    .bind(version)
    .execute(&mut **transaction)
    .await?;
    Ok(true)
}

/// Marks all incomplete versions that a directory holds now as forgotten; returns the number of marked versions.
pub(super) async fn forget_all(
    transaction: &mut Transaction<'_, Sqlite>,
    directory: &DirectoryName,
    now: i64,
) -> Result<u64> {
    sqlx::query(
        "UPDATE delivery SET state = 'superseded', parked = 0
         WHERE state NOT IN ('acknowledged', 'superseded') AND version IN (
             SELECT id FROM version
             WHERE directory = ? AND ended_at IS NULL AND complete = 0 AND forgotten_at IS NULL)",
    )
    .bind(directory.as_str())
    .execute(&mut **transaction)
    .await?;
    let forgotten = sqlx::query(
        "UPDATE version SET forgotten_at = ?
         WHERE directory = ? AND ended_at IS NULL AND complete = 0 AND forgotten_at IS NULL",
    )
    .bind(now)
    .bind(directory.as_str())
    .execute(&mut **transaction)
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
    transaction: &mut Transaction<'_, Sqlite>,
    directory: &DirectoryName,
    versions: Vec<&'a NewVersion>,
    now: i64,
) -> Result<Vec<Successor<'a>>> {
    let held = sqlx::query(
        "SELECT v.id, i.key AS at, v.size = i.value ->> 1 AND v.mtime = i.value ->> 2 AND v.mtime_nanos = i.value ->> 3
             AND v.inode = i.value ->> 4 AND v.mode = i.value ->> 5 AND v.kind = i.value ->> 8
             AND v.uid IS i.value ->> 10 AND v.gid IS i.value ->> 11
             AND (v.digest = x'' OR i.value ->> 6 = '' OR v.digest = unhex(i.value ->> 6)) AS stays
         FROM json_each(?1) i CROSS JOIN version v
         WHERE v.directory = ?2 AND v.path = unhex(i.value ->> 0) AND v.ended_at IS NULL",
    )
    .bind(json::versions(versions.iter().map(|new| (*new, None))))
    .bind(directory.as_str())
    .fetch_all(&mut **transaction)
    .await?;
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
        end(transaction, &json::numbers(replaced.values().copied()), "superseded", now).await?;
    }
    let successors = (0..).zip(versions).filter(|(at, _)| !stay.contains(at));
    let successors = successors.map(|(at, new)| (new, replaced.get(&at).copied()));
    let needs_none = |kind| !matches!(kind, VersionKind::Gone | VersionKind::Skipped);
    Ok(successors.filter(|(new, replaces)| needs_none(new.kind) || replaces.is_some()).collect())
}

/// Records versions with consecutive numbers, and a pending delivery of each version to each vessel.
pub(super) async fn insert(
    transaction: &mut Transaction<'_, Sqlite>,
    directory: &DirectoryName,
    versions: &[Successor<'_>],
    vessels: &[VesselName],
    now: i64,
) -> Result<()> {
    let inserted = sqlx::query(
        "INSERT INTO version (directory, path, size, mtime, mtime_nanos, inode, mode, digest, chunk_size, kind, target, uid,
             gid, replaces, admitted_at, moved_from)
         SELECT ?2, unhex(value ->> 0), value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5,
             unhex(value ->> 6), value ->> 7, value ->> 8, unhex(value ->> 9), value ->> 10, value ->> 11, value ->> 12, ?3, value ->> 13
         FROM json_each(?1) ORDER BY key",
    )
    .bind(json::versions(versions.iter().copied()))
    .bind(directory.as_str())
    .bind(now)
    .execute(&mut **transaction)
    .await?;
    // Only one connection writes, and the numbers are consecutive, so the inserted versions have the highest numbers.
    let before_them = inserted.last_insert_rowid() - inserted.rows_affected().cast_signed();
    if versions.iter().any(|(new, _)| new.kind == VersionKind::Skipped) {
        // A skipped version is treated as forgotten: its path holds the version, and no vessel gets it.
        sqlx::query("UPDATE version SET forgotten_at = ? WHERE id > ? AND kind = 'skipped'")
            .bind(now)
            .bind(before_them)
            .execute(&mut **transaction)
            .await?;
    }
    if versions.iter().any(|(new, _)| new.moved_with.is_some()) {
        sqlx::query(
            "UPDATE version AS v SET waits_for = above.id
             FROM json_each(?1) i CROSS JOIN version above
             WHERE v.id = ?2 + 1 + i.key AND i.value ->> 14 IS NOT NULL AND above.directory = ?3
               AND above.path = unhex(i.value ->> 14) AND above.ended_at IS NULL AND above.moved_from IS NOT NULL",
        )
        .bind(json::versions(versions.iter().copied()))
        .bind(before_them)
        .bind(directory.as_str())
        .execute(&mut **transaction)
        .await?;
    }
    // A negative size stands for a size of 2^63 or more, see `signed`.
    sqlx::query(concat!(
        "INSERT INTO delivery (version, vessel, large, state, due_at, token, place, queue, rank, expires_at)
         SELECT v.id, vessel.value, v.size < 0 OR v.size > v.chunk_size, 'pending', ?1, random(),
             coalesce((SELECT number FROM place p WHERE p.vessel = vessel.value AND p.directory = v.directory), 0),
             q.directory, ",
        rank!(),
        ", ",
        expires_at!(),
        "
         FROM version v CROSS JOIN json_each(?2) vessel
             LEFT JOIN queue q ON q.directory = v.directory AND q.ordering IS NOT NULL
         WHERE v.id > ?3 AND v.kind <> 'skipped' ORDER BY v.id, vessel.key"
    ))
    .bind(now)
    .bind(json::names(vessels))
    .bind(before_them)
    .execute(&mut **transaction)
    .await?;
    if versions.iter().any(|(new, _)| new.kind != VersionKind::Skipped) {
        // The new deliveries are for `vessels`. So a record that the directory was reconciled for another set of
        // vessels is no longer true.
        sqlx::query("DELETE FROM reconciled WHERE directory = ? AND vessels <> ?")
            .bind(directory.as_str())
            .bind(sorted_names(vessels))
            .execute(&mut **transaction)
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

/// Marks the versions of `deliveries` (a JSON array of numbers), which were just acknowledged or have just expired, as
/// complete if `is_complete` is true for them. A complete `gone` version ends as retired.
pub(super) async fn settle(transaction: &mut Transaction<'_, Sqlite>, deliveries: &str, now: i64) -> Result<()> {
    let settle = concat!(
        "UPDATE version AS v SET complete = 1, ended_at = iif(kind = 'gone', ?2, NULL),
             ending = iif(kind = 'gone', 'retired', NULL)
         WHERE v.id IN (SELECT version FROM delivery WHERE id IN (SELECT value FROM json_each(?1)))
           AND v.complete = 0 AND v.ended_at IS NULL AND ",
        is_complete!()
    );
    sqlx::query(settle).bind(deliveries).bind(now).execute(&mut **transaction).await?;
    Ok(())
}

/// Recomputes whether versions are complete. `versions` is a JSON array of their numbers.
pub(super) async fn settle_versions(transaction: &mut Transaction<'_, Sqlite>, versions: &str, now: i64) -> Result<()> {
    let settle = concat!(
        "UPDATE version AS v SET complete = NOT v.complete
         WHERE v.id IN (SELECT value FROM json_each(?)) AND ended_at IS NULL AND v.complete <> ",
        is_complete!()
    );
    sqlx::query(settle).bind(versions).execute(&mut **transaction).await?;
    sqlx::query(
        "UPDATE version SET ended_at = ?, ending = 'retired'
         WHERE id IN (SELECT value FROM json_each(?)) AND complete = 1 AND ended_at IS NULL AND kind = 'gone'",
    )
    .bind(now)
    .bind(versions)
    .execute(&mut **transaction)
    .await?;
    Ok(())
}
