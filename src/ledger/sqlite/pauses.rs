//! Implements [`DirectoryPauses`] in SQLite's SQL.

use async_trait::async_trait;
use sqlx::sqlite::SqliteRow;
use sqlx::{Row, SqliteExecutor};

use super::{Result, Sqlite, rows};
use crate::ledger::{DirectoryPauses, Pause, PausedDirectory};
use crate::names::DirectoryName;

#[async_trait]
impl DirectoryPauses for Sqlite {
    async fn pause_directory(&self, directory: &DirectoryName, pause: Option<&Pause>) -> Result<()> {
        let Some(Pause { until, note }) = pause else {
            let resumed = sqlx::query("DELETE FROM paused_directory WHERE directory = ?").bind(directory.as_str());
            resumed.execute(&self.writer).await?;
            return Ok(());
        };
        sqlx::query(
            "INSERT INTO paused_directory (directory, paused_at, until, note) VALUES (?, ?, ?, ?)
             ON CONFLICT (directory) DO UPDATE SET until = excluded.until, note = excluded.note",
        )
        .bind(directory.as_str())
        .bind(self.now())
        .bind(until)
        .bind(note)
        .execute(&self.writer)
        .await?;
        Ok(())
    }

    async fn paused_directories(&self) -> Result<Vec<PausedDirectory>> {
        paused(&self.readers, self.now()).await
    }
}

pub(super) async fn paused(readers: impl SqliteExecutor<'_>, now: i64) -> Result<Vec<PausedDirectory>> {
    let paused = sqlx::query("SELECT * FROM paused_directory ORDER BY directory").fetch_all(readers).await?;
    paused.iter().map(|row| paused_directory(row, now)).collect()
}

fn paused_directory(row: &SqliteRow, now: i64) -> Result<PausedDirectory> {
    let pause = Pause { until: row.try_get("until")?, note: row.try_get("note")? };
    let has_ended = pause.until.is_some_and(|until| until <= now);
    Ok(PausedDirectory { directory: rows::directory(row)?, since: row.try_get("paused_at")?, pause, has_ended })
}
