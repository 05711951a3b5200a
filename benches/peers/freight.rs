//! The files that are sent: made once for a case, and compared by hash with what arrived.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use sha2::{Digest, Sha256};

use crate::Result;
use crate::stop::Stop;

type Hash = [u8; 32];

/// Where this program and the original put delivered sources, below the directory.
pub(crate) const PROCESSED: &[&str] = &["processed", "completed"];

/// Files of random bytes in a directory of their own, with their hashes.
pub(crate) struct Freight {
    directory: PathBuf,
    hashes: BTreeMap<String, Hash>,
    /// Bytes of all files.
    pub(crate) bytes: u64,
}

impl Freight {
    /// Makes the files, as if they had been written a minute ago: nobody has to wait whether they are finished.
    pub(crate) fn make(directory: &Path, files: usize, size: u64, stop: &Stop) -> Result<Self> {
        Self::make_named(directory, "", files, size, stop)
    }

    /// Makes files whose names begin with `prefix`.
    pub(crate) fn make_named(directory: &Path, prefix: &str, files: usize, size: u64, stop: &Stop) -> Result<Self> {
        fs::create_dir_all(directory).map_err(at(directory))?;
        let mut freight = Self { directory: directory.to_owned(), hashes: BTreeMap::new(), bytes: 0 };
        for number in 0..files {
            freight.add(&format!("{prefix}file-{number:06}.bin"), size, stop)?;
        }
        Ok(freight)
    }

    fn add(&mut self, name: &str, size: u64, stop: &Stop) -> Result<()> {
        let path = self.directory.join(name);
        let mut file = File::create(&path).map_err(at(&path))?;
        let (mut hasher, mut piece, mut left) = (Sha256::new(), vec![0; 1 << 20], size);
        while left > 0 {
            stop.check()?;
            let length = usize::try_from(left).unwrap_or(usize::MAX).min(piece.len());
            fastrand::fill(&mut piece[..length]);
            hasher.update(&piece[..length]);
            file.write_all(&piece[..length]).map_err(at(&path))?;
            left -= length as u64;
        }
        file.set_modified(SystemTime::now() - Duration::from_secs(60)).map_err(at(&path))?;
        self.hashes.insert(name.to_owned(), hasher.finalize().into());
        self.bytes += size;
        Ok(())
    }

    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    pub(crate) fn paths(&self) -> impl Iterator<Item = PathBuf> {
        self.hashes.keys().map(|name| self.directory.join(name))
    }

    pub(crate) fn count(&self) -> usize {
        self.hashes.len()
    }

    /// Whether every source has been moved to where delivered ones go.
    pub(crate) fn is_processed(&self) -> bool {
        PROCESSED.iter().any(|place| visible(&self.directory.join(place)) >= self.count())
    }

    /// Moves what was delivered back to where it came from.
    pub(crate) fn bring_back(&self) -> Result<()> {
        for place in PROCESSED.iter().map(|place| self.directory.join(place)).filter(|place| place.is_dir()) {
            for name in self.hashes.keys().filter(|name| place.join(name).exists()) {
                fs::rename(place.join(name), self.directory.join(name)).map_err(at(&place))?;
            }
            fs::remove_dir_all(&place).map_err(at(&place))?;
        }
        match self.paths().find(|path| !path.is_file()) {
            Some(lost) => Err(format!("{}: the source is gone after a run", lost.display())),
            None => Ok(()),
        }
    }

    /// Compares every file at a destination; the answer names the first that isn't right.
    pub(crate) fn compare(&self, destination: &Path, stop: &Stop) -> Result<std::result::Result<(), String>> {
        for (name, hash) in &self.hashes {
            stop.check()?;
            match hash_of(&destination.join(name)) {
                Ok(found) if found == *hash => {}
                Ok(_) => return Ok(Err(format!("{name} arrived with other bytes"))),
                Err(e) => return Ok(Err(format!("{name} has not arrived: {e}"))),
            }
        }
        Ok(Ok(()))
    }
}

/// How many files with a visible name a directory holds; none if there is no directory.
pub(crate) fn visible(directory: &Path) -> usize {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.filter(|entry| !entry.file_name().as_encoded_bytes().starts_with(b".")).count()
}

fn hash_of(path: &Path) -> std::io::Result<Hash> {
    let mut file = File::open(path)?;
    let (mut hasher, mut piece) = (Sha256::new(), vec![0; 256 << 10]);
    loop {
        match file.read(&mut piece)? {
            0 => return Ok(hasher.finalize().into()),
            length => hasher.update(&piece[..length]),
        }
    }
}

/// Names the place of an error.
pub(crate) fn at(path: &Path) -> impl Fn(std::io::Error) -> String {
    move |e| format!("{}: {e}", path.display())
}
