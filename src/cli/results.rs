//! The output of commands that give orders: a line for each result, or with `--json` one document.

use std::fmt::Arguments;

use serde::Serialize;

use super::shore::Refusal;
use super::{Exit, say, say_json};

/// The results of a command. As text they are printed at once, as JSON at the end.
pub(super) struct Results {
    json: bool,
    results: Vec<Outcome>,
}

/// The result of a command for one vessel, directory, file or shore.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Outcome {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) vessel: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) directory: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) file: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) shore: Option<String>,
    /// Number of deliveries or files that the order affected, or 1 if it affected a whole vessel, directory or shore; 0
    /// if there was nothing to do.
    pub(super) count: u64,
    text: String,
}

impl Outcome {
    /// Creates the outcome of an order about a vessel.
    pub(super) fn of_vessel(vessel: &str, count: u64) -> Self {
        Self { vessel: Some(vessel.to_owned()), count, ..Self::default() }
    }

    /// Creates the outcome of an order to a shore.
    pub(super) fn of_shore(shore: &str, count: u64) -> Self {
        Self { shore: Some(shore.to_owned()), count, ..Self::default() }
    }

    /// Creates the outcome of an order about a directory.
    pub(super) fn of_directory(directory: &str, count: u64) -> Self {
        Self { directory: Some(directory.to_owned()), count, ..Self::default() }
    }

    /// Adds a file of the directory to the outcome.
    pub(super) fn file(self, file: &impl ToString) -> Self {
        Self { file: Some(file.to_string()), ..self }
    }

    /// Adds a vessel to the outcome.
    pub(super) fn vessel(self, vessel: &impl ToString) -> Self {
        Self { vessel: Some(vessel.to_string()), ..self }
    }
}

impl Results {
    pub(super) fn new(json: bool) -> Self {
        Self { json, results: Vec::new() }
    }

    /// Adds a result: prints its text at once, or keeps it for the JSON document.
    pub(super) fn add(&mut self, outcome: Outcome, text: Arguments<'_>) {
        if self.json {
            self.results.push(Outcome { text: text.to_string(), ..outcome });
        } else {
            say(text);
        }
    }

    /// Adds a hint, which is not part of the JSON.
    pub(super) fn hint(&self, text: Arguments<'_>) {
        if !self.json {
            say(text);
        }
    }

    /// Prints the JSON document, if any, and returns the exit code.
    pub(super) fn end(self, exit: Exit) -> Result<Exit, Refusal> {
        if self.json {
            let done = exit == Exit::Good;
            let document = serde_json::json!({ "done": done, "results": self.results });
            say_json(&serde_json::to_string_pretty(&document)?);
        }
        Ok(exit)
    }
}
