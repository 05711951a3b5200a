//! The order in which files are sent: the priority of a directory, and the order of its files.

/// The priority of a directory's files. Files of the highest priority are sent first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Priority {
    /// Before everything else.
    Urgent,
    /// Before normal.
    High,
    /// The default.
    #[default]
    Normal,
    /// After normal.
    Low,
    /// After everything else.
    Bulk,
}

impl Priority {
    /// All priorities, the highest first.
    pub const ALL: [Self; 5] = [Self::Urgent, Self::High, Self::Normal, Self::Low, Self::Bulk];

    /// Returns the word in the settings.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Urgent => "urgent",
            Self::High => "high",
            Self::Normal => "normal",
            Self::Low => "low",
            Self::Bulk => "bulk",
        }
    }

    /// Returns the priority that a word in the settings names.
    pub(super) fn named(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|priority| priority.as_str() == word)
    }
}

/// The order in which the files of a directory are sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Order {
    /// The file that has waited longest comes first.
    #[default]
    Oldest,
    /// The file with the latest change comes first.
    Newest,
    /// The smallest file comes first.
    Smallest,
    /// The files are sorted by path.
    Name,
}

impl Order {
    /// Returns the word in the settings.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Oldest => "oldest",
            Self::Newest => "newest",
            Self::Smallest => "smallest",
            Self::Name => "name",
        }
    }
}
