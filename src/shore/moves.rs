//! Moves on the shore: entries that had another path before. If an entry has the same inode, size and time as a version
//! at another path, it was probably moved. This is only a hint; on the vessel, the SHA-256 decides.
//!
//! The new version of a moved file names its earlier version as its origin. A directory that a scan finds under another
//! path is recorded together with everything in it. Its files are not read, because their stamps are those of the
//! ledger. The earlier paths are recorded as deleted in the same transaction, so that a vessel renames its copies.
//! These deletions do not count towards `MaxDelete`, because nothing is lost.

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Dir, Mode, OFlags};

use super::Directory;
use super::diff::is_same;
use super::pending::Pending;
use crate::fault::Fault;
use crate::ledger::CurrentVersion;
use crate::local::{self, Found, PathState, Rules, Scan, SourceFile};
use crate::names::RelPath;
use crate::records::{Entry, NewVersion, Traits, Version, VersionKind};
use crate::root::Root;
use crate::settings::{Dedup, Delta};
use crate::signature::{Signature, SignatureBuilder};

/// A directory with this many entries or more is not recorded as moved, because a move is recorded in one transaction,
/// for which other writers wait. Its entries are recorded one by one.
const MOST: u32 = 50_000;

/// Minimum size in bytes of a replaced file that is searched for under another name, and maximum number of entries of
/// its directory that are examined.
const LARGE: u64 = 1 << 20;
const MOST_BESIDE: usize = 20_000;

/// How much of the beginning of two files is compared, in blocks of average length.
const BEGINNING: usize = 8;

/// Returns whether the settings ask for the detection of moves in a directory.
pub(super) fn are_sought(directory: &Directory) -> bool {
    directory.settings.is_mirror() && directory.settings.dedup == Dedup::Auto
}

/// Sets the origins of versions whose files were moved, and adds the deletions of their earlier paths. Returns these
/// paths, which must be checked once more after the versions were recorded.
pub(super) async fn name_origins(directory: &Directory, versions: &mut Vec<NewVersion>) -> Result<Vec<RelPath>, Fault> {
    let is_file = |version: &NewVersion| version.kind == VersionKind::File;
    if !are_sought(directory) || !versions.iter().any(is_file) {
        return Ok(Vec::new());
    }
    name_changed_origins(directory, versions).await?;
    let origins = directory.ledger.same_stamp(&directory.settings.name, versions).await.map_err(|e| e.fault())?;
    let origins: Vec<_> = origins.into_iter().filter(|origin| versions.get(origin.at).is_some_and(is_file)).collect();
    if origins.is_empty() {
        return Ok(Vec::new());
    }
    // If this batch has a new version for the path, the path is replaced, not deleted.
    let own: HashSet<&RelPath> = versions.iter().map(|version| &version.path).collect();
    let asked: Vec<RelPath> = origins
        .iter()
        .filter(|origin| origin.is_current)
        .map(|origin| origin.path.clone())
        .filter(|path| !own.contains(path))
        .collect();
    let gone = gone_among(directory, asked).await?;
    let mut away = HashMap::new();
    for origin in origins {
        let is_gone = origin.is_current && gone.contains(&origin.path);
        let version = &mut versions[origin.at];
        // If several paths are hard links to the file, the path that no longer exists is the origin.
        if version.origin.is_none() || is_gone {
            version.origin = Some(origin.version);
        }
        if is_gone {
            away.insert(origin.path, origin.version);
        }
    }
    if !directory.settings.delete {
        return Ok(Vec::new());
    }
    let paths = away.keys().cloned().collect();
    versions.extend(away.into_iter().map(|(path, version)| NewVersion::moved_away(path, version)));
    Ok(paths)
}

/// Sets the origins of large files that were moved and then changed, so that vessels keep the earlier file until its
/// blocks were copied. The same inode is not enough, because a file system may reuse inodes, so the two files must also
/// have one of their first blocks in common. The earlier path is deleted or replaced like any other path.
async fn name_changed_origins(directory: &Directory, versions: &mut [NewVersion]) -> Result<(), Fault> {
    let is_large = |version: &NewVersion| version.kind == VersionKind::File && version.digest.is_none();
    if directory.settings.delta == Delta::No || !versions.iter().any(is_large) {
        return Ok(());
    }
    let name = &directory.settings.name;
    for (at, before) in directory.ledger.same_inode(name, versions).await.map_err(|e| e.fault())? {
        let Some(version) = versions.get_mut(at).filter(|version| is_large(version)) else { continue };
        let Some(signature) = directory.ledger.signature(&before).await.map_err(|e| e.fault())? else { continue };
        let rules = Rules::new(&directory.settings);
        let (path, stamp) = (version.path.clone(), version.stamp);
        let origin = before.id;
        let begins_alike = move || {
            let has_moved = match local::classify(&rules, &before.path) {
                Ok(PathState::Taken(found)) => found.traits.stamp.inode != stamp.inode,
                Ok(_) => true,
                Err(_) => false,
            };
            has_moved && begins_with_blocks(&rules, &path, stamp.size, &signature)
        };
        if directory.on_disk(begins_alike).await? {
            version.origin = Some(origin);
        }
    }
    Ok(())
}

