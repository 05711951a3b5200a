//! What is known of a key beside how it is read: where it belongs, its default, what it means, what a change disturbs.

/// A kind of section that has keys of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SectionKind {
    /// `[MONSTER]`
    Monster,
    /// `[Directory x]`
    Directory,
    /// `[Vessel y]`
    Vessel,
}

impl SectionKind {
    /// How its header is written.
    pub fn header(self) -> &'static str {
        match self {
            Self::Monster => "[MONSTER]",
            Self::Directory => "[Directory x]",
            Self::Vessel => "[Vessel y]",
        }
    }
}

/// What holds when a key isn't set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preset {
    /// It must be set.
    Required,
    /// This value, as it could be written in the file.
    Value(&'static str),
    /// What these words say.
    Otherwise(&'static str),
}

/// The vessels that a key means something for, by their `Transport`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// All of them.
    Any,
    /// Those that are reached by SSH.
    Ssh,
    /// Those that are this host.
    Local,
}

/// What a reload that changes a key disturbs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reload {
    /// Nothing: the new value holds at once.
    AtOnce,
    /// The tasks beside the transfers start anew (scans, events, deletions); transfers go on.
    Background,
    /// The transfers of the section: they stop, and resume under the new value.
    Transfers,
    /// Nothing, for a change waits for a restart.
    Restart,
}

/// Whether a value may be shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Secrecy {
    /// Whoever may run the program may see it.
    Plain,
    /// An address, which may hold a token.
    Address,
    /// A secret, which may also stand in the file that the key with `File` behind its name gives, or in a credential.
    Secret,
}

/// A key that the settings know.
#[derive(Clone, Copy, Debug)]
pub struct KnownKey {
    /// The kind of section it belongs to; every key may stand in `[DEFAULT]` too.
    pub section: SectionKind,
    /// The key as it is written; in `RemoteLocation.x` the `x` stands for a directory's name.
    pub name: &'static str,
    /// What holds when it isn't set.
    pub preset: Preset,
    /// Which values it takes, with unit and range.
    pub value: &'static str,
    /// What it means. A line feed begins a paragraph of the example.
    pub doc: &'static str,
    /// What the example shows where there is no default to show.
    pub example: &'static str,
    /// Which vessels it means something for.
    pub transport: Transport,
    /// What a change of it disturbs.
    pub reload: Reload,
    /// Whether its value may be shown.
    pub secrecy: Secrecy,
}

/// What stands before the name of a directory in a vessel's `RemoteLocation.x`.
pub(super) const PER_DIRECTORY: &str = "RemoteLocation.";

impl KnownKey {
    /// Whether this is what the key that is written so means.
    pub(super) fn is_named(&self, written: &str) -> bool {
        self.name == written || self.is_per_directory() && written.starts_with(PER_DIRECTORY)
    }

    /// Whether directories' names stand in the place of its `x`.
    pub(super) fn is_per_directory(&self) -> bool {
        self.name.ends_with(".x")
    }
}
