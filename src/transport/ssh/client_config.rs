//! The configuration of the SSH client for one connection: algorithms, compression, keepalives.

use std::borrow::Cow;
use std::time::Duration;

use russh::client::Config;
use russh::keys::ssh_key::Algorithm;
use russh::{Preferred, cipher, compression};

use super::SshEnvironment;
use super::algorithms::key_exchanges;
use super::dial::patience;
use super::endpoint::Endpoint;
use super::host_key::HostKeys;
use crate::settings::Compression;

/// The round-trip time from which on a path counts as long. With `Compression = auto`, SSH compresses only on long
/// paths, because compression would slow a shorter, fast link down.
pub(super) const LONG: Duration = Duration::from_millis(20);

/// Returns whether SSH compresses on a connection to an endpoint; `took` is how long connecting to it took. With
/// `auto`, only the connection to the vessel itself is compressed, if the path is long and the vessel can't expand
/// compressed files.
pub(super) fn wants_zlib(endpoint: &Endpoint, environment: &SshEnvironment, took: Duration) -> bool {
    match endpoint.vessel().compression {
        Compression::No => false,
        Compression::Yes => true,
        Compression::Auto => {
            took >= LONG && endpoint.host().hop.is_none() && environment.unexpanding.has(endpoint.vessel())
        }
    }
}

/// Returns the configuration for a connection to an endpoint.
pub(super) fn config(endpoint: &Endpoint, zlib: bool, host_keys: Option<&HostKeys>) -> Config {
    let all: Vec<Algorithm> =
        Preferred::DEFAULT.key.iter().filter(|a| !matches!(a, Algorithm::Rsa { hash: None })).cloned().collect();
    let key = host_keys.map_or_else(|| all.clone(), |keys| keys.preferred(&all));
    let vessel = endpoint.vessel();
    let (alive_interval, alive_count) = endpoint.host().alive;
    let certificates = if host_keys.is_some_and(HostKeys::want_certificate) { all } else { Vec::new() };
    let in_vain = u32::try_from(alive_count).unwrap_or(u32::MAX - 1);
    Config {
        // AES-GCM costs half as much CPU time per byte as ChaCha20. CTR costs most, and is kept for servers that
        // support nothing else.
        preferred: Preferred {
            cipher: Cow::Borrowed(&[
                cipher::AES_128_GCM,
                cipher::AES_256_GCM,
                cipher::CHACHA20_POLY1305,
                cipher::AES_256_CTR,
                cipher::AES_192_CTR,
                cipher::AES_128_CTR,
            ]),
            // The other variant, `zlib`, would decompress data of a peer that is not authenticated yet.
            compression: Cow::Borrowed(if zlib {
                &[compression::ZLIB_LEGACY, compression::NONE]
            } else {
                &[compression::NONE, compression::ZLIB_LEGACY]
            }),
            kex: key_exchanges().into(),
            key: key.into(),
            host_key_certificates: certificates.into(),
            ..Preferred::DEFAULT
        },
        nodelay: true,
        keepalive_interval: Some(alive_interval),
        keepalive_max: alive_count,
        // Ends connections that keepalives do not end: those with a blocked write, or with a handshake that never
        // completes.
        inactivity_timeout: Some(patience(vessel.timeout).max(alive_interval.saturating_mul(in_vain + 1))),
        ..Config::default()
    }
}
