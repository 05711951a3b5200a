//! The table of keys: what can be set where, what it means, and what holds when it isn't set.
//!
//! Also what a misspelt name may have meant. Knows no values of a particular file.

use super::problems::Complaint;
use Preset::{Otherwise, Required, Value};
use SectionKind::{Directory, Monster, Vessel};

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

/// A key that the settings know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KnownKey {
    /// The kind of section it belongs to; every key may stand in `[DEFAULT]` too.
    pub section: SectionKind,
    /// The key as it is written; in `RemoteLocation.x` the `x` stands for a directory's name.
    pub name: &'static str,
    /// What holds when it isn't set.
    pub preset: Preset,
    /// What it means, with unit and range, in a line.
    pub doc: &'static str,
}

pub(super) const PER_DIRECTORY: &str = "RemoteLocation.";

#[rustfmt::skip]
const TABLE: &[KnownKey] = &[
    key(Monster, "ChunkSize", Value("10485760"), "size of the pieces that files are cut into; bytes or with unit; 64 KiB to 1 GiB"),
    key(Monster, "Database", Value("database.sqlite3"), "the ledger's file; relative to the settings file"),
    key(Directory, "Location", Required, "where the directory lies on the shore; relative to the settings file"),
    key(Directory, "RemoteLocation", Otherwise("the same path as Location"), "where its files go on the vessels; absolute, or relative to the login directory"),
    key(Directory, "SettleTime", Value("2s"), "how long a file must stay unchanged when nobody was seen to close it; 10ms to 1d"),
    key(Directory, "RescanInterval", Value("60s"), "how often the whole directory is looked through; 1s to 1d"),
    key(Directory, "IgnoreNames", Value("*.part, *.partial, *.tmp, *~, .*.sw?, *.crdownload, *.filepart"), "file names that are left alone: globs, separated by commas; `none` for none"),
    key(Vessel, "Address", Required, "host name or IP address"),
    key(Vessel, "Port", Value("22"), "port of the SSH server; 1 to 65535"),
    key(Vessel, "Username", Otherwise("who runs contentmonster"), "user to log in as"),
    key(Vessel, "Password", Otherwise("none: log in with a key"), "password to log in with"),
    key(Vessel, "PasswordFile", Otherwise("none"), "file whose first line is the password; relative to the settings file, or a systemd credential"),
    key(Vessel, "IdentityFile", Otherwise("the agent, and the usual keys in ~/.ssh"), "private keys to log in with, separated by commas; relative to the settings file"),
    key(Vessel, "Passphrase", Otherwise("none"), "passphrase of the private keys"),
    key(Vessel, "PassphraseFile", Otherwise("none"), "file whose first line is the passphrase; like PasswordFile"),
    key(Vessel, "HostKey", Otherwise("known_hosts decides"), "the only host keys taken: SHA256 fingerprints, separated by commas"),
    key(Vessel, "HostKeyPolicy", Value("strict"), "`strict`: only known host keys; `accept-new`: the first key of an unknown host is taken and recorded"),
    key(Vessel, "TempDir", Value("/tmp/.ContentMonster"), "where chunks are kept on the vessel; absolute, or relative to the login directory"),
    key(Vessel, "Timeout", Value("10s"), "deadline for connecting, logging in, and any answer; 1s to 1h"),
    key(Vessel, "IgnoreDirs", Value(""), "names of the directories that don't go to this vessel, separated by commas"),
    key(Vessel, "RemoteLocation.x", Otherwise("the RemoteLocation of the directory"), "where directory x goes on this vessel"),
];

const fn key(section: SectionKind, name: &'static str, preset: Preset, doc: &'static str) -> KnownKey {
    KnownKey { section, name, preset, doc }
}

/// Every key there is, section by section.
pub fn known_keys() -> &'static [KnownKey] {
    TABLE
}

/// The key of a kind of section; any `RemoteLocation.…` of a vessel is `RemoteLocation.x`.
pub(super) fn known(kind: SectionKind, name: &str) -> Option<&'static KnownKey> {
    let name = if kind == Vessel && name.starts_with(PER_DIRECTORY) { "RemoteLocation.x" } else { name };
    TABLE.iter().find(|key| key.section == kind && key.name == name)
}

/// What may be shown of a key. A line with its `=` in the wrong place may hold a secret before it.
pub(super) fn shown(key: &str) -> &str {
    if key.starts_with(PER_DIRECTORY) {
        return key;
    }
    key.split(|c: char| c.is_whitespace() || c == ':').next().unwrap_or_default()
}

