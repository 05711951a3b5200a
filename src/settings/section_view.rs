//! The view of a section of the settings file while it is read: its own keys, then those of its groups and of
//! `[DEFAULT]`, and the context that the parsers of the values need.

use std::borrow::Cow;
use std::sync::Arc;

use super::environment::Environment;
use super::key::{Filled, KnownKey, Preset, Secrecy, Transport};
use super::lines::{Entry, Section};
use super::network_link::Link;
use super::placeholders::{self, Placeholders};
use super::problems::{Diagnostic, Place, Problems};
use super::values::Start;

/// A section, with its groups and `[DEFAULT]` as fallbacks.
#[derive(Clone, Copy)]
pub(super) struct View<'a> {
    pub(super) problems: &'a Problems,
    /// The section's name; the program's name for `[MONSTER]`.
    pub(super) name: &'a str,
    /// The section itself; `None` if the file doesn't contain it.
    pub(super) own: Option<&'a Section>,
    /// The groups of the vessel, the one that takes precedence first.
    pub(super) groups: &'a [&'a Section],
    pub(super) defaults: Option<&'a Section>,
    /// The values of the placeholders.
    pub(super) placeholders: Placeholders<'a>,
    /// Whether the section is a vessel with `Transport = local`. For such a vessel, keys for SSH in groups and in
    /// `[DEFAULT]` are ignored.
    pub(super) is_local: bool,
    pub(super) start: &'a Start,
    pub(super) environment: &'a Environment,
    /// The names of the configured directories.
    pub(super) directories: &'a [&'a str],
    /// The configured links whose sections are valid.
    pub(super) links: &'a [Arc<Link>],
    /// Whether the section of at least one link is invalid, so that `links` is incomplete.
    pub(super) lacks_links: bool,
}

impl<'a> View<'a> {
    /// Returns the section itself, then its groups, then `[DEFAULT]`.
    pub(super) fn layers(&self) -> impl Iterator<Item = &'a Section> + use<'a> {
        self.own.into_iter().chain(self.groups.iter().copied()).chain(self.defaults)
    }

    pub(super) fn find(&self, key: &str) -> Option<(&'a Section, &'a Entry)> {
        self.layers().find_map(|section| Some((section, section.entry(key)?)))
    }

    pub(super) fn sets(&self, key: &str) -> bool {
        self.find(key).is_some()
    }

    /// Returns the place of a key or, if the key is missing, of the section.
    pub(super) fn place_of(&self, key: &str) -> Place {
        match self.find(key) {
            Some((section, entry)) => section.place_of(entry),
            None => self.own.map(Section::place).unwrap_or_default().at_key(key),
        }
    }

    /// Returns the text of a key's value, or of its default, with placeholders filled. Returns `None` if there is no
    /// value to parse, or after reporting a missing key.
    pub(super) fn text_of(&self, key: &KnownKey) -> Option<Result<Cow<'a, str>, Diagnostic>> {
        let text = self.written_text_of(key)?;
        Some(match key.filled {
            Filled::No => Ok(Cow::Borrowed(text)),
            Filled::Here => self.placeholders.fill(text),
            // The other placeholders are filled later, for each vessel or event.
            Filled::Later => placeholders::check_spelling(text).map(|()| self.placeholders.fill_known(text)),
        })
    }

    fn written_text_of(&self, key: &KnownKey) -> Option<&'a str> {
        let view = if key.transport == Transport::Ssh { self.without_defaults_of_ssh() } else { *self };
        match (view.find(key.name), key.preset) {
            (Some((_, entry)), _) => Some(&entry.value),
            (None, Preset::Value(value)) => Some(value),
            // The value may come from another key, a file or a credential. The parser of this key gets an empty text,
            // and reads these sources.
            (None, Preset::Otherwise(_)) if key.secrecy == Secrecy::Secret || key.prefix().is_some() => Some(""),
            (None, Preset::Otherwise(_)) => None,
            // Keys with a link's name at the end, such as `Address.x`, may replace this required key.
            (None, Preset::Required) if self.has_per_name(key.name) => Some(""),
            (None, Preset::Required) => {
                if !self.own.is_some_and(|own| own.spoiled.iter().any(|spoiled| spoiled == key.name)) {
                    let remedy = format!("write `{} = …`, {}", key.name, key.value);
                    self.problems.report(self.place_of(key.name), Diagnostic::new("missing", remedy));
                }
                None
            }
        }
    }

    /// Returns whether the section has a key that consists of `key`, a `.` and another name, such as `Address.x`.
    fn has_per_name(&self, key: &str) -> bool {
        let is_one = |written: &str| written.strip_prefix(key).is_some_and(|rest| rest.starts_with('.'));
        self.layers().any(|section| section.entries.iter().any(|entry| is_one(&entry.key)))
    }

    /// Returns the view for keys that concern SSH. It has no groups and no `[DEFAULT]` if [`Self::is_local`] is set.
    pub(super) fn without_defaults_of_ssh(&self) -> Self {
        let groups = if self.is_local { &[] } else { self.groups };
        Self { groups, defaults: self.defaults.filter(|_| !self.is_local), ..*self }
    }
}
