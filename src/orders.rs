//! Orders of the operator: retry, pause, resume, send again, forget.
//!
//! An order is first written to the ledger, then passed to the running tasks. Without a running daemon, the ledger
//! entry alone is enough.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, PoisonError, RwLock};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::bell::Bell;
use crate::ledger::{Ledger, LedgerError, Pause, PausedDirectory};
use crate::names::{DirectoryName, VesselName};
use crate::records::{DeliveryId, VersionId};
use crate::transfer::Directories;

/// An order. Its JSON form is used on the socket and the status page: `{"order": "pause", "vessel": "aurora"}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "order", rename_all = "lowercase", deny_unknown_fields)]
pub enum Order {
    /// Stop serving a vessel, also after a restart.
    Pause {
        /// The vessel's name in the settings.
        vessel: String,
        /// End of the pause, in milliseconds since 1970; `None` if a person must resume the vessel.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        until: Option<i64>,
        /// The person's note.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        note: Option<String>,
    },
    /// Stop sending the files of a directory to all vessels, also after a restart. New files are still taken in.
    #[serde(rename = "pause-directory")]
    PauseDirectory {
        /// The directory's name in the settings.
        directory: String,
        /// End of the pause, in milliseconds since 1970; `None` if a person must resume the directory.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        until: Option<i64>,
        /// The person's note.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        note: Option<String>,
    },
    /// Send the files of a directory again.
    #[serde(rename = "resume-directory")]
    ResumeDirectory {
        /// The directory's name in the settings.
        directory: String,
    },
    /// Serve a vessel again.
    Resume {
        /// The vessel's name in the settings.
        vessel: String,
    },
    /// Retry postponed deliveries to a vessel now, and connect to the vessel now if it is not connected.
    Retry {
        /// The vessel's name in the settings.
        vessel: String,
        /// The ledger's numbers of the deliveries; empty for all deliveries to this vessel.
        #[serde(default)]
        deliveries: Vec<i64>,
    },
    /// Probe a vessel for a shell again, after its shell was found to be unusable.
    #[serde(rename = "ask-shell")]
    AskShell {
        /// The vessel's name in the settings.
        vessel: String,
    },
    /// Deliver files again that a vessel had received and has lost.
    Resend {
        /// The vessel's name in the settings.
        vessel: String,
        /// The directory's name in the settings.
        directory: String,
        /// The ledger's number of the version; `None` for all files of the directory.
        #[serde(default)]
        version: Option<i64>,
    },
    /// Leave a file in place: stop sending it and don't retire it, until it changes.
    Forget {
        /// The ledger's number of the version.
        version: i64,
    },
    /// Hand all work over to the other shores, and serve no vessel and no directory until a restart or
    /// [`Order::Serve`].
    Drain,
    /// Serve again after [`Order::Drain`].
    Serve,
    /// Forget all waiting files of a directory, even if the directory is not in the settings.
    #[serde(rename = "forget-all")]
    ForgetAll {
        /// The directory's name in the ledger.
        directory: String,
    },
}

/// Signals to a vessel's task.
#[derive(Clone)]
pub struct VesselControl {
    /// The bell for new work: rung when there may be something to deliver.
    pub bell: Bell,
    /// The bell for a retry: rung when the vessel is to be retried now.
    pub hurry: Bell,
    /// Whether the vessel is paused.
    pub paused: watch::Sender<bool>,
}

/// Carries out orders. Cheap to clone.
#[derive(Clone)]
pub struct Orders {
    ledger: Ledger,
    vessels: Arc<RwLock<HashMap<VesselName, VesselControl>>>,
    /// The directories. Vessels' tasks look up here whether a directory is paused.
    directories: Directories,
    /// Rung when a pause was recorded, to wake the task that ends pauses.
    pauses: Bell,
    /// Rung when this shore has recorded the beginning or the end of a pause, so that the other shores apply the
    /// change.
    pauses_changed: Bell,
    /// Whether this shore is drained: it serves no vessel and no directory.
    drained: watch::Sender<bool>,
}

impl Orders {
    /// Creates an executor of orders that signals the tasks of these vessels; the map is empty when no daemon runs.
    pub fn new(ledger: Ledger, vessels: HashMap<VesselName, VesselControl>) -> Self {
        let (vessels, directories) = (Arc::new(RwLock::new(vessels)), Directories::default());
        let drained = watch::Sender::new(false);
        Self { ledger, vessels, directories, pauses: Bell::new(), pauses_changed: Bell::new(), drained }
    }

    /// Uses the directories of the running daemon.
    #[must_use]
    pub fn with_directories(self, directories: Directories) -> Self {
        Self { directories, ..self }
    }

    /// Returns whether the running daemon has a directory of this name.
    pub fn knows_directory(&self, directory: &str) -> bool {
        self.directories.get(&DirectoryName::new(directory)).is_some()
    }

    /// Replaces the vessels of the running daemon.
    pub fn replace(&self, vessels: HashMap<VesselName, VesselControl>) {
        *self.vessels.write().unwrap_or_else(PoisonError::into_inner) = vessels;
    }

    /// Returns whether the running daemon has a vessel of this name.
    pub fn reach(&self, vessel: &str) -> bool {
        self.controls(&VesselName::new(vessel)).is_some()
    }

    fn controls(&self, vessel: &VesselName) -> Option<VesselControl> {
        self.vessels.read().unwrap_or_else(PoisonError::into_inner).get(vessel).cloned()
    }

