//! This program: its settings, and how it is started.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Result;
use crate::freight::at;
use crate::task::Task;

/// A build of this program.
#[derive(Clone)]
pub(crate) struct Ours {
    pub(crate) name: String,
    pub(crate) binary: PathBuf,
}

impl Ours {
    /// The build that cargo made for this benchmark, and the one beside it, if any.
    pub(crate) fn builds(beside: Option<&Path>) -> Result<Vec<Self>> {
        let this = Self { name: "contentmonster".to_owned(), binary: env!("CARGO_BIN_EXE_contentmonster").into() };
        let Some(beside) = beside else { return Ok(vec![this]) };
        let binary = beside.canonicalize().map_err(at(beside))?;
        Ok(vec![this, Self { name: "contentmonster (--ours)".to_owned(), binary }])
    }

    /// The command: until everything is delivered, or for ever.
    pub(crate) fn command(&self, settings: &Path, once: bool) -> Command {
        let mut command = Command::new(&self.binary);
        command.arg("--settings").arg(settings).args(once.then_some("--once")).env_remove("JOURNAL_STREAM");
        command
    }
}

/// Writes a settings file with one section for each destination, into the task's own directory, where the ledger and the
/// vessels' TempDirs go too. `directory` adds lines to the directory's section, and `set` to the vessels' sections.
pub(crate) fn write_settings(task: &Task, directory: &[(&str, &str)], set: &[(String, String)]) -> Result<PathBuf> {
    let (vessel, work) = (task.vessel, task.work.display());
    let source = task.freight.directory().display();
    let mut text = format!("[MONSTER]\nDatabase = {work}/ledger.sqlite3\n\n[Directory freight]\nLocation = {source}\n");
    for (key, value) in directory {
        text.push_str(&format!("{key} = {value}\n"));
    }
    for (number, destination) in task.destinations.iter().enumerate() {
        text.push_str(&format!(
            "\n[Vessel v{number}]\nAddress = {}\nPort = {}\nUsername = {}\nIdentityFile = {}\nHostKey = {}\n\
             TempDir = {work}/temp-{number}\nRemoteLocation.freight = {}\n",
            vessel.address,
            vessel.port,
            vessel.user,
            vessel.identity().display(),
            vessel.fingerprint,
            destination.display(),
        ));
        for (key, value) in set {
            text.push_str(&format!("{key} = {value}\n"));
        }
    }
    let file = task.work.join("settings.ini");
    fs::write(&file, text).map_err(at(&file))?;
    Ok(file)
}
