//! A value of a key, with parsers for common types that check the bounds.

use std::path::PathBuf;
use std::time::Duration;

use super::key::KnownKey;
use super::problems::Diagnostic;
use super::section_view::View;
use super::units;

/// A value as written in the file, or the default.
pub(super) struct Written<'a> {
    pub(super) view: &'a View<'a>,
    pub(super) key: &'a KnownKey,
    pub(super) text: &'a str,
}

impl Written<'_> {
    /// Parses the value with a parser that also needs the context.
    pub(super) fn parsed<T>(&self, parse: impl FnOnce(&Self) -> Result<T, Diagnostic>) -> Result<T, Diagnostic> {
        parse(self)
    }

    /// Reports a problem of the value.
    pub(super) fn report(&self, diagnostic: Diagnostic) {
        self.view.problems.report(self.view.place_of(self.key.name), diagnostic);
    }

    /// Returns the diagnostic for an invalid value.
    pub(super) fn invalid(&self) -> Diagnostic {
        Diagnostic::new(format!("invalid value `{}`", self.text), format!("expected {}", self.key.value))
    }

    /// Parses the value with a parser that only needs the text.
    pub(super) fn accept<T>(&self, parse: impl FnOnce(&str) -> Option<T>) -> Result<T, Diagnostic> {
        parse(self.text).ok_or_else(|| self.invalid())
    }

    /// Returns the choice whose word is the value.
    pub(super) fn choice<T: Clone>(&self, choices: &[(&str, T)]) -> Result<T, Diagnostic> {
        self.accept(|text| choices.iter().find(|(word, _)| *word == text).map(|(_, choice)| choice.clone()))
    }

    /// Parses `yes` or `no`.
    pub(super) fn yes_or_no(&self) -> Result<bool, Diagnostic> {
        self.choice(&[("yes", true), ("no", false)])
    }

    /// Parses a duration within the bounds in the key's row.
    pub(super) fn duration(&self) -> Result<Duration, Diagnostic> {
        self.within(units::duration, ("0", "36500d"))
    }

    /// Parses a size within the bounds in the key's row.
    pub(super) fn size(&self) -> Result<u64, Diagnostic> {
        self.within(units::size, ("0", "8388607 TiB"))
    }

    /// Parses a value within the bounds in the key's row, such as `a size from 0 to 1 GiB`; without bounds, `widest`
    /// applies.
    fn within<T: PartialOrd>(
        &self,
        parse: impl Fn(&str) -> Option<T>,
        widest: (&'static str, &'static str),
    ) -> Result<T, Diagnostic> {
        let named = self.key.value.split_once(" from ").and_then(|(_, bounds)| bounds.split_once(" to "));
        let (least, most) = named.unwrap_or(widest);
        let [least, most] = [least, most].map(|bound| parse(bound).expect("the bounds in a key's row can be parsed"));
        self.accept(|text| parse(text).filter(|found| (least..=most).contains(found)))
    }

    /// Parses a path on this host.
    pub(super) fn path(&self) -> Result<PathBuf, Diagnostic> {
        self.view.start.path(self.text)
    }

    /// Parses paths on this host, separated by commas.
    pub(super) fn paths(&self) -> Result<Vec<PathBuf>, Diagnostic> {
        self.view.start.paths(self.text)
    }
}
