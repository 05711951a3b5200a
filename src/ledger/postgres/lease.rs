//! The lease of the ledger: which process may write to it.
//!
//! The lease is a row, and not a lock of a session, because a session's end shows on the two sides at different times:
//! the server may give the lock to another process while this one still believes in its session. The row's holder renews
//! it, and knows by its own clock until when nobody else can have it.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use rustix::fs::OFlags;
use sqlx::postgres::types::PgInterval;
use sqlx::{Connection, PgConnection, Row};

use super::Result;
use crate::ledger::LedgerError;
use crate::root::open_private;

/// The name of the lease of the whole ledger.
pub(super) const LEDGER: &str = "ledger";
/// The number of the advisory lock that orders transactions and changes of the holder.
const LOCK: i64 = 7_165_391_842;
/// Time between two looks at a lease of another process.
const LOOK: Duration = Duration::from_millis(250);

/// This process as the holder of a lease.
pub(super) struct Holder {
    /// Host and process, for messages.
    name: String,
    /// The lock file that this process holds, as the host's kernel knows it. A process that gets the lock of the same file
    /// knows that the holder before it has ended.
    lock: String,
    _file: File,
}

impl Holder {
    /// Takes the lock file of this host.
    pub(super) fn new(lock: &Path, ledger: &str) -> Result<Self> {
        let failed = |why: std::io::Error| LedgerError::Refused {
            ledger: ledger.to_owned(),
            why: format!("{}: {why}", lock.display()),
            remedy: "set Socket in [MONSTER] to a path in a directory that contentmonster may write to",
        };
        let file = open_private(lock, OFlags::WRONLY).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(std::fs::TryLockError::WouldBlock) => {
                return Err(LedgerError::Held { ledger: ledger.to_owned(), holder: "this host".to_owned() });
            }
            Err(std::fs::TryLockError::Error(e)) => return Err(failed(e)),
        }
        let meta = file.metadata().map_err(failed)?;
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        Ok(Self {
            name: format!("{host} (process {})", std::process::id()),
            lock: format!("{} {} {}", boot.trim(), meta.dev(), meta.ino()),
            _file: file,
        })
    }
}

/// Acquires the lease; returns the token of this acquisition. Waits while the lease of a process that has ended without
/// returning it runs out.
///
/// # Errors
/// [`LedgerError::Held`] when the holder renews the lease.
pub(super) async fn acquire(
    connection: &mut PgConnection,
    holder: &Holder,
    ledger: &str,
    time: Duration,
) -> Result<i64> {
    let mut seen: Option<(i64, f64)> = None;
    loop {
        if let Some(token) = try_acquire(connection, holder, time).await? {
            return Ok(token);
        }
        let held =
            sqlx::query("SELECT token, extract(epoch FROM until)::float8 AS until, holder FROM lease WHERE name = $1")
                .bind(LEDGER)
                .fetch_one(&mut *connection)
                .await?;
        let now: (i64, f64) = (held.try_get("token")?, held.try_get("until")?);
        if seen.is_some_and(|seen| seen != now) {
            let holder: Option<String> = held.try_get("holder")?;
            let holder = holder.unwrap_or_else(|| "another process".to_owned());
            return Err(LedgerError::Held { ledger: ledger.to_owned(), holder });
        }
        seen = Some(now);
        tokio::time::sleep(LOOK).await;
    }
}

/// Acquires the lease if it is free, has run out, or was held by an earlier process with the same lock file.
async fn try_acquire(connection: &mut PgConnection, holder: &Holder, time: Duration) -> Result<Option<i64>> {
    let held: bool = sqlx::query_scalar(
        "SELECT EXISTS (SELECT 1 FROM lease WHERE name = $1 AND holder IS NOT NULL AND until > clock_timestamp()
             AND lock_file IS DISTINCT FROM $2)",
    )
    .bind(LEDGER)
    .bind(&holder.lock)
    .fetch_one(&mut *connection)
    .await?;
    if held {
        return Ok(None);
    }
    let mut transaction = connection.begin_with("BEGIN ISOLATION LEVEL READ COMMITTED").await?;
    sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(LOCK).execute(&mut *transaction).await?;
    let token = sqlx::query_scalar(
        "INSERT INTO lease AS l (name, token, holder, lock_file, since, until)
         VALUES ($1, nextval('lease_token'), $2, $3, clock_timestamp(), clock_timestamp() + $4)
         ON CONFLICT (name) DO UPDATE SET token = excluded.token, holder = excluded.holder,
             lock_file = excluded.lock_file, since = excluded.since, until = excluded.until
         WHERE l.holder IS NULL OR l.until <= clock_timestamp() OR l.lock_file IS NOT DISTINCT FROM $3
         RETURNING token",
    )
    .bind(LEDGER)
    .bind(&holder.name)
    .bind(&holder.lock)
    .bind(interval(time))
    .fetch_optional(&mut *transaction)
    .await?;
    transaction.commit().await?;
    Ok(token)
}

/// Renews the lease. Returns `false` when another process has it.
pub(super) async fn renew(connection: &mut PgConnection, token: i64, time: Duration) -> sqlx::Result<bool> {
    let renewed = sqlx::query("UPDATE lease SET until = clock_timestamp() + $3 WHERE name = $1 AND token = $2")
        .bind(LEDGER)
        .bind(token)
        .bind(interval(time))
        .execute(connection)
        .await?;
    Ok(renewed.rows_affected() > 0)
}

/// Returns the lease, so that another process can have it at once.
pub(super) async fn give_back(connection: &mut PgConnection, token: i64) -> sqlx::Result<()> {
    sqlx::query("UPDATE lease SET holder = NULL, until = clock_timestamp() WHERE name = $1 AND token = $2")
        .bind(LEDGER)
        .bind(token)
        .execute(connection)
        .await?;
    Ok(())
}

fn interval(time: Duration) -> PgInterval {
    let microseconds = i64::try_from(time.as_micros()).unwrap_or(i64::MAX);
    PgInterval { months: 0, days: 0, microseconds }
}