    /// Carries out an order. For an order to resend or forget, returns the number of deliveries to resend or of
    /// forgotten files. For [`Order::Drain`] and [`Order::Serve`], returns 1 or 0: whether the order changed something.
    /// For all other orders, returns 1.
    ///
    /// # Errors
    /// When the ledger can't be written.
    pub async fn carry_out(&self, order: &Order) -> Result<u64, LedgerError> {
        match order {
            Order::Pause { vessel, until, note } => {
                let pause = Pause { until: *until, note: note.clone() };
                self.pause(&VesselName::new(vessel), Some(&pause)).await?;
                self.pauses.ring();
            }
            Order::PauseDirectory { directory, until, note } => {
                let pause = Pause { until: *until, note: note.clone() };
                self.pause_directory(&DirectoryName::new(directory), Some(&pause)).await?;
                self.pauses.ring();
            }
            Order::ResumeDirectory { directory } => self.pause_directory(&DirectoryName::new(directory), None).await?,
            Order::Resume { vessel } => self.pause(&VesselName::new(vessel), None).await?,
            Order::Retry { vessel, deliveries } => self.retry(&VesselName::new(vessel), deliveries).await?,
            Order::AskShell { vessel } => self.ledger.shell_refused(&VesselName::new(vessel), None).await?,
            Order::Resend { vessel, directory, version } => {
                let (vessel, directory) = (VesselName::new(vessel), DirectoryName::new(directory));
                return self.resend(&vessel, &directory, version.map(VersionId)).await;
            }
            Order::Drain => return Ok(u64::from(self.drain(true))),
            Order::Serve => return Ok(u64::from(self.drain(false))),
            Order::Forget { version } => return self.forget(VersionId(*version)).await.map(u64::from),
            Order::ForgetAll { directory } => return self.forget_all(&DirectoryName::new(directory)).await,
        }
        Ok(1)
    }

    async fn pause(&self, vessel: &VesselName, pause: Option<&Pause>) -> Result<(), LedgerError> {
        self.ledger.pause(vessel, pause).await?;
        if let Some(controls) = self.controls(vessel) {
            controls.paused.send_replace(pause.is_some());
        }
        self.pauses_changed.ring();
        Ok(())
    }

    fn drain(&self, drained: bool) -> bool {
        self.ledger.share_interval().is_some()
            && self.drained.send_if_modified(|before| std::mem::replace(before, drained) != drained)
    }

    /// Returns a receiver that shows whether this shore is drained.
    pub fn drained(&self) -> watch::Receiver<bool> {
        self.drained.subscribe()
    }

    /// Returns the bell that rings when this shore has recorded the beginning or the end of a pause.
    pub fn pauses_changed(&self) -> &Bell {
        &self.pauses_changed
    }

    /// Tells the tasks of this shore which vessels and directories are paused, because another shore may have changed a
    /// pause.
    ///
    /// # Errors
    /// When the ledger can't be read.
    pub async fn follow_pauses(&self) -> Result<(), LedgerError> {
        let paused = self.ledger.paused().await?;
        for (name, controls) in &*self.vessels.read().unwrap_or_else(PoisonError::into_inner) {
            let now = paused.contains(name);
            controls.paused.send_if_modified(|before| std::mem::replace(before, now) != now);
        }
        self.pauses.ring();
        self.follow_paused_directories().await
    }

    async fn pause_directory(&self, directory: &DirectoryName, pause: Option<&Pause>) -> Result<(), LedgerError> {
        self.ledger.pause_directory(directory, pause).await?;
        self.pauses_changed.ring();
        self.follow_paused_directories().await
    }

    /// Reads the paused directories from the ledger and, if they have changed, tells the vessels' tasks.
    ///
    /// # Errors
    /// When the ledger can't be read.
    pub async fn follow_paused_directories(&self) -> Result<(), LedgerError> {
        let paused = self.ledger.paused_directories().await?;
        let paused = paused.into_iter().filter(|paused| !paused.has_ended).map(|paused| paused.directory);
        let paused: BTreeSet<DirectoryName> = paused.collect();
        if *self.directories.paused() != paused {
            self.directories.pause(paused);
            self.ring_all();
        }
        Ok(())
    }

    /// Resumes the vessels and directories whose pauses have ended. Returns when the next pause ends, in milliseconds
    /// since 1970.
    ///
    /// # Errors
    /// When the ledger can't be used.
    pub async fn end_pauses(&self) -> Result<Option<i64>, LedgerError> {
        let (ended, mut next) = self.ledger.ended_pauses().await?;
        for vessel in ended {
            tracing::info!(%vessel, "The pause has ended; the vessel is resumed");
            self.pause(&vessel, None).await?;
        }
        for PausedDirectory { directory, pause, has_ended, .. } in self.ledger.paused_directories().await? {
            if has_ended {
                tracing::info!(%directory, "The pause has ended; the directory is resumed");
                self.pause_directory(&directory, None).await?;
            } else {
                next = next.into_iter().chain(pause.until).min();
            }
        }
        Ok(next)
    }

    /// Waits until a pause was recorded.
    pub async fn pause_recorded(&self) {
        self.pauses.rung().await;
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
        tracing::info!(%directory, files = forgotten, "Forgot all waiting files of the directory");
        self.ring_all();
        Ok(forgotten)
    }

    /// Wakes all vessels' tasks, so that they stop the transfers of forgotten files and paused directories, and start
    /// those of resumed directories.
    fn ring_all(&self) {
        let vessels = self.vessels.read().unwrap_or_else(PoisonError::into_inner);
        vessels.values().for_each(|controls| controls.bell.ring());
    }
}
