//! Implements [`Outbox`] in SQLite's SQL.

use async_trait::async_trait;
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use super::{Result, Sqlite, json, rows};
use crate::ledger::{LedgerError, Listener, Notice, NoticeId, Outbox};
use crate::names::{RelPath, VesselName};
use crate::records::EventKind;

#[async_trait]
impl Outbox for Sqlite {
    async fn listen(&self, listeners: &[Listener]) -> Result<u64> {
        self.listeners.set(listeners);
        let channels = json::texts(listeners.iter().map(|listener| listener.channel.as_str()));
        let dropped = sqlx::query("DELETE FROM notice WHERE channel NOT IN (SELECT value FROM json_each(?))")
            .bind(channels)
            .execute(&self.writer)
            .await?;
        Ok(dropped.rows_affected())
    }

    async fn notices(&self, channel: &str, after: NoticeId, limit: u32) -> Result<Vec<Notice>> {
        sqlx::query(concat!(
            "SELECT n.id AS notice, n.event, n.at, n.vessel, n.reason, v.processed, ",
            rows::version_columns!(),
            " FROM notice n CROSS JOIN version v ON v.id = n.version WHERE n.channel = ? AND n.id > ? ORDER BY n.id LIMIT ?"
        ))
        .bind(channel)
        .bind(after.0)
        .bind(limit)
        .fetch_all(&self.readers)
        .await?
        .iter()
        .map(notice)
        .collect()
    }

    async fn told(&self, notices: &[NoticeId]) -> Result<()> {
        sqlx::query("DELETE FROM notice WHERE id IN (SELECT value FROM json_each(?))")
            .bind(json::numbers(notices.iter().map(|notice| notice.0)))
            .execute(&self.writer)
            .await?;
        Ok(())
    }
}

fn notice(row: &SqliteRow) -> Result<Notice> {
    let word: &str = row.try_get("event")?;
    let kind = EventKind::ALL.into_iter().find(|kind| kind.as_str() == word);
    let vessel: Option<&str> = row.try_get("vessel")?;
    let processed: Option<Vec<u8>> = row.try_get("processed")?;
    let rel_path = |bytes: Vec<u8>| RelPath::new(bytes).map_err(|e| LedgerError::Corrupt(e.to_string()));
    Ok(Notice {
        id: NoticeId(row.try_get("notice")?),
        kind: kind.ok_or_else(|| LedgerError::Corrupt(format!("unknown event {word:?}")))?,
        at: row.try_get("at")?,
        vessel: vessel.map(VesselName::new),
        reason: row.try_get("reason")?,
        version: rows::version(row)?,
        processed: processed.map(rel_path).transpose()?,
    })
}
