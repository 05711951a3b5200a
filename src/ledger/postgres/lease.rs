//! The leases of the ledger: which processes may write to it.
//!
//! A lease is a row of a table, and not a lock of a session, because the server and this process may notice the end of
//! a session at different times: the server may give the lock to another process while this process still believes that
//! it has the session. The holder renews the row, and knows by its own clock until when no other process can acquire
//! the lease.
//!
//! A process has either the lease of the whole ledger, which excludes all other processes, or the lease of one shore.
//! The module `shares` passes the work of a shore without a lease to the other shores.

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
/// Prefix of the names of the shores' leases.
pub(super) const SHORE: &str = "shore ";
/// The number of the advisory lock that serializes writing transactions and changes of a lease's holder.
const LOCK: i64 = 7_165_391_842;
/// Interval between checks whether another process renews its lease.
const LOOK: Duration = Duration::from_millis(250);

/// A lease that was acquired: its name, and the token of this acquisition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Lease {
    pub(super) name: String,
    pub(super) token: i64,
}

/// The identity of this process as the holder of a lease.
pub(super) struct Holder {
    /// Host and process, for messages.
    name: String,
    /// The identity of the lock file that this process has locked: boot ID, device and inode. If another process can
    /// lock the same file, the previous holder has ended.
    lock: String,
    _file: File,
}

impl Holder {
    /// Locks the lock file of this host.
    pub(super) fn new(lock: &Path, ledger: &str) -> Result<Self> {
        let failed = |why: std::io::Error| LedgerError::Refused {
            ledger: ledger.to_owned(),
            why: format!("cannot use the lock file {}: {why}", lock.display()),
            remedy: "set Socket in [MONSTER] to a path in a directory that contentmonster may write to",
            may_pass: false,
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

/// Acquires a lease. If a process ended without giving back its lease, waits until this lease expires.
///
/// # Errors
/// [`LedgerError::Held`] when the holder renews the lease.
pub(super) async fn acquire(
    connection: &mut PgConnection,
    holder: &Holder,
    name: &str,
    ledger: &str,
    time: Duration,
) -> Result<Lease> {
    let mut seen: Option<(String, i64, f64)> = None;
    loop {
        if let Some(token) = try_acquire(connection, holder, name, time).await? {
            return Ok(Lease { name: name.to_owned(), token });
        }
        let held = sqlx::query(concat!(
            "SELECT name, token, extract(epoch FROM until)::float8 AS until, holder FROM lease WHERE ",
            in_the_way!(),
            " ORDER BY until DESC LIMIT 1"
        ))
        .bind(name)
        .bind(&holder.lock)
        .fetch_optional(&mut *connection)
        .await?;
        let Some(held) = held else { continue };
        let now: (String, i64, f64) = (held.try_get("name")?, held.try_get("token")?, held.try_get("until")?);
        if seen.is_some_and(|seen| seen != now) {
            let holder: Option<String> = held.try_get("holder")?;
            let holder = holder.unwrap_or_else(|| "another process".to_owned());
            return Err(LedgerError::Held { ledger: ledger.to_owned(), holder });
        }
        seen = Some(now);
        tokio::time::sleep(LOOK).await;
    }
}

/// The SQL condition that a row is an unexpired lease of another process which excludes the lease with the name `$1`.
/// `$2` is the lock file of this process.
macro_rules! in_the_way {
    () => {
        "(name = 'ledger' OR name = $1 OR $1 = 'ledger' AND name LIKE 'shore %') AND holder IS NOT NULL
         AND until > clock_timestamp() AND lock_file IS DISTINCT FROM $2"
    };
}
use in_the_way;

/// Acquires a lease unless an unexpired lease of another process excludes it. Removes the other leases that would
/// exclude it: they have expired, or belong to an earlier process with the same lock file.
async fn try_acquire(
    connection: &mut PgConnection,
    holder: &Holder,
    name: &str,
    time: Duration,
) -> Result<Option<i64>> {
    let held = concat!("SELECT EXISTS (SELECT 1 FROM lease WHERE ", in_the_way!(), ")");
    let is_held = || sqlx::query_scalar::<_, bool>(held).bind(name).bind(&holder.lock);
    if is_held().fetch_one(&mut *connection).await? {
        return Ok(None);
    }
    let mut transaction = connection.begin_with("BEGIN ISOLATION LEVEL READ COMMITTED").await?;
    sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(LOCK).execute(&mut *transaction).await?;
    if is_held().fetch_one(&mut *transaction).await? {
        return Ok(None);
    }
    // The rows of a shore's work contain the token of the shore's lease. Once the row of that lease is deleted, other
    // shores can acquire the work.
    sqlx::query(
        "DELETE FROM lease WHERE name = 'ledger' AND $1 <> 'ledger' OR name = $1
             OR name LIKE 'shore %' AND ($1 = 'ledger' OR lock_file = $2)",
    )
    .bind(name)
    .bind(&holder.lock)
    .execute(&mut *transaction)
    .await?;
    let token = sqlx::query_scalar(
        "INSERT INTO lease (name, token, holder, lock_file, since, until)
         VALUES ($1, nextval('lease_token'), $2, $3, clock_timestamp(), clock_timestamp() + $4) RETURNING token",
    )
    .bind(name)
    .bind(&holder.name)
    .bind(&holder.lock)
    .bind(interval(time))
    .fetch_one(&mut *transaction)
    .await?;
    transaction.commit().await?;
    Ok(Some(token))
}

/// Renews a lease and records `latency`, the duration of the previous renewal. Returns `false` if another process has
/// acquired the lease, or has removed it to take over the shore's work.
pub(super) async fn renew(
    connection: &mut PgConnection,
    lease: &Lease,
    time: Duration,
    latency: Option<Duration>,
) -> sqlx::Result<bool> {
    let renewed = sqlx::query(
        "UPDATE lease SET until = clock_timestamp() + $3, latency = coalesce($4, latency) WHERE name = $1 AND token = $2",
    )
    .bind(&lease.name)
    .bind(lease.token)
    .bind(interval(time))
    .bind(latency.map(|latency| i64::try_from(latency.as_micros()).unwrap_or(i64::MAX)))
    .execute(connection)
    .await?;
    Ok(renewed.rows_affected() > 0)
}

/// Gives back a lease with all its work, so that other processes can acquire the lease and the work at once.
pub(super) async fn give_back(connection: &mut PgConnection, lease: &Lease) -> sqlx::Result<()> {
    let mut transaction = connection.begin().await?;
    sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(LOCK).execute(&mut *transaction).await?;
    sqlx::query(
        "UPDATE lease SET holder = NULL, shore = NULL, until = clock_timestamp()
         WHERE shore = $2 OR name = $1 AND token = $2",
    )
    .bind(&lease.name)
    .bind(lease.token)
    .execute(&mut *transaction)
    .await?;
    sqlx::query("DELETE FROM lease WHERE name = $1 AND token = $2 AND name <> 'ledger'")
        .bind(&lease.name)
        .bind(lease.token)
        .execute(&mut *transaction)
        .await?;
    sqlx::query("SELECT pg_notify('contentmonster', $1)")
        .bind(format!("{} shares", lease.token))
        .execute(&mut *transaction)
        .await?;
    transaction.commit().await
}

fn interval(time: Duration) -> PgInterval {
    let microseconds = i64::try_from(time.as_micros()).unwrap_or(i64::MAX);
    PgInterval { months: 0, days: 0, microseconds }
}
