//! Converts the errors that the kernel returns when a directory is to be watched.

use std::io;
use std::path::Path;

use notify::ErrorKind;
use rustix::io::Errno;

use crate::local::DiskError;

/// Converts an error of `notify` to [`DiskError::WatchLimit`] if a limit of the kernel is reached, or else to
/// [`DiskError::Location`].
pub(super) fn refused(location: &Path, error: notify::Error) -> DiskError {
    let limit = |sysctl| DiskError::WatchLimit { path: location.into(), sysctl };
    let source = match error.kind {
        ErrorKind::MaxFilesWatch => return limit("fs.inotify.max_user_watches"),
        ErrorKind::Io(source) => source,
        ErrorKind::PathNotFound => Errno::NOENT.into(),
        other => io::Error::other(format!("{other:?}")),
    };
    match Errno::from_io_error(&source) {
        Some(Errno::MFILE) => limit("fs.inotify.max_user_instances"),
        Some(Errno::NOSPC) => limit("fs.inotify.max_user_watches"),
        _ => DiskError::Location { act: "watch", path: location.into(), source },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_watch_says_which_limit_or_which_location() {
        let refused = |error| refused(Path::new("/srv"), error).fault().to_string();
        assert!(refused(notify::Error::new(ErrorKind::MaxFilesWatch)).contains("max_user_watches"));
        assert!(refused(notify::Error::io(Errno::MFILE.into())).contains("max_user_instances"));
        assert!(refused(notify::Error::path_not_found()).contains("correct its Location"));
    }
}
