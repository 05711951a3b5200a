//! A row in the table of keys: a [`KnownKey`] and the field that it fills. CONTRIBUTING.md explains how to add one.

use super::key::{Filled, KnownKey, Preset, Reload, Secrecy, SectionKind, Transport};
use super::problems::Diagnostic;
use super::section_view::View;
use super::written_value::Written;

/// A key of the section type `S`.
pub(super) struct Key<S: 'static> {
    pub(super) known: KnownKey,
    pub(super) field: Field<S>,
}

/// The type of a section, or of a part of a section.
pub(super) trait Section {
    const KIND: SectionKind;
}

/// Access to the field of a key.
pub(super) struct Field<S: 'static> {
    /// The function that parses a value into the field.
    pub(super) set: fn(&mut S, &Written<'_>) -> Result<(), Diagnostic>,
    /// The function that copies the field of the second section to the first.
    pub(super) copy: fn(&mut S, &S),
}

impl<S> Field<S> {
    /// No field, for a key that is read together with another key (`PasswordFile`) or before all others (`Include`).
    pub(super) const NONE: Self = Self { set: |_, _| Ok(()), copy: |_, _| () };
}

/// Creates the field of a section with its parser: `field!(Directory.settle_time, Written::duration)`.
macro_rules! field {
    ($section:ident.$($field:ident).+, $parse:expr) => {
        $crate::settings::table::Field::<$section> {
            set: |section, written| {
                section.$($field).+ = written.parsed($parse)?;
                Ok(())
            },
            copy: |section, other| section.$($field).+.clone_from(&other.$($field).+),
        }
    };
}
pub(super) use field;

/// Creates a row with defaults, which the methods of [`Key`] change.
pub(super) const fn key<S: Section>(name: &'static str, preset: Preset, field: Field<S>) -> Key<S> {
    let known = KnownKey {
        section: S::KIND,
        name,
        preset,
        value: "",
        doc: "",
        example: "",
        transport: Transport::Any,
        reload: Reload::Transfers,
        secrecy: Secrecy::Plain,
        filled: Filled::No,
    };
    Key { known, field }
}

impl<S> Key<S> {
    /// Sets the possible values of the key. The parser takes the bounds of sizes and durations from this text: `a size
    /// from 0 to 1 GiB`.
    pub(super) const fn value(mut self, value: &'static str) -> Self {
        self.known.value = value;
        self
    }

    /// Sets the description of the key.
    pub(super) const fn doc(mut self, doc: &'static str) -> Self {
        self.known.doc = doc;
        self
    }

    /// Sets the key's value in the example file, for a key whose default can't be written.
    pub(super) const fn example(mut self, example: &'static str) -> Self {
        self.known.example = example;
        self
    }

    /// Sets the vessels that the key applies to.
    pub(super) const fn transport(mut self, transport: Transport) -> Self {
        self.known.transport = transport;
        self
    }

    /// Sets the effect of a change of the value; default: the transfers of the section restart.
    pub(super) const fn reload(mut self, reload: Reload) -> Self {
        self.known.reload = reload;
        self
    }

    /// Sets whether placeholders in the value are filled; default: they are not.
    pub(super) const fn filled(mut self, filled: Filled) -> Self {
        self.known.filled = filled;
        self
    }

    /// Sets whether the value may be shown; default: it may.
    pub(super) const fn secrecy(mut self, secrecy: Secrecy) -> Self {
        self.known.secrecy = secrecy;
        self
    }
}

/// Reads a section's keys into their fields. Reports invalid and missing keys, and returns `false` if there are any.
pub(super) fn read<S>(keys: &[Key<S>], view: &View<'_>, section: &mut S) -> bool {
    let mut sound = true;
    for Key { known, field } in keys {
        let Some(text) = view.text_of(known) else {
            sound &= known.preset != Preset::Required;
            continue;
        };
        let text = match text {
            Ok(text) => text,
            Err(diagnostic) => {
                view.problems.report(view.place_of(known.name), diagnostic);
                sound = false;
                continue;
            }
        };
        let written = Written { view, key: known, text: &text };
        if let Err(diagnostic) = (field.set)(section, &written) {
            written.report(diagnostic);
            sound = false;
        }
    }
    sound
}
