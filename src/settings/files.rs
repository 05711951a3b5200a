//! The settings file and the files that it includes: finds them, reads them, and joins their sections.
//!
//! `Include` names files by patterns. It is an error if a file is included twice or includes itself, or if two files
//! contain the same section.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::all_keys;
use super::lines::{self, Entry, Lines, Section};
use super::problems::{Diagnostic, Place, Problems};

/// The key that includes files.
pub(super) const INCLUDE: &str = "Include";
/// Maximum number of included files, in case a pattern matches far more than was meant.
const MOST: usize = 10_000;

/// All files of the settings.
#[derive(Default)]
pub(super) struct Files {
    /// The sections of all files: those of the settings file first, then those of the included files in their order.
    pub(super) sections: Vec<Section>,
    /// The included files, in the order in which they were found, each with its permission bits.
    pub(super) included: Vec<(Arc<Path>, u32)>,
}

/// Reads the sections of the settings file's text and of all files that it includes.
pub(super) fn read(text: &str, file: &Path, problems: &Problems) -> Files {
    let mut reader = Reader { problems, files: Files::default(), origins: HashMap::new(), titles: HashMap::new() };
    if let Ok(canonical) = file.canonicalize() {
        reader.origins.insert(canonical, "the settings file".to_owned());
    }
    reader.add(text, file, None);
    reader.files
}

/// Reads a file's text and its permission bits.
pub(super) fn text_of(file: &Path) -> Result<(String, u32), (Option<usize>, Diagnostic)> {
    let (bytes, mode) = bytes_of(file).map_err(|error| (None, unreadable(&error)))?;
    let text = String::from_utf8(bytes).map_err(|error| {
        let sound = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = sound.iter().filter(|b| **b == b'\n').count() + 1;
        (Some(line), Diagnostic::new("this line is not UTF-8 text", "save the file as UTF-8"))
    })?;
    Ok((text, mode))
}

fn bytes_of(file: &Path) -> io::Result<(Vec<u8>, u32)> {
    let mut opened = File::open(file)?;
    let mode = opened.metadata()?.permissions().mode();
    let mut bytes = Vec::new();
    opened.read_to_end(&mut bytes)?;
    Ok((bytes, mode))
}

fn unreadable(error: &io::Error) -> Diagnostic {
    let remedy = match error.kind() {
        io::ErrorKind::NotFound => "name it with --settings FILE, or write one with `contentmonster init`",
        _ => "give contentmonster permission to read the file, or name another one with --settings FILE",
    };
    Diagnostic::new(format!("cannot read the settings: {error}"), remedy)
}

struct Reader<'a> {
    problems: &'a Problems,
    files: Files,
    /// For each file that was read, by its resolved path: the line that included it, or a text for the settings file.
    origins: HashMap<PathBuf, String>,
    /// The file and line of each section.
    titles: HashMap<String, String>,
}

