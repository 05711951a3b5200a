//! The shore as a command sees it: its settings, its ledger, and the running program if there is one.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::{Exit, load, runtime, say_error};
use crate::clock::Clock;
use crate::ledger::{Ledger, LedgerError, LedgerView};
use crate::orders::{Order, Orders};
use crate::settings::Settings;
use crate::status::{self, Document, Gatherer, Meant, Place, SocketError};

/// The settings of the shore, and the path of the running program's socket.
pub(super) struct Shore {
    pub(super) settings: Settings,
    socket: PathBuf,
}

/// The reason why a command can't continue, and the exit code.
pub(super) struct Refusal {
    exit: Exit,
    text: String,
}

impl Refusal {
    /// Creates a refusal of a command line that names something that doesn't exist.
    pub(super) fn usage(text: impl Into<String>) -> Self {
        Self { exit: Exit::Usage, text: text.into() }
    }
}

impl From<LedgerError> for Refusal {
    fn from(error: LedgerError) -> Self {
        Self { exit: Exit::Broken, text: error.fault().to_string() }
    }
}

impl From<SocketError> for Refusal {
    fn from(error: SocketError) -> Self {
        Self { exit: Exit::Broken, text: error.to_string() }
    }
}

impl From<serde_json::Error> for Refusal {
    fn from(error: serde_json::Error) -> Self {
        let text = format!("the running contentmonster gave an invalid answer: {error}; restart contentmonster");
        Self { exit: Exit::Broken, text }
    }
}

/// Reads the settings, runs a command, and prints the command's error.
pub(super) fn on_shore<F>(file: &Path, act: impl FnOnce(Shore) -> F) -> Exit
where
    F: Future<Output = Result<Exit, Refusal>>,
{
    let settings = match load(file) {
        Ok(settings) => settings,
        Err(exit) => return exit,
    };
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(exit) => return exit,
    };
    let acted = runtime.block_on(act(Shore::new(settings)));
    // Without waiting for threads, which may be interrupted safely.
    runtime.shutdown_background();
    acted.unwrap_or_else(|refusal| {
        say_error(format_args!("{}", refusal.text));
        refusal.exit
    })
}

impl Shore {
    /// Creates a shore with these settings.
    pub(super) fn new(settings: Settings) -> Self {
        let socket = status::path_beside(&settings.monster.database);
        Self { settings, socket }
    }

    /// Opens the ledger read-only.
    pub(super) async fn ledger(&self) -> Result<LedgerView, LedgerError> {
        LedgerView::open(&self.settings.monster.database).await
    }

    /// Returns the status from the running program, or from the ledger if the program doesn't run.
    pub(super) async fn document(&self) -> Result<Document, Refusal> {
        match status::call(&self.socket, "/api/status", None).await {
            Ok(bytes) => Ok(serde_json::from_slice(&bytes)?),
            Err(SocketError::NobodyListens(_)) => {
                let gatherer = Gatherer::idle(Place::of(&self.settings), self.ledger().await?, Clock::system());
                Ok(gatherer.document().await?.as_ref().clone())
            }
            Err(e) => Err(e.into()),
        }
    }

    /// Executes an order in the running program, or when it doesn't run, in the ledger. Returns `false` when the order
    /// had nothing to do.
    pub(super) async fn carry_out(&self, order: &Order) -> Result<bool, Refusal> {
        Ok(self.carry_out_and_count(order).await? > 0)
    }

    /// Executes an order like [`Self::carry_out`], and returns the number of deliveries that became due.
    pub(super) async fn carry_out_and_count(&self, order: &Order) -> Result<u64, Refusal> {
        match status::call(&self.socket, "/api/orders", Some(serde_json::to_string(order)?)).await {
            Ok(bytes) => {
                let answer: serde_json::Value = serde_json::from_slice(&bytes)?;
                Ok(answer["count"].as_u64().unwrap_or_else(|| u64::from(answer["done"] == true)))
            }
            Err(SocketError::NobodyListens(_)) => {
                // Opening read-only fails when there is no ledger: an order must not create one.
                drop(self.ledger().await?);
                let ledger = Ledger::open(&self.settings.monster.database, Clock::system()).await?;
                let done = Orders::new(ledger.clone(), Default::default()).carry_out(order).await?;
                ledger.close().await?;
                Ok(done)
            }
            Err(e) => Err(e.into()),
        }
    }

    /// Finds the file that a person named; a file that isn't found is a refusal.
    pub(super) async fn find(&self, ledger: &LedgerView, file: &Path) -> Result<Meant<'_>, Refusal> {
        let found = status::find(&self.settings, ledger, file).await?;
        found.ok_or_else(|| {
            let names: Vec<_> = self.settings.directories.iter().map(|d| d.name.as_str()).collect();
            Refusal::usage(format!(
                "{} is in no directory of the settings and not in the ledger; give its path, or DIRECTORY/PATH with \
                 one of these directories: {}",
                file.display(),
                names.join(", ")
            ))
        })
    }

    /// Returns the number of waiting files of a directory; a directory neither in the settings nor in the ledger is a
    /// refusal.
    pub(super) async fn known_directory(&self, ledger: &LedgerView, name: &str) -> Result<u64, Refusal> {
        let tallies = ledger.summary(0).await?.directories;
        if let Some(tally) = tallies.iter().find(|tally| tally.directory.as_str() == name) {
            return Ok(tally.waiting);
        }
        let configured = self.settings.directories.iter().map(|directory| directory.name.as_str());
        let known: BTreeSet<_> = configured.chain(tallies.iter().map(|tally| tally.directory.as_str())).collect();
        if known.contains(name) {
            return Ok(0);
        }
        let known: Vec<_> = known.into_iter().collect();
        Err(Refusal::usage(format!("no directory is named {name}; known directories: {}", known.join(", "))))
    }

    /// Refuses a vessel that is neither in the settings nor in the ledger.
    pub(super) async fn known_vessel(&self, ledger: &LedgerView, name: &str) -> Result<(), Refusal> {
        match self.vessel(name) {
            Err(unknown) => match ledger.summary(0).await?.tallies.iter().any(|tally| tally.vessel.as_str() == name) {
                true => Ok(()),
                false => Err(unknown),
            },
            Ok(_) => Ok(()),
        }
    }

    /// Returns the settings of the vessel with this name; an unknown name is a refusal.
    pub(super) fn vessel(&self, name: &str) -> Result<&crate::settings::Vessel, Refusal> {
        self.settings.vessels.iter().find(|vessel| vessel.name.as_str() == name).ok_or_else(|| {
            let known: Vec<_> = self.settings.vessels.iter().map(|v| v.name.as_str()).collect();
            let file = self.settings.file.display();
            Refusal::usage(format!("there is no [Vessel {name}] in {file}; known vessels: {}", known.join(", ")))
        })
    }
}