/// Finds large files that were renamed within their directory and whose old paths now belong to files in `versions`.
/// Returns the new paths of the large files.
pub(super) async fn renamed_aside(directory: &Directory, versions: &[NewVersion]) -> Result<Vec<RelPath>, Fault> {
    if !are_sought(directory) {
        return Ok(Vec::new());
    }
    let files: HashMap<&RelPath, &NewVersion> = versions
        .iter()
        .filter(|version| version.kind == VersionKind::File)
        .map(|version| (&version.path, version))
        .collect();
    let paths: Vec<RelPath> = files.keys().map(|path| (*path).clone()).collect();
    let known = directory.ledger.current_at(&directory.settings.name, &paths).await.map_err(|e| e.fault())?;
    let is_replaced = |known: &CurrentVersion| {
        let Traits { kind, stamp, .. } = known.traits;
        let now = files.get(&known.path).is_some_and(|now| now.stamp.inode != stamp.inode);
        now && kind == VersionKind::File && stamp.size >= LARGE && versions.iter().all(|one| one.stamp != stamp)
    };
    let replaced: Vec<CurrentVersion> = known.into_iter().filter(is_replaced).collect();
    if replaced.is_empty() {
        return Ok(Vec::new());
    }
    let rules = Rules::new(&directory.settings);
    directory.on_disk(move || replaced.iter().filter_map(|known| name_beside(&rules, known)).collect()).await
}

/// Searches for a file under a new name in its directory. Returns the new path; `None` if the file is not found.
fn name_beside(rules: &Rules, known: &CurrentVersion) -> Option<RelPath> {
    let stamp = known.traits.stamp;
    let parent = known.path.as_path().parent().filter(|parent| !parent.as_os_str().is_empty());
    let root = Root::open(rules.location()).ok()?.following(rules.follows());
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let opened = root.open_below(parent.unwrap_or(Path::new(".")), flags, Mode::empty()).ok()?;
    // The directory entries contain the inodes, so the status of the other files need not be read.
    let mut entries = Dir::new(opened).ok()?.take(MOST_BESIDE).flatten().filter(|entry| entry.ino() == stamp.inode);
    entries.find_map(|entry| {
        let name = Path::new(OsStr::from_bytes(entry.file_name().to_bytes()));
        let path = parent.map_or_else(|| name.to_owned(), |parent| parent.join(name));
        let path = RelPath::new(path.into_os_string().into_vec()).ok()?;
        let is_it = matches!(local::classify(rules, &path), Ok(PathState::Taken(found)) if found.traits.stamp == stamp);
        (is_it && path != known.path).then_some(path)
    })
}

/// Returns whether one of the first blocks of a file is among the first blocks of a signature.
fn begins_with_blocks(rules: &Rules, path: &RelPath, size: u64, signature: &Signature) -> bool {
    let Ok(source) = SourceFile::open(rules.location(), path, rules.follows()) else { return false };
    let length = usize::try_from(size).unwrap_or(usize::MAX).min(signature.average() as usize * BEGINNING);
    let Ok(bytes) = source.read_at(0, length) else { return false };
    let mut builder = SignatureBuilder::new(signature.average());
    builder.update(&bytes);
    let first: HashSet<_> = signature.blocks().iter().take(BEGINNING).collect();
    builder.finish().blocks().iter().any(|block| first.contains(block))
}

/// Returns which of these paths do not exist.
async fn gone_among(directory: &Directory, paths: Vec<RelPath>) -> Result<HashSet<RelPath>, Fault> {
    let rules = Rules::new(&directory.settings);
    let is_gone = move |path: &RelPath| matches!(local::classify(&rules, path), Ok(PathState::Gone));
    directory.on_disk(move || paths.into_iter().filter(is_gone).collect()).await
}

/// A directory that a scan found under another path.
pub(super) struct MovedTree {
    /// The earlier path.
    pub(super) from: RelPath,
    /// The versions of the directory and of everything that moved with it, and the deletions of their earlier paths.
    pub(super) versions: Vec<NewVersion>,
}

