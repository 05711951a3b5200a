//! Implements [`IncidentMemory`] in SQLite's SQL.

use async_trait::async_trait;
use sqlx::Row;

use super::{Result, Sqlite};
use crate::ledger::{IncidentMemory, ReportedIncident};

#[async_trait]
impl IncidentMemory for Sqlite {
    async fn told_incidents(&self) -> Result<Vec<ReportedIncident>> {
        let told = sqlx::query("SELECT * FROM incident ORDER BY kind, subject").fetch_all(&self.readers).await?;
        let incident = |row: &sqlx::sqlite::SqliteRow| {
            Ok(ReportedIncident {
                kind: row.try_get("kind")?,
                subject: row.try_get("subject")?,
                since: row.try_get("since")?,
                reason: row.try_get("reason")?,
            })
        };
        told.iter().map(incident).collect()
    }

    async fn incident_told(&self, incident: &ReportedIncident) -> Result<()> {
        sqlx::query("INSERT OR REPLACE INTO incident (kind, subject, since, reason) VALUES (?, ?, ?, ?)")
            .bind(&incident.kind)
            .bind(&incident.subject)
            .bind(incident.since)
            .bind(&incident.reason)
            .execute(&self.writer)
            .await?;
        Ok(())
    }

    async fn incident_over(&self, kind: &str, subject: &str) -> Result<()> {
        let over = sqlx::query("DELETE FROM incident WHERE kind = ? AND subject = ?").bind(kind).bind(subject);
        over.execute(&self.writer).await?;
        Ok(())
    }
}
