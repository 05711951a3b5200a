//! Passes new versions to a statement as arrays, one for each column, so that one statement records any number of
//! versions.

use sqlx::Postgres as Db;
use sqlx::postgres::PgArguments;
use sqlx::query::Query;

use super::rows::{digest_bytes, signed};
use crate::names::RelPath;
use crate::records::{NewVersion, VersionKind};

/// The arrays as a table `i`. They are the parameters 1 to 15. `at` is the position of a version in the arrays,
/// beginning with 1.
macro_rules! new_versions {
    () => {
        "unnest($1::bytea[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bytea[], $8::bigint[],
             $9::text[], $10::bytea[], $11::bigint[], $12::bigint[], $13::bigint[], $14::bigint[], $15::bytea[])
             WITH ORDINALITY AS i (path, size, mtime, mtime_nanos, inode, mode, digest, chunk_size, kind, target, uid, gid,
             replaces, origin, moved_with, at)"
    };
}
pub(super) use new_versions;

/// Binds the parameters of [`new_versions`]. Each version comes with the number of the version that it replaces, if
/// any.
pub(super) fn bind<'q>(
    statement: Query<'q, Db, PgArguments>,
    versions: &[(&'q NewVersion, Option<i64>)],
) -> Query<'q, Db, PgArguments> {
    let numbers = |number: fn(&NewVersion) -> i64| versions.iter().map(|(new, _)| number(new)).collect::<Vec<_>>();
    let optional = |number: fn(&NewVersion) -> Option<i64>| {
        versions.iter().map(|(new, _)| number(new)).collect::<Vec<Option<i64>>>()
    };
    let origin = |new: &NewVersion| new.origin.filter(|_| new.kind != VersionKind::Gone).map(|origin| origin.0);
    statement
        .bind(versions.iter().map(|(new, _)| new.path.as_bytes()).collect::<Vec<_>>())
        .bind(numbers(|new| signed(new.stamp.size)))
        .bind(numbers(|new| new.stamp.mtime))
        .bind(numbers(|new| new.stamp.mtime_nanos.into()))
        .bind(numbers(|new| signed(new.stamp.inode)))
        .bind(numbers(|new| new.mode.into()))
        .bind(versions.iter().map(|(new, _)| digest_bytes(&new.digest)).collect::<Vec<_>>())
        .bind(numbers(|new| signed(new.chunk_size)))
        .bind(versions.iter().map(|(new, _)| new.kind.as_str()).collect::<Vec<_>>())
        .bind(versions.iter().map(|(new, _)| new.target.as_slice()).collect::<Vec<_>>())
        .bind(optional(|new| new.owner.map(|(user, _)| user.into())))
        .bind(optional(|new| new.owner.map(|(_, group)| group.into())))
        .bind(versions.iter().map(|(_, replaces)| *replaces).collect::<Vec<_>>())
        .bind(versions.iter().map(|(new, _)| origin(new)).collect::<Vec<_>>())
        .bind(versions.iter().map(|(new, _)| new.moved_with.as_ref().map(RelPath::as_bytes)).collect::<Vec<_>>())
}
