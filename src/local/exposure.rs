//! Determines which users besides the operator may change the contents of a directory.

use std::path::Path;

use rustix::fs::{Stat, stat};
use rustix::process::geteuid;

/// Returns whether any user except root and this program's user may replace files in a directory. The directory's owner
/// may always do this. The group or all users may do this if they have write permission and the sticky bit is not set.
pub(super) fn others_may_write(directory: &Stat) -> bool {
    let owner = directory.st_uid;
    let theirs = owner != 0 && owner != geteuid().as_raw();
    theirs || (directory.st_mode & 0o022 != 0 && directory.st_mode & 0o1000 == 0)
}

/// Returns which other users may change a location, in words; `None` if only root and this program's user may, or if
/// the status of the location cannot be read.
pub fn exposed_to(location: &Path) -> Option<String> {
    let directory = stat(location).ok()?;
    if !others_may_write(&directory) {
        return None;
    }
    let mut who = Vec::new();
    if directory.st_uid != 0 && directory.st_uid != geteuid().as_raw() {
        who.push(format!("its owner (user {})", directory.st_uid));
    }
    if directory.st_mode & 0o1000 == 0 {
        match directory.st_mode & 0o022 {
            0 => {}
            0o020 => who.push(format!("group {}", directory.st_gid)),
            _ => who.push("all users".to_owned()),
        }
    }
    Some(who.join(" and "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, chown};

    #[test]
    fn a_directory_is_exposed_to_whoever_may_replace_names_in_it() {
        let dir = tempfile::tempdir().unwrap();
        let exposed = |mode| {
            fs::set_permissions(dir.path(), fs::Permissions::from_mode(mode)).unwrap();
            exposed_to(dir.path())
        };
        assert_eq!(exposed(0o755), None);
        assert_eq!(exposed(0o1777), None);
        assert_eq!(exposed(0o777).as_deref(), Some("all users"));
        assert!(exposed(0o775).unwrap().starts_with("group "));
        if geteuid().is_root() {
            chown(dir.path(), Some(12_345), None).unwrap();
            assert_eq!(exposed(0o755).as_deref(), Some("its owner (user 12345)"));
            assert_eq!(exposed(0o1777).as_deref(), Some("its owner (user 12345)"));
        }
    }
}
