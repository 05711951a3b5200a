//! Log lines on standard error for journald: each line begins with its severity, and journald adds the time
//! (sd-daemon(3)).

use std::io::{self, Write};

use super::line::{Lines, severity};

/// Returns whether journald reads this process's standard error: whether `JOURNAL_STREAM` contains the device and inode
/// of standard error (systemd.exec(5)). The variable's presence is not enough, because a process that inherited the
/// variable may have another standard error.
pub(super) fn reads_standard_error() -> bool {
    let (Ok(stream), Ok(stderr)) = (std::env::var("JOURNAL_STREAM"), rustix::fs::fstat(io::stderr())) else {
        return false;
    };
    stream == format!("{}:{}", stderr.st_dev, stderr.st_ino)
}

/// Prefix and destination of lines for journald.
pub(super) const JOURNAL: Lines =
    Lines { head: |level| format!("<{}>", severity(level)), send: |line| drop(io::stderr().write_all(line)) };
