//! `Include` and `Exclude`: patterns similar to `.gitignore`.
//!
//! The last pattern that matches a path decides. If this pattern begins with `!`, the path does not match the list. A
//! pattern without a `/` is compared with the last component of a path, any other pattern with the whole path below
//! `Location`. A trailing `/` restricts a pattern to directories. `*` and `?` don't match a `/`, `**` does.

use std::ffi::OsStr;
use std::path::Path;

use globset::{GlobBuilder, GlobMatcher, GlobSet, GlobSetBuilder};

use super::problems::Diagnostic;
use super::written_value::Written;

/// Globs for file names; equal if their texts are equal.
#[derive(Clone, Debug, Default)]
pub struct Globs {
    text: String,
    set: GlobSet,
}

impl Globs {
    /// Returns whether one of the globs matches a file name.
    pub fn is_match(&self, name: impl AsRef<Path>) -> bool {
        self.set.is_match(name)
    }
}

impl PartialEq for Globs {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

/// A list of patterns.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Patterns(Vec<Pattern>);

#[derive(Clone, Debug)]
struct Pattern {
    glob: GlobMatcher,
    negated: bool,
    directories_only: bool,
    /// Whether the pattern is compared with the whole path, not with the last component only.
    whole: bool,
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        (self.glob.glob(), self.negated, self.directories_only, self.whole)
            == (other.glob.glob(), other.negated, other.directories_only, other.whole)
    }
}

impl Patterns {
    /// Returns whether the list is empty.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns whether the last pattern that matches a path below the location has no `!`. `None` if no pattern
    /// matches.
    pub fn verdict(&self, path: &Path, is_directory: bool) -> Option<bool> {
        let name = path.file_name().map_or(Path::new(""), |name: &OsStr| Path::new(name));
        let matches = |pattern: &&Pattern| {
            (is_directory || !pattern.directories_only)
                && pattern.glob.is_match(if pattern.whole { path } else { name })
        };
        self.0.iter().rev().find(matches).map(|pattern| !pattern.negated)
    }

    /// Returns whether a path, or a directory above it, matches the list. If a directory matches, all paths below it
    /// match too, even if a pattern with `!` matches them.
    pub fn covers(&self, path: &Path, is_directory: bool) -> bool {
        let above = path.ancestors().skip(1).filter(|above| !above.as_os_str().is_empty());
        !self.is_empty()
            && (above.into_iter().any(|above| self.verdict(above, true) == Some(true))
                || self.verdict(path, is_directory) == Some(true))
    }

    /// Returns whether a path in `directory`, which is below the location, may match the list. Returns `true` if that
    /// is uncertain.
    pub fn may_reach_into(&self, directory: &Path) -> bool {
        let first = |path: &Path| path.components().next().map(|part| part.as_os_str().to_owned());
        let may = |pattern: &Pattern| {
            let glob = pattern.glob.glob().glob();
            let begin = first(Path::new(glob)).unwrap_or_default();
            let literal = !begin.as_encoded_bytes().iter().any(|b| b"*?[]{}\\".contains(b));
            !pattern.negated && (!pattern.whole || !literal || Some(begin) == first(directory))
        };
        self.0.iter().any(may)
    }

    /// Returns whether a path matches the list. If no pattern matches the path itself, the nearest directory above it
    /// that a pattern matches decides.
    pub fn reaches(&self, path: &Path, is_directory: bool) -> bool {
        let above = path.ancestors().skip(1).filter(|above| !above.as_os_str().is_empty());
        let own = self.verdict(path, is_directory);
        own.or_else(|| above.into_iter().find_map(|above| self.verdict(above, true))).unwrap_or(false)
    }
}

/// Parses globs as [`globs`] does, and warns of a glob that is probably several globs with blanks instead of commas
/// between them.
pub(super) fn read_globs(written: &Written<'_>) -> Result<Globs, Diagnostic> {
    warn_of_blanks(written);
    globs(written.text)
}

/// Parses patterns as [`patterns`] does, and warns of a pattern that is probably several patterns with blanks instead
/// of commas between them.
pub(super) fn read_patterns(written: &Written<'_>) -> Result<Patterns, Diagnostic> {
    warn_of_blanks(written);
    patterns(written.text)
}

/// Warns of a pattern such as `a.txt b.txt`, in which each word looks like a separate pattern.
fn warn_of_blanks(written: &Written<'_>) {
    let is_pattern = |word: &str| word.contains(['.', '*', '?', '/']) && !word.ends_with('.');
    for text in split_globs(written.text) {
        let words: Vec<&str> = text.split_whitespace().collect();
        if words.len() > 1 && !text.contains('\\') && words.iter().all(|word| is_pattern(word)) {
            let message = format!("`{text}` is one pattern, which matches only names with a blank in them");
            let remedy = format!("write `{}`, or `{}` if the blank is meant", words.join(", "), words.join("\\ "));
            written.view.problems.warn(written.view.place_of(written.key.name), Diagnostic::new(message, remedy));
        }
    }
}

