//! A row of the table of keys: a [`KnownKey`], and the field that its value goes to. CONTRIBUTING.md tells how to add one.

use super::key::{KnownKey, Preset, Reload, Secrecy, SectionKind, Transport};
use super::problems::Diagnostic;
use super::view::{View, Written};

/// A key of the section that becomes an `S`.
pub(super) struct Key<S: 'static> {
    pub(super) known: KnownKey,
    pub(super) field: Field<S>,
}

/// What becomes of a section, or of a part of it.
pub(super) trait Section {
    const KIND: SectionKind;
}

/// How a key reaches its field.
pub(super) struct Field<S: 'static> {
    /// Parses a value into the field.
    pub(super) set: fn(&mut S, &Written<'_>) -> Result<(), Diagnostic>,
    /// Gives the first the field of the second.
    pub(super) copy: fn(&mut S, &S),
}

impl<S> Field<S> {
    /// Of a key that another one reads.
    pub(super) const NONE: Self = Self { set: |_, _| Ok(()), copy: |_, _| () };
}

/// The field of a section, and what parses it: `field!(Directory.settle_time, Written::duration)`.
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

/// A row, to which the rest is added by the functions of [`Key`].
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
    };
    Key { known, field }
}

impl<S> Key<S> {
    /// Which values it takes. Its parser takes the bounds of sizes and durations from here: `a size from 0 to 1 GiB`.
    pub(super) const fn value(mut self, value: &'static str) -> Self {
        self.known.value = value;
        self
    }

    /// What it means.
    pub(super) const fn doc(mut self, doc: &'static str) -> Self {
        self.known.doc = doc;
        self
    }

    /// What the example shows where the default can't be written.
    pub(super) const fn example(mut self, example: &'static str) -> Self {
        self.known.example = example;
        self
    }

    /// Which vessels it means something for.
    pub(super) const fn transport(mut self, transport: Transport) -> Self {
        self.known.transport = transport;
        self
    }

    /// What a change of it disturbs; without this, the transfers of its section.
    pub(super) const fn reload(mut self, reload: Reload) -> Self {
        self.known.reload = reload;
        self
    }

    /// Whether its value may be shown; without this, it may.
    pub(super) const fn secrecy(mut self, secrecy: Secrecy) -> Self {
        self.known.secrecy = secrecy;
        self
    }
}

/// Reads a section's keys into their fields. False when one of them can't be read, which is reported.
pub(super) fn read<S>(keys: &[Key<S>], view: &View<'_>, section: &mut S) -> bool {
    let mut sound = true;
    for Key { known, field } in keys {
        let Some(text) = view.text_of(known) else {
            sound &= known.preset != Preset::Required;
            continue;
        };
        let written = Written { view, key: known, text };
        if let Err(diagnostic) = (field.set)(section, &written) {
            written.report(diagnostic);
            sound = false;
        }
    }
    sound
}
