//! The ledger: every file version, delivery and acknowledgement, on disk. It is the queue.
//!
//! [`Ledger`] is a cheap-to-clone handle; what can be asked of it stands in [`Store`], in [`Reports`] what people
//! ask, in [`Outbox`] what is still to be told, in [`Places`] where things go, in [`Upkeep`] what keeps it small. Each entry is durable as a whole and
//! may be repeated: after a crash the workflows simply ask again. Channels and bells elsewhere carry hints only.
//! Alone knows SQL; knows nothing of files or vessels but what their records say.

#[cfg(test)]
mod conformance;
mod error;
mod mounts;
mod outbox;
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
pub use outbox::{Listener, Notice, NoticeId, Outbox};
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
    /// Opens a ledger file, makes it when it is missing, and brings it up to this program's form.
    ///
    /// Nobody else can open it for writing while this handle or a clone of it lives.
    ///
    /// # Errors
    /// [`LedgerError`] when it is in use, was written by a newer program, or can't be read or written.
    pub async fn open(file: &Path, clock: Clock) -> Result<Self, LedgerError> {
        Ok(Self(Arc::new(sqlite::Sqlite::open(file, clock).await?)))
    }

    /// The same ledger, only to be looked at.
    pub fn view(&self) -> LedgerView {
        LedgerView(self.reports())
    }
}

/// Makes a consistent copy of a ledger file, whether or not another process writes to it meanwhile. The copy has mode 0600 and
/// appears under its name once it is whole, flushed and found to be sound; nothing is overwritten.
///
/// # Errors
/// [`LedgerError`] when the ledger isn't there or can't be read, or when the copy can't be made.
pub async fn backup(ledger: &Path, to: &Path) -> Result<(), LedgerError> {
    sqlite::backup(ledger, to).await
}

/// A copy of a ledger, to try out on it what would be done.
pub struct Scratch {
    file: PathBuf,
    clock: Clock,
    copy: sqlite::Scratch,
}

impl Scratch {
    /// Copies a ledger file, or makes an empty one where there is none. The file is read and neither locked nor brought up to
    /// this program's form.
    ///
    /// # Errors
    /// [`LedgerError`] when it was written by a newer program, or can't be read or copied.
    pub async fn of(file: &Path, clock: Clock) -> Result<Self, LedgerError> {
        Ok(Self { file: file.to_owned(), copy: sqlite::Scratch::of(file, clock.clone()).await?, clock })
    }

    /// The copy. What is entered in it lasts until it is made fresh.
    pub fn ledger(&self) -> Ledger {
        Ledger(self.copy.store.clone())
    }

    /// Has the copy be what the ledger file is: undoes what was entered, or copies anew a file that was written to.
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

/// The ledger, only to be looked at. Cheap to clone.
#[derive(Clone)]
pub struct LedgerView(Arc<dyn Reports>);

impl LedgerView {
    /// Opens a ledger file for looking, also while another process has it open.
    ///
    /// # Errors
    /// [`LedgerError`] when it isn't there, was written by another version of the program, or can't be read.
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
