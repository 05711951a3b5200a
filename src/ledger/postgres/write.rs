//! The connections of one period without an outage, and transactions that write.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::{PgArguments, PgConnectOptions, PgPoolOptions, PgRow};
use sqlx::query::Query;
use sqlx::{AssertSqlSafe, ConnectOptions, Executor, PgConnection, PgPool, Postgres as Db, Row};
use tokio::sync::{Mutex, OwnedMutexGuard};

use super::Result;
use super::lease::Lease;
use crate::ledger::LedgerError;

/// Maximum number of reading connections. One of them may listen for hints of other shores. Besides these and
/// [`REPEATERS`], one connection writes, and one keeps the lease.
const READERS: u32 = 4;
/// Maximum number of connections that execute the same few statements again and again.
const REPEATERS: u32 = 2;
/// Maximum age of such a connection. A plan that became bad because the tables have grown lasts no longer.
const PLANS_AGE: Duration = Duration::from_secs(60);
/// Maximum time for which a caller waits for a connection of the pool.
const LONGEST_QUEUE: Duration = Duration::from_secs(600);

/// Returns a pool that doesn't test a connection before use.
pub(super) fn pool(options: PgConnectOptions, connections: u32) -> PgPool {
    pool_options(connections).connect_lazy_with(options)
}

fn pool_options(connections: u32) -> PgPoolOptions {
    let pool = PgPoolOptions::new().max_connections(connections).test_before_acquire(false);
    let pool = pool.idle_timeout(None).max_lifetime(None).acquire_timeout(LONGEST_QUEUE);
    pool.acquire_slow_threshold(LONGEST_QUEUE)
}

/// Returns a pool whose connections plan each statement once. To plan a statement that reads one delivery takes the
/// server ten times as long as to execute it.
fn repeating_pool(options: PgConnectOptions) -> PgPool {
    let options = options.options([("plan_cache_mode", "force_generic_plan")]);
    pool_options(REPEATERS).max_lifetime(PLANS_AGE).connect_lazy_with(options)
}

/// The connections of one period without an outage.
#[derive(Clone)]
pub(super) struct Pools {
    /// The writing connection; `None` until it is needed. It is not in a pool, because a pool would test it after each
    /// transaction.
    writer: Arc<Mutex<Option<PgConnection>>>,
    options: PgConnectOptions,
    pub(super) readers: PgPool,
    /// Connections for statements that are executed for each delivery, and whose best plan depends neither on the
    /// parameters nor on the number of rows.
    pub(super) repeaters: PgPool,
    /// Number of the period.
    pub(super) number: u64,
    lease: Arc<Lease>,
    /// The piece of work that the updates belong to; `None` for all work.
    work: Option<Arc<Lease>>,
}

/// A transaction that writes. Dropping it before the commit rolls it back.
pub(super) struct Write {
    /// The connection, or `None` after the commit. If the connection is dropped before the commit, its session ends,
    /// and the server rolls the transaction back.
    connection: Option<PgConnection>,
    place: OwnedMutexGuard<Option<PgConnection>>,
    /// The number of the transaction, with which [`Pools::was_committed`] finds out the outcome of the transaction.
    pub(super) number: i64,
}

impl Pools {
    pub(super) fn new(options: PgConnectOptions, number: u64, lease: Lease) -> Self {
        let (writer, lease) = (Arc::new(Mutex::new(None)), Arc::new(lease));
        let (readers, repeaters) = (pool(options.clone(), READERS), repeating_pool(options.clone()));
        Self { writer, readers, repeaters, options, number, lease, work: None }
    }

    /// Returns the same connections for updates that belong to `work`.
    pub(super) fn of_work(self, work: Option<Arc<Lease>>) -> Self {
        Self { work, ..self }
    }

    /// Closes all connections; waits for the running transaction first.
    pub(super) async fn close(&self) {
        self.readers.close().await;
        self.repeaters.close().await;
        drop(self.writer.lock().await.take());
    }

