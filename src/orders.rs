//! What a person orders: try again, pause, go on, forget.
//!
//! An order is entered in the ledger first, and then told to the tasks that run; without a running daemon the entry alone
//! does it. Knows nothing of how orders come in.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::bell::Bell;
use crate::ledger::{Ledger, LedgerError};
use crate::names::{DirectoryName, VesselName};
use crate::records::{DeliveryId, VersionId};

/// An order, as it goes over the wire too: `{"order": "pause", "vessel": "aurora"}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "order", rename_all = "lowercase", deny_unknown_fields)]
pub enum Order {
    /// Leave a vessel alone. That outlives a restart.
    Pause {
        /// Its name in the settings.
        vessel: String,
    },
    /// Serve a vessel again.
    Resume {
        /// Its name in the settings.
        vessel: String,
    },
    /// Try again now what was put off, and the vessel itself.
    Retry {
        /// Its name in the settings.
        vessel: String,
        /// The ledger's numbers of the deliveries; none: all to this vessel.
        #[serde(default)]
        deliveries: Vec<i64>,
    },
    /// Leave a file where it is: sent to nobody any more, and not retired, until it changes.
    Forget {
        /// The ledger's number of the version.
        version: i64,
    },
    /// Forget everything that waits in a directory, configured or not.
    #[serde(rename = "forget-all")]
    ForgetAll {
        /// Its name, as the ledger knows it.
        directory: String,
    },
}

/// What a vessel's task listens to.
#[derive(Clone)]
pub struct Reins {
    /// Rung when there may be something to deliver.
    pub bell: Bell,
    /// Rung when it is to be tried again now.
    pub hurry: Bell,
    /// Whether it is to be left alone.
    pub paused: watch::Sender<bool>,
}

/// Carries out orders. Cheap to clone.
#[derive(Clone)]
pub struct Orders {
    ledger: Ledger,
    vessels: Arc<RwLock<HashMap<VesselName, Reins>>>,
}

impl Orders {
    /// Orders to the tasks of these vessels; to none when no daemon runs.
    pub fn new(ledger: Ledger, vessels: HashMap<VesselName, Reins>) -> Self {
        Self { ledger, vessels: Arc::new(RwLock::new(vessels)) }
    }

    /// From now on, these are the vessels.
    pub fn replace(&self, vessels: HashMap<VesselName, Reins>) {
        *self.vessels.write().unwrap_or_else(PoisonError::into_inner) = vessels;
    }

    /// Whether a task serves a vessel of this name.
    pub fn reach(&self, vessel: &str) -> bool {
        self.reins(&VesselName::new(vessel)).is_some()
    }

    fn reins(&self, vessel: &VesselName) -> Option<Reins> {
        self.vessels.read().unwrap_or_else(PoisonError::into_inner).get(vessel).cloned()
    }

    /// Carries out an order. `false`: there was nothing to do, for it concerns no version that some vessel still lacks.
    ///
    /// # Errors
    /// When the ledger can't be written.
    pub async fn carry_out(&self, order: &Order) -> Result<bool, LedgerError> {
        match order {
            Order::Pause { vessel } => self.pause(&VesselName::new(vessel), true).await?,
            Order::Resume { vessel } => self.pause(&VesselName::new(vessel), false).await?,
            Order::Retry { vessel, deliveries } => self.retry(&VesselName::new(vessel), deliveries).await?,
            Order::Forget { version } => return self.forget(VersionId(*version)).await,
            Order::ForgetAll { directory } => return self.forget_all(&DirectoryName::new(directory)).await,
        }
        Ok(true)
    }

    async fn pause(&self, vessel: &VesselName, paused: bool) -> Result<(), LedgerError> {
        self.ledger.pause(vessel, paused).await?;
        if let Some(reins) = self.reins(vessel) {
            reins.paused.send_replace(paused);
        }
        Ok(())
    }

    async fn retry(&self, vessel: &VesselName, deliveries: &[i64]) -> Result<(), LedgerError> {
        let ids: Vec<_> = deliveries.iter().copied().map(DeliveryId).collect();
        if ids.is_empty() {
            self.ledger.hurry(vessel).await?;
        } else {
            self.ledger.retry(&ids).await?;
        }
        if let Some(reins) = self.reins(vessel) {
            reins.bell.ring();
            reins.hurry.ring();
        }
        Ok(())
    }

    async fn forget(&self, version: VersionId) -> Result<bool, LedgerError> {
        let forgotten = self.ledger.forget(version).await?;
        self.ring_all();
        Ok(forgotten)
    }

    async fn forget_all(&self, directory: &DirectoryName) -> Result<bool, LedgerError> {
        let forgotten = self.ledger.forget_all(directory).await?;
        tracing::info!(%directory, files = forgotten, "forgotten");
        self.ring_all();
        Ok(forgotten > 0)
    }

    /// What is on its way ends when its vessel's task looks.
    fn ring_all(&self) {
        let vessels = self.vessels.read().unwrap_or_else(PoisonError::into_inner);
        vessels.values().for_each(|reins| reins.bell.ring());
    }
}
