//! Parses the settings file's text into sections, keys and values, each with its line.
//!
//! The crate rust-ini does the parsing, but it accepts more than we allow (a line without `=` swallows the following
//! lines, `:` is a separator too, `\` escapes, quotes may end anywhere) and has no line numbers. So every line is
//! checked first: malformed lines are rejected, comments and quotes are resolved by our own rules, and rust-ini gets
//! one plain, escaped line for each line of the file. This module doesn't know which sections and keys exist; the
//! parameter `is_key` tells which words of a malformed line may be shown.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use ini::{Ini, ParseOption};

use super::key::{PER_DIRECTORY, PER_LINK};
use super::problems::{Diagnostic, Place, Problems};

/// A section of the file. Not `Debug`, because values may be secrets.
pub(super) struct Section {
    /// The text between the brackets, with one blank between kind and name.
    pub(super) title: String,
    /// The file's name in messages; `None` for the settings file.
    pub(super) file: Option<Arc<Path>>,
    /// The line number of the header.
    pub(super) line: usize,
    /// The keys of the section, in the file's order; a repeated key is reported and omitted.
    pub(super) entries: Vec<Entry>,
    /// Keys in malformed lines. Their lines were reported, so the keys are not reported as missing too.
    pub(super) spoiled: Vec<String>,
}

/// A key, its value and its line number.
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) value: String,
    pub(super) line: usize,
}

impl Section {
    pub(super) fn entry(&self, key: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.key == key)
    }

    /// Returns the place of the section's header.
    pub(super) fn place(&self) -> Place {
        Place { file: self.file.as_deref().map(Path::to_owned), ..Place::line(self.line) }.in_section(&self.title)
    }

    /// Returns the place of an entry of this section.
    pub(super) fn place_of(&self, entry: &Entry) -> Place {
        Place { line: Some(entry.line), ..self.place() }.at_key(&entry.key)
    }
}

/// The content of a file.
#[derive(Default)]
pub(super) struct Lines {
    pub(super) sections: Vec<Section>,
    /// The lines with `Include` before the first section.
    pub(super) includes: Vec<Entry>,
}

/// Reads the sections; malformed and repeated lines are reported and omitted. `is_key` tells whether a word is a key.
/// If a malformed line has no `=` or contains a control character, its first word is shown only if it is a key, because
/// any other word may be a secret. `file` is the file's name in messages, `None` for the settings file.
pub(super) fn read(text: &str, is_key: fn(&str) -> bool, file: Option<Arc<Path>>, problems: &Problems) -> Lines {
    let mut pass = FirstPass::new(is_key, file, problems);
    for (i, line) in text.strip_prefix('\u{feff}').unwrap_or(text).lines().enumerate() {
        pass.take(i + 1, line);
    }
    let options = ParseOption { enabled_quote: true, enabled_escape: true, ..ParseOption::default() };
    match Ini::load_from_str_opt(&pass.plain, options) {
        Ok(ini) => pass.filled_from(&ini),
        Err(error) => {
            let diagnostic = Diagnostic::new("cannot parse this line as INI", "");
            problems.report(pass.place(error.line), diagnostic);
            Lines::default()
        }
    }
}

/// The content of a line.
enum Line<'a> {
    Nothing,
    Header(&'a str),
    Pair(&'a str, String),
}

/// The result of the first pass over the file: its keys with their lines, and the plain text for rust-ini.
struct FirstPass<'a> {
    problems: &'a Problems,
    is_key: fn(&str) -> bool,
    plain: String,
    file: Option<Arc<Path>>,
    sections: Vec<Section>,
    includes: Vec<Entry>,
    /// The index in `sections` of each title.
    titles: HashMap<String, usize>,
    within: Within,
}

/// The section that a line belongs to.
enum Within {
    /// Before the first header.
    Nowhere,
    /// The last section in the list.
    Last,
    /// The section of a rejected header; its keys are ignored.
    Refused,
}

impl<'a> FirstPass<'a> {
    fn new(is_key: fn(&str) -> bool, file: Option<Arc<Path>>, problems: &'a Problems) -> Self {
        Self {
            problems,
            is_key,
            plain: String::new(),
            file,
            includes: Vec::new(),
            sections: Vec::new(),
            titles: HashMap::new(),
            within: Within::Nowhere,
        }
    }

