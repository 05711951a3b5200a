//! The man page of the settings file, from the program's tables of keys.

use clap_mangen::roff::{Inline, Roff, bold, italic, roman};
use contentmonster::settings::{KnownKey, Preset, Reload, SectionKind, Transport, known_keys};

/// The rules of the file, paragraph by paragraph.
const RULES: [&str; 6] = [
    "A line is `Key = value`, a `[Section]`, or a comment after `#` or `;`. Keys and names are case-sensitive. A comment may \
     also follow a value, after a space. A value in double quotes is taken literally; a double quote inside is doubled.",
    "Durations: `250ms`, `15s`, `2m`, `1h`, `1d`; a bare number is seconds. Sizes: `64 KiB`, `10 MiB`, `1 GiB` (powers of \
     1024; K, M, G mean the same), kB, MB, GB (powers of 1000); a bare number is bytes. Rates: a size per second \
     (`10 MiB/s`), or bits (`8 Mbit/s`, powers of 1000).",
    "Paths on this host may be relative to the settings file, or start with `~/` for the home directory.",
    "`[DEFAULT]` contains values for all sections that know the key and do not set it themselves.",
    "`[Group z]` contains values for the vessels that name it in `Groups`. `[Vessel ship{01..60}]` stands for 60 vessels.",
    "`contentmonster settings check` reports all errors at once, and `contentmonster settings show` lists every value with \
     where it comes from. SIGHUP reloads the file.",
];

/// What a reload that changes a key interrupts.
fn reload(reload: Reload) -> &'static str {
    match reload {
        Reload::AtOnce => "A reload applies it at once.",
        Reload::Background => "A reload that changes it restarts background tasks; transfers continue.",
        Reload::Transfers => "A reload that changes it interrupts the transfers of the section, which resume.",
        Reload::Restart => "It takes effect after a restart of the program.",
    }
}

/// Returns the page in the language of man pages.
pub(crate) fn page() -> String {
    let version = format!("contentmonster {}", env!("CARGO_PKG_VERSION"));
    let mut page = Roff::new();
    page.control("TH", ["settings.ini", "5", "", version.as_str()]);
    page.control("SH", ["NAME"]);
    page.text([roman("settings.ini - settings of contentmonster(1)")]);
    page.control("SH", ["DESCRIPTION"]);
    for rule in RULES {
        page.control("PP", []);
        page.text(inlines(rule));
    }
    for (kind, intro) in [
        (SectionKind::Monster, "Settings of the whole program."),
        (SectionKind::Directory, "A directory to replicate, one section for each."),
        (SectionKind::Vessel, "A host to replicate to, one section for each."),
        (SectionKind::Link, "A link over which vessels are reached, one section for each."),
    ] {
        page.control("SH", [kind.header()]);
        page.text(inlines(intro));
        known_keys().into_iter().filter(|key| key.section == kind).for_each(|key| describe(&mut page, key));
    }
    page.control("SH", ["SEE ALSO"]);
    page.text([bold("contentmonster"), roman("(1)")]);
    page.render()
}

fn describe(page: &mut Roff, key: &KnownKey) {
    page.control("TP", []);
    page.text([bold(key.name), roman(" = "), italic(key.value.replace('`', ""))]);
    for (at, paragraph) in key.doc.lines().enumerate() {
        if at > 0 {
            page.control("IP", []);
        }
        page.text(inlines(paragraph));
    }
    let default = match key.preset {
        Preset::Required => "Required.".to_owned(),
        Preset::Value("") => "Default: nothing.".to_owned(),
        Preset::Value(value) => format!("Default: `{value}`."),
        Preset::Otherwise(words) => format!("Default: {words}."),
    };
    let transport = match key.transport {
        Transport::Any => "",
        Transport::Ssh => " Only for vessels over SSH.",
        Transport::Local => " Only with `Transport = local`.",
    };
    page.text(inlines(&format!("{default}{transport} {}", reload(key.reload))));
}

/// Returns a text whose parts in backquotes are bold.
fn inlines(text: &str) -> Vec<Inline> {
    let parts = text.split('`').enumerate();
    parts.map(|(at, part)| if at % 2 == 1 { bold(part) } else { roman(part) }).collect()
}
