//! The ledger: every file version, delivery and acknowledgement, on disk. It is the queue.
//!
//! [`Ledger`] is a cheap-to-clone handle; what can be asked of it stands in [`Store`], in [`Survey`] what people
//! ask, in [`Outbox`] what is still to be told, in [`Upkeep`] what keeps it small. Each entry is durable as a whole and
//! may be repeated: after a crash the workflows simply ask again. Channels and bells elsewhere carry hints only.
//! Alone knows SQL; knows nothing of files or vessels but what their records say.

#[cfg(test)]
mod conformance;
mod error;
mod mounts;
mod outbox;
mod sqlite;
mod store;
mod survey;
mod upkeep;

use std::ops::Deref;
use std::path::Path;
use std::sync::Arc;

pub use error::LedgerError;
pub use mounts::MountMemory;
pub use outbox::{Listener, Notice, NoticeId, Outbox};
pub use store::{CurrentVersion, LastDelivered, Parked, Store};
pub use survey::{
    DeliveryStory, DirectoryTally, Ending, Oldest, Receipt, Summary, Survey, Tally, Trouble, VersionStory, VesselNote,
};
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

    /// Opens a copy of a ledger file, or an empty one where there is none: what is entered in it goes with it. The file is
    /// read and neither locked nor brought up to this program's form.
    ///
    /// # Errors
    /// [`LedgerError`] when it was written by a newer program, or can't be read or copied.
    pub async fn scratch(file: &Path, clock: Clock) -> Result<Self, LedgerError> {
        Ok(Self(Arc::new(sqlite::Sqlite::scratch(file, clock).await?)))
    }

    /// The same ledger, only to be looked at.
    pub fn view(&self) -> LedgerView {
        LedgerView(self.survey())
    }
}

/// The ledger, only to be looked at. Cheap to clone.
#[derive(Clone)]
pub struct LedgerView(Arc<dyn Survey>);

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
    type Target = dyn Survey;

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
