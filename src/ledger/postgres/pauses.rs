//! Implements [`DirectoryPauses`] in PostgreSQL's SQL.

use async_trait::async_trait;
use sqlx::postgres::PgRow;
use sqlx::{PgExecutor, Row};

use super::{Postgres, Result, rows};
use crate::ledger::{DirectoryPauses, Pause, PausedDirectory};
use crate::names::DirectoryName;

#[async_trait]
impl DirectoryPauses for Postgres {
    async fn pause_directory(&self, directory: &DirectoryName, pause: Option<&Pause>) -> Result<()> {
        const RESUME: &str = "DELETE FROM paused_directory WHERE directory = $1";
        const PAUSE: &str = "INSERT INTO paused_directory (directory, paused_at, until, note) VALUES ($1, $2, $3, $4)
             ON CONFLICT (directory) DO UPDATE SET until = excluded.until, note = excluded.note";
        let now = self.now();
        let paused = self.lasting(|pools| {
            let statement = match pause {
                None => sqlx::query(RESUME).bind(directory.as_str()),
                Some(Pause { until, note }) => sqlx::query(PAUSE)
                    .bind(directory.as_str())
                    .bind(now)
                    .bind(*until)
                    .bind(note.as_deref().map(rows::text)),
            };
            async move { pools.write_one(statement).await.map(drop) }
        });
        paused.await
    }

    async fn paused_directories(&self) -> Result<Vec<PausedDirectory>> {
        let now = self.now();
        self.lasting(|pools| async move { paused(&pools.readers, now).await }).await
    }
}

pub(super) async fn paused(readers: impl PgExecutor<'_>, now: i64) -> Result<Vec<PausedDirectory>> {
    let paused = sqlx::query("SELECT * FROM paused_directory ORDER BY directory").fetch_all(readers).await?;
    paused.iter().map(|row| paused_directory(row, now)).collect()
}

fn paused_directory(row: &PgRow, now: i64) -> Result<PausedDirectory> {
    let pause = Pause { until: row.try_get("until")?, note: row.try_get("note")? };
    let has_ended = pause.until.is_some_and(|until| until <= now);
    Ok(PausedDirectory { directory: rows::directory(row)?, since: row.try_get("paused_at")?, pause, has_ended })
}
