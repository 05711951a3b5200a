//! Implements [`LinkUsage`] in SQLite's SQL.

use std::ops::RangeInclusive;

use async_trait::async_trait;
use sqlx::sqlite::SqliteRow;
use sqlx::{Row, SqlitePool};

use super::rows::signed;
use super::{Result, Sqlite, json};
use crate::ledger::LinkUsage;
use crate::names::VesselName;
use crate::records::{DeliveryCost, DeliveryId, LinkBytes, UtcDay, WayOf};

/// Number of days for which sums are kept: more than a year, for comparisons.
const KEPT_DAYS: i64 = 400;

/// Removes the rows that are more than `?2` days older than the day `?1`, but keeps the newest `?2` days that have
/// rows. The `+` prevents an index lookup by the second condition, so that SQLite counts the newest days only if the
/// first condition finds rows.
macro_rules! old {
    ($table:literal) => {
        concat!(
            "DELETE FROM ",
            $table,
            " WHERE day < ?1 - ?2 AND +day < (SELECT DISTINCT day FROM ",
            $table,
            " ORDER BY day DESC LIMIT 1 OFFSET ?2 - 1)"
        )
    };
}

#[async_trait]
impl LinkUsage for Sqlite {
    async fn add_link_bytes(&self, day: UtcDay, bytes: &[(WayOf, LinkBytes)]) -> Result<()> {
        let mut transaction = self.writer.begin().await?;
        for ((vessel, way), bytes) in bytes {
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
            let Some(way) = way else { continue };
            sqlx::query(
                "INSERT INTO way_bytes (day, vessel, way, sent, received, resent) VALUES (?, ?, ?, ?, ?, ?)
                 ON CONFLICT (day, vessel, way) DO UPDATE SET sent = sent + excluded.sent,
                     received = received + excluded.received, resent = resent + excluded.resent",
            )
            .bind(day.0)
            .bind(vessel.as_str())
            .bind(way)
            .bind(signed(bytes.sent))
            .bind(signed(bytes.received))
            .bind(signed(bytes.resent))
            .execute(&mut *transaction)
            .await?;
        }
        for old in [old!("link_bytes"), old!("way_bytes"), old!("budget_ceiling")] {
            sqlx::query(old).bind(day.0).bind(KEPT_DAYS).execute(&mut *transaction).await?;
        }
        Ok(transaction.commit().await?)
    }

    async fn link_bytes(&self, days: RangeInclusive<UtcDay>) -> Result<Vec<(VesselName, LinkBytes)>> {
        sums(&self.readers, days).await
    }

    async fn link_days(&self, day: UtcDay, most: u32) -> Result<Vec<(UtcDay, WayOf, LinkBytes)>> {
        let found = sqlx::query(
            "WITH near AS (SELECT day FROM link_bytes GROUP BY day ORDER BY abs(day - ?) LIMIT ?)
             SELECT day, vessel, NULL AS way, sent, received, resent FROM link_bytes
             WHERE day IN (SELECT day FROM near)
             UNION ALL SELECT day, vessel, way, sent, received, resent FROM way_bytes
             WHERE day IN (SELECT day FROM near)",
        )
        .bind(day.0)
        .bind(most)
        .fetch_all(&self.readers)
        .await?;
        let day_of = |row: &SqliteRow| {
            let (vessel, bytes) = sum(row)?;
            Ok((UtcDay(row.try_get("day")?), (vessel, row.try_get("way")?), bytes))
        };
        found.iter().map(day_of).collect()
    }

    async fn raise_ceiling(&self, payer: &str, day: UtcDay, bytes: u64) -> Result<()> {
        sqlx::query(
            "INSERT INTO budget_ceiling (payer, day, bytes) VALUES (?, ?, ?)
             ON CONFLICT (payer, day) DO UPDATE SET bytes = max(bytes, excluded.bytes)",
        )
        .bind(payer)
        .bind(day.0)
        .bind(signed(bytes))
        .execute(&self.writer)
        .await?;
        Ok(())
    }

