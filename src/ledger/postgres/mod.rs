//! The ledger in a PostgreSQL database: connects, migrates the tables to this program's schema, and acquires the lease.
//!
//! One connection writes, as with SQLite, so that updates of one process never wait for each other's locks. Other
//! connections read. Every transaction that writes first checks in the database that the token of the lease is still
//! valid ([`lease`]), so no update of a process that has lost the lease is ever applied. Updates and queries of the
//! workflows wait while the database is unavailable ([`connections`]); people's queries fail at once.
//!
//! The tables are in a database schema of their own, `contentmonster`. Statistics mislead the planner, because tables
//! grow from nothing to millions of rows within minutes. So the sessions restrict the planner to the kind of plan that
//! SQLite uses: nested loops over indexes, in the order of the index. Plans are made for each execution, because they
//! depend on the sizes of the tables.

mod connections;
mod current_versions;
mod doubt;
mod due;
mod former_assemblies;
mod group;
mod incidents;
mod lease;
mod link_usage;
mod listeners;
mod mounts;
mod moves;
mod new_versions;
mod notices;
mod pauses;
mod queue;
mod queues;
mod ranks;
mod reconcile;
mod reports;
mod rows;
#[cfg(test)]
mod server;
mod shares;
#[cfg(test)]
mod shares_tests;
mod signatures;
mod store;
#[cfg(test)]
pub(super) mod tests;
mod transitions;
mod trouble;
mod upkeep;
mod write;

use std::future::Future;
use std::ops::Deref;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use secrecy::ExposeSecret;
use sqlx::migrate::{MigrateError, Migrator};
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, PgConnection, PgPool};
use tokio::task::JoinHandle;

use super::{LedgerError, Reports, migrations};
use crate::clock::Clock;
use crate::names::InstanceId;
use crate::records::DeliveryCost;
use crate::settings::PostgresAddress;
use connections::{Connections, Servers};
use group::{Entry, Group};
use lease::{Holder, LEDGER, Lease, SHORE};
use listeners::Listeners;
use shares::Shares;
use trouble::Trouble;
use write::Pools;

type Result<T> = std::result::Result<T, LedgerError>;

/// The migrations, embedded in the program. A published migration must never change.
static MIGRATIONS: LazyLock<Migrator> = LazyLock::new(migrations::of_postgresql);

/// Maximum time for which opening the ledger waits for an answer of the server.
const PATIENCE: Duration = Duration::from_secs(10);

/// Settings of every session.
///
/// With sorting disabled, the planner scans a whole index that has the requested order, even where another index would
/// find the few rows at once. So statements that find few rows sort by `column + 0`, an order that no index has.
///
/// `jit` would compile every statement, because plans with disabled steps count as expensive. The TCP keepalives let
/// the server end the sessions of a vanished client, so that their locks don't outlast the lease; see also
/// [`LONGEST_PAUSE`].
const SESSION: [(&str, &str); 12] = [
    ("search_path", "contentmonster"),
    ("enable_seqscan", "off"),
    ("enable_bitmapscan", "off"),
    ("enable_hashjoin", "off"),
    ("enable_mergejoin", "off"),
    ("enable_sort", "off"),
    ("enable_material", "off"),
    ("jit", "off"),
    ("plan_cache_mode", "force_custom_plan"),
    ("tcp_keepalives_idle", "5"),
    ("tcp_keepalives_interval", "5"),
    ("tcp_keepalives_count", "2"),
];

/// Maximum time for which a session may be idle in a transaction; with a short lease, two thirds of the lease time. A
/// process that is suspended within a transaction prevents all other processes from writing for this time.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// A handle to a ledger, for all work or for the tasks of one piece of work.
pub(super) struct Postgres {
    core: Arc<Core>,
    /// The piece of work that the updates belong to; `None` for all work.
    work: Option<Arc<Lease>>,
}

/// The state that all handles to one ledger share.
pub(super) struct Core {
    connections: Arc<Connections>,
    keeper: std::sync::Mutex<Option<JoinHandle<()>>>,
    group: Group,
    listeners: Listeners,
    instance: InstanceId,
    clock: Clock,
    /// The latest time of day to which due times were compared, in milliseconds since 1970; see [`due`].
    latest: tokio::sync::Mutex<i64>,
    shares: Shares,
}

