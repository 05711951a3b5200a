//! Implements [`Shores`] in SQLite's SQL. A ledger file has one shore, but a file that was copied from a ledger in
//! PostgreSQL may contain records of several shores.

use async_trait::async_trait;
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use super::{Result, Sqlite, json, rows};
use crate::ledger::Shores;
use crate::names::VesselName;
use crate::records::{DeliveryId, FormerAssembly};

#[async_trait]
impl Shores for Sqlite {
    async fn former_assemblies(&self, vessel: &VesselName) -> Result<Vec<FormerAssembly>> {
        let former = sqlx::query(
            "SELECT f.id, f.delivery, f.token AS former, v.directory, v.path, v.size,
                 iif(d.state IN ('acknowledged', 'superseded'), NULL, d.token) AS token
             FROM former_assembly f JOIN delivery d ON d.id = f.delivery JOIN version v ON v.id = d.version
             WHERE f.vessel = ? ORDER BY f.id DESC",
        );
        former.bind(vessel.as_str()).fetch_all(&self.readers).await?.iter().map(former_assembly).collect()
    }

    async fn forget_former_assemblies(&self, numbers: &[i64]) -> Result<()> {
        let forget = sqlx::query("DELETE FROM former_assembly WHERE id IN (SELECT value FROM json_each(?))");
        forget.bind(json::numbers(numbers.iter().copied())).execute(&self.writer).await?;
        Ok(())
    }
}

fn former_assembly(row: &SqliteRow) -> Result<FormerAssembly> {
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
