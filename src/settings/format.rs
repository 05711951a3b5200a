//! `settings fmt`: formats a settings file. Only blanks and blank lines change. Comments, quotes, the order and the
//! meaning of the file stay the same.

use super::all_keys;
use super::lines;
use super::problems::Problems;

/// Returns the text in the usual form: `Key = value` without blanks around it, sections separated by one blank line, no
/// blank lines at the start and the end. Returns the text unchanged if it can't be parsed, or if its meaning would
/// change.
pub fn formatted(text: &str) -> String {
    let mut out: Vec<String> = Vec::new();
    for line in text.strip_prefix('\u{feff}').unwrap_or(text).lines() {
        let line = line.trim();
        if line.is_empty() {
            if out.last().is_some_and(|last| !last.is_empty()) {
                out.push(String::new());
            }
            continue;
        }
        if line.starts_with('[') {
            separate(&mut out);
        }
        out.push(formatted_line(line));
    }
    while out.last().is_some_and(String::is_empty) {
        out.pop();
    }
    let formatted = out.iter().map(|line| format!("{line}\n")).collect::<String>();
    if means_the_same(text, &formatted) { formatted } else { text.to_owned() }
}

/// Puts one blank line before a header or, if comments directly precede the header, before these comments.
fn separate(out: &mut Vec<String>) {
    let comments = out.iter().rev().take_while(|line| line.starts_with(['#', ';'])).count();
    let at = out.len() - comments;
    if at > 0 && !out[at - 1].is_empty() {
        out.insert(at, String::new());
    }
}

fn formatted_line(line: &str) -> String {
    if line.starts_with(['#', ';']) {
        return line.to_owned();
    }
    if let Some((title, rest)) = line.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        let title = title.split_once(char::is_whitespace).map_or_else(
            || title.trim().to_owned(),
            |_| {
                let (kind, name) = title.trim().split_once(char::is_whitespace).unwrap_or((title.trim(), ""));
                format!("{kind} {}", name.trim())
            },
        );
        let rest = rest.trim();
        return if rest.is_empty() { format!("[{}]", title.trim()) } else { format!("[{}]  {rest}", title.trim()) };
    }
    match line.split_once('=') {
        Some((key, value)) => format!("{} = {}", key.trim(), value.trim()).trim_end().to_owned(),
        None => line.to_owned(),
    }
}

fn means_the_same(one: &str, other: &str) -> bool {
    let read = |text: &str| {
        let problems = Problems::new("settings.ini".as_ref());
        let lines = lines::read(text, all_keys::is_key, None, &problems);
        problems.finish().ok()?;
        let sections = lines.sections.into_iter().map(|section| {
            let entries = section.entries.into_iter().map(|entry| (entry.key, entry.value));
            (section.title, entries.collect::<Vec<_>>())
        });
        let includes = lines.includes.into_iter().map(|entry| entry.value).collect::<Vec<_>>();
        Some((sections.collect::<Vec<_>>(), includes))
    };
    match (read(one), read(other)) {
        (Some(one), Some(other)) => one == other,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_blanks_change() {
        let text = "\n\n# top\n[MONSTER]\nRateLimit=1 MiB/s # why\n\n\n[Directory   in]# x\n  Location= \"/a  b\" ; c\n# of out\n\
                    [Vessel out]\nAddress =h\nRemoteLocation.in=\n\n";
        let expected = "# top\n[MONSTER]\nRateLimit = 1 MiB/s # why\n\n[Directory in]  # x\nLocation = \"/a  b\" ; c\n\n# of out\n\
                        [Vessel out]\nAddress = h\nRemoteLocation.in =\n";
        assert_eq!(formatted(text), expected);
        assert_eq!(formatted(expected), expected);
        assert_eq!(formatted("[A]\nnonsense\n\n\n"), "[A]\nnonsense\n\n\n", "what can't be parsed stays");
    }

    proptest! {
        #[test]
        fn the_meaning_stays_and_a_second_time_changes_nothing(text in "([\\[\\]=#; \"a-cA-C\\n\\t]{0,60}|[^\\p{Cc}]{0,40})") {
            let once = formatted(&text);
            prop_assert_eq!(formatted(&once), once);
        }
    }
}
