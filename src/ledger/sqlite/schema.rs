//! Creates or migrates the tables of a ledger's file, so that it has this program's schema.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use sqlx::SqlitePool;
use sqlx::migrate::{MigrateError, Migrator};

use super::{Result, too_new};
use crate::ledger::{LedgerError, migrations};

/// The migrations, embedded in the program. A published migration must never change: ledgers store its checksum.
pub(super) static MIGRATIONS: LazyLock<Migrator> = LazyLock::new(migrations::of_sqlite);

/// The schema that all migrations together produce. A new ledger is created with this text in one step, which takes a
/// tenth of the migrations' time.
const WHOLE: &str = include_str!("../schema.sql");

/// Creates the schema in a new file, or migrates an older ledger. Also verifies the checksums of the migrations that
/// were applied before.
pub(super) async fn bring_up_to_date(writer: &SqlitePool, file: &Path) -> Result<()> {
    create_if_empty(writer).await.map_err(|error| LedgerError::opening(file, &error))?;
    MIGRATIONS.run(writer).await.map_err(|error| migration_error(error, file.into()))
}

async fn create_if_empty(writer: &SqlitePool) -> sqlx::Result<()> {
    let mut transaction = writer.begin().await?;
    let objects: i64 = sqlx::query_scalar("SELECT count(*) FROM sqlite_schema").fetch_one(&mut *transaction).await?;
    if objects > 0 {
        return Ok(());
    }
    sqlx::raw_sql(WHOLE).execute(&mut *transaction).await?;
    for migration in MIGRATIONS.iter() {
        sqlx::query(
            "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
             VALUES (?, ?, 1, ?, 0)",
        )
        .bind(migration.version)
        .bind(&*migration.description)
        .bind(&*migration.checksum)
        .execute(&mut *transaction)
        .await?;
    }
    transaction.commit().await
}

pub(super) fn migration_error(error: MigrateError, file: PathBuf) -> LedgerError {
    match error {
        MigrateError::VersionMissing(form) | MigrateError::VersionTooNew(form, _) => too_new(file, form),
        MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => LedgerError::opening(&file, &error),
        error => LedgerError::Unusable { file, why: error.to_string() },
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use sqlx::{Connection, SqliteConnection};

    use super::super::options;
    use super::{MIGRATIONS, bring_up_to_date};

    const REWRITE: &str = "CONTENTMONSTER_REWRITE=1 cargo test --lib ledger::sqlite::schema";

    /// Returns the kind, name and SQL statement of every object in the schema.
    async fn objects(database: &mut SqliteConnection) -> Vec<(String, String, String)> {
        let objects = "SELECT type, name, sql FROM sqlite_schema WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite_%'
                       ORDER BY rowid";
        sqlx::query_as(objects).fetch_all(database).await.unwrap()
    }

    async fn migrated() -> (SqliteConnection, Vec<(String, String, String)>) {
        let mut database = SqliteConnection::connect("sqlite::memory:").await.unwrap();
        MIGRATIONS.run_direct(None, &mut database, false).await.unwrap();
        let objects = objects(&mut database).await;
        (database, objects)
    }

    #[tokio::test]
    async fn a_new_ledger_is_what_the_migrations_would_make() {
        let (mut old, schema) = migrated().await;
        let text: String = schema.iter().map(|(_, _, sql)| format!("{sql};\n\n")).collect();
        let text = format!("-- What all migrations together make. Written by\n-- {REWRITE}\n\n{}\n", text.trim_end());
        if std::env::var_os("CONTENTMONSTER_REWRITE").is_some() {
            std::fs::write(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/ledger/schema.sql"), &text).unwrap();
        }
        assert!(text == super::WHOLE, "src/ledger/schema.sql is not what the migrations make: {REWRITE}");

        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("ledger.db");
        let writer = super::super::pool(1).connect_with(options(&file).create_if_missing(true)).await.unwrap();
        bring_up_to_date(&writer, &file).await.unwrap();
        let mut new = writer.acquire().await.unwrap();
        assert_eq!(objects(&mut new).await, schema);
        for (_, table, _) in schema.iter().filter(|(kind, _, _)| kind == "table") {
            let rows = format!("SELECT count(*) FROM {table}");
            let of_old: i64 = sqlx::query_scalar(sqlx::AssertSqlSafe(rows.clone())).fetch_one(&mut old).await.unwrap();
            let of_new: i64 = sqlx::query_scalar(sqlx::AssertSqlSafe(rows)).fetch_one(&mut *new).await.unwrap();
            assert_eq!(of_new, of_old, "rows of {table}");
        }
    }
}