impl Deref for Postgres {
    type Target = Core;

    fn deref(&self) -> &Core {
        &self.core
    }
}

/// The connections that people's queries use.
enum Readers {
    /// The reading connections of the workflows; a query fails while the database is unavailable.
    Shared(Arc<Connections>),
    Own(PgPool),
}

impl Readers {
    fn pool(&self) -> Result<PgPool> {
        match self {
            Self::Shared(connections) => connections.readers_now(),
            Self::Own(pool) => Ok(pool.clone()),
        }
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        self.connections.close();
    }
}

/// Acquires or releases the lock under which one process at a time migrates the tables.
async fn migration_lock(connection: &mut PgConnection, function: &str) -> Result<()> {
    const MIGRATION: i64 = 7_165_391_843;
    let statement = format!("SELECT {function}({MIGRATION})");
    sqlx::query(sqlx::AssertSqlSafe(statement)).execute(connection).await?;
    Ok(())
}

impl Postgres {
    /// Connects to the ledger, creates or migrates its tables, and acquires the lease of the whole ledger.
    pub(super) async fn open(address: &PostgresAddress, clock: Clock) -> Result<Self> {
        Self::open_as(address, clock, LEDGER).await
    }

    /// Connects to the ledger like [`Self::open`], but acquires the lease of this shore only, so that other shores can
    /// use the ledger too.
    pub(super) async fn join(address: &PostgresAddress, clock: Clock) -> Result<Self> {
        Self::open_as(address, clock, &format!("{SHORE}{}", address.shore)).await
    }

    async fn open_as(address: &PostgresAddress, clock: Clock, name: &str) -> Result<Self> {
        let servers = servers(address)?;
        let holder = Holder::new(&address.lock, &servers.shown)?;
        let (mut connection, options) = in_time(&servers, servers.connect(true)).await?;
        check_server(&mut connection, &servers).await?;
        let opened = async {
            let ours = newest();
            let mut form = form(&mut connection).await?;
            let is_locked = form != Some(ours);
            if is_locked {
                // Another process may be in the middle of its migrations. If this session ends, the server unlocks.
                migration_lock(&mut connection, "pg_advisory_lock").await?;
                form = self::form(&mut connection).await?;
            }
            if form.is_some_and(|form| form > ours) {
                return Err(LedgerError::TooNew {
                    file: servers.shown.clone().into(),
                    form: form.unwrap_or_default(),
                    copy: None,
                });
            }
            let (shown, time) = (&servers.shown, address.lease_time);
            if form != Some(ours) {
                // A migration must not change the tables while another program uses them. Such a program holds a lease,
                // so the lease of the whole ledger is acquired first.
                let alone = match form {
                    Some(_) => Some(lease::acquire(&mut connection, &holder, LEDGER, shown, time).await?),
                    None => None,
                };
                migrate(&mut connection, &servers).await?;
                if let Some(alone) = alone {
                    lease::give_back(&mut connection, &alone).await?;
                }
            }
            if is_locked {
                migration_lock(&mut connection, "pg_advisory_unlock").await?;
            }
            let lease = lease::acquire(&mut connection, &holder, name, shown, time).await?;
            Ok((lease, instance(&mut connection).await?))
        };
        let (lease, instance) = opened.await.map_err(|e| opening(&servers, e))?;
        let (connections, keeper) =
            Connections::start((servers, holder), (connection, options), lease, address.lease_time);
        let listeners = Listeners::default();
        // The clock may have been ahead when the ledger was last open, so due times far in the future are moved back.
        let now = clock.now_ms();
        let core = Core {
            shares: Shares::start(&connections),
            group: Group::start(connections.clone(), clock.clone(), listeners.clone()),
            connections,
            keeper: std::sync::Mutex::new(Some(keeper)),
            listeners,
            instance,
            clock,
            latest: tokio::sync::Mutex::new(now),
        };
        let store = Self { core: Arc::new(core), work: None };
        due::move_back(&store, now, 0).await?;
        Ok(store)
    }

    /// Opens the ledger read-only, even while another process writes to it.
    pub(super) async fn look(address: &PostgresAddress) -> Result<Arc<dyn Reports>> {
        let (_, pool) = readers_of(address, 2).await?;
        Ok(Arc::new(Readers::Own(pool)))
    }

