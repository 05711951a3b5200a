//! Implements [`LinkUsage`] in PostgreSQL's SQL.

use std::ops::RangeInclusive;

use async_trait::async_trait;
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, PgPool, Row};

use super::doubt::Doubt;
use super::rows::signed;
use super::{Postgres, Result, rows};
use crate::ledger::LinkUsage;
use crate::names::VesselName;
use crate::records::{DeliveryCost, DeliveryId, LinkBytes, UtcDay, WayOf};

/// Number of days for which sums are kept: more than a year, for comparisons.
const KEPT_DAYS: i64 = 400;

/// Removes the rows that are more than `$2` days older than the day `$1`, but keeps the newest `$2` days that have
/// rows. The `+ 0` prevents an index lookup by the second condition, so that PostgreSQL counts the newest days only if
/// the first condition finds rows.
macro_rules! old {
    ($table:literal) => {
        concat!(
            "DELETE FROM ",
            $table,
            " WHERE day < $1 - $2 AND day + 0 < (SELECT DISTINCT day FROM ",
            $table,
            " ORDER BY day DESC LIMIT 1 OFFSET $2 - 1)"
        )
    };
}

#[async_trait]
impl LinkUsage for Postgres {
    async fn add_link_bytes(&self, day: UtcDay, bytes: &[(WayOf, LinkBytes)]) -> Result<()> {
        let doubt = &Doubt::new();
        let added = self.lasting(|pools| async move {
            if doubt.resolved(&pools).await?.is_some() {
                return Ok(());
            }
            let mut write = pools.begin().await?;
            add(&mut write, day, bytes).await?;
            doubt.commit(write, ()).await
        });
        added.await
    }

    async fn link_bytes(&self, days: RangeInclusive<UtcDay>) -> Result<Vec<(VesselName, LinkBytes)>> {
        let days = &days;
        self.lasting(|pools| async move { sums(&pools.readers, days.clone()).await }).await
    }

    async fn link_days(&self, day: UtcDay, most: u32) -> Result<Vec<(UtcDay, WayOf, LinkBytes)>> {
        let found = self.lasting(|pools| async move {
            let statement = sqlx::query(
                "WITH near AS (SELECT day FROM link_bytes GROUP BY day ORDER BY abs(day - $1) LIMIT $2)
                 SELECT day, vessel, NULL AS way, sent, received, resent FROM link_bytes
                 WHERE day IN (SELECT day FROM near)
                 UNION ALL SELECT day, vessel, way, sent, received, resent FROM way_bytes
                 WHERE day IN (SELECT day FROM near)",
            );
            Ok(statement.bind(day.0).bind(i64::from(most)).fetch_all(&pools.readers).await?)
        });
        let day_of = |row: &PgRow| {
            let (vessel, bytes) = sum(row)?;
            Ok((UtcDay(row.try_get("day")?), (vessel, row.try_get("way")?), bytes))
        };
        found.await?.iter().map(day_of).collect()
    }

    async fn raise_ceiling(&self, payer: &str, day: UtcDay, bytes: u64) -> Result<()> {
        let raised = self.lasting(|pools| {
            let statement = sqlx::query(
                "INSERT INTO budget_ceiling AS c (payer, day, bytes) VALUES ($1, $2, $3)
                 ON CONFLICT (payer, day) DO UPDATE SET bytes = greatest(c.bytes, excluded.bytes)",
            )
            .bind(payer)
            .bind(day.0)
            .bind(signed(bytes));
            async move { pools.write_one(statement).await.map(drop) }
        });
        raised.await
    }

    async fn ceilings(&self, day: UtcDay, most: u32) -> Result<Vec<(String, UtcDay, u64)>> {
        let found = self.lasting(|pools| async move {
            let statement = sqlx::query(
                "WITH near AS (SELECT day FROM budget_ceiling GROUP BY day ORDER BY abs(day - $1) LIMIT $2)
                 SELECT payer, day, bytes FROM budget_ceiling WHERE day IN (SELECT day FROM near)
                 ORDER BY payer, day",
            );
            Ok(statement.bind(day.0).bind(i64::from(most)).fetch_all(&pools.readers).await?)
        });
        let ceiling =
            |row: &PgRow| Ok((row.try_get("payer")?, UtcDay(row.try_get("day")?), rows::number(row, "bytes")?));
        found.await?.iter().map(ceiling).collect()
    }

    async fn lower_ceiling(&self, payer: &str, day: UtcDay, from: u64, to: Option<u64>) -> Result<()> {
        let lowered = self.lasting(|pools| {
            let lower = match to {
                Some(_) => "UPDATE budget_ceiling SET bytes = $4 WHERE payer = $1 AND day = $2 AND bytes = $3",
                None => "DELETE FROM budget_ceiling WHERE payer = $1 AND day = $2 AND bytes = $3",
            };
            let lower = sqlx::query(lower).bind(payer).bind(day.0).bind(signed(from));
            let lower = if let Some(bytes) = to { lower.bind(signed(bytes)) } else { lower };
            async move { pools.write_one(lower).await.map(drop) }
        });
        lowered.await
    }

