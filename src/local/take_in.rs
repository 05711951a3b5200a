//! Takes in source files: creates a version of a file if it does not change meanwhile.

use std::time::Duration;

use bytes::Bytes;

use super::file_state::{Kind, PathState, owner_of, require};
use super::open_location::OpenLocation;
use super::open_writers::{Verdict, Writers};
use super::rules::Rules;
use super::source::{SourceFile, hash, wait_for_the_clock};
use super::source_cache::{BLOCK, SourceCache};
use super::{DiskError, mode_of, stamp_of};
use crate::digest::{Digest, Hasher};
use crate::names::RelPath;
use crate::records::{Entry, NewVersion, VersionKind};

/// Result of taking in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TakeIn {
    /// A version of the file. Its stamp did not change while the file was read, and the path still refers to this file.
    Version(NewVersion),
    /// The file changed or was replaced while it was read. Try again when it no longer changes.
    Changing,
    /// A process has the file open for writing. So the file is not finished, even if it has been unchanged for long.
    BeingWritten,
    /// Open writers cannot be detected here. Try again when the file has been unchanged for this much longer.
    Unquiet(Duration),
    /// The file does not exist (any more).
    Gone,
    /// The path is not a regular file.
    NotAFile(Kind),
    /// The rules exclude files of this size.
    LeftAlone,
}

/// Takes in the files of one directory.
#[derive(Clone)]
pub struct Intake {
    /// The location, and the rules that decide which of its files are taken in.
    pub rules: Rules,
    /// Chunk size of the new versions, in bytes.
    pub chunk_size: u64,
    /// Cache that keeps small files after they were read.
    pub source_cache: SourceCache,
    /// Number of readers that will read each cached file.
    pub readers: usize,
    /// Detects whether a file is still open for writing.
    pub writers: Writers,
}

impl Intake {
    /// Creates a version of a file, if the file doesn't change meanwhile. A file of at most one chunk is hashed, and
    /// put in the source cache if it is small enough; a larger file is hashed when it is sent.
    ///
    /// Waits up to 10 ms if the file was just written to, because another change within the same tick of the kernel's
    /// clock would not change its mtime.
    ///
    /// # Errors
    /// [`DiskError::Stopped`] when `stop` returned true; [`DiskError::Location`] when the location itself is missing;
    /// any other error of the disk. A missing file is not an error, but [`TakeIn::Gone`].
    pub fn take_in(&self, path: &RelPath, stop: &dyn Fn() -> bool) -> Result<TakeIn, DiskError> {
        self.take_in_from(&OpenLocation::open(&self.rules)?, path, stop)
    }

    /// Takes in a file like [`take_in`](Self::take_in), from a location that is already open.
    ///
    /// # Errors
    /// As [`take_in`](Self::take_in).
    pub fn take_in_from(
        &self,
        location: &OpenLocation<'_>,
        path: &RelPath,
        stop: &dyn Fn() -> bool,
    ) -> Result<TakeIn, DiskError> {
        self.sorted(self.take(location, path, self.chunk_size, stop))
    }

    /// Takes in a file again although its metadata looks unchanged. Reads the whole file, whatever its size, and drops
    /// its cached blocks.
    ///
    /// # Errors
    /// As [`take_in`](Self::take_in).
    pub fn take_in_again(&self, path: &RelPath, stop: &dyn Fn() -> bool) -> Result<TakeIn, DiskError> {
        let taken = self.take(&OpenLocation::open(&self.rules)?, path, u64::MAX, stop);
        if let Ok(TakeIn::Version(new)) = &taken
            && let Some(digest) = &new.digest
        {
            self.source_cache.rehashed(self.rules.location(), path, new.stamp, self.rules.follows(), digest);
        }
        self.sorted(taken)
    }

    fn sorted(&self, taken: Result<TakeIn, DiskError>) -> Result<TakeIn, DiskError> {
        match taken {
            Err(DiskError::Changed { .. }) => Ok(TakeIn::Changing),
            Err(DiskError::NotAFile { kind, .. }) => Ok(TakeIn::NotAFile(kind)),
            Err(error) if error.is_gone() => require(self.rules.location()).map(|()| TakeIn::Gone),
            outcome => outcome,
        }
    }

