//! All keys by section, and diagnostics for unknown names.
//!
//! Each key is one row in the table `KEYS` of its section's file, with its name, default, description and parser, and
//! the field that it fills. `CONTRIBUTING.md` says how to add one.

use super::hints::nearest;
use super::key::{KnownKey, Preset, Secrecy, SectionKind};
use super::lines::{Entry, Section, shown};
use super::problems::Diagnostic;
use super::{directory, link_section, monster, vessel, vessel_route};

/// Returns all keys, section by section.
pub fn known_keys() -> Vec<&'static KnownKey> {
    all().collect()
}

fn all() -> impl Iterator<Item = &'static KnownKey> {
    let monster = monster::KEYS.iter().map(|key| &key.known);
    let directory = directory::KEYS.iter().map(|key| &key.known);
    let vessel = vessel_route::KEYS.iter().map(|key| &key.known).chain(vessel::KEYS.iter().map(|key| &key.known));
    let link = link_section::KEYS.iter().map(|key| &key.known);
    monster.chain(directory).chain(vessel).chain(link)
}

/// Returns the key with this name in a kind of section. For a vessel, `RemoteLocation.` with any name after it finds
/// `RemoteLocation.x`, and `Address.` with any name finds `Address.x`.
pub(super) fn known(kind: SectionKind, name: &str) -> Option<&'static KnownKey> {
    all().find(|key| key.section == kind && key.is_named(name))
}

/// Returns whether any kind of section has this key.
pub(super) fn is_key(name: &str) -> bool {
    all().any(|key| key.name == name)
}

/// Returns whether the value of this key is a secret.
pub(super) fn holds_secret(name: &str) -> bool {
    all().any(|key| key.name == name && key.secrecy == Secrecy::Secret)
}

/// Returns whether the value of this key is the path of a file with a secret.
pub(super) fn names_secret_file(name: &str) -> bool {
    name.strip_suffix("File").is_some_and(holds_secret)
}

/// Lists the keys of `sections` for the command `check`, a line for each with its value and default. Values that may
/// contain secrets are not shown.
pub(super) fn listing(sections: &[Section]) -> Vec<String> {
    let entries = sections.iter().flat_map(|section| section.entries.iter().map(move |entry| (section, entry)));
    let line = |(section, entry): (&Section, &Entry)| {
        let word = section.title.split(' ').next().map(|word| if word == "Group" { "Vessel" } else { word });
        let here = |key: &&KnownKey| key.section.header()[1..].split([' ', ']']).next() == word;
        let named = || all().filter(|key| key.is_named(&entry.key));
        let is_plain = named().all(|key| key.secrecy == Secrecy::Plain);
        let value = if is_plain { entry.value.as_str() } else { "(not shown)" };
        let default = match named().find(|key| here(key)).map(|key| key.preset) {
            Some(Preset::Value("")) => " (default: nothing)".to_owned(),
            Some(Preset::Value(text) | Preset::Otherwise(text)) if text.len() < 80 => format!(" (default: {text})"),
            _ => String::new(),
        };
        format!("[{}] {} = {value}{default}", section.title, entry.key)
    };
    entries.map(line).collect()
}

/// Returns the diagnostic for a key that sections of `kind` don't have. `None` is `[DEFAULT]`, where every key is
/// allowed.
pub(super) fn unknown(kind: Option<SectionKind>, key: &str) -> Diagnostic {
    let here = |known: &KnownKey| kind.is_none_or(|kind| known.section == kind);
    let mut namesakes = all().filter(|known| known.name == shown(key)).peekable();
    if let Some(first) = namesakes.peek().copied() {
        if namesakes.any(&here) {
            let message = "unexpected text between the key and the `=`";
            return Diagnostic::new(message, format!("write `{} = value`", first.name));
        }
        return elsewhere(first);
    }
    if let Some(found) = known(SectionKind::Vessel, key) {
        return elsewhere(found);
    }
    let candidates: Vec<_> = all().filter(|known| here(known)).map(|known| known.name).collect();
    let remedy = match nearest(key, candidates.iter().copied()) {
        Some(near) => format!("did you mean {near}?"),
        None if kind.is_none() => "[DEFAULT] accepts only keys of the other sections".to_owned(),
        None => format!("known here: {}", candidates.join(", ")),
    };
    Diagnostic::new("unknown key", remedy)
}

/// Returns the diagnostic for a key of another kind of section.
fn elsewhere(key: &KnownKey) -> Diagnostic {
    let homes: Vec<_> = all().filter(|known| known.name == key.name).map(|known| known.section.header()).collect();
    Diagnostic::new("does not belong here", format!("it is a key of {}", homes.join(" and ")))
}

/// Returns the diagnostic for an unknown section.
pub(super) fn unknown_section(title: &str) -> Diagnostic {
    let (kind, name) = title.split_once(' ').unwrap_or((title, "x"));
    let near = nearest(kind, ["MONSTER", "DEFAULT", "Directory", "Vessel", "Link", "Group"]);
    let remedy = match near {
        Some(kind @ ("Directory" | "Vessel" | "Link" | "Group")) => format!("did you mean [{kind} {name}]?"),
        Some(kind) => format!("did you mean [{kind}]?"),
        None => "known are [MONSTER], [Directory x], [Vessel y], [Link z], [Group w] and [DEFAULT]".to_owned(),
    };
    Diagnostic::new("unknown section", remedy)
}

#[cfg(test)]
mod tests {
    use super::SectionKind::{Directory, Monster, Vessel};
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
        assert!(unknown(Some(Monster), "Colour").remedy.starts_with("known here: ChunkSize, Cache, Database"));
        assert_eq!(unknown(Some(Directory), "Port").remedy, "it is a key of [Vessel y]");
        assert_eq!(
            unknown(Some(Directory), "RateLimit").remedy,
            "it is a key of [MONSTER] and [Vessel y] and [Link z]"
        );
        assert_eq!(unknown(Some(Vessel), "RateLimit 1").remedy, "write `RateLimit = value`");
        assert_eq!(nearest(&"x".repeat(10_000), ["x"]), None);
    }

    #[test]
    fn misspelt_sections_find_what_was_meant() {
        for (written, meant) in [
            ("Vesel a b", "did you mean [Vessel a b]?"),
            ("directory a", "did you mean [Directory a]?"),
            ("Monster", "did you mean [MONSTER]?"),
            ("default", "did you mean [DEFAULT]?"),
            ("Server a", "known are [MONSTER], [Directory x], [Vessel y], [Link z], [Group w] and [DEFAULT]"),
        ] {
            assert_eq!(unknown_section(written).remedy, meant, "{written}");
        }
    }
}
