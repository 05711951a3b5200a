//! Reads secrets from the settings file, from a file that it names, or from systemd's credentials directory.
//!
//! This module converts the text of a secret into a [`Secret`], which is never shown.

use std::fs::File;
use std::io::{self, Read};
use std::ops::Deref;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use secrecy::{ExposeSecret, SecretString};

use super::key::Transport;
use super::lines::Section;
use super::problems::{Diagnostic, Place, Problems};
use super::section_view::View;
use super::values;
use super::written_value::Written;

/// A secret of the settings. Its text is never shown, but secrets can be compared.
#[derive(Clone, Debug)]
pub struct Secret(SecretString);

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.0.expose_secret() == other.0.expose_secret()
    }
}

impl Deref for Secret {
    type Target = SecretString;

    fn deref(&self) -> &SecretString {
        &self.0
    }
}

/// Maximum number of bytes that are read from a secret's file, in case the path names a huge file by mistake.
const LONGEST: u64 = 64 * 1024;

/// The permission bits with which the group and other users may read a file.
const READABLE_BY_OTHERS: u32 = 0o044;

/// Returns the secret of a key: its value, or the first line of the file that the key with the suffix `File` names. The
/// section, its groups and `[DEFAULT]` are searched for these two keys in this order; if none of them has either key,
/// the secret is the systemd credential `<section's name>.<credential>`. Returns `None` if there is no secret, or after
/// reporting an unusable one.
pub(super) fn read(written: &Written<'_>, credential: &str) -> Option<Secret> {
    let view = match written.key.transport {
        Transport::Ssh => &written.view.without_defaults_of_ssh(),
        _ => written.view,
    };
    let pair = Pair { key: written.key.name, file_key: &format!("{}File", written.key.name), view };
    let set = view.layers().find(|s| s.entry(pair.key).is_some() || s.entry(pair.file_key).is_some());
    match set {
        Some(section) => pair.configured(section).map(Secret),
        None => pair.credential(&format!("{}.{credential}", view.name)).map(Secret),
    }
}

/// The two keys that can set a secret: the key itself, and the key that names its file.
struct Pair<'a> {
    key: &'a str,
    file_key: &'a str,
    view: &'a View<'a>,
}

impl Pair<'_> {
    fn configured(&self, section: &Section) -> Option<SecretString> {
        let problems = self.view.problems;
        match (section.entry(self.key), section.entry(self.file_key)) {
            (Some(secret), Some(file)) => {
                let message = format!("{} is already set on line {}", self.key, secret.line);
                problems.report(section.place_of(file), Diagnostic::new(message, "keep one of the two"));
                None
            }
            (Some(secret), None) => match values::not_empty(&secret.value) {
                Ok(text) => Some(SecretString::from(text)),
                Err(diagnostic) => {
                    problems.report(section.place_of(secret), diagnostic);
                    None
                }
            },
            (None, Some(file)) => {
                let place = section.place_of(file);
                let path = self.view.start.path(&file.value);
                let found = path.and_then(|path| self.read(&file.value, &path, &place));
                found.map_err(|diagnostic| problems.report(place, diagnostic)).ok()
            }
            (None, None) => None,
        }
    }

    /// Reads the secret from the file `path` or, if the file is missing, from the credential with the name `written`.
    fn read(&self, written: &str, path: &Path, place: &Place) -> Result<SecretString, Diagnostic> {
        match first_line(path) {
            Err(Unusable::Io(error)) if error.kind() == io::ErrorKind::NotFound => {
                let credential = self.credential_path(written).filter(|credential| credential.exists());
                let missing = || diagnostic_of(path, Unusable::Io(error));
                let credential = credential.ok_or_else(missing)?;
                first_line(&credential).map(|(secret, _)| secret).map_err(|why| diagnostic_of(&credential, why))
            }
            Err(why) => Err(diagnostic_of(path, why)),
            Ok((secret, mode)) => {
                if mode.is_some_and(|mode| mode & READABLE_BY_OTHERS != 0) {
                    let diagnostic = readable_by_others(path, mode.unwrap_or_default());
                    self.view.problems.warn(place.clone(), diagnostic);
                }
                Ok(secret)
            }
        }
    }

    fn credential(&self, name: &str) -> Option<SecretString> {
        let path = self.credential_path(name)?;
        match first_line(&path) {
            Ok((secret, _)) => Some(secret),
            Err(Unusable::Io(error)) if error.kind() == io::ErrorKind::NotFound => None,
            Err(why) => {
                let place = self.view.place_of(self.key);
                self.view.problems.report(place, diagnostic_of(&path, why));
                None
            }
        }
    }

    /// Returns the path of a credential. Rejects a name that is not a single component, because its path could leave
    /// the credentials directory.
    fn credential_path(&self, name: &str) -> Option<PathBuf> {
        let plain = !name.contains('/') && !matches!(name, "." | "..");
        self.view.environment.credentials.as_deref().filter(|_| plain).map(|directory| directory.join(name))
    }
}

/// Warns of a settings file that contains a secret and is readable by other users.
pub(super) fn check_mode(
    sections: &[&Section],
    is_secret: impl Fn(&str) -> bool,
    file: &Path,
    mode: Option<u32>,
    problems: &Problems,
) {
    let Some(mode) = mode.filter(|mode| mode & READABLE_BY_OTHERS != 0) else { return };
    let found = sections.iter().find_map(|s| s.entries.iter().find(|e| is_secret(&e.key)).map(|e| s.place_of(e)));
    if let Some(place) = found {
        problems.warn(place, readable_by_others(file, mode));
    }
}

fn readable_by_others(file: &Path, mode: u32) -> Diagnostic {
    let message = format!("other users can read this secret (mode {:04o})", mode & 0o7777);
    Diagnostic::new(message, format!("run: chmod 600 {}", shell_word(&file.display().to_string())))
}

fn shell_word(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '.' | '_' | '-');
    if text.chars().all(plain) { text.to_owned() } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

/// The reason why a file contains no usable secret.
enum Unusable {
    Io(io::Error),
    Empty,
    NotText,
}

fn diagnostic_of(path: &Path, why: Unusable) -> Diagnostic {
    let path = path.display();
    match why {
        Unusable::Io(error) => {
            Diagnostic::new(format!("cannot read {path}: {error}"), "name a file that contentmonster may read")
        }
        Unusable::Empty => Diagnostic::new(format!("the first line of {path} is empty"), "put the secret on that line"),
        Unusable::NotText => {
            Diagnostic::new(format!("{path} is not UTF-8 text"), "save it as UTF-8, with the secret on its first line")
        }
    }
}

/// Returns a file's first line without its line end, and the file's mode if it is a regular file.
fn first_line(path: &Path) -> Result<(SecretString, Option<u32>), Unusable> {
    let file = File::open(path).map_err(Unusable::Io)?;
    let metadata = file.metadata().map_err(Unusable::Io)?;
    let mode = metadata.is_file().then(|| metadata.permissions().mode());
    let mut bytes = Vec::new();
    file.take(LONGEST).read_to_end(&mut bytes).map_err(Unusable::Io)?;
    let line = bytes.split(|b| *b == b'\n').next().unwrap_or_default();
    let line = std::str::from_utf8(line.strip_suffix(b"\r").unwrap_or(line)).map_err(|_| Unusable::NotText)?;
    if line.is_empty() { Err(Unusable::Empty) } else { Ok((SecretString::from(line), mode)) }
}