/// Parses globs for file names, separated by commas; `none` or an empty text yields no globs.
pub(super) fn globs(text: &str) -> Result<Globs, Diagnostic> {
    let mut set = GlobSetBuilder::new();
    for glob in split_globs(text).filter(|_| text != "none") {
        if glob.contains('/') {
            let remedy = "only file names are compared, without their path; write the part after the last `/`";
            return Err(Diagnostic::new(format!("glob `{glob}` contains a `/`"), remedy));
        }
        let built = GlobBuilder::new(glob).literal_separator(true).build();
        set.add(built.map_err(|error| no_glob(glob, error.kind()))?);
    }
    set.build().map(|set| Globs { text: text.to_owned(), set }).map_err(|error| no_glob(text, error.kind()))
}

fn no_glob(glob: &str, why: &dyn std::fmt::Display) -> Diagnostic {
    Diagnostic::new(format!("invalid glob `{glob}`: {why}"), "expected one such as `*.tmp` or `.*.sw?`")
}

/// Splits a text at commas, but not at those in braces or brackets, such as `{a,b}` and `[,]`.
fn split_globs(text: &str) -> impl Iterator<Item = &str> {
    let mut depth = 0_usize;
    let parts = text.split(move |c| {
        match c {
            '{' | '[' => depth += 1,
            '}' | ']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        c == ',' && depth == 0
    });
    parts.map(str::trim).filter(|glob| !glob.is_empty())
}

/// Parses patterns, separated by commas; an empty text yields no patterns.
pub(super) fn patterns(text: &str) -> Result<Patterns, Diagnostic> {
    split_globs(text).map(pattern).collect::<Result<_, _>>().map(Patterns)
}

fn pattern(text: &str) -> Result<Pattern, Diagnostic> {
    let (negated, rest) = text.strip_prefix('!').map_or((false, text), |rest| (true, rest));
    let (directories_only, rest) = rest.strip_suffix('/').map_or((false, rest), |rest| (true, rest));
    let whole = rest.contains('/');
    // `./x` means the `x` directly in `Location`, like `/x`.
    let glob = rest.strip_prefix("./").or_else(|| rest.strip_prefix('/')).unwrap_or(rest);
    if glob.is_empty() {
        return Err(Diagnostic::new(
            format!("invalid pattern `{text}`"),
            "expected one such as `*.log`, `/build/` or `!keep.log`",
        ));
    }
    if glob.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return Err(Diagnostic::new(
            format!("pattern `{text}` matches nothing, because no path below Location has an empty part, `.` or `..`"),
            "write the path from Location on, such as `/build/cache/`",
        ));
    }
    let built = GlobBuilder::new(glob).literal_separator(true).build();
    let glob = built.map_err(|error| no_glob(text, error.kind()))?.compile_matcher();
    Ok(Pattern { glob, negated, directories_only, whole })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn covered(list: &str, path: &str) -> bool {
        patterns(list).unwrap().covers(Path::new(path.trim_end_matches('/')), path.ends_with('/'))
    }

    #[test]
    fn the_last_pattern_that_matches_decides() {
        assert!(covered("*.log", "a.log") && covered("*.log", "deep/down/a.log"));
        assert!(!covered("*.log, !keep.log", "deep/keep.log"));
        assert!(covered("!keep.log, *.log", "keep.log"));
    }

    #[test]
    fn a_slash_ties_a_pattern_to_its_place() {
        assert!(covered("/build/", "build/") && covered("/build/", "build/x/y"));
        assert!(!covered("/build/", "src/build/x") && !covered("/build/", "build"));
        assert!(covered("build/", "src/build/x"));
        assert!(covered("docs/*.pdf", "docs/a.pdf") && !covered("docs/*.pdf", "docs/deep/a.pdf"));
        assert!(covered("docs/**/*.pdf", "docs/deep/a.pdf"));
    }

    #[test]
    fn what_lies_in_a_directory_that_matches_cannot_be_taken_out() {
        assert!(covered("cache/, !cache/keep", "cache/keep"));
        let including = patterns("docs/, *.txt, !secret.txt").unwrap();
        let reaches = |path: &str| including.reaches(Path::new(path), false);
        assert!(reaches("docs/a.pdf") && reaches("a.txt") && !reaches("a.pdf"));
        assert!(!reaches("docs/secret.txt"));
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        for bad in ["!", "/", "!/", "[", "a, {b"] {
            assert!(patterns(bad).is_err(), "{bad:?}");
        }
        assert!(patterns("").unwrap().is_empty());
    }

    #[test]
    fn globs_match_names_that_are_left_alone() {
        let set = globs("*.part, *.{tmp,bak} ,.*.sw?, [,]x").unwrap();
        for name in ["a.part", "a.tmp", "b.bak", ".f.swp", ",x"] {
            assert!(set.is_match(name), "{name}");
        }
        for name in ["a.parts", "f.swp", "a,x", "part"] {
            assert!(!set.is_match(name), "{name}");
        }
        assert!(["none", ""].iter().all(|text| !globs(text).unwrap().is_match(text)));
        for bad in ["a/b", "[", "{a", "a, [z-a]"] {
            assert!(globs(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_pattern_from_the_top_may_begin_like_a_path_and_one_that_matches_nothing_is_refused() {
        assert!(covered("./a.txt", "a.txt") && !covered("./a.txt", "b/a.txt"));
        assert!(covered("!./keep, ./cache/", "cache/"));
        for bad in ["../a", "a/../b", "a//b", "a/./b", "//a", "."] {
            assert!(patterns(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_a_pattern_panic(text: String) {
            let _ = (globs(&text), patterns(&text));
        }
    }
}
