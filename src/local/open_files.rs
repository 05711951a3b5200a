//! Lists the files that other processes have open for writing, as far as `/proc` shows them.
//!
//! The whole of `/proc` is read at once, and the result serves all queries within a short time. A query only accesses
//! open files with the same inode number, because accessing a file on a hung file system would hang too.

use std::collections::HashMap;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Inode of the initial PID namespace (`PROC_PID_INIT_INO` in the kernel), in which all processes are visible.
const FIRST_NAMESPACE: &str = "pid:[4026531836]";

/// A snapshot of `/proc`.
#[derive(Debug, Default)]
pub(super) struct OpenFiles {
    /// Descriptors that are open for writing, by the inode number of their file. The same number may exist on several
    /// file systems.
    writers: HashMap<u64, Vec<PathBuf>>,
    /// Whether the open files of every process could be read.
    complete: bool,
}

impl OpenFiles {
    /// Reads `/proc`.
    pub(super) fn now() -> Self {
        let whole = fs::read_link("/proc/self/ns/pid").is_ok_and(|namespace| namespace == Path::new(FIRST_NAMESPACE));
        let mut open_files = Self { complete: whole, ..Self::default() };
        let Ok(programs) = fs::read_dir("/proc") else { return Self::default() };
        let own = std::process::id().to_string();
        for program in programs.flatten() {
            let name = program.file_name();
            let is_number = name.as_encoded_bytes().iter().all(u8::is_ascii_digit);
            if is_number && name != own.as_str() {
                open_files.read(&program.path());
            }
        }
        open_files
    }

    fn read(&mut self, program: &Path) {
        let descriptors = match fs::read_dir(program.join("fd")) {
            Ok(descriptors) => descriptors,
            Err(error) => {
                self.complete &= error.kind() == ErrorKind::NotFound;
                return;
            }
        };
        for descriptor in descriptors.flatten() {
            // The permission bits of the descriptor's link in `/proc` show how the file is open.
            let may_write = descriptor.path().symlink_metadata().is_ok_and(|meta| meta.mode() & 0o200 != 0);
            if !may_write {
                continue;
            }
            match inode(&program.join("fdinfo").join(descriptor.file_name())) {
                Some(inode) => self.writers.entry(inode).or_default().push(descriptor.path()),
                None => self.complete = false,
            }
        }
    }

    /// Returns whether another process has a file (device, inode) open for writing; `None` if that is unknown.
    pub(super) fn holds(&self, file: (u64, u64)) -> Option<bool> {
        let is_it = |descriptor: &PathBuf| fs::metadata(descriptor).is_ok_and(|meta| (meta.dev(), meta.ino()) == file);
        let found = self.writers.get(&file.1).is_some_and(|descriptors| descriptors.iter().any(is_it));
        if found { Some(true) } else { self.complete.then_some(false) }
    }
}

/// Returns the inode number from a descriptor's `fdinfo` (since Linux 5.14).
fn inode(fdinfo: &Path) -> Option<u64> {
    let text = match fs::read_to_string(fdinfo) {
        Ok(text) => text,
        // The file was closed meanwhile. Returns 0, because no file has this inode number.
        Err(error) if error.kind() == ErrorKind::NotFound => return Some(0),
        Err(_) => return None,
    };
    text.lines().find_map(|line| line.strip_prefix("ino:")?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::process::{Command, Stdio};

    #[test]
    fn other_programs_writers_are_found_and_our_own_do_not_count() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let meta = file.as_file().metadata().unwrap();
        let identity = (meta.dev(), meta.ino());
        assert_ne!(OpenFiles::now().holds(identity), Some(true));
        let mut writer = Command::new("sh");
        writer.args(["-c", "exec 3>>\"$1\"; echo open; read line", "sh"]).arg(file.path());
        let mut writer = writer.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        writer.stdout.as_mut().unwrap().read_exact(&mut [0; 5]).unwrap();
        assert_eq!(OpenFiles::now().holds(identity), Some(true));
        drop(writer.stdin.take());
        writer.wait().unwrap();
        assert_ne!(OpenFiles::now().holds(identity), Some(true));
    }
}
