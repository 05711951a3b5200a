//! Text from outside (names of files, words of a vessel), made safe to show in a log, a terminal and a page.
//!
//! Such text can hold anything: control characters that move the cursor, characters that reverse the direction of writing or
//! take no room, line separators that fake a further log line, and megabytes of it.

use std::borrow::Cow;

/// The most characters that are kept of a text that a vessel sent.
pub const LONGEST_EXCERPT: usize = 300;

/// Whether a character shows as itself. Not so: control characters, bidirectional marks, characters without width, spaces
/// other than the usual one, line and paragraph separators, and what Unicode has not assigned.
pub fn is_plain(c: char) -> bool {
    // What the standard library takes for printable and still shows nothing, or changes what stands before it
    // (Default_Ignorable_Code_Point in Unicode's DerivedCoreProperties.txt).
    const INVISIBLE: [std::ops::RangeInclusive<char>; 9] = [
        '\u{34f}'..='\u{34f}',
        '\u{115f}'..='\u{1160}',
        '\u{17b4}'..='\u{17b5}',
        '\u{180b}'..='\u{180f}',
        '\u{2800}'..='\u{2800}',
        '\u{3164}'..='\u{3164}',
        '\u{fe00}'..='\u{fe0f}',
        '\u{ffa0}'..='\u{ffa0}',
        '\u{e0000}'..='\u{e0fff}',
    ];
    if c.is_ascii() {
        return !c.is_ascii_control();
    }
    if INVISIBLE.iter().any(|range| range.contains(&c)) {
        return false;
    }
    // `str::escape_debug` alone spares accents that combine with the character before them, as in names that macOS wrote.
    let mut beside = [0; 5];
    beside[0] = b'a';
    let length = 1 + c.encode_utf8(&mut beside[1..]).len();
    let both = std::str::from_utf8(&beside[..length]).unwrap_or_default();
    both.escape_debug().count() == 2
}

/// The text with each character that doesn't show as itself replaced by its escape, as `\n` or `\u{202e}`.
pub fn visible(text: &str) -> Cow<'_, str> {
    if text.chars().all(is_plain) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        push_visible(&mut shown, c);
    }
    Cow::Owned(shown)
}

/// Adds a character, or its escape where it doesn't show as itself.
pub(crate) fn push_visible(shown: &mut String, c: char) {
    if is_plain(c) { shown.push(c) } else { shown.extend(c.escape_default()) }
}

/// As [`visible`], with line ends left as they are: for text of several lines that is ours.
pub fn visible_lines(text: &str) -> Cow<'_, str> {
    if text.chars().all(|c| c == '\n' || is_plain(c)) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(text.split('\n').map(visible).collect::<Vec<_>>().join("\n"))
}

/// The same for JSON: what doesn't show as itself, which stands in its strings only, becomes `\uNNNN`.
pub fn visible_json(json: &str) -> Cow<'_, str> {
    if json.chars().all(|c| c == '\n' || is_plain(c)) {
        return Cow::Borrowed(json);
    }
    let mut shown = String::with_capacity(json.len() + 16);
    for c in json.chars() {
        if c == '\n' || is_plain(c) {
            shown.push(c);
        } else {
            c.encode_utf16(&mut [0; 2]).iter().for_each(|unit| shown.push_str(&format!("\\u{unit:04x}")));
        }
    }
    Cow::Owned(shown)
}

/// What is kept of a text that a vessel sent: on one line, visible, at most [`LONGEST_EXCERPT`] of its characters, with `…`
/// where it was cut. Bytes that are no UTF-8 become U+FFFD.
pub fn excerpt(text: impl AsRef<[u8]>) -> String {
    // Four bytes make a character at the most: the rest of a long text is not even decoded.
    let bytes = text.as_ref().trim_ascii();
    let head = &bytes[..bytes.len().min(4 * (LONGEST_EXCERPT + 1))];
    let text = String::from_utf8_lossy(head);
    let mut chars = text.chars();
    let mut shown = String::new();
    chars.by_ref().take(LONGEST_EXCERPT).for_each(|c| push_visible(&mut shown, c));
    if chars.next().is_some() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn text_that_could_deceive_a_reader_is_shown_by_its_escapes() {
        for (text, shown) in [
            ("plain, naïve, 文件, 🚢", "plain, naïve, 文件, 🚢"),
            ("cafe\u{301}", "cafe\u{301}"),
            ("\u{202e}gpj.exe", "\\u{202e}gpj.exe"),
            ("a\u{200b}b\u{2028}c\u{feff}", "a\\u{200b}b\\u{2028}c\\u{feff}"),
            ("\u{2066}x\u{2069}\u{200d}", "\\u{2066}x\\u{2069}\\u{200d}"),
            ("one\ntwo\r\t\x1b[2J\u{85}\u{9b}", "one\\ntwo\\r\\t\\u{1b}[2J\\u{85}\\u{9b}"),
            ("x\u{e0041}\u{fe0f}\u{3164}", "x\\u{e0041}\\u{fe0f}\\u{3164}"),
            ("it's \"so\" \\", "it's \"so\" \\"),
        ] {
            assert_eq!(visible(text), shown);
        }
    }

    #[test]
    fn of_a_long_text_of_a_vessel_the_first_300_characters_are_kept() {
        assert_eq!(excerpt("  no space left\n"), "no space left");
        assert_eq!(excerpt(b"caf\xe9"), "caf\u{fffd}");
        let exact = "é".repeat(LONGEST_EXCERPT);
        assert_eq!(excerpt(&exact), exact);
        for long in [format!("{exact}é"), "🚢".repeat(1_000_000)] {
            let kept = excerpt(&long);
            assert_eq!((kept.chars().count(), kept.ends_with('…')), (LONGEST_EXCERPT + 1, true));
        }
    }

    proptest! {
        #[test]
        fn whatever_the_bytes_an_excerpt_is_one_short_line(bytes in proptest::collection::vec(any::<u8>(), 0..4000)) {
            let kept = excerpt(bytes);
            prop_assert!(kept.chars().all(is_plain), "{kept:?}");
            // Each of 300 characters may be shown by an escape.
            prop_assert!(kept.len() <= 12 * LONGEST_EXCERPT + 3);
        }
    }
}
