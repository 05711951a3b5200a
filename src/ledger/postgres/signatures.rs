//! Signatures of delivered files: recorded, queried, and dropped once no vessel has their version as its last one.

use sqlx::postgres::PgRow;

use super::{Postgres, Result, rows};
use crate::ledger::LastDelivered;
use crate::names::VesselName;
use crate::records::Version;
use crate::signature::Signature;

/// Records the signature of a version. Drops the signature of an earlier version of the path when no vessel has that
/// version as the last one that it acknowledged.
pub(super) async fn enter(store: &Postgres, version: &Version, signature: &Signature) -> Result<()> {
    let outline = signature.to_bytes();
    let entered = store.lasting(|pools| {
        let outline = &outline;
        async move {
            let mut write = pools.begin().await?;
            sqlx::query(
                "INSERT INTO outline (version, directory, path, outline) VALUES ($1, $2, $3, $4)
                 ON CONFLICT (version) DO UPDATE SET outline = excluded.outline",
            )
            .bind(version.id.0)
            .bind(version.directory.as_str())
            .bind(version.path.as_bytes())
            .bind(&outline[..])
            .execute(&mut *write)
            .await?;
            sqlx::query(
                "DELETE FROM outline o WHERE o.directory = $1 AND path_key(o.path) = path_key($2) AND o.version < $3
                 AND NOT EXISTS (
                     SELECT 1 FROM delivery d WHERE d.version = o.version AND d.state = 'acknowledged' AND NOT EXISTS (
                         SELECT 1 FROM outline later JOIN delivery other ON other.version = later.version
                         WHERE later.directory = $1 AND path_key(later.path) = path_key($2) AND later.version > o.version
                           AND other.vessel = d.vessel AND other.state = 'acknowledged'))",
            )
            .bind(version.directory.as_str())
            .bind(version.path.as_bytes())
            .bind(version.id.0)
            .execute(&mut *write)
            .await?;
            write.commit().await
        }
    });
    entered.await
}

/// Returns the signature of a version; `None` when no signature was recorded.
pub(super) async fn of_version(store: &Postgres, version: &Version) -> Result<Option<Signature>> {
    let row = store.lasting(|pools| async move {
        let statement = sqlx::query("SELECT outline FROM outline WHERE version = $1").bind(version.id.0);
        Ok(statement.fetch_optional(&pools.readers).await?)
    });
    row.await?.as_ref().map(rows::signature).transpose()
}

/// Returns the version of the same path that a vessel acknowledged last, considering only versions with a signature.
pub(super) async fn last_delivered(
    store: &Postgres,
    vessel: &VesselName,
    version: &Version,
) -> Result<Option<LastDelivered>> {
    let row = store.lasting(|pools| async move {
        let statement = sqlx::query(
            "SELECT v.size, v.mtime, v.mtime_nanos, v.inode, o.outline
             FROM outline o JOIN delivery d ON d.version = o.version AND d.vessel = $3
             JOIN version v ON v.id = o.version
             WHERE o.directory = $1 AND path_key(o.path) = path_key($2) AND d.state = 'acknowledged'
             ORDER BY d.acknowledged_at DESC, o.version DESC LIMIT 1",
        )
        .bind(version.directory.as_str())
        .bind(version.path.as_bytes())
        .bind(vessel.as_str());
        Ok(statement.fetch_optional(&pools.readers).await?)
    });
    let last = |row: &PgRow| Ok(LastDelivered { stamp: rows::stamp(row)?, signature: rows::signature(row)? });
    row.await?.as_ref().map(last).transpose()
}
