//! Implements [`IncidentMemory`] in PostgreSQL's SQL.

use async_trait::async_trait;
use sqlx::Row;
use sqlx::postgres::PgRow;

use super::{Postgres, Result, rows};
use crate::ledger::{IncidentMemory, ReportedIncident};

#[async_trait]
impl IncidentMemory for Postgres {
    async fn told_incidents(&self) -> Result<Vec<ReportedIncident>> {
        let told = self.lasting(|pools| async move {
            Ok(sqlx::query("SELECT * FROM incident ORDER BY kind, subject").fetch_all(&pools.readers).await?)
        });
        told.await?.iter().map(incident).collect()
    }

    async fn incident_told(&self, incident: &ReportedIncident) -> Result<()> {
        let told = self.lasting(|pools| {
            let statement = sqlx::query(
                "INSERT INTO incident (kind, subject, since, reason) VALUES ($1, $2, $3, $4)
                 ON CONFLICT (kind, subject) DO UPDATE SET since = excluded.since, reason = excluded.reason",
            )
            .bind(&incident.kind)
            .bind(rows::text(&incident.subject))
            .bind(incident.since)
            .bind(rows::text(&incident.reason));
            async move { pools.write_one(statement).await.map(drop) }
        });
        told.await
    }

    async fn incident_over(&self, kind: &str, subject: &str) -> Result<()> {
        let over = self.lasting(|pools| {
            let statement = sqlx::query("DELETE FROM incident WHERE kind = $1 AND subject = $2");
            let statement = statement.bind(kind).bind(rows::text(subject));
            async move { pools.write_one(statement).await.map(drop) }
        });
        over.await
    }
}

fn incident(row: &PgRow) -> Result<ReportedIncident> {
    Ok(ReportedIncident {
        kind: row.try_get("kind")?,
        subject: row.try_get("subject")?,
        since: row.try_get("since")?,
        reason: row.try_get("reason")?,
    })
}
