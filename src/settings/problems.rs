//! Collects all problems of a settings file, to show them at once, each with its place and its remedy.
//!
//! This module doesn't know the meaning of the settings. It must never get a secret, so callers omit the values of
//! secret keys.

use std::cell::RefCell;
use std::fmt;
use std::path::{Path, PathBuf};

use crate::names::display_bytes;

/// One problem in a settings file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The path of the settings file as the user gave it, or of another file that the settings refer to.
    pub file: PathBuf,
    /// The line, counted from 1; `None` if the problem concerns the file as a whole.
    pub line: Option<usize>,
    /// The section as written, without its brackets; `None` outside every section.
    pub section: Option<String>,
    /// The key; `None` if the problem concerns the section or the line as a whole.
    pub key: Option<String>,
    /// The description of the problem.
    pub message: String,
    /// The remedy; empty if the message includes it.
    pub remedy: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", display_bytes(self.file.as_os_str().as_encoded_bytes()))?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        f.write_str(": ")?;
        if let Some(section) = &self.section {
            write!(f, "[{}] ", display_bytes(section.as_bytes()))?;
        }
        if let Some(key) = &self.key {
            write!(f, "{}: ", display_bytes(key.as_bytes()))?;
        }
        f.write_str(&self.message)?;
        if self.remedy.is_empty() { Ok(()) } else { write!(f, "; {}", self.remedy) }
    }
}

/// The error for an unusable settings file: all problems in the order of the lines. Each is displayed as one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettingsError {
    /// The problems; never empty.
    pub problems: Vec<Problem>,
}

impl fmt::Display for SettingsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.problems.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            problem.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for SettingsError {}

/// The message and the remedy of a problem, without its place, which the caller adds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Diagnostic {
    pub(super) message: String,
    pub(super) remedy: String,
}

impl Diagnostic {
    pub(super) fn new(message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { message: message.into(), remedy: remedy.into() }
    }
}

/// A place in the settings file.
#[derive(Clone, Debug, Default)]
pub(super) struct Place {
    /// The file; `None` for the settings file.
    pub(super) file: Option<PathBuf>,
    pub(super) line: Option<usize>,
    pub(super) section: Option<String>,
    pub(super) key: Option<String>,
}

impl Place {
    pub(super) fn line(line: usize) -> Self {
        Self { line: Some(line), ..Self::default() }
    }

    pub(super) fn in_section(self, title: &str) -> Self {
        Self { section: Some(title.to_owned()), ..self }
    }

    pub(super) fn at_key(self, key: &str) -> Self {
        Self { key: Some(key.to_owned()), ..self }
    }
}

/// A collector of problems and warnings while a file is read.
pub(super) struct Problems {
    file: PathBuf,
    found: RefCell<Vec<Problem>>,
    warnings: RefCell<Vec<Problem>>,
}

impl Problems {
    pub(super) fn new(file: &Path) -> Self {
        Self { file: file.to_owned(), found: RefCell::default(), warnings: RefCell::default() }
    }

    /// Records a problem. The same problem is recorded only once, because each section that uses an invalid value in
    /// `[DEFAULT]` reports that value.
    pub(super) fn report(&self, place: Place, diagnostic: Diagnostic) {
        Self::record(&self.found, self.problem(place, diagnostic));
    }

    /// Records a warning.
    pub(super) fn warn(&self, place: Place, diagnostic: Diagnostic) {
        Self::record(&self.warnings, self.problem(place, diagnostic));
    }

    /// Returns the warnings, or an error with all problems if there are any.
    pub(super) fn finish(self) -> Result<Vec<String>, SettingsError> {
        let (mut problems, mut warnings) = (self.found.into_inner(), self.warnings.into_inner());
        if problems.is_empty() {
            warnings.sort_by_key(|w| (w.file != self.file, w.file.clone(), w.line));
            return Ok(warnings.iter().map(Problem::to_string).collect());
        }
        // Problems of the whole file come last, because they often result from earlier ones.
        problems.sort_by_key(|p| (p.line.is_none(), p.file != self.file, p.file.clone(), p.line));
        Err(SettingsError { problems })
    }

    fn problem(&self, place: Place, Diagnostic { message, remedy }: Diagnostic) -> Problem {
        let Place { file, line, section, key } = place;
        Problem { file: file.unwrap_or_else(|| self.file.clone()), line, section, key, message, remedy }
    }

    fn record(list: &RefCell<Vec<Problem>>, problem: Problem) {
        let mut list = list.borrow_mut();
        if !list.contains(&problem) {
            list.push(problem);
        }
    }
}
