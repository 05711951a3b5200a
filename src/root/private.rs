//! Private files: mode 0600 from their creation, whatever the umask.

use std::fs::File;
use std::io;
use std::path::Path;

use rustix::fs::{Mode, OFlags, fchmod, fstat};
use rustix::io::Errno;
use rustix::process::geteuid;

use super::open_trusted;

/// Opens a file, creating it with mode 0600 if it is missing. An existing file keeps its mode.
///
/// # Errors
/// As [`open_trusted`].
pub fn open_private(path: &Path, flags: OFlags) -> io::Result<File> {
    let ours = Mode::RUSR | Mode::WUSR;
    // Tries twice, because another process may create or remove the file between the two calls.
    for _ in 0..2 {
        match open_trusted(path, flags | OFlags::CREATE | OFlags::EXCL, ours) {
            Err(error) if Errno::from_io_error(&error) == Some(Errno::EXIST) => {}
            made => {
                let made = made?;
                // Sets the mode again, because the umask may have cleared bits. This fails, and is not needed, on a
                // file system without modes.
                fchmod(&made, ours).ok();
                return Ok(made);
            }
        }
        match open_trusted(path, flags, Mode::empty()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            opened => return opened,
        }
    }
    open_trusted(path, flags, Mode::empty())
}

/// Sets an open file of this user to mode 0600 if its present mode gives any access to users outside the file's group,
/// for example after creation with umask 022. A file that only its owner and group may access keeps its mode, because
/// the operator set that mode on purpose.
pub fn take_from_others(file: &File) {
    if let Ok(stat) = fstat(file)
        && stat.st_uid == geteuid().as_raw()
        && stat.st_mode & 0o007 != 0
    {
        fchmod(file, Mode::RUSR | Mode::WUSR).ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_new_file_is_0600_and_one_that_is_there_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let mode = || fs::metadata(&path).unwrap().permissions().mode() & 0o7777;
        let set = |mode| fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        open_private(&path, OFlags::WRONLY).unwrap();
        assert_eq!(mode(), 0o600);
        for (before, after) in [(0o640, 0o640), (0o644, 0o600), (0o666, 0o600)] {
            set(before);
            let file = open_private(&path, OFlags::WRONLY | OFlags::APPEND).unwrap();
            assert_eq!(mode(), before);
            take_from_others(&file);
            assert_eq!(mode(), after);
        }
    }
}
