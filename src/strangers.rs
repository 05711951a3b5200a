//! Everything that a stranger's bytes reach, one function each: what the fuzz targets in `fuzz/` call, and what a plain test
//! calls with the corpora that lie there. No part of the program itself.
//!
//! None of them may panic, take long or fill the memory, whatever they are given.

use std::path::Path;

pub use crate::cli::poni_import;
pub use crate::settings::ssh_config_text;
pub use crate::transport::strangers::{known_hosts, sftp_stream, shell_output};

/// An order as it arrives at the socket or the page: what is taken for one is the same when it is written and read again.
pub fn order(bytes: &[u8]) {
    let Ok(order) = serde_json::from_slice::<crate::orders::Order>(bytes) else { return };
    let written = serde_json::to_vec(&order).expect("an order can be written");
    let again = serde_json::from_slice(&written).expect("what was written can be read");
    assert_eq!(order, again, "written and read again it is another order");
}

/// A settings file. Those that name files are left out: they would be read.
pub fn settings(text: &str) {
    use crate::settings::{Environment, Settings};
    if text.contains("File") || text.contains("SSHConfig") {
        return;
    }
    let environment =
        Environment { user: Some("captain".into()), settings_mode: Some(0o600), ..Environment::default() };
    let _ = Settings::parse(text, Path::new("/nowhere/settings.ini"), &environment);
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;

    /// Gives each file of a target's corpus to it, and a few things that no corpus needs to hold.
    fn replay(target: &str, try_one: fn(&[u8])) {
        let corpus = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
        let entries: Vec<_> = fs::read_dir(&corpus).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert!(!entries.is_empty(), "{} is empty", corpus.display());
        for entry in entries {
            try_one(&fs::read(entry).unwrap());
        }
        for bytes in [&b""[..], b"\0", b"\xff", &[0xff; 300], &[0; 300], &[b'\n'; 300]] {
            try_one(bytes);
        }
    }

    fn as_text(bytes: &[u8], try_one: fn(&str)) {
        try_one(&String::from_utf8_lossy(bytes));
    }

    #[test]
    fn no_reply_of_an_sftp_server_that_was_ever_found_stops_the_program() {
        replay("sftp_stream", super::sftp_stream);
    }

    #[test]
    fn no_output_of_a_shell_that_was_ever_found_stops_the_program() {
        replay("shell_output", super::shell_output);
    }

    #[test]
    fn no_known_hosts_that_was_ever_found_stops_the_program() {
        replay("known_hosts", super::known_hosts);
    }

    #[test]
    fn no_ssh_config_that_was_ever_found_stops_the_program() {
        replay("ssh_config", |bytes| as_text(bytes, super::ssh_config_text));
    }

    #[test]
    fn no_poni_configuration_that_was_ever_found_stops_the_program() {
        replay("poni", |bytes| as_text(bytes, super::poni_import));
    }

    #[test]
    fn no_order_that_was_ever_found_stops_the_program() {
        replay("order", super::order);
    }

    #[test]
    fn no_settings_that_were_ever_found_stop_the_program() {
        replay("settings", |bytes| as_text(bytes, super::settings));
    }
}
