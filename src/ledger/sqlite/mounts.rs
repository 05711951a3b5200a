//! Implements [`MountMemory`] in SQLite's SQL.

use async_trait::async_trait;
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use super::{Result, Sqlite, rows};
use crate::ledger::MountMemory;
use crate::names::DirectoryName;
use crate::records::Mount;

#[async_trait]
impl MountMemory for Sqlite {
    async fn mounts(&self, directory: &DirectoryName) -> Result<Vec<Mount>> {
        let rows = sqlx::query("SELECT * FROM mount WHERE directory = ? ORDER BY path")
            .bind(directory.as_str())
            .fetch_all(&self.readers)
            .await?;
        rows.iter().map(mount).collect()
    }

    async fn remember_mounts(&self, directory: &DirectoryName, mounts: &[Mount]) -> Result<()> {
        let mut transaction = self.writer.begin().await?;
        sqlx::query("DELETE FROM mount WHERE directory = ?")
            .bind(directory.as_str())
            .execute(&mut *transaction)
            .await?;
        for mount in mounts {
            sqlx::query(
                "INSERT INTO mount (directory, path, file_system, source, within, fsid) VALUES (?, ?, ?, ?, ?, ?)",
            )
            .bind(directory.as_str())
            .bind(&mount.path)
            .bind(&mount.file_system)
            .bind(&mount.source)
            .bind(&mount.within)
            .bind(rows::signed(mount.fsid))
            .execute(&mut *transaction)
            .await?;
        }
        Ok(transaction.commit().await?)
    }
}

fn mount(row: &SqliteRow) -> Result<Mount> {
    Ok(Mount {
        path: row.try_get("path")?,
        file_system: row.try_get("file_system")?,
        source: row.try_get("source")?,
        within: row.try_get("within")?,
        fsid: row.try_get::<i64, _>("fsid")?.cast_unsigned(),
    })
}