    /// Returns the time of day in milliseconds since 1970.
    fn now(&self) -> i64 {
        self.clock.now_ms()
    }

    async fn lasting<T, F, Fut>(&self, attempt: F) -> Result<T>
    where
        F: Fn(Pools) -> Fut + Send,
        Fut: Future<Output = Result<T>> + Send,
    {
        let work = self.work.clone();
        self.connections.lasting(move |pools| attempt(pools.of_work(work.clone()))).await
    }

    /// Applies an update to a delivery or a version, together with other updates; see [`Group::make`].
    async fn make(&self, entry: Entry, id: i64) -> Result<bool> {
        self.make_at_cost(entry, id, None).await
    }

    async fn make_at_cost(&self, entry: Entry, id: i64, cost: Option<DeliveryCost>) -> Result<bool> {
        self.group.make(self.work.clone(), entry, id, cost).await
    }

    /// Gives back the lease and closes all connections.
    async fn shut(&self) -> Result<()> {
        self.connections.close();
        let keeper = self.keeper.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
        if let Some(keeper) = keeper {
            keeper.await.ok();
        }
        Ok(())
    }
}

/// Returns the ledger's name for messages, and a pool of reading connections. Rejects a ledger that does not have this
/// program's schema.
async fn readers_of(address: &PostgresAddress, connections: u32) -> Result<(String, PgPool)> {
    let servers = servers(address)?;
    let (mut connection, options) = in_time(&servers, servers.connect(false)).await?;
    let file = || servers.shown.clone().into();
    match form(&mut connection).await.map_err(|e| opening(&servers, e))? {
        None => return Err(LedgerError::NotThere { file: file() }),
        Some(form) if form < newest() => return Err(LedgerError::TooOld { file: file() }),
        Some(form) if form > newest() => return Err(LedgerError::TooNew { file: file(), form, copy: None }),
        Some(_) => {}
    }
    Ok((servers.shown, write::pool(options, connections)))
}

/// Connects to a ledger of this program's schema, to copy it.
pub(super) async fn for_copy(address: &PostgresAddress) -> Result<PgConnection> {
    let (shown, pool) = readers_of(address, 1).await?;
    let options = (*pool.connect_options()).clone().options([("enable_sort", "on"), ("enable_seqscan", "on")]);
    let servers = Servers { options: vec![options], shown };
    let (connection, _) = in_time(&servers, servers.connect(false)).await?;
    Ok(connection)
}

/// Returns the options of the connections to the servers of an address.
fn servers(address: &PostgresAddress) -> Result<Servers> {
    let invalid = |why: String| LedgerError::Refused {
        ledger: address.to_string(),
        why,
        remedy: "correct Database in [MONSTER], such as postgresql://user@host/name?sslmode=verify-full",
        may_pass: false,
    };
    let one = |url: &String| -> Result<PgConnectOptions> {
        let mut options: PgConnectOptions = url.parse().map_err(|e: sqlx::Error| invalid(e.to_string()))?;
        if let Some(password) = &address.password {
            options = options.password(password.expose_secret());
        }
        // Statements are not logged: sqlx's log lines contain SQL, and an operator can't fix a slow statement.
        let pause = LONGEST_PAUSE.min(address.lease_time * 2 / 3).as_millis();
        let options = options.options([("idle_in_transaction_session_timeout", pause.to_string())]);
        Ok(options.application_name("contentmonster").options(SESSION).disable_statement_logging())
    };
    Ok(Servers { options: address.urls.iter().map(one).collect::<Result<_>>()?, shown: address.to_string() })
}

async fn in_time<T>(servers: &Servers, attempt: impl Future<Output = sqlx::Result<T>>) -> Result<T> {
    let late = |_| Err(sqlx::Error::Io(std::io::Error::new(std::io::ErrorKind::TimedOut, "no answer within 10 s")));
    let done = tokio::time::timeout(PATIENCE, attempt).await.unwrap_or_else(late);
    done.map_err(|e| refused(servers, &e))
}

