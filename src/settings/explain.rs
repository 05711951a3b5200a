//! `settings show`: the effective value of every key, and where it comes from.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;

use super::all_keys;
use super::environment::Environment;
use super::files;
use super::key::{KnownKey, PER_DIRECTORY, Preset, Secrecy, SectionKind, Transport};
use super::lines::Section;
use super::load::{Explained, Settings};
use super::network_link::Link;
use super::problems::SettingsError;
use super::section_view::View;

/// The text in place of a value that must not be shown.
const HIDDEN: &str = "(not shown)";

/// The effective value of a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Effective {
    /// The section that the value applies to, without brackets, such as `Vessel aurora`.
    pub section: String,
    /// The key.
    pub key: String,
    /// The value, as it would be written in the file; `null` if the key has no value.
    pub value: Option<String>,
    /// A description of the behaviour without a value.
    pub otherwise: Option<String>,
    /// Where the value comes from.
    #[serde(flatten)]
    pub source: Source,
}

/// The origin of a value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "source", rename_all = "kebab-case")]
pub enum Source {
    /// A line of a settings file, in this section, a group or `[DEFAULT]`.
    Line {
        /// The file.
        file: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// The section that contains the line, without brackets.
        from: String,
    },
    /// The ssh config.
    SshConfig {
        /// The place in the ssh config.
        place: String,
    },
    /// The key is not set.
    Default,
}

impl Settings {
    /// Reads a settings file, and returns the settings with the effective values: those of `[MONSTER]`, then of the
    /// directories, the links and the vessels.
    ///
    /// # Errors
    /// With every problem found.
    pub fn explain(file: &Path) -> Result<(Self, Vec<Effective>), SettingsError> {
        let (text, mode) = match files::text_of(file) {
            Ok(read) => read,
            // `load` fails with the same error, and reports its place.
            Err(_) => return Self::load(file).map(|settings| (settings, Vec::new())),
        };
        let environment = Environment { settings_mode: Some(mode), ..Environment::from_process() };
        Self::explain_text(&text, file, &environment)
    }

    /// Explains the text of a settings file; see [`Self::parse`].
    ///
    /// # Errors
    /// With every problem found.
    pub fn explain_text(
        text: &str,
        file: &Path,
        environment: &Environment,
    ) -> Result<(Self, Vec<Effective>), SettingsError> {
        let (settings, mut all) = Self::parse_and(text, file, environment, |read| effective(read, file))?;
        for vessel in &settings.vessels {
            let section = format!("Vessel {}", vessel.name);
            for said in &vessel.ssh.from_ssh_config {
                add_from_ssh_config(&mut all, &section, said);
            }
        }
        Ok((settings, all))
    }
}

fn effective(read: &Explained<'_, '_>, file: &Path) -> Vec<Effective> {
    let mut all = Vec::new();
    let mut section = |kind, title: String, view: &View<'_>| {
        let is_local = view.is_local;
        let keys = all_keys::known_keys().into_iter().filter(|key| key.section == kind);
        let keys = keys.filter(|key| match key.transport {
            Transport::Any => true,
            Transport::Ssh => !is_local,
            Transport::Local => is_local,
        });
        for key in keys {
            match key.prefix() {
                Some(PER_DIRECTORY) => all.extend(locations(read, &title, view, file)),
                Some(prefix) => all.extend(link_addresses(prefix, &title, view, file)),
                None => all.push(one(key, &title, view, file)),
            }
        }
    };
    section(SectionKind::Monster, "MONSTER".to_owned(), read.program);
    for (name, own) in &read.sections.directories {
        section(SectionKind::Directory, own.title.clone(), &read.of_directory(name, own));
    }
    for (name, own) in &read.sections.links {
        section(SectionKind::Link, own.title.clone(), &View { name, own: Some(own), ..*read.program });
    }
    for ((name, own), groups) in read.sections.vessels.iter().zip(read.groups) {
        let view = read.of_vessel(name, own, groups);
        let is_local = view.find("Transport").is_some_and(|(_, entry)| entry.value == "local");
        section(SectionKind::Vessel, format!("Vessel {name}"), &View { is_local, ..view });
    }
    all
}