/// What to say of a key that `kind` (`None`: `[DEFAULT]`, where every key may stand) doesn't know.
pub(super) fn unknown(kind: Option<SectionKind>, key: &str) -> Complaint {
    let here = |known: &&KnownKey| kind.is_none_or(|kind| known.section == kind);
    if let Some(found) = TABLE.iter().find(|known| known.name == shown(key)) {
        if here(&found) {
            let message = "there is more than the key before the `=`";
            return Complaint::new(message, format!("write `{} = value`", found.name));
        }
        return elsewhere(found);
    }
    if let Some(found) = known(Vessel, key) {
        return elsewhere(found);
    }
    let candidates: Vec<_> = TABLE.iter().filter(here).map(|known| known.name).collect();
    let remedy = match nearest(key, candidates.iter().copied()) {
        Some(near) => format!("did you mean {near}?"),
        None if kind.is_none() => "every key of every section may stand here, no other".to_owned(),
        None => format!("known here: {}", candidates.join(", ")),
    };
    Complaint::new("unknown key", remedy)
}

/// What to say of a key of another kind of section.
fn elsewhere(key: &KnownKey) -> Complaint {
    Complaint::new("does not belong here", format!("it is a key of {}", header(key.section)))
}

/// What to say of a section that is none of ours.
pub(super) fn unknown_section(title: &str) -> Complaint {
    let (kind, name) = title.split_once(' ').unwrap_or((title, "x"));
    let near = nearest(kind, ["MONSTER", "DEFAULT", "Directory", "Vessel"]);
    let remedy = match near {
        Some(kind @ ("Directory" | "Vessel")) => format!("did you mean [{kind} {name}]?"),
        Some(kind) => format!("did you mean [{kind}]?"),
        None => "known are [MONSTER], [Directory x], [Vessel y] and [DEFAULT]".to_owned(),
    };
    Complaint::new("unknown section", remedy)
}

/// How the header of a kind of section is written.
fn header(kind: SectionKind) -> &'static str {
    match kind {
        Monster => "[MONSTER]",
        Directory => "[Directory x]",
        Vessel => "[Vessel y]",
    }
}

/// The candidate that a misspelt word most probably means, if any is near: a third of its letters may differ.
pub(super) fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let fold = |text: &str| -> String { text.to_lowercase().replace([' ', '_', '-'], "") };
    let folded = fold(word);
    // Nobody misspells a name that long, and the distance costs the square of its length.
    if folded.len() > 200 {
        return None;
    }
    let distances = candidates.into_iter().map(|c| (strsim::damerau_levenshtein(&folded, &fold(c)), c));
    let (distance, near) = distances.min_by_key(|(distance, _)| *distance)?;
    (distance <= near.chars().count().div_ceil(3)).then_some(near)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn misspelt_keys_find_what_was_meant() {
        for (written, meant) in [
            ("Prot", "Port"),
            ("port", "Port"),
            ("Adress", "Address"),
            ("Host Key", "HostKey"),
            ("temp_dir", "TempDir"),
            ("IgnoreDir", "IgnoreDirs"),
            ("remotelocation.x", "RemoteLocation.x"),
        ] {
            assert_eq!(unknown(Some(Vessel), written).remedy, format!("did you mean {meant}?"), "{written}");
        }
        assert!(unknown(Some(Monster), "Colour").remedy.starts_with("known here: ChunkSize, Database"));
        assert_eq!(unknown(Some(Directory), "Port").remedy, "it is a key of [Vessel y]");
        assert_eq!(nearest(&"x".repeat(10_000), ["x"]), None);
    }

    #[test]
    fn misspelt_sections_find_what_was_meant() {
        for (written, meant) in [
            ("Vesel a b", "did you mean [Vessel a b]?"),
            ("directory a", "did you mean [Directory a]?"),
            ("Monster", "did you mean [MONSTER]?"),
            ("default", "did you mean [DEFAULT]?"),
            ("Server a", "known are [MONSTER], [Directory x], [Vessel y] and [DEFAULT]"),
        ] {
            assert_eq!(unknown_section(written).remedy, meant, "{written}");
        }
    }

    #[test]
    fn what_may_be_a_secret_is_not_shown() {
        assert_eq!(shown("Password hunter2"), "Password");
        assert_eq!(shown("Password:hunter2"), "Password");
        assert_eq!(shown("RemoteLocation.a b: c"), "RemoteLocation.a b: c");
    }
}
