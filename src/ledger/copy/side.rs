//! The source or the target of a copy, in a transaction: reads and writes the rows of its tables as [`Value`]s.

use futures_util::stream::BoxStream;
use futures_util::{StreamExt, TryStreamExt};
use sqlx::postgres::PgConnection;
use sqlx::sqlite::SqliteConnection;
use sqlx::{AssertSqlSafe, Row};

use super::tables::{Kind, TABLES, Table};

/// A value of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    Null,
    Number(i64),
    Text(String),
    Bytes(Vec<u8>),
}

impl Value {
    fn as_text(&self) -> Option<&str> {
        if let Self::Text(text) = self { Some(text) } else { None }
    }

    fn as_bytes(&self) -> Option<&[u8]> {
        if let Self::Bytes(bytes) = self { Some(bytes) } else { None }
    }
}

/// A row, in the order of the table's columns.
pub(super) type Values = Vec<Value>;

/// A ledger in a transaction.
pub(super) enum Side<'a> {
    Sqlite(&'a mut SqliteConnection),
    Postgres(&'a mut PgConnection),
}

/// The SQL condition for a delivery to have a rank. A rank without a queue is ignored, because it has no meaning.
const HAS_RANK: &str = "rank IS NOT NULL AND EXISTS (
     SELECT 1 FROM queue q WHERE q.directory = delivery.queue AND q.ordering IS NOT NULL)";

fn select(table: &Table) -> String {
    let column = |(name, kind): &(&str, Kind)| match kind {
        Kind::Rank => format!("{HAS_RANK} AS {name}"),
        _ => (*name).to_owned(),
    };
    let columns: Vec<String> = table.columns.iter().map(column).collect();
    format!("SELECT {} FROM {} ORDER BY {}", columns.join(", "), table.name, table.order)
}

fn names(table: &Table) -> String {
    table.columns.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
}

/// Reads a value of a row. `$flag` is the type of a flag, which differs between the stores.
macro_rules! value {
    ($row:expr, $at:expr, $kind:expr, $flag:ty) => {
        match $kind {
            Kind::Number => $row.try_get::<Option<i64>, _>($at).map(|it| it.map_or(Value::Null, Value::Number)),
            Kind::Flag | Kind::Rank => {
                $row.try_get::<Option<$flag>, _>($at).map(|it| it.map_or(Value::Null, |it| Value::Number(it.into())))
            }
            // PostgreSQL can't store the NUL character (U+0000).
            Kind::Text => $row
                .try_get::<Option<String>, _>($at)
                .map(|it| it.map_or(Value::Null, |it| Value::Text(it.replace('\0', "\u{fffd}")))),
            Kind::Bytes => $row.try_get::<Option<Vec<u8>>, _>($at).map(|it| it.map_or(Value::Null, Value::Bytes)),
        }
    };
}

