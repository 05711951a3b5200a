//! The ledger: a database that records every file version, delivery and acknowledgement. It is an SQLite file or a
//! PostgreSQL database. The open deliveries in the ledger are the queue of the workflows.
//!
//! [`Ledger`] is a handle that is cheap to clone. It gives access to these interfaces, among others:
//!
//! - [`Store`]: the workflows' queries and updates
//! - [`Reports`]: people's queries
//! - [`Outbox`]: pending notifications
//! - [`Places`]: the destinations on the vessels
//! - [`Moves`]: moved and copied files
//! - [`LinkUsage`]: bytes on the link
//! - [`Queues`]: queues of directories with a priority, an order, a schedule or an expiry
//! - [`Upkeep`]: limits the ledger's size
//!
//! Updates are idempotent, apart from the exceptions that [`Store`] lists, and atomic as a whole or in steps, so the
//! workflows can repeat them after a crash. Signals between tasks (channels and bells) are only hints; a lost signal
//! loses no work. No other module uses SQL, and this module accesses neither the files nor the vessels that it records.

#[cfg(test)]
mod conformance;
mod copy;
mod error;
mod fair_share;
mod incidents;
mod link_usage;
mod migrations;
mod mounts;
mod moves;
mod notices;
mod outage;
mod pauses;
mod places;
mod postgres;
mod queue;
mod queues;
mod reports;
mod shores;
mod sqlite;
mod store;
mod upkeep;

use std::ops::Deref;
use std::path::Path;
use std::sync::Arc;

pub use copy::{CopiedTable, copy};
pub use error::LedgerError;
pub use incidents::{IncidentMemory, ReportedIncident};
pub use link_usage::LinkUsage;
pub use mounts::MountMemory;
pub use moves::{MOST_SAMPLED, MovedEntry, Moves, OriginThere, SameStamp, SimilarFile};
pub use notices::{Listener, Notice, NoticeId, Outbox};
pub use outage::Outage;
pub use pauses::{DirectoryPauses, PausedDirectory};
pub use places::Places;
pub use queue::{
    LanePlace, QueueCursor, QueueFilter, QueueLane, QueuePage, QueuePosition, QueueRank, QueueStage, QueueState, Queued,
};
pub use queues::{ExpiredDelivery, QueueEnd, QueueSettings, Queues};
pub use reports::{
    DeliveryHistory, DirectoryTally, Ending, Oldest, Postponed, Receipt, ReceiptPage, Reports, Summary, Tally, Trouble,
    VersionHistory, VesselNote,
};
pub use shores::{Hint, Next, Share, ShoreSeen, Shores, Work};
pub use store::{CurrentVersion, LastDelivered, Parked, Pause, Store};
pub use upkeep::{Retiree, Step, Upkeep};

use crate::clock::Clock;
use crate::settings::{Database, PostgresAddress};

/// A handle to the open ledger. Cheap to clone.
#[derive(Clone)]
pub struct Ledger(Arc<dyn Store>);

impl Ledger {
    /// Opens a ledger file, creates it if it is missing, and migrates it to this program's schema.
    ///
    /// No other process can open the file for writing while this handle or a clone of the handle exists.
    ///
    /// # Errors
    /// [`LedgerError`] when the ledger is in use, was written by a newer program, or can't be read or written.
    pub async fn open(file: &Path, clock: Clock) -> Result<Self, LedgerError> {
        Ok(Self(Arc::new(sqlite::Sqlite::open(file, clock).await?)))
    }

    /// Opens the ledger that the settings name, like [`Self::open`].
    ///
    /// # Errors
    /// The errors of [`Self::open`]; [`LedgerError::Held`] while another process uses the ledger in PostgreSQL.
    pub async fn open_at(database: &Database, clock: Clock) -> Result<Self, LedgerError> {
        match database {
            Database::File(file) => Self::open(file, clock).await,
            Database::Postgres(address) => Ok(Self(Arc::new(postgres::Postgres::open(address, clock).await?))),
        }
    }

    /// Opens the ledger that the settings name, like [`Self::open_at`]. If it is in PostgreSQL, other shores may use it
    /// at the same time.
    ///
    /// # Errors
    /// The errors of [`Self::open`]; [`LedgerError::Held`] while another process uses the ledger alone, under the same
    /// shore name, or with the same lock file.
    pub async fn join_at(database: &Database, clock: Clock) -> Result<Self, LedgerError> {
        match database {
            Database::File(file) => Self::open(file, clock).await,
            Database::Postgres(address) => Ok(Self(Arc::new(postgres::Postgres::join(address, clock).await?))),
        }
    }

    /// Returns a handle for the tasks of `work`, see [`Store::for_work`].
    #[must_use]
    pub fn of_work(&self, work: &Work) -> Self {
        self.for_work(work).map_or_else(|| self.clone(), Self)
    }

    /// Returns a read-only view of the ledger.
    pub fn view(&self) -> LedgerView {
        LedgerView(self.reports())
    }
}

