//! `init`: writes a commented settings file to start from.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::{Exit, say, say_error};
use crate::settings::EXAMPLE;

/// Writes the settings file with access for its owner only; never overwrites an existing file.
pub(super) fn init(file: &Path) -> Exit {
    let made = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(file);
    match made.and_then(|mut file| file.write_all(EXAMPLE.as_bytes())) {
        Ok(()) => {
            let file = file.display();
            say(format_args!("wrote {file}; edit it, then run: contentmonster --settings {file} check"));
            Exit::Good
        }
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {
            say_error(format_args!("{} already exists and was not changed; name another file", file.display()));
            Exit::Usage
        }
        Err(e) => {
            say_error(format_args!("cannot write {}: {e}", file.display()));
            Exit::Broken
        }
    }
}
