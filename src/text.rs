//! Escapes text from outside (file names, messages of a vessel) for logs, terminals and web pages, joins counts with
//! nouns, and writes durations.
//!
//! Text from outside can contain control characters that move the cursor, characters that reverse the writing direction
//! or are invisible, line separators that fake another log line, and megabytes of data.

use std::borrow::Cow;
use std::fmt::Display;
use std::time::Duration;

/// Maximum number of characters kept of a vessel's text.
pub const LONGEST_EXCERPT: usize = 300;

/// Returns whether a character is shown as itself. `false` for control characters, bidirectional marks, zero-width
/// characters, spaces other than U+0020, line and paragraph separators, and unassigned code points.
pub fn is_plain(c: char) -> bool {
    // Characters that the standard library treats as printable although they are invisible or change the character
    // before them (Default_Ignorable_Code_Point in Unicode's DerivedCoreProperties.txt).
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
    // `str::escape_debug` keeps combining accents, as in file names written by macOS, only after a base character.
    let mut beside = [0; 5];
    beside[0] = b'a';
    let length = 1 + c.encode_utf8(&mut beside[1..]).len();
    let both = std::str::from_utf8(&beside[..length]).unwrap_or_default();
    both.escape_debug().count() == 2
}

/// Replaces each character that is not shown as itself by its escape, such as `\n` or `\u{202e}`.
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

/// Appends a character, or its escape if it is not shown as itself.
pub(crate) fn push_visible(shown: &mut String, c: char) {
    if is_plain(c) { shown.push(c) } else { shown.extend(c.escape_default()) }
}

/// Same as [`visible`], but keeps line ends: for our own texts of several lines.
pub fn visible_lines(text: &str) -> Cow<'_, str> {
    if text.chars().all(|c| c == '\n' || is_plain(c)) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(text.split('\n').map(visible).collect::<Vec<_>>().join("\n"))
}

/// Same as [`visible`], but for JSON: keeps line ends, and writes the escapes as `\uNNNN`. They are valid JSON, because
/// characters that need an escape occur only in strings.
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

/// Returns a count with its noun, which is in the plural unless the count is 1: "1 path", "2 paths", "2 directories".
pub(crate) fn counted<N: Copy + PartialEq + From<u8> + Display>(count: N, noun: &str) -> String {
    if count == N::from(1) {
        return format!("1 {noun}");
    }
    // A `y` after a consonant becomes `ies`.
    let stem = noun.strip_suffix('y').filter(|stem| !stem.ends_with(['a', 'e', 'i', 'o', 'u']));
    stem.map_or_else(|| format!("{count} {noun}s"), |stem| format!("{count} {stem}ies"))
}

/// Formats a duration the way all messages show it: `340 ms`, `12.3 s`, `5 min 20 s`, `3 h`, `2 d 4 h`.
pub fn duration(span: Duration) -> String {
    let milliseconds = span.as_millis();
    // Each limit is the smallest value that would be rounded up to the next unit.
    if milliseconds == 0 {
        return "0 s".to_owned();
    } else if milliseconds < 1000 {
        return format!("{milliseconds} ms");
    } else if milliseconds < 59_950 {
        let tenths = (milliseconds + 50) / 100;
        return if tenths.is_multiple_of(10) {
            format!("{} s", tenths / 10)
        } else {
            format!("{}.{} s", tenths / 10, tenths % 10)
        };
    }
    let seconds = (milliseconds + 500) / 1000;
    let two = |whole: u128, unit, part: u128, smaller| match part {
        0 => format!("{whole} {unit}"),
        part => format!("{whole} {unit} {part} {smaller}"),
    };
    let (minutes, hours) = ((seconds + 30) / 60, (seconds + 1800) / 3600);
    match seconds {
        0..3600 => two(seconds / 60, "min", seconds % 60, "s"),
        3600..86_370 => two(minutes / 60, "h", minutes % 60, "min"),
        _ => two(hours / 24, "d", hours % 24, "h"),
    }
}

/// Returns an excerpt of a vessel's text: one line, escaped, at most [`LONGEST_EXCERPT`] characters, with `…` where it
/// was cut. Bytes that are not UTF-8 become U+FFFD.
pub fn excerpt(text: impl AsRef<[u8]>) -> String {
    // A character has at most 4 bytes, so the rest of a long text need not be decoded.
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
    fn a_noun_is_in_the_plural_unless_its_count_is_1() {
        assert_eq!([0, 1, 2].map(|count: u64| counted(count, "path")), ["0 paths", "1 path", "2 paths"]);
        assert_eq!([1, 2].map(|count: u64| counted(count, "directory")), ["1 directory", "2 directories"]);
        assert_eq!([counted(2_u64, "key"), counted(2_u64, "delivery")], ["2 keys", "2 deliveries"]);
    }

    #[test]
    fn a_duration_has_at_most_two_units_and_each_is_written_one_way() {
        for (milliseconds, written) in [
            (0, "0 s"),
            (1, "1 ms"),
            (999, "999 ms"),
            (1000, "1 s"),
            (12_345, "12.3 s"),
            (59_949, "59.9 s"),
            (59_950, "1 min"),
            (320_000, "5 min 20 s"),
            (3_599_600, "1 h"),
            (3_600_000, "1 h"),
            (12_000_000, "3 h 20 min"),
            (86_369_000, "23 h 59 min"),
            (86_370_000, "1 d"),
            (187_200_000, "2 d 4 h"),
            (36_500 * 86_400_000, "36500 d"),
        ] {
            assert_eq!(duration(Duration::from_millis(milliseconds)), written, "{milliseconds}");
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
            // Each of the 300 characters may be shown as an escape.
            prop_assert!(kept.len() <= 12 * LONGEST_EXCERPT + 3);
        }
    }
}