    fn take(&mut self, number: usize, line: &str) {
        match look_at(line, self.is_key) {
            Ok(Line::Nothing) => {}
            Ok(Line::Header(title)) => self.open(number, title),
            Ok(Line::Pair(key, value)) => self.add(number, key, &value),
            Err((key, diagnostic)) => {
                if line.trim_start().starts_with('[') {
                    self.within = Within::Refused;
                }
                let place = Place { key: key.map(str::to_owned), ..self.place(number) };
                self.problems.report(place, diagnostic);
                if let (Within::Last, Some(key), Some(section)) = (&self.within, key, self.sections.last_mut()) {
                    section.spoiled.push(key.to_owned());
                }
            }
        }
        // The plain text has one line for each line of the file, so that rust-ini's line numbers are those of the file.
        self.plain.push('\n');
    }

    fn place(&self, number: usize) -> Place {
        let section = match self.within {
            Within::Last => self.sections.last().map(|section| section.title.clone()),
            Within::Nowhere | Within::Refused => None,
        };
        Place { file: self.file.as_deref().map(Path::to_owned), section, ..Place::line(number) }
    }

    fn open(&mut self, number: usize, title: &str) {
        let title = one_blank(title);
        if let Some(first) = self.titles.get(&title) {
            let first = self.sections[*first].line;
            let diagnostic =
                Diagnostic::new(format!("this section is already on line {first}"), "merge the two sections");
            let place = Place { section: Some(title), ..self.place(number) };
            self.problems.report(place, diagnostic);
            self.within = Within::Refused;
            return;
        }
        self.plain.push_str(&format!("[{}]", escaped(&title)));
        self.titles.insert(title.clone(), self.sections.len());
        let file = self.file.clone();
        self.sections.push(Section { title, file, line: number, entries: Vec::new(), spoiled: Vec::new() });
        self.within = Within::Last;
    }

    fn add(&mut self, number: usize, key: &str, value: &str) {
        let place = self.place(number).at_key(shown(key));
        match self.within {
            Within::Refused => return,
            Within::Nowhere if key == "Include" => {
                self.includes.push(Entry { key: key.to_owned(), value: value.to_owned(), line: number });
                return;
            }
            Within::Nowhere => {
                let remedy = "move it below [MONSTER], [Directory x], [Vessel y], [Link z] or [DEFAULT]";
                return self.problems.report(place, Diagnostic::new("set before the first section", remedy));
            }
            Within::Last => {}
        }
        let section = self.sections.last_mut().expect("within the last section, so there is one");
        if let Some(first) = section.entry(key) {
            let message = format!("already set on line {}", first.line);
            return self.problems.report(place, Diagnostic::new(message, "keep one of the two"));
        }
        self.plain.push_str(&format!("{}=\"{}\"", escaped(key), escaped(value)));
        section.entries.push(Entry { key: key.to_owned(), value: String::new(), line: number });
    }

    /// Returns the sections with the values from rust-ini.
    fn filled_from(mut self, ini: &Ini) -> Lines {
        for section in &mut self.sections {
            let values = ini.section(Some(section.title.as_str()));
            for entry in &mut section.entries {
                let value = values.and_then(|values| values.get(&entry.key));
                entry.value = value.expect("rust-ini gives back every key of the plain text").to_owned();
            }
        }
        Lines { sections: self.sections, includes: self.includes }
    }
}

/// Converts `Vessel   x` to `Vessel x`; blanks inside the name stay.
fn one_blank(title: &str) -> String {
    match title.trim().split_once(char::is_whitespace) {
        Some((kind, name)) => format!("{kind} {}", name.trim_start()),
        None => title.trim().to_owned(),
    }
}

/// Escapes all punctuation for rust-ini. Letters are not escaped, because `\n` and similar sequences have a special
/// meaning.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if c.is_ascii_punctuation() {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

