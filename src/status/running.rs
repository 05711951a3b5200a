//! The running program's contribution to the status document.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::watch;

use super::convert::moment;
use super::document::{Daemon, ErrorStatus, HookStatus, Reload};
use super::live::{Live, LiveError, LiveVessel};
use super::log_lines::LogLines;
use crate::link::LinkUsage;
use crate::names::DirectoryName;
use crate::notifications::{HookResults, Hooks};
use crate::shore::Troubles;
use crate::transport::LinkMeters;

/// The running program's contribution to a document.
pub struct Running {
    /// The state that the workflows report.
    pub live: Arc<Live>,
    /// The meters of the bytes on the link.
    pub meters: LinkMeters,
    /// The bytes on the link, summed by day.
    pub usage: LinkUsage,
    /// For each directory, whether all files present at the start are in the ledger.
    pub taken_in: Vec<watch::Receiver<bool>>,
    /// For each directory, why it, or a file in it, can't be used.
    pub troubles: HashMap<DirectoryName, watch::Receiver<Troubles>>,
    /// The result of the last reload of the settings.
    pub reload: Option<Reload>,
    /// The results of commands, webhooks and heartbeats.
    pub hooks: Hooks,
    /// The last lines of the log.
    pub log: LogLines,
}

impl Running {
    /// Returns why a directory, or a file in it, can't be used; `None` without such trouble.
    pub(super) fn trouble(&self, name: &DirectoryName) -> Option<String> {
        let troubles = self.troubles.get(name)?.borrow();
        (!troubles.is_empty()).then(|| troubles.to_string())
    }

    /// Returns the current rate of sending to a vessel in bytes per second.
    pub(super) fn rate(&self, vessel: &LiveVessel) -> u64 {
        vessel.meter.rate(self.live.second())
    }

    /// Returns the state of the program itself.
    pub(super) fn daemon(&self) -> Daemon {
        Daemon {
            release: crate::VERSION.to_owned(),
            started: moment(self.live.started()),
            ready: self.taken_in.iter().all(|taken_in| *taken_in.borrow()),
            reload: self.reload.clone(),
        }
    }

    /// Returns the results of commands, webhooks and heartbeats.
    pub(super) fn hooks(&self) -> Vec<HookStatus> {
        let status = |(name, results): (String, HookResults)| {
            let (since, failing) = results.failing.map(|(since, why)| (moment(since), why)).unzip();
            HookStatus { name, failures: results.failures, failing, since }
        };
        self.hooks.results().into_iter().map(status).collect()
    }

    /// Returns the last errors.
    pub(super) fn errors(&self) -> Vec<ErrorStatus> {
        let status = |error: LiveError| ErrorStatus {
            at: moment(error.at),
            vessel: error.vessel.map(|vessel| vessel.to_string()),
            file: error.file,
            kind: error.cause.as_str().to_owned(),
            reason: error.reason,
        };
        self.live.errors().into_iter().map(status).collect()
    }
}
