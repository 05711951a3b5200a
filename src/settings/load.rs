//! Loads [`Settings`] from the settings file: reads it, groups its sections by kind, converts each section into its
//! type, and checks all of them together.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::all_keys;
use super::database::Database;
use super::directory::{self, Directory, OwnFiles};
use super::environment::Environment;
use super::files;
use super::lines::Section;
use super::link_section;
use super::monster::{self, Monster};
use super::network_link::Link;
use super::overlap::Overlaps;
use super::placeholders::Placeholders;
use super::priority_keys;
use super::problems::{Diagnostic, Place, Problems, SettingsError};
use super::section_view::View;
use super::sections::Sections;
use super::values::Start;
use super::vessel::{self, Vessel};
use super::{checks, local, ranges, secrets};
use crate::names::{DirectoryName, RemotePath, VesselName};

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
    /// Warnings to be logged once, one line for each.
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
    /// Reads a settings file, with the files that it includes and the secrets that it names.
    ///
    /// # Errors
    /// If the file can't be read or isn't UTF-8; otherwise with every problem found in the settings.
    pub fn load(file: &Path) -> Result<Self, SettingsError> {
        let (text, mode) = files::text_of(file).map_err(|(line, diagnostic)| refused(file, line, diagnostic))?;
        let environment = Environment { settings_mode: Some(mode), ..Environment::from_process() };
        Self::parse(&text, file, &environment)
    }

    /// Returns the socket that a settings file names, or else the default socket. Works even if the settings have
    /// errors.
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

    /// Returns the names of the sections of a settings file and of the files that it includes. Works even if the
    /// settings have errors.
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
    /// directory. From the disk, it reads only the included files, the files of secrets and the ssh config; it also
    /// resolves the `Location`s on the disk.
    ///
    /// # Errors
    /// With every problem found, in the order of the lines.
    pub fn parse(text: &str, file: &Path, environment: &Environment) -> Result<Self, SettingsError> {
        Self::parse_and(text, file, environment, |_| ()).map(|(settings, ())| settings)
    }

    /// Checks a text as [`Self::parse`] does, and also returns the result of `explain` for the sections.
    pub(super) fn parse_and<T>(
        text: &str,
        file: &Path,
        environment: &Environment,
        explain: impl FnOnce(&Explained<'_, '_>) -> T,
    ) -> Result<(Self, T), SettingsError> {
        let problems = Problems::new(file);
        // This fails only if the current directory is unknown. The relative path then works as long as the current
        // directory isn't changed.
        let absolute = std::path::absolute(file).unwrap_or_else(|_| file.to_owned());
        let beside = absolute.parent().unwrap_or(Path::new("/")).to_owned();
        let start = Start { beside, home: environment.home.clone() };

        let files = files::read(text, file, &problems);
        check_modes(&files, file, environment, &problems);
        let sections = Sections::of(&files.sections, &problems);
        sections.check_presence(&problems);
        let names: Vec<&str> = sections.directories.iter().map(|(name, _)| *name).collect();
        let program = program_view(&problems, &sections, (&start, environment), &names);
        let monster = monster::read(&program);
        let links = read_links(&sections, &program);
        let program = View { links: &links, lacks_links: links.len() < sections.links.len(), ..program };
        let directories = read_directories(&sections, &program, monster.as_ref());
        let groups: Vec<Vec<&Section>> =
            sections.vessels.iter().map(|(name, section)| sections.groups_of(name, section, &program)).collect();
        let vessels = read_vessels((&sections, &groups), &program, monster.as_ref(), &directories);
        sections.check_groups(&groups, &problems);
        let read = Explained {
            sections: &sections,
            groups: &groups,
            program: &program,
            directories: &directories,
            vessels: &vessels,
        };
        read.check_links(monster.as_ref());
        let own_files = OwnFiles::of(&absolute, &files, &start, monster.as_ref(), &vessels);
        read.check_together(&own_files);
        let own_files = Arc::new(own_files);
        let explained = explain(&read);
        let included = files.included.iter().map(|(file, _)| std::path::absolute(file).unwrap_or(file.to_path_buf()));
        let files_read = std::iter::once(absolute.clone()).chain(included).collect();
        let listing = all_keys::listing(&files.sections);
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

    /// Converts the directories whose `Location` is a single file. The settings don't say which `Location`s are
    /// files, so `is_file` checks each `Location` on the disk.
    pub fn find_single_files(&mut self, is_file: impl Fn(&Path) -> bool) {
        let directories = std::mem::take(&mut self.directories).into_iter();
        let found = directories.map(|one| if is_file(&one.location) { one.of_one_file() } else { one });
        self.directories = found.collect();
        self.find_places();
    }

    /// Updates the directories' locations in the vessels with `Transport = local`.
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

/// The sections and the values that were read from them. Used to check them against each other and to explain the
/// effective values.
pub(super) struct Explained<'a, 's> {
    pub(super) sections: &'a Sections<'s>,
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

    /// Checks each link against `[MONSTER]`, the directories and the vessels.
    fn check_links(&self, monster: Option<&Monster>) {
        let Self { sections, program, directories, vessels, .. } = *self;
        let has_all_vessels = vessels.len() == sections.vessels.len();
        for (name, section) in &sections.links {
            let view = View { name, own: Some(section), ..*program };
            let link = program.links.iter().find(|link| link.name.as_str() == *name);
            if let (Some(link), Some(monster)) = (link, monster) {
                link_section::check_budget(&view, &link.budget, monster.chunk_size);
                priority_keys::check_reserve(&view, &link.budget, link.reserve, monster.chunk_size);
            }
            let uses = |(vessel, _): &(Vessel, Place)| vessel.ways.iter().any(|way| way.link.as_ref() == link);
            // A vessel or directory with errors is missing in the lists, but may use the link. So the link's priorities
            // are checked only if no vessel and no directory has errors.
            if let Some(link) = link.filter(|_| has_all_vessels && directories.len() == sections.directories.len()) {
                checks::priorities(&view, link, directories, vessels);
            }
            link_section::check_use(&view, !has_all_vessels || vessels.iter().any(uses));
        }
    }

    /// Checks the directories, the vessels and the program's own files against each other.
    fn check_together(&self, own_files: &OwnFiles) {
        let Self { directories, vessels, .. } = *self;
        let problems = self.program.problems;
        let overlaps = Overlaps::new(directories, vessels, problems);
        overlaps.check();
        checks::destinations(directories, vessels, problems);
        checks::windows(directories, vessels, problems);
        checks::ways(directories, vessels, problems);
        checks::shores(directories, vessels, problems);
        local::check_places(directories, &overlaps.reaches, vessels, problems);
        own_files.check(directories, &overlaps.reaches, problems);
    }
}

/// Warns of files with secrets that other users can read.
fn check_modes(files: &files::Files, file: &Path, environment: &Environment, problems: &Problems) {
    let included = files.included.iter().map(|(file, mode)| (Some(&**file), Some(*mode)));
    for (of, mode) in std::iter::once((None, environment.settings_mode)).chain(included) {
        let own: Vec<&Section> = files.sections.iter().filter(|section| section.file.as_deref() == of).collect();
        secrets::check_mode(&own, all_keys::holds_secret, of.unwrap_or(file), mode, problems);
    }
}

/// Returns the view of `[MONSTER]`. It has no links, because they are read later.
fn program_view<'a>(
    problems: &'a Problems,
    sections: &Sections<'a>,
    (start, environment): (&'a Start, &'a Environment),
    directories: &'a [&'a str],
) -> View<'a> {
    View {
        problems,
        name: "contentmonster",
        own: sections.monster,
        groups: &[],
        defaults: sections.defaults,
        placeholders: Placeholders { hostname: environment.hostname.as_deref(), ..Placeholders::default() },
        is_local: false,
        start,
        environment,
        directories,
        links: &[],
        lacks_links: false,
    }
}

fn read_links(sections: &Sections<'_>, program: &View<'_>) -> Vec<Arc<Link>> {
    let links = sections.links.iter();
    let read = |(name, section): &(&str, &Section)| link_section::read(&View { name, own: Some(section), ..*program });
    links.filter_map(read).map(Arc::new).collect()
}

fn read_directories(sections: &Sections<'_>, program: &View<'_>, monster: Option<&Monster>) -> Vec<(Directory, Place)> {
    let directories = sections.directories.iter().filter_map(|(name, section)| {
        Some((directory::read(&of_directory(program, name, section), monster)?, section.place()))
    });
    directories.collect()
}

fn read_vessels(
    (sections, groups): (&Sections<'_>, &[Vec<&Section>]),
    program: &View<'_>,
    monster: Option<&Monster>,
    directories: &[(Directory, Place)],
) -> Vec<(Vessel, Place)> {
    let vessels = sections.vessels.iter().zip(groups).filter_map(|((name, section), groups)| {
        let view = of_vessel(program, name, section, groups);
        Some((vessel::read(&view, monster, directories)?, section.place()))
    });
    vessels.collect()
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