/// Returns the content of a line. For a malformed line, returns the key (if it may be shown) and a diagnostic, which
/// never repeats the line, because the line may contain a secret.
fn look_at(line: &str, is_key: fn(&str) -> bool) -> Result<Line<'_>, (Option<&str>, Diagnostic)> {
    const SHAPE: &str = "a line is `Key = value`, a `[Section]`, or a comment after # or ;";
    let line = line.trim();
    if line.is_empty() || is_comment(line) {
        return Ok(Line::Nothing);
    }
    if line.contains(|c: char| c.is_control() && c != '\t') {
        return Err((
            known_first_word(line, is_key),
            Diagnostic::new("the line contains a control character", "remove it"),
        ));
    }
    if let Some(header) = line.strip_prefix('[') {
        return look_at_header(header).map(Line::Header).map_err(|diagnostic| (None, diagnostic));
    }
    let Some((key, value)) = line.split_once('=') else {
        return Err((known_first_word(line, is_key), Diagnostic::new("the line has no `=`", SHAPE)));
    };
    let key = key.trim();
    if key.is_empty() {
        return Err((None, Diagnostic::new("the line has no key before its `=`", SHAPE)));
    }
    let value = value_of(value).map_err(|diagnostic| (Some(shown(key)), diagnostic))?;
    Ok(Line::Pair(key, value))
}

fn look_at_header(header: &str) -> Result<&str, Diagnostic> {
    let Some((title, rest)) = header.split_once(']') else {
        return Err(Diagnostic::new("the section's `]` is missing", "write [Directory x] or [Vessel y]"));
    };
    let (title, rest) = (title.trim(), rest.trim_start());
    if !rest.is_empty() && !is_comment(rest) {
        return Err(Diagnostic::new("unexpected text after the section's `]`", "put the keys on lines of their own"));
    }
    if title.is_empty() {
        return Err(Diagnostic::new("the section has no title", "write [Directory x] or [Vessel y]"));
    }
    Ok(title)
}

/// Returns the value in `raw`, the text after the first `=` of a line. With double quotes, the value is the text inside
/// them, where `""` stands for one quote. Without quotes, the value ends before a comment: a blank followed by `#` or
/// `;`.
fn value_of(raw: &str) -> Result<String, Diagnostic> {
    let Some(quoted) = raw.trim_start().strip_prefix('"') else {
        let blanks = raw.char_indices().filter(|(_, c)| c.is_whitespace());
        let comment = blanks.map(|(at, c)| (at, at + c.len_utf8())).find(|(_, after)| is_comment(&raw[*after..]));
        return Ok(raw[..comment.map_or(raw.len(), |(at, _)| at)].trim().to_owned());
    };
    let mut value = String::new();
    let mut rest = quoted;
    loop {
        let Some((before, after)) = rest.split_once('"') else {
            return Err(Diagnostic::new(
                "the closing `\"` is missing",
                "a `\"` inside a value in quotes is written `\"\"`",
            ));
        };
        value.push_str(before);
        match after.strip_prefix('"') {
            Some(more) => {
                value.push('"');
                rest = more;
            }
            None if after.trim().is_empty() || is_comment(after.trim_start()) => return Ok(value),
            None => {
                let remedy = "put the whole value in quotes; a `\"` inside it is written `\"\"`";
                return Err(Diagnostic::new("unexpected text after the closing `\"`", remedy));
            }
        }
    }
}

fn is_comment(text: &str) -> bool {
    text.starts_with(['#', ';'])
}

/// Returns the line's first word if it is a key. Other words of a malformed line may be secrets.
fn known_first_word(line: &str, is_key: fn(&str) -> bool) -> Option<&str> {
    let word = line.split(|c: char| c.is_whitespace() || c == ':').next()?;
    is_key(word).then_some(word)
}

