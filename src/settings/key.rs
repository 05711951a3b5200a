//! Metadata of a key: its section, default and meaning, and the effect of a change.

/// A kind of section with its own keys.
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
    /// Returns its header as written.
    pub fn header(self) -> &'static str {
        match self {
            Self::Monster => "[MONSTER]",
            Self::Directory => "[Directory x]",
            Self::Vessel => "[Vessel y]",
        }
    }
}

/// The default of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preset {
    /// It must be set.
    Required,
    /// This value, as written in the file.
    Value(&'static str),
    /// The default that this text describes.
    Otherwise(&'static str),
}

/// The vessels that a key applies to, by their `Transport`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// All of them.
    Any,
    /// Vessels over SSH.
    Ssh,
    /// Vessels that are this host.
    Local,
}

/// The effect of a reload that changes a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reload {
    /// None: the new value applies at once.
    AtOnce,
    /// The background tasks restart (scans, events, deletions); transfers continue.
    Background,
    /// The transfers of the section stop, and resume with the new value.
    Transfers,
    /// None until a restart.
    Restart,
}

/// Whether a value may be shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Secrecy {
    /// It may be shown.
    Plain,
    /// An address, which may contain a token.
    Address,
    /// A secret. It may also be in a file, named by the key with `File` appended, or in a credential.
    Secret,
}

/// A key of the settings.
#[derive(Clone, Copy, Debug)]
pub struct KnownKey {
    /// The kind of section it belongs to; every key may also be in `[DEFAULT]`.
    pub section: SectionKind,
    /// The key as written; in `RemoteLocation.x` the `x` stands for a directory's name.
    pub name: &'static str,
    /// Its default.
    pub preset: Preset,
    /// Its possible values, with unit and range.
    pub value: &'static str,
    /// Its description. A line feed begins a paragraph in the example file.
    pub doc: &'static str,
    /// A value for the example file, if there is no default to show.
    pub example: &'static str,
    /// The vessels that it applies to.
    pub transport: Transport,
    /// The effect of a change.
    pub reload: Reload,
    /// Whether its value may be shown.
    pub secrecy: Secrecy,
}

/// The prefix of a directory's name in a vessel's `RemoteLocation.x`.
pub(super) const PER_DIRECTORY: &str = "RemoteLocation.";

impl KnownKey {
    /// Returns whether a key as written is this one.
    pub(super) fn is_named(&self, written: &str) -> bool {
        self.name == written || self.is_per_directory() && written.starts_with(PER_DIRECTORY)
    }

    /// Returns whether its `x` stands for a directory's name.
    pub(super) fn is_per_directory(&self) -> bool {
        self.name.ends_with(".x")
    }
}