/// Returns the effective value of a key in a section.
fn one(key: &KnownKey, title: &str, view: &View<'_>, file: &Path) -> Effective {
    let view = if key.transport == Transport::Ssh { view.without_defaults_of_ssh() } else { *view };
    // Directories have a different key named `Include`, and an `Include` in `[DEFAULT]` is that key. So only an
    // `Include` in `[MONSTER]` itself counts.
    let found = match key.name == files::INCLUDE && key.section == SectionKind::Monster {
        true => view.own.and_then(|own| Some((own, own.entry(key.name)?))),
        false => view.find(key.name),
    };
    let source = found.map_or(Source::Default, |(section, entry)| line(section, entry.line, file));
    let text = found.and_then(|_| view.text_of(key)).and_then(Result::ok).map(|text| text.into_owned());
    let text = text.or_else(|| found.map(|(_, entry)| entry.value.clone()));
    let (value, otherwise) = match (text, key.preset) {
        (Some(_), _) if key.secrecy != Secrecy::Plain => (Some(HIDDEN.to_owned()), None),
        (Some(text), _) => (Some(text), None),
        (None, Preset::Value(text)) => (Some(text.to_owned()), None),
        (None, Preset::Otherwise(text)) => (None, Some(text.to_owned())),
        (None, Preset::Required) => (None, None),
    };
    Effective { section: title.to_owned(), key: key.name.to_owned(), value, otherwise, source }
}

fn line(section: &Section, line: usize, file: &Path) -> Source {
    let file = section.file.as_deref().unwrap_or(file).to_owned();
    Source::Line { file, line, from: section.title.clone() }
}

/// Returns the remote location of each directory that a vessel takes, with the line that sets it.
fn locations(read: &Explained<'_, '_>, title: &str, view: &View<'_>, file: &Path) -> Vec<Effective> {
    let Some((vessel, _)) = read.vessels.iter().find(|(vessel, _)| vessel.name.as_str() == view.name) else {
        return Vec::new();
    };
    let location = |(directory, _): &(super::directory::Directory, super::problems::Place)| {
        let own = format!("{}{}", PER_DIRECTORY, directory.name);
        let of_directory = read.sections.directories.iter().find(|(name, _)| *name == directory.name.as_str());
        let of_directory = of_directory.map(|(name, section)| read.of_directory(name, section));
        let inherited = || {
            let view = of_directory?;
            view.find("RemoteLocation").or_else(|| view.find("Location"))
        };
        let source = view.find(&own).or_else(inherited);
        let source = source.map_or(Source::Default, |(section, entry)| line(section, entry.line, file));
        let value = Some(vessel.remote_location(directory).to_string());
        Effective { section: title.to_owned(), key: own, value, otherwise: None, source }
    };
    read.directories.iter().filter(|(one, _)| vessel.takes(&one.name)).map(location).collect()
}

/// Returns the addresses over links that a vessel has, each with the line that sets it.
fn link_addresses(prefix: &str, title: &str, view: &View<'_>, file: &Path) -> Vec<Effective> {
    let address = |link: &Arc<Link>| {
        let key = format!("{prefix}{}", link.name);
        let (section, entry) = view.find(&key)?;
        let (value, source) = (Some(entry.value.clone()), line(section, entry.line, file));
        Some(Effective { section: title.to_owned(), key, value, otherwise: None, source })
    };
    view.links.iter().filter_map(address).collect()
}

/// Adds a value of the ssh config. `said` has the form `Keyword value (file:line)`.
fn add_from_ssh_config(all: &mut Vec<Effective>, section: &str, said: &str) {
    let Some((keyword, rest)) = said.split_once(' ') else { return };
    let (value, place) = rest.rsplit_once(" (").unwrap_or((rest, ""));
    let source = Source::SshConfig { place: place.trim_end_matches(')').to_owned() };
    let key = match keyword {
        "User" => "Username",
        "ConnectTimeout" => "Timeout",
        keyword => keyword,
    };
    let value = Some(value.to_owned());
    let mut found = all.iter_mut().filter(|one| one.section == section && one.key == key);
    match found.next().filter(|one| one.source == Source::Default) {
        Some(one) => (one.value, one.otherwise, one.source) = (value, None, source),
        None => {
            let last = all.iter().rposition(|one| one.section == section).map_or(all.len(), |at| at + 1);
            let key = format!("SSHConfig {keyword}");
            all.insert(last, Effective { section: section.to_owned(), key, value, otherwise: None, source });
        }
    }
}
