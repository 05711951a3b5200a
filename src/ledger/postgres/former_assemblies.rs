//! The names that assemblies (unfinished files on a vessel) had before this process took the vessel over.

use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};

use super::{Postgres, Result, rows};
use crate::names::VesselName;
use crate::records::{DeliveryId, FormerAssembly};

/// Gives new assembly names to the unfinished deliveries of vessels that this process takes over. A process that
/// acquires the vessels must call this function in the same transaction.
pub(super) async fn change_tokens(write: &mut PgConnection, vessels: &[&str]) -> sqlx::Result<()> {
    sqlx::query("SELECT change_tokens($1)").bind(vessels).execute(write).await.map(drop)
}

pub(super) async fn of_vessel(ledger: &Postgres, vessel: &VesselName) -> Result<Vec<FormerAssembly>> {
    let former = ledger.lasting(|pools| async move {
        let statement = sqlx::query(
            "SELECT f.id, f.delivery, f.token AS former, v.directory, v.path, v.size,
                 CASE WHEN d.state NOT IN ('acknowledged', 'superseded') THEN d.token END AS token
             FROM former_assembly f JOIN delivery d ON d.id = f.delivery JOIN version v ON v.id = d.version
             WHERE f.vessel = $1 ORDER BY f.id DESC",
        );
        Ok(statement.bind(vessel.as_str()).fetch_all(&pools.readers).await?)
    });
    former.await?.iter().map(former_assembly).collect()
}

pub(super) async fn forget(ledger: &Postgres, numbers: &[i64]) -> Result<()> {
    let forgotten = ledger.lasting(|pools| async move {
        pools.write_one(sqlx::query("DELETE FROM former_assembly WHERE id = ANY ($1)").bind(numbers)).await
    });
    forgotten.await.map(drop)
}

fn former_assembly(row: &PgRow) -> Result<FormerAssembly> {
    Ok(FormerAssembly {
        number: row.try_get("id")?,
        delivery: DeliveryId(row.try_get("delivery")?),
        former: row.try_get::<Option<i64>, _>("former")?.map(i64::cast_unsigned),
        current: rows::token(row)?,
        directory: rows::directory(row)?,
        path: rows::rel_path(row)?,
        size: row.try_get::<i64, _>("size")?.cast_unsigned(),
    })
}
