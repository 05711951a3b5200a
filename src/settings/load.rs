//! Loads [`Settings`] from the settings file: reads it, groups its sections by kind, converts each section into its
//! type, and checks all of them together.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::all_keys;
use super::directory::{self, Directory, OwnFiles};
use super::environment::Environment;
use super::key::SectionKind;
use super::lines::{self, Section};
use super::link_section;
use super::monster::{self, Monster};
use super::network_link::Link;
use super::overlap::Overlaps;
use super::problems::{Diagnostic, Place, Problems, SettingsError};
use super::values::Start;
use super::vessel::{self, Vessel};
use super::view::View;
use super::{checks, local, secrets};
use crate::names::{DirectoryName, RemotePath, VesselName};
use crate::text::is_plain;

/// A whole settings file, checked.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The settings file.
    pub file: PathBuf,
    /// `[MONSTER]`: the program as a whole.
    pub monster: Monster,
    /// Each `[Directory x]`, in the file's order.
    pub directories: Vec<Directory>,
    /// Each `[Vessel y]`, in the file's order.
    pub vessels: Vec<Vessel>,
    /// Each `[Link z]`, in the file's order.
    pub links: Vec<Arc<Link>>,
    /// Warnings to be logged once, a line each.
    pub warnings: Vec<String>,
    /// All settings in the file, a line for each key, without secrets.
    pub listing: Vec<String>,
}

impl Settings {
    /// Reads a settings file, and the secrets that it names.
    ///
    /// # Errors
    /// When the file can't be read or isn't UTF-8, and otherwise with every problem found in it.
    pub fn load(file: &Path) -> Result<Self, SettingsError> {
        let (bytes, mode) = read(file).map_err(|error| refused(file, None, unreadable(&error)))?;
        let text = String::from_utf8(bytes).map_err(|error| {
            let sound = &error.as_bytes()[..error.utf8_error().valid_up_to()];
            let line = sound.iter().filter(|b| **b == b'\n').count() + 1;
            refused(file, Some(line), Diagnostic::new("this line is not UTF-8 text", "save the file as UTF-8"))
        })?;
        let environment = Environment { settings_mode: Some(mode), ..Environment::from_process() };
        Self::parse(&text, file, &environment)
    }

    /// Checks the text of a settings file. `file` is the file's name for messages; relative paths start at its
    /// directory. Reads only the files of secrets and the ssh config from the disk, and resolves the `Location`s there.
    ///
    /// # Errors
    /// With every problem found, in the order of the lines.
    pub fn parse(text: &str, file: &Path, environment: &Environment) -> Result<Self, SettingsError> {
        let problems = Problems::new(file);
        // Without a current directory there is no absolute path. The relative path works as long as the current
        // directory isn't changed.
        let absolute = std::path::absolute(file).unwrap_or_else(|_| file.to_owned());
        let beside = absolute.parent().unwrap_or(Path::new("/")).to_owned();
        let start = Start { beside, home: environment.home.clone() };

        let sections = lines::read(text, all_keys::is_key, &problems);
        secrets::check_mode(&sections, all_keys::holds_secret, file, environment.settings_mode, &problems);
        let cast = Cast::of(&sections, &problems);
        cast.check_presence(&problems);
        let names: Vec<&str> = cast.directories.iter().map(|(name, _)| *name).collect();
        let program = View {
            problems: &problems,
            name: "contentmonster",
            own: cast.monster,
            defaults: cast.defaults,
            is_local: false,
            start: &start,
            environment,
            directories: &names,
            links: &[],
            lacks_links: false,
        };
        let monster = monster::read(&program);
        let view = |name, own| View { name, own: Some(own), ..program };
        let links = typed(&cast.links, |name, section| link_section::read(&view(name, section)));
        let links: Vec<Arc<Link>> = links.into_iter().map(|(link, _)| Arc::new(link)).collect();
        let program = View { links: &links, lacks_links: links.len() < cast.links.len(), ..program };
        let view = |name, own| View { name, own: Some(own), ..program };
        let directories =
            typed(&cast.directories, |name, section| directory::read(&view(name, section), monster.as_ref()));
        let vessels = typed(&cast.vessels, |name, section| vessel::read(&view(name, section), monster.as_ref()));
        for (name, section) in &cast.links {
            let (view, link) = (view(name, section), links.iter().find(|link| link.name.as_str() == *name));
            if let (Some(link), Some(monster)) = (link, &monster) {
                link_section::check_budget(&view, &link.budget, monster.chunk_size);
            }
            let uses = |(vessel, _): &(Vessel, Place)| vessel.ways.iter().any(|way| way.link.as_ref() == link);
            // A vessel with errors may use it.
            link_section::check_use(&view, vessels.len() < cast.vessels.len() || vessels.iter().any(uses));
        }

        let overlaps = Overlaps::new(&directories, &vessels, &problems);
        overlaps.check();
        checks::destinations(&directories, &vessels, &problems);
        checks::windows(&directories, &vessels, &problems);
        local::check_places(&directories, &overlaps.reaches, &vessels, &problems);
        let own_files = OwnFiles::of(&absolute, &sections, &start, monster.as_ref(), &vessels);
        own_files.check(&directories, &overlaps.reaches, &problems);
        let own_files = Arc::new(own_files);
        let warnings = problems.finish()?;
        let mut settings = Self {
            file: absolute,
            monster: monster.expect("a missing section [MONSTER] has already ended the load with an error"),
            directories: directories
                .into_iter()
                .map(|(directory, _)| Directory { own_files: own_files.clone(), ..directory })
                .collect(),
            vessels: vessels.into_iter().map(|(vessel, _)| vessel).collect(),
            links,
            warnings,
            listing: all_keys::listing(&sections),
        };
        settings.find_places();
        Ok(settings)
    }

