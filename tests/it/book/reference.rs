//! What is written from the tables of keys: `settings.example.ini`, and the chapter of the book with the settings.
//!
//! `CONTENTMONSTER_REWRITE=1 cargo test --test it book::reference` writes both anew.

use std::fmt::Write;
use std::path::Path;

use contentmonster::settings::{KnownKey, Preset, Reload, SectionKind, Transport, known_keys};

/// The longest line of the example.
const WIDTH: usize = 120;

/// The sections of the example: what is said of each, and its header.
const SECTIONS: [(SectionKind, &str, &str); 4] = [
    (SectionKind::Monster, "Settings of the whole program.", "[MONSTER]"),
    (
        SectionKind::Directory,
        "A directory to replicate, one section for each. Its name may be any text without a comma.",
        "[Directory sampledir]",
    ),
    (
        SectionKind::Vessel,
        "A host to replicate to, one section for each. It needs an SSH server with SFTP, unless it is this host.",
        "[Vessel samplevessel]",
    ),
    (
        SectionKind::Link,
        "A link over which vessels are reached, one section for each. Vessels name it in Address.x.",
        "[Link samplelink]",
    ),
];

fn example() -> String {
    let mut text = include_str!("example_head.ini").to_owned();
    for (kind, intro, header) in SECTIONS {
        let _ = write!(text, "\n\n{}{header}\n", comment(intro));
        let entries: Vec<String> = known_keys().into_iter().filter(|key| key.section == kind).map(example_of).collect();
        text += &entries.join("\n");
    }
    text
}

/// A key in the example.
fn example_of(key: &KnownKey) -> String {
    let KnownKey { doc, value, example, .. } = key;
    let name =
        key.name.replace("RemoteLocation.x", "RemoteLocation.sampledir").replace("Address.x", "Address.samplelink");
    match key.preset {
        Preset::Required => format!("{}{name} = {example}\n", comment(&format!("Required. {doc}"))),
        Preset::Value(default) => {
            let line = format!("# {name} = {default}");
            format!("{}{}\n", comment(&format!("{doc} Accepts {value}.")), line.trim_end())
        }
        Preset::Otherwise(default) => {
            format!("{}# {name} = {example}\n", comment(&format!("{doc} Accepts {value}. Default: {default}.")))
        }
    }
}

/// Words in lines that begin with `#`.
fn comment(words: &str) -> String {
    let mut text = String::from("#");
    let mut length = 1;
    for word in unbroken(words) {
        let more = 1 + word.chars().count();
        let breaks = length + more > WIDTH;
        text += if breaks { "\n# " } else { " " };
        text += &word;
        length = if breaks { 1 + more } else { length + more };
    }
    text + "\n"
}

/// The words of a text; what stands in backquotes is one.
fn unbroken(text: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match words.last_mut().filter(|last| last.matches('`').count() % 2 == 1) {
            Some(open) => *open += &format!(" {word}"),
            None => words.push(word.to_owned()),
        }
    }
    words
}

fn chapter() -> String {
    let mut text = include_str!("reference_head.md").to_owned();
    for (kind, intro, _) in SECTIONS {
        let vessel = kind == SectionKind::Vessel;
        let _ = write!(text, "\n## `{}`\n\n{intro}\n\n", kind.header());
        text += if vessel {
            "| key | meaning | values | default | transport | reload |\n|---|---|---|---|---|---|\n"
        } else {
            "| key | meaning | values | default | reload |\n|---|---|---|---|---|\n"
        };
        for key in known_keys().into_iter().filter(|key| key.section == kind) {
            let default = match key.preset {
                Preset::Required => "required".to_owned(),
                Preset::Value("") => "nothing".to_owned(),
                Preset::Value(default) => format!("`{}`", default.replace('|', "\\|")),
                Preset::Otherwise(default) => escaped(default),
            };
            let _ = write!(text, "| `{}` | {} | {} | {default} |", key.name, escaped(key.doc), escaped(key.value));
            if vessel {
                let _ = write!(text, " {} |", transport(key.transport));
            }
            let _ = writeln!(text, " {} |", reload(key.reload));
        }
    }
    text
}

fn transport(transport: Transport) -> &'static str {
    match transport {
        Transport::Any => "any",
        Transport::Ssh => "ssh",
        Transport::Local => "local",
    }
}

fn reload(reload: Reload) -> &'static str {
    match reload {
        Reload::AtOnce => "at once",
        Reload::Background => "background",
        Reload::Transfers => "transfers",
        Reload::Restart => "restart",
    }
}

/// Words for a cell of a table in Markdown: what would mean something there is escaped, but for what stands in backquotes.
fn escaped(words: &str) -> String {
    let mut text = String::new();
    let mut code = false;
    for c in words.chars() {
        code ^= c == '`';
        if c == '|' || !code && "*_<>[]#~\\".contains(c) {
            text.push('\\');
        }
        text.push(c);
    }
    text
}

#[test]
fn the_example_and_the_book_say_what_the_tables_of_keys_say() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let schema = format!("{:#}\n", contentmonster::settings::schema());
    for (name, text) in
        [("settings.example.ini", example()), ("docs/src/settings.md", chapter()), ("settings.schema.json", schema)]
    {
        let file = root.join(name);
        if std::env::var_os("CONTENTMONSTER_REWRITE").is_some() {
            std::fs::write(&file, &text).unwrap();
        }
        let written = std::fs::read_to_string(&file).unwrap();
        let differs = written.lines().zip(text.lines()).find(|(written, made)| written != made);
        assert!(
            written == text,
            "{name} is not what the tables of keys give: CONTENTMONSTER_REWRITE=1 cargo test --test it book::reference \
             writes it anew. First difference: {differs:?}"
        );
    }
}

#[test]
fn every_key_says_what_it_takes_and_means_and_shows_an_example() {
    for key in known_keys() {
        assert!(!key.value.is_empty() && key.doc.ends_with('.'), "{}", key.name);
        assert_eq!(key.example.is_empty(), matches!(key.preset, Preset::Value(_)), "{}", key.name);
        let in_service = key.section == SectionKind::Monster;
        assert!(!in_service || key.reload != Reload::Transfers, "{}: who follows it?", key.name);
    }
}