impl Reader<'_> {
    /// Adds the sections of a file, then those of the files that it includes. `label` is the file's name in messages,
    /// `None` for the settings file.
    fn add(&mut self, text: &str, file: &Path, label: Option<Arc<Path>>) {
        let Lines { sections, includes } = lines::read(text, all_keys::is_key, label.clone(), self.problems);
        let mut wanted: Vec<(Place, String)> = Vec::new();
        for Entry { key, value, line } in includes {
            wanted
                .push((Place { file: label.as_deref().map(Path::to_owned), ..Place::line(line) }.at_key(&key), value));
        }
        for section in sections {
            if section.title == "MONSTER"
                && let Some(entry) = section.entry(INCLUDE)
            {
                wanted.push((section.place_of(entry), entry.value.clone()));
            }
            let here = format!("{}:{}", shown(label.as_deref().unwrap_or(file)), section.line);
            if let Some(first) = self.titles.get(&section.title) {
                let message = format!("this section is already in {first}");
                self.problems.report(section.place(), Diagnostic::new(message, "merge the two sections"));
                continue;
            }
            self.titles.insert(section.title.clone(), here);
            self.files.sections.push(section);
        }
        for (place, patterns) in wanted {
            for pattern in patterns.split(',').map(str::trim).filter(|pattern| !pattern.is_empty()) {
                self.include(pattern, file, &place);
            }
        }
    }

    fn include(&mut self, pattern: &str, by: &Path, place: &Place) {
        let refuse = |message: String, remedy: &str| {
            self.problems.report(place.clone(), Diagnostic::new(message, remedy));
        };
        let beside = by.parent().unwrap_or(Path::new(""));
        let has_wildcard = pattern.contains(['*', '?', '[']);
        let found = match has_wildcard {
            false => vec![beside.join(pattern)],
            true => match matching(beside, pattern) {
                Ok(found) => found,
                Err(why) => {
                    return refuse(
                        format!("cannot search `{pattern}`: {why}"),
                        "correct the pattern, or give contentmonster read access to the directory",
                    );
                }
            },
        };
        if self.files.included.len() + found.len() > MOST {
            return refuse(
                format!("with `{pattern}`, the settings include more than {MOST} files"),
                "write a narrower pattern",
            );
        }
        let from = format!("{}:{}", shown(place.file.as_deref().unwrap_or(by)), place.line.unwrap_or_default());
        for file in found {
            self.include_file(&file, place, &from, has_wildcard);
        }
    }

    fn include_file(&mut self, file: &Path, place: &Place, from: &str, by_wildcard: bool) {
        let refuse = |message: String, remedy: &str| {
            self.problems.report(place.clone(), Diagnostic::new(message, remedy));
        };
        let path = shown(file);
        if by_wildcard && file.is_dir() {
            return;
        }
        let canonical = match file.canonicalize() {
            Ok(canonical) => canonical,
            Err(e) => return refuse(format!("cannot read {path}: {e}"), "create the file, or correct Include"),
        };
        if let Some(first) = self.origins.get(&canonical) {
            let remedy = "include each file only once; a file can't include itself, directly or through another file";
            return refuse(format!("{path} is already included by {first}"), remedy);
        }
        self.origins.insert(canonical, from.to_owned());
        match text_of(file) {
            Ok((text, mode)) => {
                let label: Arc<Path> = Arc::from(file);
                self.files.included.push((label.clone(), mode));
                self.add(&text, file, Some(label));
            }
            Err((None, Diagnostic { message, .. })) => {
                let message = message.replace("the settings", &path);
                refuse(message, "give contentmonster permission to read the file, or correct Include");
            }
            Err((line, diagnostic)) => {
                let place = Place { file: Some(file.to_owned()), line, ..Place::default() };
                self.problems.report(place, diagnostic);
            }
        }
    }
}

/// Returns the files that a pattern matches, sorted by their names. Wildcards don't match a leading dot.
fn matching(beside: &Path, pattern: &str) -> Result<Vec<PathBuf>, String> {
    let beside = beside.to_str().ok_or("the path of the settings file is not UTF-8 text")?;
    let whole = match (Path::new(pattern).is_absolute(), beside) {
        (true, _) | (false, "") => pattern.to_owned(),
        (false, beside) => format!("{}/{pattern}", glob::Pattern::escape(beside)),
    };
    let options = glob::MatchOptions { require_literal_leading_dot: true, ..glob::MatchOptions::default() };
    let found = glob::glob_with(&whole, options).map_err(|e| e.to_string())?;
    // Unreadable directories are errors, because they may contain files that match.
    let mut found =
        found.collect::<Result<Vec<_>, _>>().map_err(|e| format!("{}: {}", e.path().display(), e.error()))?;
    found.sort();
    Ok(found)
}

fn shown(file: &Path) -> String {
    crate::names::display_bytes(file.as_os_str().as_encoded_bytes()).to_string()
}