    /// Takes in a file, and hashes it if it has at most `hashed` bytes.
    fn take(
        &self,
        location: &OpenLocation<'_>,
        path: &RelPath,
        hashed: u64,
        stop: &dyn Fn() -> bool,
    ) -> Result<TakeIn, DiskError> {
        let source = location.open_file(path)?;
        // The stamp is read before the check for open writers, so that the comparison below detects every change after
        // that check.
        let meta = wait_for_the_clock(&source)?;
        let before = stamp_of(&meta);
        if !self.rules.takes_size(before.size) {
            return Ok(TakeIn::LeftAlone);
        }
        match source.judge(path, &meta, &self.writers) {
            Verdict::Free => {}
            Verdict::Open => return Ok(TakeIn::BeingWritten),
            Verdict::Wait(left) => return Ok(TakeIn::Unquiet(left)),
        }
        let (digest, blocks) = match before.size {
            size if size > hashed => (None, Vec::new()),
            size if size <= self.chunk_size && self.source_cache.may_put_by(size) => read_blocks(&source, size, stop)?,
            _ => (Some(hash(&source, stop)?), Vec::new()),
        };
        let after = source.metadata()?;
        if stamp_of(&after) != before {
            return Ok(TakeIn::Changing);
        }
        match location.classify(path)? {
            PathState::Taken(found) if found.traits.stamp == before => {}
            PathState::Taken(_) => return Ok(TakeIn::Changing),
            PathState::Gone => return Ok(TakeIn::Gone),
            PathState::Directory(_) => return Ok(TakeIn::NotAFile(Kind::Directory)),
            PathState::Skipped(kind) => return Ok(TakeIn::NotAFile(kind)),
        }
        if !blocks.is_empty() {
            let follow = self.rules.follows();
            self.source_cache.put_by(self.rules.location(), path, before, follow, blocks, self.readers);
        }
        let entry = Entry {
            path: path.clone(),
            kind: VersionKind::File,
            stamp: before,
            mode: mode_of(&after),
            owner: self.rules.minds_owners().then(|| owner_of(&after)),
            target: Vec::new(),
            digest,
            chunk_size: self.chunk_size,
        };
        Ok(TakeIn::Version(entry.into()))
    }
}

