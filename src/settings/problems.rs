//! What is wrong with a settings file: every problem at once, each with its place and its remedy.
//!
//! Knows places and words, not what the settings mean. Never holds a secret: whoever reports leaves values of secret
//! keys out.

use std::cell::RefCell;
use std::fmt;
use std::path::{Path, PathBuf};

use crate::names::display_bytes;

/// One problem in a settings file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The settings file, as it was named to us, or another that it led to.
    pub file: PathBuf,
    /// The line, counted from 1; `None` for the file as a whole.
    pub line: Option<usize>,
    /// The section as written, without its brackets; `None` outside every section.
    pub section: Option<String>,
    /// The key; `None` when it is about the section or the line.
    pub key: Option<String>,
    /// What is wrong.
    pub message: String,
    /// What to do about it; empty when the message says it already.
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

/// A settings file that can't be used: all its problems, in the order of its lines, one line each when shown.
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

/// What a check of one value has to say against it; the place is known to the caller.
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

/// Where in the settings file something stands.
#[derive(Clone, Debug, Default)]
pub(super) struct Place {
    /// `None`: the settings file.
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

/// Collects problems and warnings while a file is read.
pub(super) struct Problems {
    file: PathBuf,
    found: RefCell<Vec<Problem>>,
    warnings: RefCell<Vec<Problem>>,
}

impl Problems {
    pub(super) fn new(file: &Path) -> Self {
        Self { file: file.to_owned(), found: RefCell::default(), warnings: RefCell::default() }
    }

    /// Records a problem. A bad value in `[DEFAULT]` is met once per section that uses it and kept once.
    pub(super) fn report(&self, place: Place, diagnostic: Diagnostic) {
        Self::record(&self.found, self.problem(place, diagnostic));
    }

    /// Records what is allowed but unwise.
    pub(super) fn warn(&self, place: Place, diagnostic: Diagnostic) {
        Self::record(&self.warnings, self.problem(place, diagnostic));
    }

    /// The warnings when there was no problem, else the problems.
    pub(super) fn finish(self) -> Result<Vec<String>, SettingsError> {
        let (mut problems, mut warnings) = (self.found.into_inner(), self.warnings.into_inner());
        if problems.is_empty() {
            warnings.sort_by_key(|w| w.line);
            return Ok(warnings.iter().map(Problem::to_string).collect());
        }
        // What concerns the file as a whole comes last: it often follows from what stands before it.
        problems.sort_by_key(|p| p.line.unwrap_or(usize::MAX));
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
