//! The shore as a command sees it: its settings, its ledger, and the running program if there is one.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

pub(super) use super::refusal::Refusal;
use super::selection::Selection;
use super::{Exit, load, runtime, say_error};
use crate::clock::Clock;
use crate::ledger::{Ledger, LedgerError, LedgerView};
use crate::orders::{Order, Orders};
use crate::settings::{Settings, nearest};
use crate::status::{self, Document, Gatherer, Meant, Place, QueueAnswer, QueueError, QueueQuestion, SocketError};
use crate::text::counted;

/// The settings of the shore, and the path of the running program's socket.
pub(super) struct Shore {
    pub(super) settings: Settings,
    socket: PathBuf,
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
    // Does not wait for threads; they may be interrupted safely.
    runtime.shutdown_background();
    acted.unwrap_or_else(Refusal::say)
}

/// Access to the running program or, if it doesn't run, to the ledger. For commands that need valid settings only if
/// the program doesn't run.
pub(super) struct Reach {
    /// The settings; `None` when they have errors, but the program runs.
    shore: Option<Shore>,
    socket: PathBuf,
}

/// Reads the settings and runs a command. If the settings are invalid, runs the command only while the program runs,
/// because the program keeps its previous settings.
pub(super) fn on_reach<F>(file: &Path, act: impl FnOnce(Reach) -> F) -> Exit
where
    F: Future<Output = Result<Exit, Refusal>>,
{
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(exit) => return exit,
    };
    let reach = match Settings::load(file) {
        Ok(settings) => {
            let shore = Shore::new(settings);
            Reach { socket: shore.socket.clone(), shore: Some(shore) }
        }
        Err(error) => {
            let socket = Settings::socket_of(file);
            if runtime.block_on(status::call(&socket, "/healthz", None)).is_err() {
                say_error(format_args!("{error}"));
                return Exit::Settings;
            }
            say_error(format_args!(
                "the settings have {}, which `settings check` lists; contentmonster runs with its previous settings",
                counted(error.problems.len() as u64, "problem")
            ));
            Reach { shore: None, socket }
        }
    };
    let acted = runtime.block_on(act(reach));
    // Does not wait for threads; they may be interrupted safely.
    runtime.shutdown_background();
    acted.unwrap_or_else(Refusal::say)
}

