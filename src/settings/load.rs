//! Loads [`Settings`] from the settings file: reads it, groups its sections by kind, converts each section into its
//! type, and checks all of them together.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::all_keys;
use super::database::Database;
use super::directory::{self, Directory, OwnFiles};
use super::environment::Environment;
use super::files;
use super::hints::nearest;
use super::key::SectionKind;
use super::lines::{self, Section};
use super::link_section;
use super::monster::{self, Monster};
use super::network_link::Link;
use super::overlap::Overlaps;
use super::placeholders::Placeholders;
use super::priority_keys;
use super::problems::{Diagnostic, Place, Problems, SettingsError};
use super::values::{self, Start};
use super::vessel::{self, Vessel};
use super::view::View;
use super::{checks, local, ranges, secrets};
use crate::names::{DirectoryName, RemotePath, VesselName};
use crate::text::is_plain;

/// A whole settings file, checked.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The settings file.
    pub file: PathBuf,
    /// The settings file and the files that it includes, absolute.
    pub files: Vec<PathBuf>,
    /// The name of this host.
    pub hostname: Option<String>,
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

/// The names of sections.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SectionNames {
    /// The names of the vessels.
    pub vessels: Vec<String>,
    /// The names of the groups.
    pub groups: Vec<String>,
    /// The names of the directories.
    pub directories: Vec<String>,
}

impl Settings {
    /// Reads a settings file, and the secrets that it names.
    ///
    /// # Errors
    /// When the file can't be read or isn't UTF-8, and otherwise with every problem found in it.
    pub fn load(file: &Path) -> Result<Self, SettingsError> {
        let (text, mode) = files::text_of(file).map_err(|(line, diagnostic)| refused(file, line, diagnostic))?;
        let environment = Environment { settings_mode: Some(mode), ..Environment::from_process() };
        Self::parse(&text, file, &environment)
    }

    /// Returns the socket that a settings file names, even if the settings have errors; else the default.
    pub fn socket_of(file: &Path) -> PathBuf {
        let problems = Problems::new(file);
        let absolute = std::path::absolute(file).unwrap_or_else(|_| file.to_owned());
        let beside = absolute.parent().unwrap_or(Path::new("/")).to_owned();
        let start = Start { beside, home: Environment::from_process().home };
        let text = files::text_of(file).map(|(text, _)| text).unwrap_or_default();
        let sections = files::read(&text, file, &problems).sections;
        let written = |key: &str| {
            let entry = |title: &str| sections.iter().find(|section| section.title == title)?.entry(key);
            entry("MONSTER").or_else(|| entry("DEFAULT")).map(|entry| entry.value.as_str())
        };
        if let Some(Ok(socket)) = written("Socket").map(|text| start.path(text)) {
            return socket;
        }
        let database = Database::parse(written("Database").unwrap_or("database.sqlite3"), &start);
        database.unwrap_or_else(|_| Database::File(start.beside.join("database.sqlite3"))).socket(&start)
    }

    /// Returns the names of the sections of a settings file and of the files that it includes, even if the settings have
    /// errors.
    pub fn names_of(file: &Path) -> SectionNames {
        let problems = Problems::new(file);
        let text = files::text_of(file).map(|(text, _)| text).unwrap_or_default();
        let mut names = SectionNames::default();
        for section in files::read(&text, file, &problems).sections {
            match section.title.split_once(' ') {
                Some(("Vessel", name)) => names.vessels.extend(ranges::expand(name).unwrap_or_default()),
                Some(("Group", name)) => names.groups.push(name.to_owned()),
                Some(("Directory", name)) => names.directories.push(name.to_owned()),
                _ => {}
            }
        }
        names
    }

    /// Checks the text of a settings file. `file` is the file's name for messages; relative paths start at its
    /// directory. Reads only the included files, the files of secrets and the ssh config from the disk, and resolves the
    /// `Location`s there.
    ///
    /// # Errors
    /// With every problem found, in the order of the lines.
    pub fn parse(text: &str, file: &Path, environment: &Environment) -> Result<Self, SettingsError> {
        Self::parse_and(text, file, environment, |_| ()).map(|(settings, ())| settings)
    }