    async fn ceilings(&self, day: UtcDay, most: u32) -> Result<Vec<(String, UtcDay, u64)>> {
        let found = sqlx::query(
            "WITH near AS (SELECT day FROM budget_ceiling GROUP BY day ORDER BY abs(day - ?) LIMIT ?)
             SELECT payer, day, bytes FROM budget_ceiling WHERE day IN (SELECT day FROM near) ORDER BY payer, day",
        )
        .bind(day.0)
        .bind(most)
        .fetch_all(&self.readers)
        .await?;
        let ceiling = |row: &SqliteRow| {
            let bytes = row.try_get::<i64, _>("bytes")?.cast_unsigned();
            Ok((row.try_get("payer")?, UtcDay(row.try_get("day")?), bytes))
        };
        found.iter().map(ceiling).collect()
    }

    async fn lower_ceiling(&self, payer: &str, day: UtcDay, from: u64, to: Option<u64>) -> Result<()> {
        let lower = match to {
            Some(_) => "UPDATE budget_ceiling SET bytes = ?4 WHERE payer = ?1 AND day = ?2 AND bytes = ?3",
            None => "DELETE FROM budget_ceiling WHERE payer = ?1 AND day = ?2 AND bytes = ?3",
        };
        let lower = sqlx::query(lower).bind(payer).bind(day.0).bind(signed(from));
        let lower = if let Some(bytes) = to { lower.bind(signed(bytes)) } else { lower };
        lower.execute(&self.writer).await?;
        Ok(())
    }

    async fn budget_told(&self, payer: &str, period: &str, first: UtcDay) -> Result<u32> {
        let question = "SELECT percent FROM budget_told WHERE payer = ? AND period = ? AND first_day = ?";
        let told = sqlx::query(question).bind(payer).bind(period).bind(first.0).fetch_optional(&self.readers).await?;
        Ok(told.map(|row| row.try_get("percent")).transpose()?.unwrap_or(0))
    }

    async fn tell_budget(&self, payer: &str, period: &str, first: UtcDay, percent: u32) -> Result<()> {
        sqlx::query("INSERT OR REPLACE INTO budget_told (payer, period, first_day, percent) VALUES (?, ?, ?, ?)")
            .bind(payer)
            .bind(period)
            .bind(first.0)
            .bind(percent)
            .execute(&self.writer)
            .await?;
        Ok(())
    }

    async fn add_costs(&self, costs: &[(DeliveryId, DeliveryCost)]) -> Result<()> {
        sqlx::query(
            "UPDATE delivery SET written_bytes = coalesce(written_bytes, 0) + c.written,
                 link_bytes = coalesce(link_bytes + c.link, link_bytes, c.link)
             FROM (SELECT value ->> 0 AS id, sum(value ->> 1) AS written, sum(value ->> 2) AS link
                   FROM json_each(?) GROUP BY 1) c
             WHERE delivery.id = c.id",
        )
        .bind(json::costs(costs.iter().map(|(id, cost)| (id.0, Some(*cost)))))
        .execute(&self.writer)
        .await?;
        Ok(())
    }
}

/// Returns the bytes of each vessel, summed over `days`.
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

/// Returns the bytes of each way of each vessel, summed over `days`.
pub(super) async fn way_sums(readers: &SqlitePool, days: RangeInclusive<UtcDay>) -> Result<Vec<(WayOf, LinkBytes)>> {
    let found = sqlx::query(
        "SELECT vessel, way, sum(sent) AS sent, sum(received) AS received, sum(resent) AS resent
         FROM way_bytes WHERE day BETWEEN ? AND ? GROUP BY vessel, way ORDER BY vessel, way",
    )
    .bind(days.start().0)
    .bind(days.end().0)
    .fetch_all(readers)
    .await?;
    let way = |row: &SqliteRow| {
        let (vessel, bytes) = sum(row)?;
        Ok(((vessel, Some(row.try_get("way")?)), bytes))
    };
    found.iter().map(way).collect()
}

fn sum(row: &SqliteRow) -> Result<(VesselName, LinkBytes)> {
    let number = |column| Ok::<_, sqlx::Error>(row.try_get::<i64, _>(column)?.cast_unsigned());
    let bytes = LinkBytes { sent: number("sent")?, received: number("received")?, resent: number("resent")? };
    Ok((VesselName::new(row.try_get("vessel")?), bytes))
}
