//! Log lines on standard error for journald: each begins with its severity, and journald adds the time (sd-daemon(3)).

use std::io::{self, Write};

use super::line::{Lines, severity};

/// Returns whether journald reads standard error. The variable names its stream by device and inode (systemd.exec(5)),
/// because a child of a service may write elsewhere.
pub(super) fn reads_standard_error() -> bool {
    let (Ok(stream), Ok(stderr)) = (std::env::var("JOURNAL_STREAM"), rustix::fs::fstat(io::stderr())) else {
        return false;
    };
    stream == format!("{}:{}", stderr.st_dev, stderr.st_ino)
}

/// The format of lines for journald.
pub(super) const JOURNAL: Lines =
    Lines { head: |level| format!("<{}>", severity(level)), send: |line| drop(io::stderr().write_all(line)) };
