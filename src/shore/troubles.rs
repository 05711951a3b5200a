//! Troubles: problems that keep a directory or an entry of it from being used. Each trouble has a [`Concern`], its
//! subject, and is cleared once it is resolved.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use super::Directory;
use crate::local::DiskError;
use crate::monitor::Event;
use crate::names::RelPath;
use crate::text::counted;

/// Maximum number of stored troubles. If there are more, further troubles of single directories and files are not
/// stored, because nobody would read them.
const MOST: usize = 1000;
/// Number of troubles that a summary lists in full.
const SPELT_OUT: usize = 3;

/// Subject of a trouble. The order of the variants is the order of importance.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Concern {
    /// There is no disk space for ledger entries of new files.
    DiskSpace,
    /// The location can't be used.
    Location,
    /// A file system does not respond.
    Unresponsive,
    /// All deletions in the directory are held back.
    Deletions,
    /// Deletions below this path are held back because another file system is mounted there than before.
    HeldBack(Vec<u8>),
    /// The directory is not watched completely. The next scan finds the changes that the watcher misses.
    Watch,
    /// A directory below the location can't be listed.
    Listing(PathBuf),
    /// A file can't be read.
    File(RelPath),
    /// A file can't be retired.
    Retirement(RelPath),
    /// There are more troubles than are stored.
    More,
}

/// The current troubles of a directory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Troubles(BTreeMap<Concern, String>);

impl Troubles {
    /// Returns whether there are no troubles.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns whether there is a trouble with this concern.
    pub fn has(&self, concern: &Concern) -> bool {
        self.0.contains_key(concern)
    }

    /// Returns all troubles, the most important first.
    pub fn all(&self) -> Vec<(Concern, String)> {
        self.0.iter().map(|(concern, text)| (concern.clone(), text.clone())).collect()
    }

    /// Returns all texts, most important first.
    pub fn texts(&self) -> impl Iterator<Item = &str> {
        self.0.values().map(String::as_str)
    }

    /// Returns the texts of the troubles that keep files from being handled: all except [`Concern::Watch`], which only
    /// delays them.
    pub fn undone(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter(|(concern, _)| **concern != Concern::Watch).map(|(_, text)| text.as_str())
    }

    /// Adds a trouble. Returns `true` if the trouble is new or its text has changed.
    fn add(&mut self, concern: Concern, text: &str) -> bool {
        if self.0.get(&concern).is_some_and(|known| known == text) {
            return false;
        }
        if self.0.len() >= MOST && !self.0.contains_key(&concern) && concern > Concern::Watch {
            let more = format!("more than {MOST} files have problems; the log names the first {MOST}");
            return self.0.insert(Concern::More, more).is_none();
        }
        self.0.insert(concern, text.to_owned());
        true
    }

    /// Removes the troubles for which `is_mended` returns `true`, and returns their texts.
    fn take(&mut self, is_mended: impl Fn(&Concern) -> bool) -> Vec<String> {
        let mut mended: Vec<String> =
            self.0.extract_if(.., |concern, _| is_mended(concern)).map(|(_, text)| text).collect();
        if self.0.len() < MOST {
            mended.extend(self.0.remove(&Concern::More));
        }
        mended
    }
}

impl fmt::Display for Troubles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, text) in self.texts().take(SPELT_OUT).enumerate() {
            write!(f, "{}{text}", if number == 0 { "" } else { "; also: " })?;
        }
        match self.0.len().saturating_sub(SPELT_OUT) {
            0 => Ok(()),
            more => write!(f, "; and {}", counted(more, "more problem")),
        }
    }
}

impl Concern {
    /// Returns the concern of a disk error, for callers that have no more specific concern.
    pub(super) fn of(error: &DiskError) -> Self {
        match error {
            DiskError::WatchLimit { .. } | DiskError::Location { act: "watch", .. } => Self::Watch,
            DiskError::Io { path, .. } => Self::Listing(path.clone()),
            _ => Self::Location,
        }
    }
}

impl Directory {
    /// Reports a trouble unless it is already known, and stores it until it is [cleared](Self::mended).
    pub(super) fn trouble_with(&self, concern: Concern, text: &str) {
        let mut news = false;
        self.trouble.send_if_modified(|troubles| {
            news = troubles.add(concern, text);
            news
        });
        if news {
            let name = &self.settings.name;
            tracing::error!(directory = %name, "{text}");
            self.monitor.notice(&Event::DirectoryAway { directory: name, reason: text });
        }
    }

    /// Clears the troubles for which `is_mended` returns `true`.
    pub(super) fn mended(&self, is_mended: impl Fn(&Concern) -> bool) {
        // Usually there are no troubles, so there is nothing to search.
        if self.trouble.borrow().is_empty() {
            return;
        }
        let mut mended = Vec::new();
        self.trouble.send_if_modified(|troubles| {
            mended = troubles.take(is_mended);
            !mended.is_empty()
        });
        for text in mended {
            tracing::info!(directory = %self.settings.name, "Resolved: {text}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(number: usize) -> Concern {
        Concern::File(RelPath::new(number.to_string()).unwrap())
    }

    #[test]
    fn a_trouble_is_news_once_and_again_after_it_was_mended() {
        let mut troubles = Troubles::default();
        assert!(troubles.add(file(1), "can't read 1"));
        assert!(!troubles.add(file(1), "can't read 1"));
        assert!(troubles.add(Concern::Location, "is away"));
        assert_eq!(troubles.to_string(), "is away; also: can't read 1");
        assert_eq!(troubles.take(|concern| *concern == file(1)), ["can't read 1"]);
        assert_eq!(troubles.to_string(), "is away");
        assert!(troubles.add(file(1), "can't read 1"));
    }

    #[test]
    fn what_only_costs_time_leaves_nothing_undone() {
        let mut troubles = Troubles::default();
        troubles.add(Concern::Watch, "not watched");
        assert_eq!((troubles.undone().count(), troubles.is_empty()), (0, false));
    }

    #[test]
    fn a_million_troubles_are_not_all_remembered() {
        let mut troubles = Troubles::default();
        for number in 0..MOST * 2 {
            troubles.add(file(number), "can't be read");
        }
        assert!(troubles.0.len() <= MOST + 1 && troubles.has(&Concern::More));
        assert!(troubles.to_string().ends_with("more problems"), "{troubles}");
        troubles.take(|concern| *concern == file(1) || *concern == file(2));
        assert!(!troubles.has(&Concern::More));
    }
}