    /// Checks a text as [`Self::parse`] does, and passes what was read to `explain`.
    pub(super) fn parse_and<T>(
        text: &str,
        file: &Path,
        environment: &Environment,
        explain: impl FnOnce(&Explained<'_, '_>) -> T,
    ) -> Result<(Self, T), SettingsError> {
        let problems = Problems::new(file);
        // Without a current directory there is no absolute path. The relative path works as long as the current
        // directory isn't changed.
        let absolute = std::path::absolute(file).unwrap_or_else(|_| file.to_owned());
        let beside = absolute.parent().unwrap_or(Path::new("/")).to_owned();
        let start = Start { beside, home: environment.home.clone() };

        let files = files::read(text, file, &problems);
        let sections = &files.sections;
        let modes = files.included.iter().map(|(file, mode)| (Some(&**file), Some(*mode)));
        for (of, mode) in std::iter::once((None, environment.settings_mode)).chain(modes) {
            let own: Vec<&Section> = sections.iter().filter(|section| section.file.as_deref() == of).collect();
            secrets::check_mode(&own, all_keys::holds_secret, of.unwrap_or(file), mode, &problems);
        }
        let cast = Cast::of(sections, &problems);
        cast.check_presence(&problems);
        let names: Vec<&str> = cast.directories.iter().map(|(name, _)| *name).collect();
        let hostname = environment.hostname.as_deref();
        let program = View {
            problems: &problems,
            name: "contentmonster",
            own: cast.monster,
            groups: &[],
            defaults: cast.defaults,
            placeholders: Placeholders { hostname, ..Placeholders::default() },
            is_local: false,
            start: &start,
            environment,
            directories: &names,
            links: &[],
            lacks_links: false,
        };
        let monster = monster::read(&program);
        let links = cast.links.iter().filter_map(|(name, section)| {
            link_section::read(&View { name, own: Some(section), ..program }).map(Arc::new)
        });
        let links: Vec<Arc<Link>> = links.collect();
        let program = View { links: &links, lacks_links: links.len() < cast.links.len(), ..program };
        let directories = cast.directories.iter().filter_map(|(name, section)| {
            Some((directory::read(&of_directory(&program, name, section), monster.as_ref())?, section.place()))
        });
        let directories: Vec<_> = directories.collect();
        let groups: Vec<Vec<&Section>> =
            cast.vessels.iter().map(|(name, section)| cast.groups_of(name, section, &program)).collect();
        let vessels = cast.vessels.iter().zip(&groups).filter_map(|((name, section), groups)| {
            let view = of_vessel(&program, name, section, groups);
            Some((vessel::read(&view, monster.as_ref(), &directories)?, section.place()))
        });
        let vessels: Vec<_> = vessels.collect();
        cast.check_groups(&groups, &problems);
        for (name, section) in &cast.links {
            let view = View { name, own: Some(section), ..program };
            let link = links.iter().find(|link| link.name.as_str() == *name);
            if let (Some(link), Some(monster)) = (link, &monster) {
                link_section::check_budget(&view, &link.budget, monster.chunk_size);
                priority_keys::check_reserve(&view, &link.budget, link.reserve, monster.chunk_size);
            }
            let uses = |(vessel, _): &(Vessel, Place)| vessel.ways.iter().any(|way| way.link.as_ref() == link);
            // A vessel with errors may use it.
            if let Some(link) =
                link.filter(|_| vessels.len() == cast.vessels.len() && directories.len() == cast.directories.len())
            {
                checks::priorities(&view, link, &directories, &vessels);
            }
            link_section::check_use(&view, vessels.len() < cast.vessels.len() || vessels.iter().any(uses));
        }

        let overlaps = Overlaps::new(&directories, &vessels, &problems);
        overlaps.check();
        checks::destinations(&directories, &vessels, &problems);
        checks::windows(&directories, &vessels, &problems);
        checks::ways(&directories, &vessels, &problems);
        checks::shores(&directories, &vessels, &problems);
        local::check_places(&directories, &overlaps.reaches, &vessels, &problems);
        let own_files = OwnFiles::of(&absolute, &files, &start, monster.as_ref(), &vessels);
        own_files.check(&directories, &overlaps.reaches, &problems);
        let own_files = Arc::new(own_files);
        let explained = explain(&Explained {
            cast: &cast,
            groups: &groups,
            program: &program,
            directories: &directories,
            vessels: &vessels,
        });
        let mut files_read = vec![absolute.clone()];
        files_read
            .extend(files.included.iter().map(|(file, _)| std::path::absolute(file).unwrap_or(file.to_path_buf())));
        let listing = all_keys::listing(sections);
        let warnings = problems.finish()?;
        let mut settings = Self {
            file: absolute,
            files: files_read,
            hostname: environment.hostname.clone(),
            monster: monster.expect("a missing section [MONSTER] has already ended the load with an error"),
            directories: directories
                .into_iter()
                .map(|(directory, _)| Directory { own_files: own_files.clone(), ..directory })
                .collect(),
            vessels: vessels.into_iter().map(|(vessel, _)| vessel).collect(),
            links,
            warnings,
            listing,
        };
        settings.find_places();
        Ok((settings, explained))
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

fn refused(file: &Path, line: Option<usize>, diagnostic: Diagnostic) -> SettingsError {
    let problems = Problems::new(file);
    problems.report(Place { line, ..Place::default() }, diagnostic);
    problems.finish().expect_err("a problem was reported")
}

/// What was read, for an explanation of the effective settings.
pub(super) struct Explained<'a, 's> {
    pub(super) cast: &'a Cast<'s>,
    /// The groups of each vessel, the one that takes precedence first.
    pub(super) groups: &'a [Vec<&'s Section>],
    pub(super) program: &'a View<'s>,
    /// The directories and vessels without errors.
    pub(super) directories: &'a [(Directory, Place)],
    pub(super) vessels: &'a [(Vessel, Place)],
}

impl<'a> Explained<'a, '_> {
    /// Returns the view of a directory's section.
    pub(super) fn of_directory(&self, name: &'a str, section: &'a Section) -> View<'a> {
        of_directory(self.program, name, section)
    }

    /// Returns the view of a vessel's section.
    pub(super) fn of_vessel(&self, name: &'a str, section: &'a Section, groups: &'a [&'a Section]) -> View<'a> {
        of_vessel(self.program, name, section, groups)
    }
}

