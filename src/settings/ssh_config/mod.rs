//! `ssh_config`: reads a host's values from the files of OpenSSH's client, with OpenSSH's rules.
//!
//! The existing crates are not used, because they don't report the file and line of a value or of an error, which
//! people need. The rules are those of OpenSSH 9.2:
//!
//! - The user's file is read before the system's. The first value of a keyword applies, but all values of
//!   `IdentityFile` and `CertificateFile` do. Of `ProxyJump` and `ProxyCommand`, only the one that comes first applies.
//! - `Host` takes patterns, and `!` negates a pattern. `Match` takes the conditions `all`, `host`, `originalhost`,
//!   `user` and `localuser`. A `Match` with any other condition never matches here, which is reported.
//! - `Include` takes globs, relative to `~/.ssh` or `/etc/ssh`, at most sixteen levels deep.
//! - Keywords without a meaning for us are ignored. Ignored keywords that would change the server or the login are
//!   reported.

mod advice;
mod asked;
mod line;
mod reader;
mod words;

pub(super) use advice::Advice;
pub(super) use asked::{Asked, Source, Spot, Trouble};
pub(super) use words::{Hop, Jump, jump};

/// Returns the values of the ssh config files for a host.
///
/// # Errors
/// The first error in any line of any file that is read.
pub(super) fn ask(sources: &[Source], asked: &Asked<'_>) -> Result<Advice, Trouble> {
    advice::of(reader::read(sources, asked)?, asked)
}

/// Parses a text as an ssh config; see [`crate::strangers`]. A text with `include` is skipped, because it would read
/// other files.
#[cfg(any(test, fuzzing))]
pub fn ssh_config_text(text: &str) {
    use std::os::fd::AsRawFd;
    use std::path::PathBuf;
    if text.to_ascii_lowercase().contains("include") {
        return;
    }
    let file = rustix::fs::memfd_create("ssh_config", rustix::fs::MemfdFlags::CLOEXEC)
        .expect("the system has memory for a small file");
    let path = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
    std::fs::write(&path, text).expect("writing to a file in memory does not fail");
    let source = Source { file: path, beside: "/nowhere".into(), required: true, guarded: false };
    let asked = Asked { host: "ship", user: None, port: None, local_user: Some("captain"), home: None };
    let _ = ask(&[source], &asked);
}
