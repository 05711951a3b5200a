//! A tree of files as a value: two of them are compared, and what differs is said.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// What lies at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Leaf {
    /// A directory and its mode.
    Directory(u32),
    /// A file: mode, time of last change in seconds, and a digest of its bytes.
    File(u32, i64, u64, String),
    /// A link and its target.
    Link(PathBuf),
}

/// What lies below a directory, by path.
pub(crate) type Tree = BTreeMap<PathBuf, Leaf>;

/// Looks at all that lies below a directory; nothing when there is none.
pub(crate) fn tree(root: &Path) -> Tree {
    let mut found = Tree::new();
    let mut directories = vec![root.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            let path = entry.path();
            let Ok(meta) = path.symlink_metadata() else { continue };
            let mode = meta.mode() & 0o7777;
            let leaf = match meta.file_type() {
                t if t.is_dir() => Leaf::Directory(mode),
                t if t.is_symlink() => Leaf::Link(fs::read_link(&path).unwrap_or_default()),
                _ => {
                    let bytes = fs::read(&path).unwrap_or_default();
                    let digest = contentmonster::digest::Digest::of(&bytes).to_string();
                    Leaf::File(mode, meta.mtime(), meta.len(), digest)
                }
            };
            if meta.is_dir() {
                directories.push(path.clone());
            }
            found.insert(path.strip_prefix(root).unwrap().to_owned(), leaf);
        }
    }
    found
}

/// What differs between two trees, a line each, at most some.
pub(crate) fn differences(wanted: &Tree, found: &Tree) -> Vec<String> {
    let missing = wanted.iter().filter(|(path, leaf)| found.get(*path) != Some(leaf));
    let missing = missing.map(|(path, leaf)| format!("{path:?}: {leaf:?} is wanted, not {:?}", found.get(path)));
    let more = found.iter().filter(|(path, _)| !wanted.contains_key(*path));
    missing.chain(more.map(|(path, leaf)| format!("{path:?}: {leaf:?} is there and not wanted"))).take(20).collect()
}