    /// Converts directories whose `Location` is one file. Only the disk can tell which are files, so the caller asks it
    /// in `is_file`.
    pub fn find_single_files(&mut self, is_file: impl Fn(&Path) -> bool) {
        let directories = std::mem::take(&mut self.directories).into_iter();
        let found = directories.map(|one| if is_file(&one.location) { one.of_one_file() } else { one });
        self.directories = found.collect();
        self.find_places();
    }

    /// Updates the directories' locations in the vessels that are this host.
    fn find_places(&mut self) {
        let vessels = std::mem::take(&mut self.vessels).into_iter();
        self.vessels = vessels.map(|vessel| vessel.find_places(&self.directories)).collect();
    }

    /// Returns the vessels that receive a directory's files.
    pub fn vessels_of(&self, directory: &DirectoryName) -> Vec<VesselName> {
        self.vessels.iter().filter(|v| v.takes(directory)).map(|v| v.name.clone()).collect()
    }

    /// Returns a directory's locations on the vessels that take it.
    pub fn places_of(&self, directory: &Directory) -> Vec<(VesselName, RemotePath)> {
        let takers = self.vessels.iter().filter(|vessel| vessel.takes(&directory.name));
        takers.map(|vessel| (vessel.name.clone(), vessel.remote_location(directory).clone())).collect()
    }
}

fn read(file: &Path) -> io::Result<(Vec<u8>, u32)> {
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

fn refused(file: &Path, line: Option<usize>, diagnostic: Diagnostic) -> SettingsError {
    let problems = Problems::new(file);
    problems.report(Place { line, ..Place::default() }, diagnostic);
    problems.finish().expect_err("a problem was reported")
}

/// Converts sections with `read`; returns the results without errors, with the places of the sections' headers.
fn typed<'a, T>(named: &[(&'a str, &'a Section)], read: impl Fn(&'a str, &'a Section) -> Option<T>) -> Vec<(T, Place)> {
    named.iter().filter_map(|(name, section)| Some((read(name, section)?, section.place()))).collect()
}

/// The file's sections by kind; directories and vessels with their names.
#[derive(Default)]
struct Cast<'a> {
    defaults: Option<&'a Section>,
    monster: Option<&'a Section>,
    directories: Vec<(&'a str, &'a Section)>,
    vessels: Vec<(&'a str, &'a Section)>,
    links: Vec<(&'a str, &'a Section)>,
    /// Whether there is a section of unknown kind or without a valid name. Such a section may be a misspelt directory
    /// or vessel, so no directory or vessel is reported as missing.
    strangers: bool,
}

impl<'a> Cast<'a> {
    fn of(sections: &'a [Section], problems: &Problems) -> Self {
        let mut cast = Self::default();
        for section in sections {
            let (word, name) = section.title.split_once(' ').unwrap_or((&section.title, ""));
            let kind = match (word, name) {
                ("DEFAULT", "") => {
                    cast.defaults = Some(section);
                    None
                }
                ("MONSTER", "") => {
                    cast.monster = Some(section);
                    Some(SectionKind::Monster)
                }
                ("Directory" | "Vessel" | "Link", name) => {
                    let (kind, list) = match word {
                        "Directory" => (SectionKind::Directory, &mut cast.directories),
                        "Link" => (SectionKind::Link, &mut cast.links),
                        _ => (SectionKind::Vessel, &mut cast.vessels),
                    };
                    match usable(name) {
                        Ok(()) => list.push((name, section)),
                        Err(diagnostic) => {
                            problems.report(section.place(), diagnostic);
                            cast.strangers = true;
                        }
                    }
                    Some(kind)
                }
                _ => {
                    problems.report(section.place(), all_keys::unknown_section(&section.title));
                    cast.strangers = true;
                    continue;
                }
            };
            check_keys(section, kind, problems);
        }
        cast
    }

    fn check_presence(&self, problems: &Problems) {
        let missing = |message, remedy| problems.report(Place::default(), Diagnostic::new(message, remedy));
        if self.directories.is_empty() && !self.strangers {
            missing("there is no directory to replicate", "add a section [Directory x] with its Location");
        }
        if self.vessels.is_empty() && !self.strangers {
            missing("there is no vessel to replicate to", "add a section [Vessel y] with its Address");
        }
    }
}

/// Checks the name of a directory or vessel. Commas are rejected, because `Dirs` and `IgnoreDirs` separate names by
/// commas.
fn usable(name: &str) -> Result<(), Diagnostic> {
    if name.is_empty() {
        return Err(Diagnostic::new("the section has no name", "write one after the word, such as [Vessel backup]"));
    }
    if name.contains(',') {
        return Err(Diagnostic::new("the name contains a comma", "choose a name without one"));
    }
    if let Some(c) = name.chars().find(|c| !is_plain(*c)) {
        let message = format!("the name contains an invisible character: {}", c.escape_default());
        return Err(Diagnostic::new(message, "write the name without it"));
    }
    Ok(())
}

/// Reports unknown keys in a section of this kind (`None`: `[DEFAULT]`).
fn check_keys(section: &Section, kind: Option<SectionKind>, problems: &Problems) {
    const ALL: [SectionKind; 4] =
        [SectionKind::Monster, SectionKind::Directory, SectionKind::Vessel, SectionKind::Link];
    for entry in &section.entries {
        let mut here = ALL.into_iter().filter(|k| kind.is_none_or(|kind| kind == *k));
        if !here.any(|k| all_keys::known(k, &entry.key).is_some()) {
            let place = section.place().at_key(lines::shown(&entry.key));
            problems.report(Place { line: Some(entry.line), ..place }, all_keys::unknown(kind, &entry.key));
        }
    }
}
