//! Appends host keys to a `known_hosts`.

use std::ffi::OsStr;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use russh::keys::PublicKey;

use super::line::names;

/// Appends a line for `key` to `file`, in one write. Creates a missing directory (mode 0700) and a missing file (0600).
///
/// # Errors
/// When `host` contains characters that a line does not allow (spaces, commas, wildcards), or the file can't be
/// written.
pub fn append(file: &Path, host: &str, port: u16, key: &PublicKey) -> io::Result<()> {
    if host.is_empty() || host.contains(|c: char| c.is_whitespace() || c.is_control() || ",*?!|#@[]".contains(c)) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("invalid host name {host:?}")));
    }
    if let Some(directory) = file.parent().filter(|path| path.as_os_str() != OsStr::new("")) {
        DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    }
    let bare = PublicKey::from(key.key_data().clone()).to_openssh().map_err(io::Error::other)?;
    let mut known_hosts = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(file)?;
    let separator = if ends_in_a_line(&mut known_hosts)? { "" } else { "\n" };
    known_hosts.write_all(format!("{separator}{} {}\n", names(host, port)[0], bare.trim_end()).as_bytes())
}

fn ends_in_a_line(file: &mut fs::File) -> io::Result<bool> {
    if file.seek(SeekFrom::End(0))? == 0 {
        return Ok(true);
    }
    file.seek(SeekFrom::End(-1))?;
    let mut last = [0];
    file.read_exact(&mut last)?;
    Ok(last == *b"\n")
}