impl Reach {
    /// Returns the answer of the running program to a request; `None` when it doesn't run.
    async fn ask<T: DeserializeOwned>(&self, path: &str, post: Option<String>) -> Result<Option<T>, Refusal> {
        match status::call(&self.socket, path, post).await {
            Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
            Err(SocketError::NobodyListens(_)) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    /// Returns the shore. Refuses if the settings have errors: then the program, which ran at first, has stopped
    /// meanwhile.
    fn shore(&self) -> Result<&Shore, Refusal> {
        let why = "contentmonster has stopped, and its settings have errors; `settings check` lists them";
        self.shore.as_ref().ok_or_else(|| Refusal::new(Exit::Settings, why))
    }

    /// Returns whether the program runs.
    pub(super) async fn is_running(&self) -> Result<bool, Refusal> {
        match status::call(&self.socket, "/healthz", None).await {
            Ok(_) => Ok(true),
            Err(SocketError::NobodyListens(_)) => Ok(false),
            Err(e) => Err(e.into()),
        }
    }

    /// Returns the status.
    pub(super) async fn document(&self) -> Result<Document, Refusal> {
        match self.ask("/api/status", None).await? {
            Some(document) => Ok(document),
            None => self.shore()?.document().await,
        }
    }

    /// Returns a part of the queue.
    pub(super) async fn queue(&self, question: &QueueQuestion) -> Result<QueueAnswer, Refusal> {
        if let Some(answer) = self.ask(&format!("/api/queue?{}", query_of(question)), None).await? {
            return Ok(answer);
        }
        let shore = self.shore()?;
        let gatherer = Gatherer::idle(Place::of(&shore.settings), shore.ledger().await?, Clock::system());
        match gatherer.queue(question).await {
            Ok(answer) => Ok(answer),
            Err(QueueError::Ledger(e)) => Err(e.into()),
            Err(QueueError::Invalid(why)) => Err(Refusal::usage(why)),
        }
    }

    /// Returns the names of the selected vessels.
    pub(super) async fn pick(&self, selection: &Selection) -> Result<Vec<String>, Refusal> {
        match &self.shore {
            Some(shore) => shore.pick(selection),
            None => {
                let vessels = self.document().await?.vessels;
                selection.pick(vessels.into_iter().map(|vessel| (vessel.name, vessel.groups)))
            }
        }
    }

    /// Refuses a directory that is not in the settings, and suggests a known name.
    pub(super) async fn known_directory(&self, name: &str) -> Result<(), Refusal> {
        let known: Vec<String> = match &self.shore {
            Some(shore) => shore.settings.directories.iter().map(|directory| directory.name.to_string()).collect(),
            None => self.document().await?.directories.into_iter().map(|directory| directory.name).collect(),
        };
        if known.iter().any(|one| one == name) {
            return Ok(());
        }
        let hint = match nearest(name, known.iter().map(String::as_str)) {
            Some(near) => format!("did you mean {near}?"),
            None => format!("known directories: {}", known.join(", ")),
        };
        Err(Refusal::usage(format!("there is no [Directory {name}]; {hint}")))
    }

    /// Executes an order like [`Shore::carry_out`].
    pub(super) async fn carry_out(&self, order: &Order) -> Result<bool, Refusal> {
        if let Some(shore) = &self.shore {
            return shore.carry_out(order).await;
        }
        let answer: Option<serde_json::Value> = self.ask("/api/orders", Some(serde_json::to_string(order)?)).await?;
        match answer {
            Some(answer) => Ok(answer["done"] == true),
            None => self.shore().map(|_| false),
        }
    }
}

/// Formats a question as the query string of a URL.
fn query_of(question: &QueueQuestion) -> String {
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    let QueueQuestion { vessel, directory, state, search, limit, after } = question;
    let limit = limit.map(|limit| limit.to_string());
    for (name, value) in [
        ("vessel", vessel),
        ("directory", directory),
        ("state", state),
        ("search", search),
        ("limit", &limit),
        ("after", after),
    ] {
        if let Some(value) = value {
            query.append_pair(name, value);
        }
    }
    query.finish()
}

impl Shore {
    /// Returns the names of the selected vessels.
    pub(super) fn pick(&self, selection: &Selection) -> Result<Vec<String>, Refusal> {
        selection.pick(self.settings.vessels.iter().map(|one| (one.name.to_string(), one.groups.clone())))
    }

    /// Creates a shore with these settings.
    pub(super) fn new(settings: Settings) -> Self {
        Self { socket: settings.monster.socket.clone(), settings }
    }

    /// Opens the ledger read-only.
    pub(super) async fn ledger(&self) -> Result<LedgerView, LedgerError> {
        LedgerView::open_at(&self.settings.monster.database).await
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

    /// Executes an order in the running program or, when it doesn't run, in the ledger. Returns `false` when there was
    /// nothing to do.
    pub(super) async fn carry_out(&self, order: &Order) -> Result<bool, Refusal> {
        Ok(self.carry_out_and_count(order).await? > 0)
    }

    /// Executes an order like [`Self::carry_out`], and returns the same count as [`Orders::carry_out`].
    pub(super) async fn carry_out_and_count(&self, order: &Order) -> Result<u64, Refusal> {
        match status::call(&self.socket, "/api/orders", Some(serde_json::to_string(order)?)).await {
            Ok(bytes) => {
                let answer: serde_json::Value = serde_json::from_slice(&bytes)?;
                Ok(answer["count"].as_u64().unwrap_or_else(|| u64::from(answer["done"] == true)))
            }
            Err(SocketError::NobodyListens(_)) => {
                // Opens the ledger read-only first, which fails if there is no ledger: an order must not create one.
                drop(self.ledger().await?);
                let ledger = Ledger::open_at(&self.settings.monster.database, Clock::system()).await?;
                let done = Orders::new(ledger.clone(), Default::default()).carry_out(order).await?;
                ledger.close().await?;
                Ok(done)
            }
            Err(e) => Err(e.into()),
        }
    }

    /// Finds the file that a person named; refuses if there is none.
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

    /// Returns the number of waiting files of a directory; refuses a directory that is neither in the settings nor in
    /// the ledger.
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

    /// Returns the settings of the vessel with this name; refuses an unknown name.
    pub(super) fn vessel(&self, name: &str) -> Result<&crate::settings::Vessel, Refusal> {
        self.settings.vessels.iter().find(|vessel| vessel.name.as_str() == name).ok_or_else(|| {
            let known: Vec<_> = self.settings.vessels.iter().map(|v| v.name.as_str()).collect();
            let file = self.settings.file.display();
            Refusal::usage(format!("there is no [Vessel {name}] in {file}; known vessels: {}", known.join(", ")))
        })
    }
}
