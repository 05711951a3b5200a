//! A log file that can be reopened after `logrotate` moved it away.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};

use rustix::fs::OFlags;

use crate::root::open_private;

/// An open log file. Each line is appended with one write, so lines of concurrent writers don't mix.
pub(super) struct LogFile {
    path: PathBuf,
    file: Mutex<File>,
}

/// Opens the file for appending. A new file is accessible to its owner only, because log lines contain file names.
fn open(path: &Path) -> io::Result<File> {
    open_private(path, OFlags::WRONLY | OFlags::APPEND)
}

impl LogFile {
    pub(super) fn open(path: PathBuf) -> io::Result<Self> {
        let file = Mutex::new(open(&path)?);
        Ok(Self { path, file })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn reopen(&self) -> io::Result<()> {
        let file = open(&self.path)?;
        *self.file() = file;
        Ok(())
    }

    fn file(&self) -> MutexGuard<'_, File> {
        self.file.lock().expect("no code panics while it holds this lock")
    }
}

/// One call of `write` is one line, because `tracing_subscriber` writes each line with one call.
impl Write for &LogFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