/// Returns the directories that a scan found under another path than before. `known` are the versions in the scanned
/// part of the directory, sorted by path.
pub(super) async fn moved_trees(
    directory: &Directory,
    rules: &Rules,
    scan: &Scan,
    known: &[CurrentVersion],
    pending: &Pending,
) -> Result<Vec<MovedTree>, Fault> {
    if !are_sought(directory) || !directory.settings.delete || !rules.takes_directories() {
        return Ok(Vec::new());
    }
    let new = new_directories(&scan.found, known);
    if new.is_empty() {
        return Ok(Vec::new());
    }
    let name = &directory.settings.name;
    let mut origins = directory.ledger.same_stamp(name, &new).await.map_err(|e| e.fault())?;
    origins.retain(|origin| origin.is_current);
    let gone = gone_among(directory, origins.iter().map(|origin| origin.path.clone()).collect()).await?;
    let mut trees = Vec::new();
    let mut taken: HashSet<PathBuf> = HashSet::new();
    for origin in origins.iter().filter(|origin| gone.contains(&origin.path)) {
        let to = &new[origin.at].path;
        // A path is taken if a directory above it has moved as well, or if two directories claim the same origin.
        let is_taken = |path: &RelPath| path.as_path().ancestors().any(|above| taken.contains(above));
        // A file that is being read may still be recorded at its earlier path.
        if is_taken(to) || is_taken(&origin.path) || pending.is_busy_in(&origin.path) {
            continue;
        }
        // Another entry was recorded at the new path before, so the moved entries are handled one by one.
        if !directory.ledger.versions_in(name, to, 1).await.map_err(|e| e.fault())?.is_empty() {
            continue;
        }
        let before = directory.ledger.versions_in(name, &origin.path, MOST).await.map_err(|e| e.fault())?;
        if before.len() >= MOST as usize {
            continue;
        }
        let tree = moved_tree(rules, &scan.found, (&origin.path, to), &before);
        if !tree.is_empty() {
            taken.extend([to, &origin.path].map(|path| path.as_path().to_owned()));
            trees.push(MovedTree { from: origin.path.clone(), versions: tree });
        }
    }
    Ok(trees)
}

/// Returns versions of the found directories at whose paths the ledger knows no entry. Both lists are sorted by path.
fn new_directories(found: &[Found], known: &[CurrentVersion]) -> Vec<NewVersion> {
    let mut known = known.iter().peekable();
    let mut new = Vec::new();
    for found in found {
        while known.next_if(|v| v.path < found.path).is_some() {}
        let here = known.next_if(|v| v.path == found.path);
        let is_directory = found.traits.kind == VersionKind::Directory;
        if is_directory && here.is_none_or(|v| v.traits.kind == VersionKind::Gone) {
            new.push(NewVersion::without_content(found.path.clone(), found.traits, Vec::new()));
        }
    }
    new
}

/// Returns the versions of a moved directory and of everything that moved with it, parents first; then the deletions of
/// the earlier paths, parents last. Leaves out entries that changed; they are handled like any other change.
fn moved_tree(rules: &Rules, found: &[Found], (from, to): (&RelPath, &RelPath), before: &[Version]) -> Vec<NewVersion> {
    let suffix = |path: &RelPath, above: &RelPath| path.as_bytes().strip_prefix(above.as_bytes()).map(<[u8]>::to_vec);
    let found: HashMap<Vec<u8>, &Found> = found
        .iter()
        .filter(|one| one.path.as_path().starts_with(to.as_path()))
        .filter_map(|one| Some((suffix(&one.path, to)?, one)))
        .collect();
    let (mut versions, mut away) = (Vec::new(), Vec::new());
    // Directories in which some entries did not move along. They are deleted like any other directory, after their
    // contents.
    let mut left: HashSet<&Path> = HashSet::new();
    let mut along: HashSet<&Path> = HashSet::new();
    for version in before {
        let one = suffix(&version.path, from).and_then(|suffix| found.get(&suffix));
        let traits = Traits { kind: version.kind, stamp: version.stamp, mode: version.mode, owner: version.owner };
        let one = one.filter(|one| is_same(rules, &traits, &one.traits) && one.target == version.target);
        // An entry moves along only if its directory does. Vessels create the directories above a file, but delete only
        // directories that the ledger knows.
        let one = one.filter(|one| one.path == *to || one.path.as_path().parent().is_some_and(|it| along.contains(it)));
        let Some(one) = one else {
            if version.path == *from {
                return Vec::new();
            }
            left.extend(version.path.as_path().ancestors());
            continue;
        };
        let is_itself = one.path == *to;
        if version.kind == VersionKind::Directory {
            along.insert(one.path.as_path());
        }
        let above = one.path.as_path().parent().and_then(|above| RelPath::new(above.as_os_str().as_bytes()).ok());
        versions.push(NewVersion {
            entry: Entry { path: one.path.clone(), ..version.entry.clone() },
            origin: Some(version.id),
            moved_with: above.filter(|_| !is_itself),
        });
        away.push(NewVersion::moved_away(version.path.clone(), version.id));
    }
    versions.extend(away.into_iter().rev().filter(|away| !left.contains(away.path.as_path())));
    versions
}
