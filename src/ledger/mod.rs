//! The ledger: every file version, delivery and acknowledgement, on disk. It is the queue.
//!
//! [`Ledger`] is a handle that is cheap to clone. [`Store`] is the workflows' interface, [`Reports`] that for people's
//! queries, [`Outbox`] that for pending notifications, [`Places`] that for destinations on the vessels, and [`Upkeep`]
//! that for limiting its size. Every update is durable as a whole and idempotent: after a crash the workflows repeat
//! it. Channels and bells elsewhere carry hints only. No other module knows SQL; this one knows files and vessels only
//! from its records.

#[cfg(test)]
mod conformance;
mod error;
mod mounts;
mod notices;
mod places;
mod reports;
mod sqlite;
mod store;
mod upkeep;

use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use error::LedgerError;
pub use mounts::MountMemory;
pub use notices::{Listener, Notice, NoticeId, Outbox};
pub use places::Places;
pub use reports::{
    DeliveryStory, DirectoryTally, Ending, Oldest, Receipt, Reports, Summary, Tally, Trouble, VersionStory, VesselNote,
};
pub use store::{CurrentVersion, LastDelivered, Parked, Store};
pub use upkeep::{Retiree, Step, Upkeep};

use crate::clock::Clock;

/// The open ledger. Cheap to clone.
#[derive(Clone)]
pub struct Ledger(Arc<dyn Store>);

impl Ledger {
    /// Opens a ledger file, creates it if it is missing, and migrates it to this program's schema.
    ///
    /// No other process can open it for writing while this handle or a clone of it exists.
    ///
    /// # Errors
    /// [`LedgerError`] when it is in use, was written by a newer program, or can't be read or written.
    pub async fn open(file: &Path, clock: Clock) -> Result<Self, LedgerError> {
        Ok(Self(Arc::new(sqlite::Sqlite::open(file, clock).await?)))
    }

    /// Returns a read-only view of the ledger.
    pub fn view(&self) -> LedgerView {
        LedgerView(self.reports())
    }
}

/// Makes a consistent copy of a ledger file, even while another process writes to it. The copy has mode 0600 and
/// appears under its name once it is complete, flushed and verified; nothing is overwritten.
///
/// # Errors
/// [`LedgerError`] when the ledger doesn't exist or can't be read, or when the copy can't be made.
pub async fn backup(ledger: &Path, to: &Path) -> Result<(), LedgerError> {
    sqlite::backup(ledger, to).await
}

/// A temporary copy of a ledger, for dry runs.
pub struct Scratch {
    file: PathBuf,
    clock: Clock,
    copy: sqlite::Scratch,
}

impl Scratch {
    /// Copies a ledger file, or creates an empty copy where there is none. The file itself is only read: it is neither
    /// locked nor migrated.
    ///
    /// # Errors
    /// [`LedgerError`] when it was written by a newer program, or can't be read or copied.
    pub async fn of(file: &Path, clock: Clock) -> Result<Self, LedgerError> {
        Ok(Self { file: file.to_owned(), copy: sqlite::Scratch::of(file, clock.clone()).await?, clock })
    }

    /// Returns the copy. Updates to it last until the next refresh.
    pub fn ledger(&self) -> Ledger {
        Ledger(self.copy.store.clone())
    }

    /// Makes the copy equal to the ledger file again: undoes its updates, or copies the file anew if it was written to.
    ///
    /// # Errors
    /// As [`Scratch::of`].
    pub async fn refresh(&mut self) -> Result<(), LedgerError> {
        if self.copy.is_current() {
            return self.copy.undo().await;
        }
        self.copy = sqlite::Scratch::of(&self.file, self.clock.clone()).await?;
        Ok(())
    }
}

/// A read-only view of the ledger. Cheap to clone.
#[derive(Clone)]
pub struct LedgerView(Arc<dyn Reports>);

impl LedgerView {
    /// Opens a ledger file read-only, also while another process has it open.
    ///
    /// # Errors
    /// [`LedgerError`] when it doesn't exist, was written by another version of the program, or can't be read.
    pub async fn open(file: &Path) -> Result<Self, LedgerError> {
        Ok(Self(sqlite::Sqlite::look(file).await?))
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