    async fn budget_told(&self, payer: &str, period: &str, first: UtcDay) -> Result<u32> {
        let told = self.lasting(|pools| async move {
            let statement =
                sqlx::query("SELECT percent FROM budget_told WHERE payer = $1 AND period = $2 AND first_day = $3")
                    .bind(payer)
                    .bind(period)
                    .bind(first.0);
            Ok(statement.fetch_optional(&pools.readers).await?)
        });
        told.await?.map_or(Ok(0), |row| rows::small(&row, "percent"))
    }

    async fn tell_budget(&self, payer: &str, period: &str, first: UtcDay, percent: u32) -> Result<()> {
        let told = self.lasting(|pools| {
            let statement = sqlx::query(
                "INSERT INTO budget_told (payer, period, first_day, percent) VALUES ($1, $2, $3, $4)
                 ON CONFLICT (payer, period) DO UPDATE SET first_day = excluded.first_day, percent = excluded.percent",
            )
            .bind(payer)
            .bind(period)
            .bind(first.0)
            .bind(i64::from(percent));
            async move { pools.write_one(statement).await.map(drop) }
        });
        told.await
    }

    async fn add_costs(&self, costs: &[(DeliveryId, DeliveryCost)]) -> Result<()> {
        let ids: Vec<i64> = costs.iter().map(|(id, _)| id.0).collect();
        let (written, link) = rows::costs(costs.iter().map(|(_, cost)| Some(*cost)));
        let (ids, written, link, doubt) = (&ids, &written, &link, &Doubt::new());
        let added = self.lasting(|pools| async move {
            if doubt.resolved(&pools).await?.is_some() {
                return Ok(());
            }
            let mut write = pools.begin().await?;
            sqlx::query(
                "UPDATE delivery d SET written_bytes = coalesce(d.written_bytes, 0) + c.written,
                     link_bytes = coalesce(d.link_bytes + c.link, d.link_bytes, c.link)
                 FROM (SELECT id, sum(written)::bigint AS written, sum(link)::bigint AS link
                       FROM unnest($1::bigint[], $2::bigint[], $3::bigint[]) i (id, written, link) GROUP BY id) c
                 WHERE d.id = c.id",
            )
            .bind(ids)
            .bind(written)
            .bind(link)
            .execute(&mut *write)
            .await?;
            doubt.commit(write, ()).await
        });
        added.await
    }
}

async fn add(transaction: &mut PgConnection, day: UtcDay, bytes: &[(WayOf, LinkBytes)]) -> Result<()> {
    for ((vessel, way), bytes) in bytes {
        sqlx::query(
            "INSERT INTO link_bytes AS l (day, vessel, sent, received, resent) VALUES ($1, $2, $3, $4, $5)
             ON CONFLICT (day, vessel) DO UPDATE SET sent = l.sent + excluded.sent,
                 received = l.received + excluded.received, resent = l.resent + excluded.resent",
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
            "INSERT INTO way_bytes AS w (day, vessel, way, sent, received, resent) VALUES ($1, $2, $3, $4, $5, $6)
             ON CONFLICT (day, vessel, way) DO UPDATE SET sent = w.sent + excluded.sent,
                 received = w.received + excluded.received, resent = w.resent + excluded.resent",
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
    Ok(())
}

/// Returns the bytes of each vessel, summed over `days`.
pub(super) async fn sums(readers: &PgPool, days: RangeInclusive<UtcDay>) -> Result<Vec<(VesselName, LinkBytes)>> {
    let found = sqlx::query(
        "SELECT vessel, sum(sent)::bigint AS sent, sum(received)::bigint AS received, sum(resent)::bigint AS resent
         FROM link_bytes WHERE day BETWEEN $1 AND $2 GROUP BY vessel ORDER BY vessel",
    )
    .bind(days.start().0)
    .bind(days.end().0)
    .fetch_all(readers)
    .await?;
    found.iter().map(sum).collect()
}

/// Returns the bytes of each way of each vessel, summed over `days`.
pub(super) async fn way_sums(readers: &PgPool, days: RangeInclusive<UtcDay>) -> Result<Vec<(WayOf, LinkBytes)>> {
    let found = sqlx::query(
        "SELECT vessel, way, sum(sent)::bigint AS sent, sum(received)::bigint AS received, sum(resent)::bigint AS resent
         FROM way_bytes WHERE day BETWEEN $1 AND $2 GROUP BY vessel, way ORDER BY vessel, way",
    )
    .bind(days.start().0)
    .bind(days.end().0)
    .fetch_all(readers)
    .await?;
    let way = |row: &PgRow| {
        let (vessel, bytes) = sum(row)?;
        Ok(((vessel, Some(row.try_get("way")?)), bytes))
    };
    found.iter().map(way).collect()
}

fn sum(row: &PgRow) -> Result<(VesselName, LinkBytes)> {
    let number = |column| rows::number(row, column);
    let bytes = LinkBytes { sent: number("sent")?, received: number("received")?, resent: number("resent")? };
    Ok((rows::vessel(row, "vessel")?, bytes))
}
