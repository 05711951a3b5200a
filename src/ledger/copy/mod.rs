//! Copies a ledger from one store to another, and verifies that the copy is equal.
//!
//! Both ledgers have the same tables ([`tables`]). The rows are read from one consistent snapshot of the source, and
//! written in one transaction of the target. Then the rows of each table are read again from the target, and their
//! number and digest are compared with those of the source.

mod side;
mod tables;
#[cfg(test)]
mod tests;

use std::path::Path;

use futures_util::TryStreamExt;
use sha2::{Digest as _, Sha256};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions, Connection, PgConnection};

use super::{Ledger, LedgerError, postgres};
use crate::clock::Clock;
use crate::settings::Database;
use side::{Side, Value, Values};
use tables::{TABLES, Table};

type Result<T> = std::result::Result<T, LedgerError>;

/// Maximum number of values per statement. SQLite allows 32,766.
const MOST_VALUES: usize = 12_000;

/// A table that was copied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopiedTable {
    /// The table's name.
    pub name: &'static str,
    /// The number of its rows.
    pub rows: u64,
    /// SHA-256 of the table's rows in their order, equal in the source and the copy.
    pub digest: String,
}

/// A connection to the source or the target of a copy.
enum Open {
    Sqlite(SqliteConnection),
    Postgres(Box<PgConnection>),
}

impl Open {
    async fn to(database: &Database) -> Result<Self> {
        match database {
            Database::File(file) => Ok(Self::Sqlite(sqlite(file).await?)),
            Database::Postgres(address) => Ok(Self::Postgres(Box::new(postgres::for_copy(address).await?))),
        }
    }

    async fn begin(&mut self, reads: bool) -> Result<()> {
        let (one_moment, write) = ("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY", "BEGIN");
        match self {
            Self::Sqlite(connection) => sqlx::raw_sql("BEGIN").execute(connection).await.map(drop)?,
            Self::Postgres(connection) => {
                let begin = if reads { one_moment } else { write };
                sqlx::raw_sql(begin).execute(&mut **connection).await.map(drop)?;
            }
        }
        Ok(())
    }

    fn side(&mut self) -> Side<'_> {
        match self {
            Self::Sqlite(connection) => Side::Sqlite(connection),
            Self::Postgres(connection) => Side::Postgres(connection),
        }
    }

    async fn end(self) -> Result<()> {
        match self {
            Self::Sqlite(mut connection) => {
                sqlx::raw_sql("COMMIT").execute(&mut connection).await?;
                connection.close().await?;
            }
            Self::Postgres(mut connection) => {
                sqlx::raw_sql("COMMIT").execute(&mut *connection).await?;
                (*connection).close().await?;
            }
        }
        Ok(())
    }
}

async fn sqlite(file: &Path) -> Result<SqliteConnection> {
    let options = SqliteConnectOptions::new().filename(file).foreign_keys(true).disable_statement_logging();
    options.connect().await.map_err(|e| LedgerError::opening(file, &e))
}

/// Copies a ledger to another one that doesn't exist or is empty. No program may use the ledgers meanwhile. Returns the
/// copied tables.
///
/// # Errors
/// [`LedgerError`] when one of the ledgers is in use or can't be opened, when the target already has records, or when
/// the copy differs from the source. After an error, the target has no copied records.
pub async fn copy(from: &Database, to: &Database) -> Result<Vec<CopiedTable>> {
    if from == to {
        return Err(not_copied(to, "the source and the target are the same ledger"));
    }
    if let Some(file) = from.file()
        && !file.exists()
    {
        return Err(LedgerError::NotThere { file: file.to_owned() });
    }
    // While these handles are open, no other program can open the ledgers.
    let source = Ledger::open_at(from, Clock::system()).await?;
    let target = Ledger::open_at(to, Clock::system()).await?;
    let copied = copy_unlocked(from, to).await;
    source.close().await?;
    target.close().await?;
    copied
}

/// Copies a ledger like [`copy`], but locks neither ledger: a program may use the source, and nothing keeps other
/// programs from opening the target.
pub(super) async fn copy_unlocked(from: &Database, to: &Database) -> Result<Vec<CopiedTable>> {
    let (mut source, mut target) = (Open::to(from).await?, Open::to(to).await?);
    source.begin(true).await?;
    target.begin(false).await?;
    let (mut from_side, mut to_side) = (source.side(), target.side());
    if !to_side.is_empty().await? {
        return Err(not_copied(to, "the target has records; name a ledger that is new or empty"));
    }
    to_side.triggers(false).await?;
    let mut copied = Vec::new();
    for table in TABLES {
        to_side.clear(table).await?;
        copied.push(fill(&mut from_side, &mut to_side, table).await?);
    }
    to_side.rank().await?;
    for table in TABLES.iter().filter(|table| table.numbered) {
        let last = from_side.last_number(table).await?;
        to_side.set_last_number(table, last).await?;
    }
    for (table, copied) in TABLES.iter().zip(&copied) {
        let (rows, digest) = digest(&mut to_side, table).await?;
        if (rows, &digest) != (copied.rows, &copied.digest) {
            let why = format!("the table {} has {rows} rows in the copy, {} in the source", table.name, copied.rows);
            let why = if rows == copied.rows { format!("the rows of the table {} differ", table.name) } else { why };
            return Err(not_copied(to, &why));
        }
    }
    to_side.triggers(true).await?;
    target.end().await?;
    source.end().await?;
    Ok(copied)
}

fn not_copied(to: &Database, why: &str) -> LedgerError {
    LedgerError::NotCopied { to: to.to_string().into(), why: why.to_owned() }
}

/// Copies the rows of a table; returns their number and digest.
async fn fill(from: &mut Side<'_>, to: &mut Side<'_>, table: &'static Table) -> Result<CopiedTable> {
    let most = MOST_VALUES / table.columns.len();
    let (mut hash, mut count, mut batch) = (Sha256::new(), 0, Vec::new());
    let mut rows = from.rows(table);
    while let Some(row) = rows.try_next().await? {
        add(&mut hash, &row);
        count += 1;
        batch.push(row);
        if batch.len() == most {
            to.insert(table, &batch).await?;
            batch.clear();
        }
    }
    to.insert(table, &batch).await?;
    Ok(CopiedTable { name: table.name, rows: count, digest: hex(hash) })
}

async fn digest(side: &mut Side<'_>, table: &'static Table) -> Result<(u64, String)> {
    let (mut hash, mut count) = (Sha256::new(), 0);
    let mut rows = side.rows(table);
    while let Some(row) = rows.try_next().await? {
        add(&mut hash, &row);
        count += 1;
    }
    Ok((count, hex(hash)))
}

/// Adds a row to a digest. Each value begins with its type and its length.
fn add(hash: &mut Sha256, row: &Values) {
    for value in row {
        let (kind, bytes): (u8, &[u8]) = match value {
            Value::Null => (0, &[]),
            Value::Number(number) => (1, &number.to_be_bytes()),
            Value::Text(text) => (2, text.as_bytes()),
            Value::Bytes(bytes) => (3, bytes),
        };
        hash.update([kind]);
        hash.update((bytes.len() as u64).to_be_bytes());
        hash.update(bytes);
    }
}

fn hex(hash: Sha256) -> String {
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}
