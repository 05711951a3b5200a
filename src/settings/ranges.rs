//! Ranges in the names of vessels: `[Vessel ship{01..60}]` stands for 60 sections, from `ship01` to `ship60`.

use super::problems::Diagnostic;

/// Maximum number of names that one section stands for.
const MOST: u64 = 10_000;

/// Returns the names that `name` stands for: all combinations of the numbers in its ranges, or `name` itself if it
/// contains no range.
pub(super) fn expand(name: &str) -> Result<Vec<String>, Diagnostic> {
    let mut names = vec![String::new()];
    let mut rest = name;
    while let Some((before, range, after)) = next_range(rest) {
        let Range { from, to, width } = range;
        if from > to {
            let message = format!("the range `{{{from}..{to}}}` ends before it begins");
            return Err(Diagnostic::new(message, format!("write `{{{to}..{from}}}`")));
        }
        // Saturates, because `to` may be `u64::MAX`.
        let many = (to - from).saturating_add(1);
        if many.saturating_mul(names.len() as u64) > MOST {
            return Err(Diagnostic::new(
                format!("the name stands for more than {MOST} vessels"),
                "write a smaller range",
            ));
        }
        let with = |name: &String| (from..=to).map(|n| format!("{name}{before}{n:0width$}")).collect::<Vec<_>>();
        names = names.iter().flat_map(with).collect();
        rest = after;
    }
    names.iter_mut().for_each(|name| name.push_str(rest));
    Ok(names)
}

struct Range {
    from: u64,
    to: u64,
    /// Minimum number of digits; smaller numbers get leading zeros.
    width: usize,
}

/// Splits at the first range: the text before it, the range, and the text after it.
fn next_range(text: &str) -> Option<(&str, Range, &str)> {
    let mut start = 0;
    while let Some(open) = text[start..].find('{').map(|at| start + at) {
        let inside = &text[open + 1..];
        if let Some((range, after)) = inside.split_once('}')
            && let Some(range) = range_of(range)
        {
            return Some((&text[..open], range, after));
        }
        start = open + 1;
    }
    None
}

fn range_of(text: &str) -> Option<Range> {
    let (from, to) = text.split_once("..")?;
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let padded = |text: &str| text.len() > 1 && text.starts_with('0');
    if !digits(from) || !digits(to) {
        return None;
    }
    let width = if padded(from) || padded(to) { from.len().max(to.len()) } else { 0 };
    Some(Range { from: from.parse().ok()?, to: to.parse().ok()?, width })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_range_stands_for_its_numbers_with_the_zeros_that_it_is_written_with() {
        for (name, names) in [
            ("tern", &["tern"][..]),
            ("ship{08..11}", &["ship08", "ship09", "ship10", "ship11"]),
            ("ship{8..10}x", &["ship8x", "ship9x", "ship10x"]),
            ("{1..2}-{1..2}", &["1-1", "1-2", "2-1", "2-2"]),
            ("a{b}{5..5}", &["a{b}5"]),
            ("a{1..}{..2}{x..y}{", &["a{1..}{..2}{x..y}{"]),
        ] {
            assert_eq!(expand(name).unwrap(), names, "{name}");
        }
        for bad in ["a{5..1}", "a{1..10001}", "{1..200}{1..200}", "{0..18446744073709551615}"] {
            assert!(expand(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_name_makes_it_panic(name: String, near in "[a{}.0-9]{0,20}") {
            let _ = (expand(&name), expand(&near));
        }
    }
}
