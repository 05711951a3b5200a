//! Entry points for untrusted input, one function for each format. The fuzz targets in `fuzz/` call them, and a plain
//! test runs them with the corpora in `fuzz/corpus`. Not part of the program itself.
//!
//! No function here may panic, run long or exhaust the memory, whatever the input.

use std::path::Path;

pub use crate::cli::poni_import;
pub use crate::settings::ssh_config_text;
pub use crate::transport::strangers::{known_hosts, sftp_stream, shell_output};

/// Parses an [`Order`](crate::orders::Order) in the form that the socket and the status page receive. Checks that an
/// accepted order is unchanged after it was serialised and parsed again.
pub fn order(bytes: &[u8]) {
    let Ok(order) = serde_json::from_slice::<crate::orders::Order>(bytes) else { return };
    let written = serde_json::to_vec(&order).expect("the program serialises its own order");
    let again = serde_json::from_slice(&written).expect("the program parses the order that it has just serialised");
    assert_eq!(order, again, "an order differs after it was serialised and parsed again");
}

/// Parses a settings file. Skips texts that may name other files, because the parser would read these files.
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
    use std::time::{Duration, Instant};

    /// Passes each file of a target's corpus to `try_one`, then random mutations for 500 ms (or
    /// `CONTENTMONSTER_FUZZ_SECONDS`). Works like a fuzzer without coverage feedback.
    fn replay(target: &str, try_one: fn(&[u8])) {
        let corpus = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
        let entries: Vec<_> = fs::read_dir(&corpus).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert!(!entries.is_empty(), "{} is empty", corpus.display());
        let corpus: Vec<Vec<u8>> = entries.iter().map(|entry| fs::read(entry).unwrap()).collect();
        corpus.iter().for_each(|bytes| try_one(bytes));
        let seconds = std::env::var("CONTENTMONSTER_FUZZ_SECONDS").ok().and_then(|text| text.parse().ok());
        let time = seconds.map_or(Duration::from_millis(500), Duration::from_secs);
        let seed = std::env::var("CONTENTMONSTER_SEED").ok().and_then(|text| text.parse().ok());
        let seed = seed.unwrap_or_else(|| fastrand::u64(..));
        let (mut dice, started, mut tried) = (fastrand::Rng::with_seed(seed), Instant::now(), 0);
        while started.elapsed() < time {
            let bytes = mutated(&corpus, &mut dice);
            let outcome = std::panic::catch_unwind(|| try_one(&bytes));
            assert!(outcome.is_ok(), "CONTENTMONSTER_SEED={seed}, case {tried}: {}", bytes.escape_ascii());
            tried += 1;
        }
    }

    /// Returns a corpus entry with some bytes changed, removed, duplicated, or replaced from another entry.
    fn mutated(corpus: &[Vec<u8>], dice: &mut fastrand::Rng) -> Vec<u8> {
        /// Bytes with a special meaning in one of the formats.
        const TELLING: &[u8] = b"\0\x01\x7f\x80\xff\n\r\t \"'\\=:;,*?!@[]{}#%~-0";
        let mut bytes = corpus[dice.usize(..corpus.len())].clone();
        for _ in 0..=dice.usize(..6) {
            let at = dice.usize(..=bytes.len());
            let end = (at + dice.usize(..=8)).min(bytes.len());
            match dice.u8(..6) {
                0 => bytes.insert(at, TELLING[dice.usize(..TELLING.len())]),
                1 if at < bytes.len() => bytes[at] = TELLING[dice.usize(..TELLING.len())],
                2 if at < bytes.len() => bytes[at] = dice.u8(..),
                3 => drop(bytes.drain(at..end)),
                4 => {
                    let doubled = bytes[at..end].repeat(1 + dice.usize(..20));
                    bytes.splice(at..at, doubled);
                }
                _ => {
                    let other = &corpus[dice.usize(..corpus.len())];
                    let from = dice.usize(..=other.len());
                    bytes.splice(at..end, other[from..].iter().copied());
                }
            }
        }
        bytes.truncate(4096);
        bytes
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
