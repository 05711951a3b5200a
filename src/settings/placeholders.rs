//! Placeholders in values: `{vessel}`, `{directory}`, `{group}` and `{hostname}`. A misspelt placeholder is an error;
//! any other text in braces stays unchanged.

use std::borrow::Cow;

use super::hints::nearest;
use super::problems::Diagnostic;

/// The placeholders.
const WORDS: [&str; 4] = ["vessel", "directory", "group", "hostname"];

/// The values of the placeholders; `None` for a placeholder without a value in this context.
#[derive(Clone, Copy, Debug, Default)]
pub struct Placeholders<'a> {
    /// The vessel's name.
    pub vessel: Option<&'a str>,
    /// The directory's name.
    pub directory: Option<&'a str>,
    /// The last of the vessel's groups.
    pub group: Option<&'a str>,
    /// The name of this host.
    pub hostname: Option<&'a str>,
}

impl<'a> Placeholders<'a> {
    fn value(&self, word: &str) -> Option<&'a str> {
        match word {
            "vessel" => self.vessel,
            "directory" => self.directory,
            "group" => self.group,
            _ => self.hostname,
        }
    }

    /// Replaces the placeholders that have a value; the others stay in the text.
    pub fn fill_known<'t>(&self, text: &'t str) -> Cow<'t, str> {
        replaced(text, |word| self.value(word))
    }

    /// Replaces all placeholders in a path or an address. A placeholder without a value is an error.
    pub(super) fn fill<'t>(&self, text: &'t str) -> Result<Cow<'t, str>, Diagnostic> {
        check_spelling(text)?;
        for word in WORDS.into_iter().filter(|word| text.contains(&format!("{{{word}}}"))) {
            let Some(value) = self.value(word) else {
                let remedy = match word {
                    "group" => "name a group with `Groups = …` in the vessel's section".to_owned(),
                    "hostname" => "set this host's name with `hostnamectl set-hostname NAME`".to_owned(),
                    "vessel" => "remove it; {vessel} has a value only for a vessel".to_owned(),
                    _ => format!("remove it; {{{word}}} has a value only in RemoteLocation and in commands"),
                };
                return Err(Diagnostic::new(format!("`{{{word}}}` has no value here"), remedy));
            };
            if value.contains('/') || matches!(value, "." | "..") {
                let message = format!("`{{{word}}}` is `{value}`, which in a path would lead to another directory");
                return Err(Diagnostic::new(message, "rename the section, or write the value without the placeholder"));
            }
        }
        Ok(self.fill_known(text))
    }
}

/// Returns whether a text contains a placeholder.
pub(super) fn has_any(text: &str) -> bool {
    WORDS.iter().any(|word| text.contains(&format!("{{{word}}}")))
}

/// Rejects words in braces that are probably misspelt placeholders.
pub(super) fn check_spelling(text: &str) -> Result<(), Diagnostic> {
    for part in text.split('{').skip(1) {
        let Some((word, _)) = part.split_once('}') else { continue };
        let plain = !word.is_empty() && word.bytes().all(|b| b.is_ascii_alphabetic());
        if plain
            && !WORDS.contains(&word)
            && let Some(near) = nearest(word, WORDS)
        {
            let message = format!("unknown placeholder `{{{word}}}`");
            return Err(Diagnostic::new(message, format!("did you mean {{{near}}}?")));
        }
    }
    Ok(())
}

fn replaced<'t, 'v>(text: &'t str, value: impl Fn(&str) -> Option<&'v str>) -> Cow<'t, str> {
    if !has_any(text) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 32);
    let mut rest = text;
    // Replaces in one pass, so that braces in a value are not replaced again.
    while let Some(open) = rest.find('{') {
        out.push_str(&rest[..open]);
        rest = &rest[open..];
        let found = WORDS.iter().find_map(|word| {
            let after = rest[1..].strip_prefix(word)?.strip_prefix('}')?;
            Some((value(word)?, after))
        });
        match found {
            Some((value, after)) => {
                out.push_str(value);
                rest = after;
            }
            None => {
                out.push('{');
                rest = &rest[1..];
            }
        }
    }
    out.push_str(rest);
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NAMES: Placeholders<'_> =
        Placeholders { vessel: Some("tern"), directory: Some("{vessel}"), group: None, hostname: Some("shore") };

    #[test]
    fn each_placeholder_is_replaced_once_and_other_braces_stay() {
        for (text, filled) in [
            ("/srv/{vessel}/{directory}", "/srv/tern/{vessel}"),
            ("{hostname}{vessel}", "shoretern"),
            ("{ vessel } {} {1..2} ${x} {", "{ vessel } {} {1..2} ${x} {"),
            ("{{vessel}}", "{tern}"),
        ] {
            assert_eq!(NAMES.fill(text).unwrap(), filled);
        }
        for bad in ["{group}", "{vesel}", "{Vessel}", "{hostnam}"] {
            assert!(NAMES.fill(bad).is_err(), "{bad}");
        }
        for name in ["a/b", "..", "."] {
            assert!(Placeholders { vessel: Some(name), ..NAMES }.fill("/srv/{vessel}").is_err(), "{name}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text: String, near in "[{}a-z]{0,20}") {
            let _ = (NAMES.fill(&text), NAMES.fill(&near), NAMES.fill_known(&near));
        }
    }
}
