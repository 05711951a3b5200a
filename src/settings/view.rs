//! A section as it is read: with `[DEFAULT]` and the table of keys behind it, and what values are read with.

use super::environment::Environment;
use super::keys::{self, Preset, SectionKind};
use super::lines::{Entry, Section};
use super::problems::{Diagnostic, Place, Problems};
use super::values::Start;

/// A section with `[DEFAULT]` behind it.
pub(super) struct View<'a> {
    pub(super) problems: &'a Problems,
    pub(super) kind: SectionKind,
    /// `None` when it isn't in the file.
    pub(super) own: Option<&'a Section>,
    pub(super) defaults: Option<&'a Section>,
}

impl<'a> View<'a> {
    /// The section itself, then `[DEFAULT]`.
    pub(super) fn layers(&self) -> impl Iterator<Item = &'a Section> + use<'a> {
        self.own.into_iter().chain(self.defaults)
    }

    pub(super) fn find(&self, key: &str) -> Option<(&'a Section, &'a Entry)> {
        self.layers().find_map(|section| Some((section, section.entry(key)?)))
    }

    /// Where a key stands, or the section that lacks it.
    pub(super) fn place_of(&self, key: &str) -> Place {
        match self.find(key) {
            Some((section, entry)) => section.place_of(entry),
            None => self.own.map(Section::place).unwrap_or_default().at_key(key),
        }
    }

    /// A key's value, or what holds when it isn't set; `None` when that is nothing, or after a report.
    pub(super) fn get<T>(&self, key: &'static str, read: impl FnOnce(&str) -> Result<T, Diagnostic>) -> Option<T> {
        let known = keys::known(self.kind, key).expect("only keys of the table are asked for");
        let found = match (self.find(key), known.preset) {
            (Some((_, entry)), _) => read(&entry.value),
            (None, Preset::Value(value)) => read(value),
            (None, Preset::Otherwise(_)) => return None,
            (None, Preset::Required)
                if self.own.is_some_and(|own| own.spoiled.iter().any(|spoiled| spoiled == key)) =>
            {
                return None;
            }
            (None, Preset::Required) => Err(Diagnostic::new("missing", format!("write `{key} = …`, {}", known.doc))),
        };
        found.map_err(|diagnostic| self.problems.report(self.place_of(key), diagnostic)).ok()
    }
}

/// What a vessel's section is read with.
pub(super) struct Surroundings<'a> {
    pub(super) start: &'a Start,
    pub(super) environment: &'a Environment,
    /// The names of the configured directories.
    pub(super) directories: &'a [&'a str],
}
