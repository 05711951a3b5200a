//! Groups the sections of the settings by kind, and checks their names and keys.

use super::all_keys;
use super::hints::nearest;
use super::key::SectionKind;
use super::lines::{self, Section};
use super::problems::{Diagnostic, Place, Problems};
use super::ranges;
use super::section_view::View;
use super::values;
use crate::text::is_plain;

/// The sections of the settings by kind. Sections with a name are listed with their name.
#[derive(Default)]
pub(super) struct Sections<'a> {
    pub(super) defaults: Option<&'a Section>,
    pub(super) monster: Option<&'a Section>,
    pub(super) directories: Vec<(&'a str, &'a Section)>,
    pub(super) links: Vec<(&'a str, &'a Section)>,
    groups: Vec<(&'a str, &'a Section)>,
    /// A section whose name contains a range is listed once for each vessel.
    pub(super) vessels: Vec<(String, &'a Section)>,
    /// Whether a section has an unknown kind or an invalid name. Such a section may be a misspelt directory or vessel,
    /// so a lack of directories or vessels is then not reported.
    has_unknown: bool,
}

impl<'a> Sections<'a> {
    /// Groups the sections, and reports unknown ones, unusable names and unknown keys.
    pub(super) fn of(sections: &'a [Section], problems: &Problems) -> Self {
        let mut found = Self::default();
        for section in sections {
            let (word, name) = section.title.split_once(' ').unwrap_or((&section.title, ""));
            let kind = match (word, name) {
                ("DEFAULT", "") => {
                    found.defaults = Some(section);
                    None
                }
                ("MONSTER", "") => {
                    found.monster = Some(section);
                    Some(SectionKind::Monster)
                }
                ("Directory" | "Vessel" | "Link" | "Group", name) => {
                    if let Err(diagnostic) = usable(name).and_then(|()| found.add(word, name, section, problems)) {
                        problems.report(section.place(), diagnostic);
                        found.has_unknown = true;
                    }
                    Some(match word {
                        "Directory" => SectionKind::Directory,
                        "Link" => SectionKind::Link,
                        _ => SectionKind::Vessel,
                    })
                }
                _ => {
                    problems.report(section.place(), all_keys::unknown_section(&section.title));
                    found.has_unknown = true;
                    continue;
                }
            };
            check_keys(section, kind, problems);
            if word == "Group"
                && let Some(entry) = section.entry("Groups")
            {
                let diagnostic =
                    Diagnostic::new("a group cannot have groups", "name the groups in the vessel's section");
                problems.report(section.place_of(entry), diagnostic);
            }
        }
        found
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
                        let remedy = "remove it from the range, or set its keys in a group";
                        problems.report(section.place(), Diagnostic::new(message, remedy));
                        break;
                    }
                    self.vessels.push((name, section));
                }
            }
        }
        Ok(())
    }

    /// Returns the groups that a vessel names. The last one comes first, because it takes precedence.
    pub(super) fn groups_of(&self, name: &str, section: &'a Section, program: &View<'a>) -> Vec<&'a Section> {
        let view = View { name, own: Some(section), ..*program };
        let Some((_, entry)) = view.find("Groups") else { return Vec::new() };
        let mut found: Vec<&Section> = Vec::new();
        for wanted in values::list(&entry.value) {
            match self.groups.iter().find(|(name, _)| *name == wanted) {
                // If a vessel names a group twice, the later mention counts.
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

    /// Warns of groups that no vessel names, which are probably a mistake.
    pub(super) fn check_groups(&self, used: &[Vec<&Section>], problems: &Problems) {
        for (name, section) in &self.groups {
            if !used.iter().flatten().any(|group| group.title == section.title) {
                let remedy = format!("write `Groups = {name}` in a [Vessel y], or remove this section");
                problems.warn(section.place(), Diagnostic::new("no vessel names this group", remedy));
            }
        }
    }

    /// Reports settings without a directory or without a vessel.
    pub(super) fn check_presence(&self, problems: &Problems) {
        let missing = |message, remedy| problems.report(Place::default(), Diagnostic::new(message, remedy));
        if self.directories.is_empty() && !self.has_unknown {
            missing("there is no directory to replicate", "add a section [Directory x] with its Location");
        }
        if self.vessels.is_empty() && !self.has_unknown {
            missing("there is no vessel to replicate to", "add a section [Vessel y] with its Address");
        }
    }
}

/// Checks the name of a section. Commas are rejected, because `Dirs` and `IgnoreDirs` separate names by commas.
fn usable(name: &str) -> Result<(), Diagnostic> {
    if name.is_empty() {
        return Err(Diagnostic::new(
            "the section has no name",
            "write a name after the kind of section, such as [Vessel backup]",
        ));
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
