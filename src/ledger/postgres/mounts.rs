//! Implements [`MountMemory`] in PostgreSQL's SQL.

use async_trait::async_trait;
use sqlx::Row;
use sqlx::postgres::PgRow;

use super::{Postgres, Result, rows};
use crate::ledger::MountMemory;
use crate::names::DirectoryName;
use crate::records::Mount;

#[async_trait]
impl MountMemory for Postgres {
    async fn mounts(&self, directory: &DirectoryName) -> Result<Vec<Mount>> {
        let found = self.lasting(|pools| async move {
            let statement = sqlx::query("SELECT * FROM mount WHERE directory = $1 ORDER BY path");
            Ok(statement.bind(directory.as_str()).fetch_all(&pools.readers).await?)
        });
        found.await?.iter().map(mount).collect()
    }

    async fn remember_mounts(&self, directory: &DirectoryName, mounts: &[Mount]) -> Result<()> {
        let remembered = self.lasting(|pools| async move {
            let mut write = pools.begin().await?;
            sqlx::query("DELETE FROM mount WHERE directory = $1").bind(directory.as_str()).execute(&mut *write).await?;
            for mount in mounts {
                sqlx::query(
                    "INSERT INTO mount (directory, path, file_system, source, within, fsid)
                     VALUES ($1, $2, $3, $4, $5, $6)",
                )
                .bind(directory.as_str())
                .bind(&mount.path)
                .bind(&mount.file_system)
                .bind(&mount.source)
                .bind(&mount.within)
                .bind(rows::signed(mount.fsid))
                .execute(&mut *write)
                .await?;
            }
            write.commit().await
        });
        remembered.await
    }
}

fn mount(row: &PgRow) -> Result<Mount> {
    Ok(Mount {
        path: row.try_get("path")?,
        file_system: row.try_get("file_system")?,
        source: row.try_get("source")?,
        within: row.try_get("within")?,
        fsid: rows::number(row, "fsid")?,
    })
}