impl Side<'_> {
    /// Returns the rows of a table, ordered by [`Table::order`].
    pub(super) fn rows<'b>(&'b mut self, table: &'static Table) -> BoxStream<'b, sqlx::Result<Values>> {
        let question = AssertSqlSafe(select(table));
        let columns = || table.columns.iter().enumerate();
        match self {
            Self::Sqlite(connection) => sqlx::query(question)
                .fetch(&mut **connection)
                .and_then(
                    move |row| async move { columns().map(|(at, (_, kind))| value!(row, at, kind, i64)).collect() },
                )
                .boxed(),
            Self::Postgres(connection) => sqlx::query(question)
                .fetch(&mut **connection)
                .and_then(
                    move |row| async move { columns().map(|(at, (_, kind))| value!(row, at, kind, bool)).collect() },
                )
                .boxed(),
        }
    }

    /// Removes the rows that a table has before it is filled: those that were created when the ledger was opened, and
    /// the sums that triggers counted.
    pub(super) async fn clear(&mut self, table: &Table) -> sqlx::Result<()> {
        self.execute(&format!("DELETE FROM {}", table.name)).await
    }

    /// Returns whether this ledger has no records besides its id.
    pub(super) async fn is_empty(&mut self) -> sqlx::Result<bool> {
        for table in TABLES.iter().filter(|table| table.name != "instance") {
            let question = AssertSqlSafe(format!("SELECT count(*) FROM (SELECT 1 FROM {} LIMIT 1) one", table.name));
            let found: i64 = match self {
                Self::Sqlite(connection) => sqlx::query_scalar(question).fetch_one(&mut **connection).await?,
                Self::Postgres(connection) => sqlx::query_scalar(question).fetch_one(&mut **connection).await?,
            };
            if found > 0 {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Turns triggers on or off in PostgreSQL. In SQLite they stay on and count sums, which the copied sums replace at
    /// the end.
    pub(super) async fn triggers(&mut self, on: bool) -> sqlx::Result<()> {
        if let Self::Postgres(_) = self {
            let switch = if on { "ENABLE" } else { "DISABLE" };
            for table in ["version", "delivery"] {
                self.execute(&format!("ALTER TABLE {table} {switch} TRIGGER USER")).await?;
            }
        }
        Ok(())
    }

    /// Inserts rows into a table.
    pub(super) async fn insert(&mut self, table: &Table, rows: &[Values]) -> sqlx::Result<()> {
        if rows.is_empty() {
            return Ok(());
        }
        match self {
            Self::Sqlite(connection) => {
                let one = format!("({})", vec!["?"; table.columns.len()].join(", "));
                let all = vec![one; rows.len()].join(", ");
                let insert = format!("INSERT INTO {} ({}) VALUES {all}", table.name, names(table));
                let mut insert = sqlx::query(AssertSqlSafe(insert));
                for (value, (_, kind)) in rows.iter().flat_map(|row| row.iter().zip(table.columns)) {
                    insert = match (value, kind) {
                        (Value::Number(0), Kind::Rank) | (Value::Null, _) => insert.bind(None::<i64>),
                        (Value::Number(number), _) => insert.bind(number),
                        (Value::Text(text), _) => insert.bind(text),
                        (Value::Bytes(bytes), _) => insert.bind(bytes),
                    };
                }
                insert.execute(&mut **connection).await.map(drop)
            }
            Self::Postgres(connection) => {
                let arrays: Vec<String> = (1..).zip(table.columns).map(|(at, (_, kind))| array(at, *kind)).collect();
                let (arrays, names) = (arrays.join(", "), names(table));
                let insert = format!("INSERT INTO {} ({names}) SELECT * FROM unnest({arrays})", table.name);
                let mut insert = sqlx::query(AssertSqlSafe(insert));
                for (at, (_, kind)) in table.columns.iter().enumerate() {
                    let column = rows.iter().map(|row| &row[at]);
                    let number = |value: &Value| if let Value::Number(number) = value { Some(*number) } else { None };
                    insert = match kind {
                        Kind::Number => insert.bind(column.map(number).collect::<Vec<_>>()),
                        Kind::Flag => {
                            insert.bind(column.map(|it| number(it).map(|it| it != 0)).collect::<Vec<Option<bool>>>())
                        }
                        Kind::Rank => {
                            let rank = |it| number(it).filter(|it| *it != 0).map(|_| Vec::new());
                            insert.bind(column.map(rank).collect::<Vec<Option<Vec<u8>>>>())
                        }
                        Kind::Text => insert.bind(column.map(Value::as_text).collect::<Vec<Option<&str>>>()),
                        Kind::Bytes => insert.bind(column.map(Value::as_bytes).collect::<Vec<Option<&[u8]>>>()),
                    };
                }
                insert.execute(&mut **connection).await.map(drop)
            }
        }
    }

    /// Computes the ranks of the deliveries that have a rank, because [`Self::insert`] wrote only whether a delivery
    /// has one.
    pub(super) async fn rank(&mut self) -> sqlx::Result<()> {
        let rank = match self {
            Self::Sqlite(_) => {
                "CASE q.ordering WHEN 'newest' THEN -(v.mtime * 1000 + v.mtime_nanos / 1000000)
                     WHEN 'smallest' THEN iif(v.size < 0, 9223372036854775807, v.size) WHEN 'name' THEN v.path END"
            }
            Self::Postgres(_) => {
                "CASE q.ordering WHEN 'newest' THEN number_key(-(least(greatest(v.mtime, -9000000000000000), 9000000000000000) * 1000
                         + v.mtime_nanos / 1000000))
                     WHEN 'smallest' THEN number_key(CASE WHEN v.size < 0 THEN 9223372036854775807 ELSE v.size END)
                     WHEN 'name' THEN path_key(v.path) END"
            }
        };
        self.execute(&format!(
            "UPDATE delivery SET rank = {rank} FROM version v, queue q
             WHERE delivery.rank IS NOT NULL AND v.id = delivery.version AND q.directory = delivery.queue"
        ))
        .await
    }

    /// Returns the highest number that any row of a numbered table was ever given.
    pub(super) async fn last_number(&mut self, table: &Table) -> sqlx::Result<i64> {
        match self {
            Self::Sqlite(connection) => {
                let last: Option<i64> = sqlx::query_scalar("SELECT seq FROM sqlite_sequence WHERE name = ?")
                    .bind(table.name)
                    .fetch_optional(&mut **connection)
                    .await?;
                Ok(last.unwrap_or(0))
            }
            Self::Postgres(connection) => {
                let question =
                    format!("SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM {}_id_seq", table.name);
                sqlx::query_scalar(AssertSqlSafe(question)).fetch_one(&mut **connection).await
            }
        }
    }

    /// Records the highest number of a numbered table (see [`Self::last_number`]), so that no number is given twice.
    pub(super) async fn set_last_number(&mut self, table: &Table, last: i64) -> sqlx::Result<()> {
        match self {
            Self::Sqlite(_) => {
                let name = table.name;
                self.execute(&format!("DELETE FROM sqlite_sequence WHERE name = '{name}'")).await?;
                self.execute(&format!("INSERT INTO sqlite_sequence (name, seq) VALUES ('{name}', {last})")).await
            }
            Self::Postgres(_) if last == 0 => Ok(()),
            Self::Postgres(_) => self.execute(&format!("SELECT setval('{}_id_seq', {last})", table.name)).await,
        }
    }

    async fn execute(&mut self, statement: &str) -> sqlx::Result<()> {
        let statement = sqlx::raw_sql(AssertSqlSafe(statement.to_owned()));
        match self {
            Self::Sqlite(connection) => statement.execute(&mut **connection).await.map(drop),
            Self::Postgres(connection) => statement.execute(&mut **connection).await.map(drop),
        }
    }
}

fn array(at: usize, kind: Kind) -> String {
    let kind = match kind {
        Kind::Number => "bigint",
        Kind::Flag => "boolean",
        Kind::Text => "text",
        Kind::Bytes | Kind::Rank => "bytea",
    };
    format!("${at}::{kind}[]")
}
