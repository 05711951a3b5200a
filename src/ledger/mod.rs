//! The ledger: every file version, delivery and acknowledgement, on disk. It is the queue.
//!
//! [`Ledger`] is a cheap-to-clone handle; what can be asked of it stands in [`Store`]. Each method is one transaction and
//! may be repeated: after a crash the workflows simply ask again. Channels and bells elsewhere carry hints only.
//! Alone knows SQL; knows nothing of files or vessels but what their records say.

mod error;
mod lock;
mod rows;
mod sqlite;
mod store;

use std::ops::Deref;
use std::path::Path;
use std::sync::Arc;

pub use error::LedgerError;
pub use store::{CurrentVersion, Parked, Store};

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
}

impl Deref for Ledger {
    type Target = dyn Store;

    fn deref(&self) -> &Self::Target {
        &*self.0
    }
}