fn refused(servers: &Servers, error: &sqlx::Error) -> LedgerError {
    let (ledger, why, remedy) = (servers.shown.clone(), trouble::text_of(error), trouble::remedy(error));
    // While the ledger is being opened, a TLS error is caused by wrong settings, so waiting doesn't help.
    let may_pass = matches!(trouble::meaning(error), Trouble::Away | Trouble::RefusesWrites)
        && !matches!(error, sqlx::Error::Tls(_));
    LedgerError::Refused { ledger, why, remedy, may_pass }
}

fn opening(servers: &Servers, error: LedgerError) -> LedgerError {
    match error {
        LedgerError::Failed(error) => refused(servers, &error),
        error => error,
    }
}

/// Rejects a server or a database that can't hold a ledger.
async fn check_server(connection: &mut PgConnection, servers: &Servers) -> Result<()> {
    let (version, encoding): (i32, String) =
        sqlx::query_as("SELECT current_setting('server_version_num')::int, current_setting('server_encoding')")
            .fetch_one(connection)
            .await
            .map_err(|e| refused(servers, &e))?;
    let refused = |why: String, remedy| {
        let ledger = servers.shown.clone();
        LedgerError::Refused { ledger, why, remedy, may_pass: false }
    };
    if version < 130_000 {
        let why = format!("the server is PostgreSQL {}; contentmonster needs 13 or later", version / 10_000);
        return Err(refused(why, "upgrade the server, or name another one in Database"));
    }
    if encoding != "UTF8" {
        let remedy = "create the database with: createdb --encoding UTF8 --template template0 NAME";
        return Err(refused(format!("the encoding of the database is {encoding}; it must be UTF8"), remedy));
    }
    Ok(())
}

/// Returns the number of the newest migration that this program knows.
fn newest() -> i64 {
    MIGRATIONS.iter().map(|migration| migration.version).max().unwrap_or_default()
}

/// Returns the number of the ledger's newest migration; `None` when the database has no ledger.
async fn form(connection: &mut PgConnection) -> Result<Option<i64>> {
    let exists: bool = sqlx::query_scalar("SELECT to_regclass('contentmonster._sqlx_migrations') IS NOT NULL")
        .fetch_one(&mut *connection)
        .await?;
    if !exists {
        return Ok(None);
    }
    Ok(sqlx::query_scalar("SELECT max(version) FROM _sqlx_migrations WHERE success").fetch_one(connection).await?)
}

/// Creates the tables, or migrates them to this program's schema. An advisory lock of sqlx serializes concurrent
/// migrations.
async fn migrate(connection: &mut PgConnection, servers: &Servers) -> Result<()> {
    // Without this lock, `IF NOT EXISTS` can fail when two processes create the schema at the same moment.
    for statement in [
        "SELECT pg_advisory_lock(7165391843)",
        "CREATE SCHEMA IF NOT EXISTS contentmonster",
        "SELECT pg_advisory_unlock(7165391843)",
    ] {
        sqlx::query(statement).execute(&mut *connection).await?;
    }
    // `run` can't be used: `run` is generic over the lifetime of the connection, so the futures of callers would not be
    // `Send`.
    MIGRATIONS.run_direct(None, connection, false).await.map_err(|error| match error {
        MigrateError::VersionMissing(form) | MigrateError::VersionTooNew(form, _) => {
            LedgerError::TooNew { file: servers.shown.clone().into(), form, copy: None }
        }
        MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => refused(servers, &error),
        error => LedgerError::Refused {
            ledger: servers.shown.clone(),
            why: error.to_string(),
            remedy: "restore the database from a backup",
            may_pass: false,
        },
    })
}

/// Returns the shore's id; generates the id when the ledger is new.
async fn instance(connection: &mut PgConnection) -> Result<InstanceId> {
    let made_up = InstanceId::new(std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), std::process::id()));
    sqlx::query("INSERT INTO instance (id) SELECT $1 WHERE NOT EXISTS (SELECT 1 FROM instance)")
        .bind(made_up.to_string())
        .execute(&mut *connection)
        .await?;
    let id: String = sqlx::query_scalar("SELECT id FROM instance").fetch_one(connection).await?;
    InstanceId::parse(&id).ok_or_else(|| LedgerError::Corrupt(format!("invalid instance id {id:?}")))
}
