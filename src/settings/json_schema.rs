//! A JSON schema of the settings, for editors and for tools that write settings. In the schema, the settings are an
//! object with a property for each section, and each section is an object with a property for each key. The schema is
//! generated from the tables of keys.

use serde_json::{Map, Value, json};

use super::all_keys::known_keys;
use super::key::{KnownKey, Preset, Secrecy, SectionKind};

/// Returns the schema (JSON Schema, draft 2020-12).
pub fn schema() -> Value {
    let section = |kinds: &[SectionKind], required: bool| {
        let keys: Vec<_> = known_keys().into_iter().filter(|key| kinds.contains(&key.section)).collect();
        let named = |key: &&&KnownKey| !key.name.ends_with(".x");
        let properties: Map<_, _> = keys.iter().filter(named).map(|key| (key.name.to_owned(), property(key))).collect();
        let patterns: Map<_, _> = keys
            .iter()
            .filter(|key| !named(key))
            .map(|key| (format!("^{}.+", key.name.trim_end_matches('x').replace('.', "\\.")), property(key)))
            .collect();
        let needed: Vec<_> =
            keys.iter().filter(|key| required && key.preset == Preset::Required).map(|key| key.name).collect();
        let mut section = json!({ "type": "object", "properties": properties, "additionalProperties": false });
        if !patterns.is_empty() {
            section["patternProperties"] = patterns.into();
        }
        if !needed.is_empty() {
            section["required"] = needed.into();
        }
        section
    };
    let all = [SectionKind::Monster, SectionKind::Directory, SectionKind::Link, SectionKind::Vessel];
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Settings of contentmonster",
        "description": "Each section of settings.ini is a property, and each key of the section a property of it. All values \
                        are texts, as they are written in the file.",
        "type": "object",
        "properties": {
            "MONSTER": section(&[SectionKind::Monster], false),
            "DEFAULT": section(&all, false),
        },
        "patternProperties": {
            "^Directory .+": section(&[SectionKind::Directory], true),
            "^Link .+": section(&[SectionKind::Link], true),
            // `Address` is not required here, because it may come from a group or from [DEFAULT].
            "^Vessel .+": section(&[SectionKind::Vessel], false),
            "^Group .+": section(&[SectionKind::Vessel], false),
        },
        "additionalProperties": false,
    })
}

fn property(key: &KnownKey) -> Value {
    let mut property = json!({ "type": "string", "description": format!("{} Accepts {}.", key.doc, key.value) });
    match key.preset {
        Preset::Value(value) => property["default"] = value.into(),
        Preset::Otherwise(_) | Preset::Required => property["examples"] = json!([key.example]),
    }
    if key.secrecy == Secrecy::Secret {
        property["writeOnly"] = true.into();
        property.as_object_mut().map(|property| property.remove("examples"));
    }
    property
}