/// Returns the digest of a file of `size` bytes, and its bytes in blocks of the source cache.
fn read_blocks(
    source: &SourceFile,
    size: u64,
    stop: &dyn Fn() -> bool,
) -> Result<(Option<Digest>, Vec<Bytes>), DiskError> {
    let mut hasher = Hasher::default();
    let mut blocks = Vec::new();
    let mut offset = 0;
    while offset < size {
        if stop() {
            return Err(source.stopped());
        }
        let block = source.read_at(offset, BLOCK.min(size - offset) as usize)?;
        hasher.update(&block);
        offset += block.len() as u64;
        blocks.push(block);
    }
    Ok((Some(hasher.finish()), blocks))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;
    use std::cell::Cell;
    use std::ffi::OsStr;
    use std::fs::{self, OpenOptions};
    use std::io::Write;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::path::{Path, PathBuf};
    use std::sync::Arc;
    use std::thread;

    struct Shore(tempfile::TempDir);

    impl Shore {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        fn at(&self, name: &[u8]) -> PathBuf {
            self.0.path().join(OsStr::from_bytes(name))
        }

        fn put(&self, name: &[u8], bytes: &[u8]) -> RelPath {
            fs::write(self.at(name), bytes).unwrap();
            RelPath::new(name).unwrap()
        }

        /// Creates an intake with chunks of 4 MiB.
        fn intake(&self, cache: u64) -> Intake {
            let writers = Writers::new(Duration::ZERO);
            let rules = Rules::of(self.0.path(), "");
            Intake { rules, chunk_size: 4 << 20, source_cache: SourceCache::new(cache), readers: 1, writers }
        }

        fn take_in(&self, path: &RelPath, stop: &dyn Fn() -> bool) -> TakeIn {
            self.intake(64 << 20).take_in(path, stop).unwrap()
        }
    }

    fn go_on() -> bool {
        false
    }

    #[test]
    fn a_quiet_file_becomes_a_version_with_its_digest() {
        let shore = Shore::new();
        let bytes: Vec<u8> = (0..2_500_000u32).map(|n| (n % 251) as u8).collect();
        let path = shore.put(b"caf\xe9\n", &bytes);
        fs::set_permissions(shore.at(path.as_bytes()), fs::Permissions::from_mode(0o640)).unwrap();
        let TakeIn::Version(version) = shore.take_in(&path, &go_on) else { panic!("not taken in") };
        assert_eq!(version.digest, Some(Digest::of(&bytes)));
        assert_eq!((version.mode, version.stamp.size, &version.path), (0o640, 2_500_000, &path));
    }

    #[test]
    fn a_file_of_several_chunks_is_hashed_only_when_it_is_taken_in_again() {
        let shore = Shore::new();
        let bytes = vec![7; (4 << 20) + 1];
        let path = shore.put(b"f", &bytes);
        let intake = shore.intake(64 << 20);
        let TakeIn::Version(first) = intake.take_in(&path, &|| panic!("it is not read")).unwrap() else {
            panic!("not taken in")
        };
        assert_eq!((first.digest, first.stamp.size), (None, bytes.len() as u64));
        let TakeIn::Version(again) = intake.take_in_again(&path, &go_on).unwrap() else { panic!("not taken in") };
        assert_eq!((again.digest, again.stamp), (Some(Digest::of(&bytes)), first.stamp));
    }

    #[test]
    fn an_empty_file_is_a_version_without_chunks() {
        let shore = Shore::new();
        let path = shore.put(b"empty", b"");
        let TakeIn::Version(version) = shore.take_in(&path, &go_on) else { panic!("not taken in") };
        assert_eq!(version.digest, Some(Digest::of(b"")));
    }

    /// Takes in a file of 3 MiB, and calls `change` once after part of the file was read. Runs once with a cache that
    /// has room for the file, and once with one that is too small.
    fn taken_in_while(change: impl Fn(&Shore, &Path)) -> TakeIn {
        let taken = [64 << 20, 8 << 20].map(|cache| {
            let shore = Shore::new();
            let path = shore.put(b"f", &[7; 3 << 20]);
            let asked = Cell::new(0);
            let stop = || {
                asked.set(asked.get() + 1);
                if asked.get() == 2 {
                    change(&shore, &shore.at(b"f"));
                }
                false
            };
            shore.intake(cache).take_in(&path, &stop).unwrap()
        });
        assert_eq!(taken[0], taken[1]);
        taken[0].clone()
    }

    #[test]
    fn a_file_that_changes_while_it_is_hashed_is_no_version() {
        let appended = taken_in_while(|_, path| {
            OpenOptions::new().append(true).open(path).unwrap().write_all(b"x").unwrap();
        });
        assert_eq!(appended, TakeIn::Changing);
        let overwritten = taken_in_while(|_, path| {
            OpenOptions::new().write(true).open(path).unwrap().write_all(b"x").unwrap();
        });
        assert_eq!(overwritten, TakeIn::Changing);
        let cut = taken_in_while(|_, path| OpenOptions::new().write(true).open(path).unwrap().set_len(9).unwrap());
        assert_eq!(cut, TakeIn::Changing);
        let replaced = taken_in_while(|shore, path| {
            shore.put(b"g", &[7; 3 << 20]);
            fs::rename(shore.at(b"g"), path).unwrap();
        });
        assert_eq!(replaced, TakeIn::Changing);
    }

    #[test]
    fn a_file_that_vanishes_or_becomes_a_link_while_it_is_hashed_is_no_version() {
        assert_eq!(taken_in_while(|_, path| fs::remove_file(path).unwrap()), TakeIn::Gone);
        let linked = taken_in_while(|_, path| {
            fs::remove_file(path).unwrap();
            symlink("/etc/passwd", path).unwrap();
        });
        assert_eq!(linked, TakeIn::NotAFile(Kind::Symlink));
    }

    #[test]
    fn what_is_no_regular_file_is_not_read_and_does_not_hang() {
        let shore = Shore::new();
        let take_in = |name: &str| shore.take_in(&RelPath::new(name).unwrap(), &go_on);
        shore.put(b"f", b"secret");
        symlink("f", shore.at(b"link")).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, shore.at(b"pipe"), rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(shore.at(b"socket")).unwrap();
        assert_eq!(take_in("link"), TakeIn::NotAFile(Kind::Symlink));
        assert_eq!(take_in("pipe"), TakeIn::NotAFile(Kind::Fifo));
        assert_eq!(take_in("socket"), TakeIn::NotAFile(Kind::Socket));
        assert_eq!(take_in("..."), TakeIn::Gone);
        assert_eq!(take_in("f/below"), TakeIn::Gone);
    }

    #[test]
    fn hashing_stops_when_told() {
        let shore = Shore::new();
        let path = shore.put(b"f", b"abc");
        let source = SourceFile::open(shore.0.path(), &path, false).unwrap();
        assert!(matches!(hash(&source, &|| true), Err(DiskError::Stopped { .. })));
    }

    #[test]
    fn ranges_are_read_exactly_and_from_several_threads() {
        let shore = Shore::new();
        let path = shore.put(b"f", b"0123456789");
        let source = Arc::new(SourceFile::open(shore.0.path(), &path, false).unwrap());
        let other = Arc::clone(&source);
        let there = thread::spawn(move || other.read_at(8, 2).unwrap());
        assert_eq!(&source.read_at(2, 3).unwrap()[..], b"234");
        assert_eq!(&there.join().unwrap()[..], b"89");
        assert!(source.read_at(10, 0).unwrap().is_empty());
        assert!(matches!(source.read_at(8, 3), Err(DiskError::Changed { .. })));
        fs::remove_file(shore.at(b"f")).unwrap();
        assert_eq!(&source.read_at(0, 10).unwrap()[..], b"0123456789");
    }
}
