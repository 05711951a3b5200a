//! A chapter of the book as the tests see it: its fenced blocks, headings and links. Knows no commands.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// A fenced block.
#[derive(Debug)]
pub(super) struct Block {
    /// The line of its first fence, from 1.
    pub(super) line: usize,
    /// What stands behind the first fence.
    pub(super) info: String,
    /// What it holds, with a line feed at the end of each line.
    pub(super) text: String,
}

/// A chapter.
pub(super) struct Page {
    pub(super) path: PathBuf,
    pub(super) blocks: Vec<Block>,
    /// Where its links lead, and from which line.
    pub(super) links: Vec<(usize, String)>,
    /// What its headings are called in addresses.
    pub(super) anchors: BTreeSet<String>,
}

/// Where the book is written.
pub(super) fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/src")
}

/// All files of the book.
pub(super) fn pages() -> Vec<Page> {
    let files = fs::read_dir(source()).unwrap().map(|entry| entry.unwrap().path());
    let mut pages: Vec<_> = files.filter(|path| path.extension().is_some_and(|it| it == "md")).collect();
    pages.sort();
    pages.iter().map(|path| Page::read(path)).collect()
}

impl Page {
    pub(super) fn read(path: &Path) -> Self {
        let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
        let mut page = Self { path: path.to_owned(), blocks: Vec::new(), links: Vec::new(), anchors: BTreeSet::new() };
        let mut open: Option<Block> = None;
        for (at, line) in (1..).zip(text.lines()) {
            match (&mut open, line.strip_prefix("```")) {
                (None, Some(info)) => open = Some(Block { line: at, info: info.to_owned(), text: String::new() }),
                (Some(_), Some("")) => page.blocks.extend(open.take()),
                (Some(block), _) => block.text += &format!("{line}\n"),
                (None, None) => page.read_prose(at, line),
            }
        }
        assert!(open.is_none(), "{path:?}: a block is not closed");
        page
    }

    fn read_prose(&mut self, at: usize, line: &str) {
        if let Some(heading) = line.strip_prefix('#') {
            self.anchors.insert(anchor(heading.trim_start_matches('#').trim()));
        }
        // What stands between single backquotes is no link.
        let prose: String = line.split('`').step_by(2).collect();
        let ends = prose.split("](").skip(1).filter_map(|rest| rest.split_once(')'));
        self.links.extend(ends.map(|(to, _)| (at, to.to_owned())));
    }

    /// Its name without the ending.
    pub(super) fn name(&self) -> String {
        self.path.file_stem().expect("a file").to_string_lossy().into_owned()
    }

    /// `name.md:line`, for messages.
    pub(super) fn place(&self, line: usize) -> String {
        format!("docs/src/{}.md:{line}", self.name())
    }
}

impl Block {
    /// Of `ini settings.ini`, the file that the reader is to write.
    pub(super) fn file(&self) -> Option<&str> {
        self.info.split_once(' ').filter(|(language, _)| ["ini", "yaml"].contains(language)).map(|(_, file)| file)
    }

    /// Its language, without what else stands there.
    pub(super) fn language(&self) -> &str {
        self.info.split(' ').next().unwrap_or_default()
    }
}

/// As mdBook makes it: lower case, blanks to hyphens, no punctuation.
fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
    kept.map(|c| if c == ' ' { '-' } else { c.to_ascii_lowercase() }).collect()
}
