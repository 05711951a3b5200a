//! `ssh_config`: what the files of OpenSSH's client say of a host, read by OpenSSH's rules.
//!
//! Ours, because the crates for it don't tell on which line of which file a value stands, or what is wrong there, which is
//! what a person wants to know. The rules, as in OpenSSH 9.2:
//!
//! - The user's file comes before the machine's, and the first value obtained counts; of `IdentityFile` and
//!   `CertificateFile` all do. Of `ProxyJump` and `ProxyCommand` the one that comes first counts.
//! - `Host` takes patterns, of which `!` takes back; `Match` takes `all`, `host`, `originalhost`, `user` and `localuser`. A
//!   `Match` with any other condition never holds here, which is told.
//! - `Include` takes globs, beside `~/.ssh` or `/etc/ssh`, sixteen deep at the most.
//! - Keywords that mean nothing to us are passed over. Those that would change whom we talk to are told.

mod advice;
mod asked;
mod line;
mod reader;
mod words;

pub(super) use advice::Advice;
pub(super) use asked::{Asked, Source, Spot, Trouble};
pub(super) use words::{Hop, Jump, jump};

/// What the files say of a host.
///
/// # Errors
/// The first thing that is wrong in any line of any file that is read.
pub(super) fn ask(sources: &[Source], asked: &Asked<'_>) -> Result<Advice, Trouble> {
    advice::of(reader::read(sources, asked)?, asked)
}

/// Reads a text as an ssh config; see [`crate::strangers`]. One that includes others is left alone: they would be read.
#[cfg(any(test, fuzzing))]
pub fn ssh_config_text(text: &str) {
    use std::os::fd::AsRawFd;
    use std::path::PathBuf;
    if text.to_ascii_lowercase().contains("include") {
        return;
    }
    let file = rustix::fs::memfd_create("ssh_config", rustix::fs::MemfdFlags::CLOEXEC).expect("memory has room");
    let path = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
    std::fs::write(&path, text).expect("it is in memory");
    let source = Source { file: path, beside: "/nowhere".into(), required: true, guarded: false };
    let asked = Asked { host: "ship", user: None, port: None, local_user: Some("captain"), home: None };
    let _ = ask(&[source], &asked);
}