fn of_directory<'a>(program: &View<'a>, name: &'a str, section: &'a Section) -> View<'a> {
    let placeholders = Placeholders { directory: Some(name), ..program.placeholders };
    View { name, own: Some(section), placeholders, ..*program }
}

fn of_vessel<'a>(program: &View<'a>, name: &'a str, section: &'a Section, groups: &'a [&'a Section]) -> View<'a> {
    let group = groups.first().and_then(|group| group.title.split_once(' ')).map(|(_, name)| name);
    let placeholders = Placeholders { vessel: Some(name), group, ..program.placeholders };
    View { name, own: Some(section), groups, placeholders, ..*program }
}

/// The file's sections by kind; directories and vessels with their names.
#[derive(Default)]
pub(super) struct Cast<'a> {
    pub(super) defaults: Option<&'a Section>,
    pub(super) monster: Option<&'a Section>,
    pub(super) directories: Vec<(&'a str, &'a Section)>,
    pub(super) links: Vec<(&'a str, &'a Section)>,
    groups: Vec<(&'a str, &'a Section)>,
    /// A section whose name contains a range is in the list once for each vessel.
    pub(super) vessels: Vec<(String, &'a Section)>,
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
                ("Directory" | "Vessel" | "Link" | "Group", name) => {
                    if let Err(diagnostic) = usable(name).and_then(|()| cast.add(word, name, section, problems)) {
                        problems.report(section.place(), diagnostic);
                        cast.strangers = true;
                    }
                    Some(match word {
                        "Directory" => SectionKind::Directory,
                        "Link" => SectionKind::Link,
                        _ => SectionKind::Vessel,
                    })
                }
                _ => {
                    problems.report(section.place(), all_keys::unknown_section(&section.title));
                    cast.strangers = true;
                    continue;
                }
            };
            check_keys(section, kind, problems);
            if word == "Group"
                && let Some(entry) = section.entry("Groups")
            {
                let diagnostic = Diagnostic::new("a group has no groups", "name them in the vessel's section");
                problems.report(section.place_of(entry), diagnostic);
            }
        }
        cast
    }

    fn add(&mut self, word: &str, name: &'a str, section: &'a Section, problems: &Problems) -> Result<(), Diagnostic> {
        match word {
            "Directory" => self.directories.push((name, section)),
            "Link" => self.links.push((name, section)),
            "Group" => self.groups.push((name, section)),
            _ => {
                for name in ranges::expand(name)? {
                    if let Some((_, other)) = self.vessels.iter().find(|(known, _)| *known == name) {
                        let message = format!("[Vessel {name}] is also one of [{}]", other.title);
                        let remedy = "take it out of the range, or set its keys in a group";
                        problems.report(section.place(), Diagnostic::new(message, remedy));
                        break;
                    }
                    self.vessels.push((name, section));
                }
            }
        }
        Ok(())
    }

    /// Returns the groups that a vessel names, the last one first, because it takes precedence.
    fn groups_of(&self, name: &str, section: &'a Section, program: &View<'a>) -> Vec<&'a Section> {
        let view = View { name, own: Some(section), ..*program };
        let Some((_, entry)) = view.find("Groups") else { return Vec::new() };
        let mut found: Vec<&Section> = Vec::new();
        for wanted in values::list(&entry.value) {
            match self.groups.iter().find(|(name, _)| *name == wanted) {
                // The last mention of a group counts.
                Some((_, group)) => {
                    found.retain(|known| known.title != group.title);
                    found.insert(0, group);
                }
                None => {
                    let remedy = match nearest(wanted, self.groups.iter().map(|(name, _)| *name)) {
                        Some(near) => format!("did you mean {near}?"),
                        None => format!("add a section [Group {wanted}]"),
                    };
                    let diagnostic = Diagnostic::new(format!("there is no [Group {wanted}]"), remedy);
                    program.problems.report(view.place_of("Groups"), diagnostic);
                }
            }
        }
        found
    }

    /// Warns of groups without a vessel, which are probably a mistake.
    fn check_groups(&self, used: &[Vec<&Section>], problems: &Problems) {
        for (name, section) in &self.groups {
            if !used.iter().flatten().any(|group| group.title == section.title) {
                let remedy = format!("write `Groups = {name}` in a [Vessel y], or remove this section");
                problems.warn(section.place(), Diagnostic::new("no vessel names this group", remedy));
            }
        }
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
