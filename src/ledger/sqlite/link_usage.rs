//! Implements [`LinkUsage`] in SQLite's SQL.

use std::ops::RangeInclusive;

use async_trait::async_trait;
use sqlx::sqlite::SqliteRow;
use sqlx::{Row, SqlitePool};

use super::rows::signed;
use super::{Result, Sqlite, json};
use crate::ledger::LinkUsage;
use crate::names::VesselName;
use crate::records::{DeliveryCost, DeliveryId, LinkBytes, UtcDay};

/// Number of days whose sums are kept: more than a year, for comparisons.
const KEPT_DAYS: i64 = 400;

#[async_trait]
impl LinkUsage for Sqlite {
    async fn add_link_bytes(&self, day: UtcDay, bytes: &[(VesselName, LinkBytes)]) -> Result<()> {
        let mut transaction = self.writer.begin().await?;
        for (vessel, bytes) in bytes {
            sqlx::query(
                "INSERT INTO link_bytes (day, vessel, sent, received, resent) VALUES (?, ?, ?, ?, ?)
                 ON CONFLICT (day, vessel) DO UPDATE SET sent = sent + excluded.sent,
                     received = received + excluded.received, resent = resent + excluded.resent",
            )
            .bind(day.0)
            .bind(vessel.as_str())
            .bind(signed(bytes.sent))
            .bind(signed(bytes.received))
            .bind(signed(bytes.resent))
            .execute(&mut *transaction)
            .await?;
        }
        sqlx::query("DELETE FROM link_bytes WHERE day < ?")
            .bind(day.0.saturating_sub(KEPT_DAYS))
            .execute(&mut *transaction)
            .await?;
        Ok(transaction.commit().await?)
    }

    async fn link_bytes(&self, days: RangeInclusive<UtcDay>) -> Result<Vec<(VesselName, LinkBytes)>> {
        sums(&self.readers, days).await
    }

    async fn add_costs(&self, costs: &[(DeliveryId, DeliveryCost)]) -> Result<()> {
        sqlx::query(
            "UPDATE delivery SET written_bytes = coalesce(written_bytes, 0) + (c.value ->> 1),
                 link_bytes = coalesce(link_bytes + (c.value ->> 2), link_bytes, c.value ->> 2)
             FROM json_each(?) c WHERE delivery.id = c.value ->> 0",
        )
        .bind(json::costs(costs.iter().map(|(id, cost)| (id.0, Some(*cost)))))
        .execute(&self.writer)
        .await?;
        Ok(())
    }
}

/// Returns the sums over days by vessel.
pub(super) async fn sums(readers: &SqlitePool, days: RangeInclusive<UtcDay>) -> Result<Vec<(VesselName, LinkBytes)>> {
    let found = sqlx::query(
        "SELECT vessel, sum(sent) AS sent, sum(received) AS received, sum(resent) AS resent
         FROM link_bytes WHERE day BETWEEN ? AND ? GROUP BY vessel ORDER BY vessel",
    )
    .bind(days.start().0)
    .bind(days.end().0)
    .fetch_all(readers)
    .await?;
    found.iter().map(sum).collect()
}

fn sum(row: &SqliteRow) -> Result<(VesselName, LinkBytes)> {
    let number = |column| Ok::<_, sqlx::Error>(row.try_get::<i64, _>(column)?.cast_unsigned());
    let bytes = LinkBytes { sent: number("sent")?, received: number("received")?, resent: number("resent")? };
    Ok((VesselName::new(row.try_get("vessel")?), bytes))
}
