//! A line of an ssh config: a keyword and its words, with OpenSSH's quoting.

use crate::settings::problems::Diagnostic;

/// Splits a line into its keyword, in lower case, and its words; returns `None` for an empty line and a comment.
pub(super) fn split(line: &str) -> Result<Option<(String, Vec<String>)>, Diagnostic> {
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') {
        return Ok(None);
    }
    let end = line.find(|c: char| c.is_whitespace() || c == '=').unwrap_or(line.len());
    let (keyword, rest) = line.split_at(end);
    let rest = rest.trim_start();
    let words = words(rest.strip_prefix('=').unwrap_or(rest))?;
    Ok(Some((keyword.to_ascii_lowercase(), words)))
}

/// Splits a text into words at blanks. Blanks in single or double quotes don't split words. A backslash escapes quotes,
/// blanks and itself. A word that begins with `#` begins a comment.
fn words(text: &str) -> Result<Vec<String>, Diagnostic> {
    let mut words = Vec::new();
    let mut chars = text.chars().peekable();
    loop {
        while chars.next_if(|c| c.is_whitespace()).is_some() {}
        match chars.peek() {
            None | Some('#') => return Ok(words),
            Some(_) => {}
        }
        let mut word = String::new();
        let mut quote = None;
        while let Some(c) = chars.next_if(|c| quote.is_some() || !c.is_whitespace()) {
            match (c, quote) {
                ('\\', _) => {
                    let kept =
                        chars.next_if(|next| matches!(next, '\\' | '"' | '\'') || (*next == ' ' && quote.is_none()));
                    word.push(kept.unwrap_or('\\'));
                }
                ('"' | '\'', None) => quote = Some(c),
                (c, Some(open)) if c == open => quote = None,
                (c, _) => word.push(c),
            }
        }
        if let Some(open) = quote {
            return Err(Diagnostic::new(format!("the closing `{open}` is missing"), "close the quotes"));
        }
        words.push(word);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rstest::rstest;

    #[rstest]
    #[case("Port 22", "port", &["22"])]
    #[case("  HostName=a.example ", "hostname", &["a.example"])]
    #[case("Port = 22 # comment", "port", &["22"])]
    #[case("User a#b", "user", &["a#b"])]
    #[case("IdentityFile \"~/my keys/a\"", "identityfile", &["~/my keys/a"])]
    #[case("IdentityFile ~/my\\ keys/a", "identityfile", &["~/my keys/a"])]
    #[case("Host a 'b c' \"d\"e", "host", &["a", "b c", "de"])]
    #[case("User \"say \\\"hi\\\"\"", "user", &["say \"hi\""])]
    #[case("User back\\slash", "user", &["back\\slash"])]
    #[case("Port\t22\r", "port", &["22"])]
    #[case("Port", "port", &[])]
    fn lines_are_split_as_openssh_splits_them(#[case] line: &str, #[case] keyword: &str, #[case] words: &[&str]) {
        let (found, parts) = split(line).unwrap().unwrap();
        assert_eq!((found.as_str(), parts), (keyword, words.iter().map(|w| (*w).to_owned()).collect()));
    }

    #[test]
    fn comments_and_empty_lines_are_nothing_and_open_quotes_are_told() {
        assert!(split("").unwrap().is_none() && split("  # Host a").unwrap().is_none());
        assert!(split("Host \"a").is_err() && split("Host 'a\"").is_err());
    }

    proptest! {
        #[test]
        fn no_line_makes_it_panic(line: String) {
            let _ = split(&line);
        }
    }
}
