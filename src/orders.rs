//! What a person orders: try again, pause, go on, send once more, forget.
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
    /// Ask a vessel for its shell again, which was found to be of no use.
    #[serde(rename = "ask-shell")]
    AskShell {
        /// Its name in the settings.
        vessel: String,
    },
    /// Deliver once more what a vessel was given already and has lost.
    Resend {
        /// Its name in the settings.
        vessel: String,
        /// The directory's name in the settings.
        directory: String,
        /// The ledger's number of the version; none: all that the directory holds.
        #[serde(default)]
        version: Option<i64>,
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
pub struct VesselControl {
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
    vessels: Arc<RwLock<HashMap<VesselName, VesselControl>>>,
}

impl Orders {
    /// Orders to the tasks of these vessels; to none when no daemon runs.
    pub fn new(ledger: Ledger, vessels: HashMap<VesselName, VesselControl>) -> Self {
        Self { ledger, vessels: Arc::new(RwLock::new(vessels)) }
    }

    /// From now on, these are the vessels.
    pub fn replace(&self, vessels: HashMap<VesselName, VesselControl>) {
        *self.vessels.write().unwrap_or_else(PoisonError::into_inner) = vessels;
    }

    /// Whether a task serves a vessel of this name.
    pub fn reach(&self, vessel: &str) -> bool {
        self.controls(&VesselName::new(vessel)).is_some()
    }

    fn controls(&self, vessel: &VesselName) -> Option<VesselControl> {
        self.vessels.read().unwrap_or_else(PoisonError::into_inner).get(vessel).cloned()
    }

    /// Carries out an order. 0: there was nothing to do; else how many deliveries it made due, where it is of that kind.
    ///
    /// # Errors
    /// When the ledger can't be written.
    pub async fn carry_out(&self, order: &Order) -> Result<u64, LedgerError> {
        match order {
            Order::Pause { vessel } => self.pause(&VesselName::new(vessel), true).await?,
            Order::Resume { vessel } => self.pause(&VesselName::new(vessel), false).await?,
            Order::Retry { vessel, deliveries } => self.retry(&VesselName::new(vessel), deliveries).await?,
            Order::AskShell { vessel } => self.ledger.shell_refused(&VesselName::new(vessel), None).await?,
            Order::Resend { vessel, directory, version } => {
                let (vessel, directory) = (VesselName::new(vessel), DirectoryName::new(directory));
                return self.resend(&vessel, &directory, version.map(VersionId)).await;
            }
            Order::Forget { version } => return self.forget(VersionId(*version)).await.map(u64::from),
            Order::ForgetAll { directory } => return self.forget_all(&DirectoryName::new(directory)).await,
        }
        Ok(1)
    }

    async fn pause(&self, vessel: &VesselName, paused: bool) -> Result<(), LedgerError> {
        self.ledger.pause(vessel, paused).await?;
        if let Some(controls) = self.controls(vessel) {
            controls.paused.send_replace(paused);
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
        if let Some(controls) = self.controls(vessel) {
            controls.bell.ring();
            controls.hurry.ring();
        }
        Ok(())
    }

    async fn resend(
        &self,
        vessel: &VesselName,
        directory: &DirectoryName,
        version: Option<VersionId>,
    ) -> Result<u64, LedgerError> {
        let due = self.ledger.resend(directory, version, std::slice::from_ref(vessel)).await?;
        if let Some(controls) = self.controls(vessel) {
            controls.bell.ring();
        }
        Ok(due)
    }

    async fn forget(&self, version: VersionId) -> Result<bool, LedgerError> {
        let forgotten = self.ledger.forget(version).await?;
        self.ring_all();
        Ok(forgotten)
    }

    async fn forget_all(&self, directory: &DirectoryName) -> Result<u64, LedgerError> {
        let forgotten = self.ledger.forget_all(directory).await?;
        tracing::info!(%directory, files = forgotten, "Files forgotten");
        self.ring_all();
        Ok(forgotten)
    }

    /// What is on its way ends when its vessel's task looks.
    fn ring_all(&self) {
        let vessels = self.vessels.read().unwrap_or_else(PoisonError::into_inner);
        vessels.values().for_each(|controls| controls.bell.ring());
    }
}
