//! Entry points for tests and fuzz targets. Each parses untrusted bytes from a vessel or a `known_hosts`; see
//! [`crate::strangers`].

use std::path::Path;

use russh::keys::PublicKey;

use super::known_hosts::KnownHosts;
use super::{capabilities, exec, sftp};

/// Parses a stream from an SFTP server: the server's extensions first, then replies.
pub fn sftp_stream(bytes: &[u8]) {
    sftp::read_stream(bytes);
}

/// Parses the output of a shell in two ways: as the reply to the probe, and as the output of a script between its
/// marks.
pub fn shell_output(bytes: &[u8]) {
    let _ = capabilities::parse(bytes);
    if let Some(output) = exec::output_in(bytes, "mark") {
        assert!(output.text.len() <= bytes.len(), "an output is no longer than the bytes that it was parsed from");
        let _ = (output.is_success(), output.error_text(), output.lines().count());
    }
}

/// Parses a `known_hosts` and makes every kind of query. No content may cause a panic.
pub fn known_hosts(bytes: &[u8]) {
    const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ";
    let key = PublicKey::from_openssh(KEY).expect("KEY is a valid public key");
    let known = KnownHosts::of(Path::new("known_hosts"), bytes);
    for (host, port) in [("ship.example.org", 22), ("192.0.2.1", 2222), ("", 0)] {
        let _ = known.check(host, port, &key);
        let _ = (known.key_types(host, port), known.trusts_a_ca_for(host, port));
    }
}