/// Returns the part of a key that may be shown: a key such as `RemoteLocation.x` as a whole, otherwise the first word.
/// If the `=` of a line is misplaced, the other words may be a secret.
pub(super) fn shown(key: &str) -> &str {
    if key.starts_with(PER_DIRECTORY) || key.starts_with(PER_LINK) {
        return key;
    }
    key.split(|c: char| c.is_whitespace() || c == ':').next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn value(raw: &str) -> Result<String, Diagnostic> {
        value_of(raw)
    }

    fn read_pairs(text: &str) -> Vec<(String, String, String, usize)> {
        let problems = Problems::new(Path::new("settings.ini"));
        let sections = read(text, |_| false, None, &problems).sections;
        problems.finish().unwrap();
        let pairs = sections.iter().flat_map(|s| s.entries.iter().map(move |e| (s, e)));
        pairs.map(|(s, e)| (s.title.clone(), e.key.clone(), e.value.clone(), e.line)).collect()
    }

    #[test]
    fn comments_end_a_value_only_after_a_blank() {
        for (raw, expected) in [
            (" plain", "plain"),
            (" a # b", "a"),
            (" a\t; b", "a"),
            (" a#b;c", "a#b;c"),
            (" # nothing", ""),
            ("#whole", "#whole"),
            (" a = b : c \\n 'd' \"e\"", "a = b : c \\n 'd' \"e\""),
            ("", ""),
        ] {
            assert_eq!(value(raw).unwrap(), expected, "{raw}");
        }
    }

    #[test]
    fn a_value_in_quotes_is_taken_whole() {
        for (raw, expected) in [
            (" \"a # b\"", "a # b"),
            (" \" a \" # comment", " a "),
            ("\"say \"\"hi\"\" ; now\"", "say \"hi\" ; now"),
            (" \"\"", ""),
            (" \"back\\slash\\\"", "back\\slash\\"),
        ] {
            assert_eq!(value(raw).unwrap(), expected, "{raw}");
        }
        for bad in ["\"open", "\"a\" b", "\"a\"\"", "\"a\"b\"c\""] {
            assert!(value(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_bom_and_windows_line_ends_are_taken() {
        let text = "\u{feff}[A  b c]  # comment\r\n\r\n  Key=value  \r\nOther : key = 1\r\n";
        let title = String::from("A b c");
        assert_eq!(
            read_pairs(text),
            [(title.clone(), "Key".into(), "value".into(), 3), (title, "Other : key".into(), "1".into(), 4)]
        );
    }

    #[test]
    fn what_means_something_to_rust_ini_means_nothing_here() {
        let text = "[A \\n]\nKey:with\\colon = C:\\new\\table\\\nNext = 'single' \"double\"\n\u{a0}Third = \\\n";
        let values: Vec<_> = read_pairs(text).into_iter().map(|(_, key, value, _)| (key, value)).collect();
        assert_eq!(
            values,
            [
                ("Key:with\\colon".to_owned(), "C:\\new\\table\\".to_owned()),
                ("Next".to_owned(), "'single' \"double\"".to_owned()),
                ("Third".to_owned(), "\\".to_owned()),
            ]
        );
    }

    #[test]
    fn what_may_be_a_secret_is_not_shown() {
        assert_eq!(shown("Password hunter2"), "Password");
        assert_eq!(shown("Password:hunter2"), "Password");
        assert_eq!(shown("RemoteLocation.a b: c"), "RemoteLocation.a b: c");
    }

    proptest! {
        #[test]
        fn every_value_in_quotes_comes_back_as_it_was(secret in "[^\\p{Cc}]*") {
            let text = format!("[A]\nKey = \"{}\"\nNext = 1", secret.replace('"', "\"\""));
            let pairs = read_pairs(&text);
            prop_assert_eq!(&pairs[0].2, &secret);
            prop_assert_eq!(&pairs[1].2, "1");
        }

        #[test]
        fn every_title_and_key_comes_back_as_it_was(title in "[^\\p{Cc}\\p{Z}\\]]+", key in "[a-z][^\\p{Cc}\\p{Z}=]*") {
            let pairs = read_pairs(&format!("[{title}]\n{key} = 1"));
            prop_assert_eq!(&pairs, &[(title, key, "1".to_owned(), 2)]);
        }

        #[test]
        fn no_text_makes_it_panic(text: String, lines in proptest::collection::vec("[\\[\\]=:#; \"'\\\\A-Ca-c\\t\\r\\n]*", 0..20)) {
            read(&text, |_| false, None, &Problems::new(Path::new("settings.ini")));
            read(&lines.join("\n"), |_| false, None, &Problems::new(Path::new("settings.ini")));
        }
    }
}
