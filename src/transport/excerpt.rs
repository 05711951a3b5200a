//! A vessel's own words, fit for a message.

/// Most characters of a vessel's words that a message repeats.
const MOST: usize = 300;

/// What a vessel said: on one line, what can't be printed escaped, at most 300 characters of it.
pub(super) fn excerpt(said: &str) -> String {
    let words = said.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut escaped: String = words.chars().take(MOST).flat_map(escape).take(MOST).collect();
    if words.chars().nth(MOST).is_some() {
        escaped.push('…');
    }
    escaped
}

/// Control characters, and those that turn text around or are not seen, as `\u{…}`; all others as they are.
fn escape(c: char) -> impl Iterator<Item = char> {
    let hidden = matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}');
    let escaped = (c.is_control() || hidden).then(|| c.escape_unicode());
    let plain = escaped.is_none().then_some(c);
    escaped.into_iter().flatten().chain(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_a_vessel_are_cut_and_escaped() {
        assert_eq!(excerpt("  Password\r\n expired\x1b[2J "), "Password expired\\u{1b}[2J");
        assert_eq!(excerpt(&"x".repeat(5000)).chars().count(), MOST + 1);
        assert_eq!(excerpt("a\u{202e}b"), "a\\u{202e}b");
    }
}
