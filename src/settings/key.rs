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
    /// `[Link z]`
    Link,
}

impl SectionKind {
    /// Returns the section's header as written in the file.
    pub fn header(self) -> &'static str {
        match self {
            Self::Monster => "[MONSTER]",
            Self::Directory => "[Directory x]",
            Self::Vessel => "[Vessel y]",
            Self::Link => "[Link z]",
        }
    }
}

/// The default of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preset {
    /// No default: the key must be set.
    Required,
    /// This value, as written in the file.
    Value(&'static str),
    /// A default that can't be written in the file; the text describes this default.
    Otherwise(&'static str),
}

/// The vessels that a key applies to, by their `Transport`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// All vessels.
    Any,
    /// Vessels over SSH.
    Ssh,
    /// Vessels with `Transport = local`, whose files are copied on this host.
    Local,
}

/// The effect of a reload of the settings that changes a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reload {
    /// Nothing restarts: the new value applies at once.
    AtOnce,
    /// The background tasks restart (scans, events, deletions); transfers continue.
    Background,
    /// The transfers of the section stop, and resume with the new value.
    Transfers,
    /// The new value applies only after a restart of the program.
    Restart,
}

/// Whether a value may be shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Secrecy {
    /// The value may be shown.
    Plain,
    /// An address. Not shown, because it may contain a token.
    Address,
    /// A secret. It may also come from a file, which the key with the suffix `File` names, or from a systemd
    /// credential.
    Secret,
}

/// Whether placeholders such as `{vessel}` are filled in a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filled {
    /// Braces have no meaning.
    No,
    /// All placeholders are filled when the settings are read.
    Here,
    /// Placeholders that have a value in this section are filled when the settings are read, the others later, for each
    /// vessel or event.
    Later,
}

/// A key of the settings.
#[derive(Clone, Copy, Debug)]
pub struct KnownKey {
    /// The kind of section that the key belongs to; every key may also be in `[DEFAULT]`.
    pub section: SectionKind,
    /// The key as written in the file. In `RemoteLocation.x`, the `x` stands for the name of a directory; in
    /// `Address.x`, for the name of a link.
    pub name: &'static str,
    /// The default of the key.
    pub preset: Preset,
    /// The possible values of the key, with unit and range.
    pub value: &'static str,
    /// The description of the key. A line feed begins a paragraph in the example file.
    pub doc: &'static str,
    /// A value for the example file, if there is no default to show.
    pub example: &'static str,
    /// The vessels that the key applies to.
    pub transport: Transport,
    /// The effect of a reload that changes the key.
    pub reload: Reload,
    /// Whether the value may be shown.
    pub secrecy: Secrecy,
    /// Whether placeholders in the value are filled.
    pub filled: Filled,
}

/// The prefix of a directory's name in a vessel's `RemoteLocation.x`.
pub(super) const PER_DIRECTORY: &str = "RemoteLocation.";
/// The prefix of a link's name in a vessel's `Address.x`.
pub(super) const PER_LINK: &str = "Address.";

impl KnownKey {
    /// Returns whether `written` in the file is the name of this key.
    pub(super) fn is_named(&self, written: &str) -> bool {
        self.name == written || self.prefix().is_some_and(|prefix| written.starts_with(prefix))
    }

    /// Returns the prefix of a key that ends with a name: `RemoteLocation.` for `RemoteLocation.x`. `None` for other
    /// keys.
    pub(super) fn prefix(&self) -> Option<&'static str> {
        self.name.strip_suffix('x').filter(|prefix| prefix.ends_with('.'))
    }
}
