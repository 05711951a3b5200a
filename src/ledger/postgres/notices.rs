//! Implements [`Outbox`] in PostgreSQL's SQL.

use async_trait::async_trait;
use sqlx::Row;
use sqlx::postgres::PgRow;

use super::{Postgres, Result, rows};
use crate::ledger::{Listener, Notice, NoticeId, Outbox};
use crate::names::VesselName;
use crate::records::EventKind;

#[async_trait]
impl Outbox for Postgres {
    async fn listen(&self, listeners: &[Listener]) -> Result<u64> {
        self.listeners.set(listeners);
        let channels: Vec<&str> = listeners.iter().map(|listener| listener.channel.as_str()).collect();
        let dropped = self.lasting(|pools| {
            let statement = sqlx::query("DELETE FROM notice WHERE channel <> ALL ($1)").bind(&channels);
            async move { pools.write_one(statement).await }
        });
        dropped.await
    }

    async fn notices(&self, channel: &str, after: NoticeId, limit: u32) -> Result<Vec<Notice>> {
        let found = self.lasting(|pools| async move {
            let statement = sqlx::query(concat!(
                "SELECT n.id AS notice, n.event, n.at, n.vessel, n.reason, v.processed, ",
                rows::version_columns!(),
                " FROM notice n JOIN version v ON v.id = n.version WHERE n.channel = $1 AND n.id > $2
                  ORDER BY n.id LIMIT $3"
            ))
            .bind(channel)
            .bind(after.0)
            .bind(i64::from(limit));
            Ok(statement.fetch_all(&pools.readers).await?)
        });
        found.await?.iter().map(notice).collect()
    }

    async fn told(&self, notices: &[NoticeId]) -> Result<()> {
        let ids: Vec<i64> = notices.iter().map(|notice| notice.0).collect();
        let told = self.lasting(|pools| {
            let statement = sqlx::query("DELETE FROM notice WHERE id = ANY ($1)").bind(&ids);
            async move { pools.write_one(statement).await.map(drop) }
        });
        told.await
    }
}

fn notice(row: &PgRow) -> Result<Notice> {
    let word: &str = row.try_get("event")?;
    let kind = EventKind::ALL.into_iter().find(|kind| kind.as_str() == word);
    Ok(Notice {
        id: NoticeId(row.try_get("notice")?),
        kind: kind.ok_or_else(|| rows::corrupt(format_args!("unknown event {word:?}")))?,
        at: row.try_get("at")?,
        vessel: row.try_get::<Option<&str>, _>("vessel")?.map(VesselName::new),
        reason: row.try_get("reason")?,
        version: rows::version(row)?,
        processed: rows::optional_path(row, "processed")?,
    })
}