/// Makes a consistent copy of a ledger as an SQLite file, even while another process writes to the ledger. The copy has
/// mode 0600. The copy appears at `to` after it was completed, flushed and verified. An existing file is not
/// overwritten.
///
/// A ledger in PostgreSQL is first copied to a temporary SQLite file, like by [`copy()`], but without locks.
///
/// # Errors
/// [`LedgerError`] when the ledger doesn't exist or can't be read, or when the copy can't be made.
pub async fn backup(ledger: &Database, to: &Path) -> Result<(), LedgerError> {
    let Database::Postgres(address) = ledger else {
        return sqlite::backup(ledger.file().unwrap_or(Path::new("")), to).await;
    };
    let failed = |why: std::io::Error| LedgerError::NotCopied { to: to.into(), why: why.to_string() };
    if to.symlink_metadata().is_ok() {
        return Err(failed(std::io::ErrorKind::AlreadyExists.into()));
    }
    let directory = to.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let place = tempfile::Builder::new().prefix(".contentmonster-backup-").tempdir_in(directory).map_err(failed)?;
    let file = place.path().join("ledger");
    as_file(address, &file).await?;
    sqlite::backup(&file, to).await
}

/// Copies a ledger in PostgreSQL to a new SQLite file, even while another process uses the ledger.
async fn as_file(address: &PostgresAddress, file: &Path) -> Result<(), LedgerError> {
    // Opening the file creates its tables.
    Ledger::open(file, Clock::system()).await?.close().await?;
    let from = Database::Postgres(Box::new(address.clone()));
    copy::copy_unlocked(&from, &Database::File(file.to_owned())).await.map(drop)
}

/// A temporary copy of a ledger, for dry runs.
pub struct Scratch {
    original: Database,
    clock: Clock,
    copy: sqlite::Scratch,
    /// The temporary directory with the SQLite file that a ledger in PostgreSQL was copied to.
    _file: Option<tempfile::TempDir>,
}

impl Scratch {
    /// Copies a ledger file, or creates an empty ledger when there is no file. Only reads the original file: neither
    /// locks nor migrates it.
    ///
    /// # Errors
    /// [`LedgerError`] when the ledger was written by a newer program, or can't be read or copied.
    pub async fn of(file: &Path, clock: Clock) -> Result<Self, LedgerError> {
        Self::of_ledger(&Database::File(file.to_owned()), clock).await
    }

    /// Copies the ledger that the settings name, like [`Self::of`]. If the ledger is in PostgreSQL, the copy is a
    /// temporary SQLite file.
    ///
    /// # Errors
    /// The errors of [`Self::of`].
    pub async fn of_ledger(original: &Database, clock: Clock) -> Result<Self, LedgerError> {
        let (file, place) = match original {
            Database::File(file) => (file.clone(), None),
            Database::Postgres(address) => {
                let failed =
                    |e: std::io::Error| LedgerError::NotCopied { to: std::env::temp_dir(), why: e.to_string() };
                let place = tempfile::Builder::new().prefix("contentmonster-").tempdir().map_err(failed)?;
                let file = place.path().join("ledger");
                match as_file(address, &file).await {
                    Err(LedgerError::NotThere { .. }) => {}
                    copied => copied?,
                }
                (file, Some(place))
            }
        };
        let copy = sqlite::Scratch::of(&file, clock.clone()).await?;
        Ok(Self { original: original.clone(), copy, clock, _file: place })
    }

    /// Returns the copy. Updates to the copy last until the next [`Scratch::refresh`].
    pub fn ledger(&self) -> Ledger {
        Ledger(self.copy.store.clone())
    }

    /// Makes the copy equal to the ledger again: undoes the updates to the copy, or copies the ledger once more if the
    /// ledger's file has changed or the ledger is in PostgreSQL.
    ///
    /// # Errors
    /// The errors of [`Scratch::of`].
    pub async fn refresh(&mut self) -> Result<(), LedgerError> {
        if self.original.file().is_some() && self.copy.is_current() {
            return self.copy.undo().await;
        }
        *self = Self::of_ledger(&self.original, self.clock.clone()).await?;
        Ok(())
    }
}

/// A read-only view of the ledger. Cheap to clone.
#[derive(Clone)]
pub struct LedgerView(Arc<dyn Reports>);

impl LedgerView {
    /// Opens a ledger file read-only, even while another process has the file open.
    ///
    /// # Errors
    /// [`LedgerError`] when the ledger doesn't exist, was written by another version of the program, or can't be read.
    pub async fn open(file: &Path) -> Result<Self, LedgerError> {
        Ok(Self(sqlite::Sqlite::look(file, false).await?))
    }

    /// Opens the ledger that the settings name, like [`Self::open`].
    ///
    /// # Errors
    /// The errors of [`Self::open`].
    pub async fn open_at(database: &Database) -> Result<Self, LedgerError> {
        match database {
            Database::File(file) => Self::open(file).await,
            Database::Postgres(address) => Ok(Self(postgres::Postgres::look(address).await?)),
        }
    }

    /// Opens the ledger like [`Self::open_at`], but creates no files beside a ledger file. Use the view only for a
    /// short time, because it may miss later updates.
    ///
    /// # Errors
    /// The errors of [`Self::open`].
    pub async fn glance_at(database: &Database) -> Result<Self, LedgerError> {
        match database {
            Database::File(file) => Ok(Self(sqlite::Sqlite::look(file, true).await?)),
            Database::Postgres(address) => Ok(Self(postgres::Postgres::look(address).await?)),
        }
    }
}

impl Deref for LedgerView {
    type Target = dyn Reports;

    fn deref(&self) -> &Self::Target {
        &*self.0
    }
}

impl Deref for Ledger {
    type Target = dyn Store;

    fn deref(&self) -> &Self::Target {
        &*self.0
    }
}