    /// Begins a transaction. Fails unless this process has the lease and the work of the updates. No other process can
    /// acquire the lease or this work before the commit.
    pub(super) async fn begin(&self) -> Result<Write> {
        let work: Vec<_> = self.work.iter().cloned().collect();
        let (write, lost) = self.begin_for(&work).await?;
        match lost.first() {
            // Dropping `write` rolls the transaction back.
            Some(lost) => Err(LedgerError::NotOurs { work: lost.name.clone() }),
            None => Ok(write),
        }
    }

    /// Begins a transaction like [`Self::begin`], for updates that belong to several pieces of `work`. Also returns the
    /// pieces of work that this process has lost. No other process can acquire the other pieces before the commit.
    pub(super) async fn begin_for(&self, work: &[Arc<Lease>]) -> Result<(Write, Vec<Arc<Lease>>)> {
        let mut place = self.writer.clone().lock_owned().await;
        let mut connection = match place.take() {
            Some(connection) => connection,
            None => self.options.connect().await?,
        };
        // `READ COMMITTED`, because the SQL functions must see the transactions that were committed while the functions
        // waited for their lock.
        let (lease, held) = (quoted(&self.lease.name), self.lease.token);
        let fence = match work {
            [] => format!("fence({lease}, {held}), ARRAY[]::text[]"),
            work => {
                let names = work.iter().map(|work| quoted(&work.name)).collect::<Vec<_>>().join(", ");
                let tokens = work.iter().map(|work| work.token.to_string()).collect::<Vec<_>>().join(", ");
                format!("* FROM fence_work({lease}, {held}, ARRAY[{names}]::text[], ARRAY[{tokens}]::bigint[])")
            }
        };
        let begin = format!("BEGIN ISOLATION LEVEL READ COMMITTED; SELECT {fence}");
        let row: PgRow = connection.fetch_one(sqlx::raw_sql(AssertSqlSafe(begin))).await?;
        let lost: Vec<String> = if work.is_empty() { Vec::new() } else { row.try_get(1)? };
        let is_lost = |work: &&Arc<Lease>| lost.contains(&format!("{} {}", work.name, work.token));
        let lost = work.iter().filter(is_lost).cloned().collect();
        Ok((Write { number: row.try_get(0)?, connection: Some(connection), place }, lost))
    }

    /// Executes one statement in a transaction of its own. Returns the number of rows that the statement affected.
    pub(super) async fn write_one(&self, statement: Query<'_, Db, PgArguments>) -> Result<u64> {
        let mut write = self.begin().await?;
        let done = statement.execute(&mut *write).await?;
        write.commit().await?;
        Ok(done.rows_affected())
    }

    /// Returns whether a transaction whose commit got no answer was committed.
    pub(super) async fn was_committed(&self, number: i64) -> Result<bool> {
        loop {
            let status = sqlx::query_scalar::<_, Option<String>>("SELECT pg_xact_status($1::text::xid8)")
                .bind(number.to_string())
                .fetch_one(&self.readers)
                .await;
            match status {
                Ok(status) if status.as_deref() == Some("in progress") => {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                Ok(status) => return Ok(status.as_deref() == Some("committed")),
                // After a fail-over, the new primary server may not know the transaction at all.
                Err(sqlx::Error::Database(e)) if e.code().as_deref() == Some("22023") => return Ok(false),
                Err(e) => return Err(e.into()),
            }
        }
    }
}

/// Writes a name as a literal of SQL.
fn quoted(name: &str) -> String {
    format!("'{}'", name.replace('\'', "''"))
}

impl Write {
    pub(super) async fn commit(mut self) -> Result<()> {
        let Some(connection) = &mut self.connection else { return Ok(()) };
        connection.execute(sqlx::raw_sql("COMMIT")).await?;
        *self.place = self.connection.take();
        Ok(())
    }
}

impl Deref for Write {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        self.connection.as_ref().expect("only a commit takes the connection")
    }
}

impl DerefMut for Write {
    fn deref_mut(&mut self) -> &mut PgConnection {
        self.connection.as_mut().expect("only a commit takes the connection")
    }
}
