//! Log lines on standard error where journald reads it: each says how grave it is and leaves the time to journald
//! (sd-daemon(3)).

use std::io::{self, Write};

use super::line::{Lines, severity};

/// Whether journald reads standard error: the variable names it by device and inode (systemd.exec(5)), for a program that
/// is started by a service may write elsewhere.
pub(super) fn reads_standard_error() -> bool {
    let (Ok(stream), Ok(stderr)) = (std::env::var("JOURNAL_STREAM"), rustix::fs::fstat(io::stderr())) else {
        return false;
    };
    stream == format!("{}:{}", stderr.st_dev, stderr.st_ino)
}

/// Lines for journald.
pub(super) const JOURNAL: Lines =
    Lines { head: |level| format!("<{}>", severity(level)), send: |line| drop(io::stderr().write_all(line)) };
