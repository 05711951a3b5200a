//! Writing a host key down in a `known_hosts`.

use std::ffi::OsStr;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use russh::keys::PublicKey;

use super::line::names;

/// Adds a line for this key at the end of `file`, in one write; makes the directory (0700) and the file (0600) if missing.
///
/// # Errors
/// Where `host` can't stand in a line (blanks, commas, wildcards), and whatever the file system answers.
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
