//! One line of a `known_hosts`: its host names, hashed or not, and its key.

use std::path::Path;
use std::sync::Arc;

use hmac::{Hmac, KeyInit, Mac};
use russh::keys::ssh_key::known_hosts::{Entry, HostPatterns};
use russh::keys::ssh_key::public::KeyData;
use sha1::Sha1;

use crate::names::host_pattern;

const DEFAULT_PORT: u16 = 22;

/// A line of a `known_hosts` with host names and a key.
#[derive(Clone, Debug)]
pub(super) struct Line {
    pub(super) file: Arc<Path>,
    pub(super) number: usize,
    pub(super) entry: Entry,
}

impl Line {
    pub(super) fn key(&self) -> &KeyData {
        self.entry.public_key().key_data()
    }

    /// Returns whether the line matches this name, which must be in lower case.
    pub(super) fn concerns(&self, name: &str) -> bool {
        match self.entry.host_patterns() {
            HostPatterns::Patterns(patterns) => {
                let patterns: Vec<_> = patterns.iter().map(|pattern| pattern.to_ascii_lowercase()).collect();
                host_pattern::any(patterns.iter().map(String::as_str), name)
            }
            HostPatterns::HashedName { salt, hash } => hashed(salt, name).is_some_and(|ours| ours == hash[..]),
        }
    }
}

/// Returns the names under which `host` on `port` is looked up in a `known_hosts`, in the order of the lookup.
pub(super) fn names(host: &str, port: u16) -> Vec<String> {
    let host = host.to_ascii_lowercase();
    if port == DEFAULT_PORT { vec![host] } else { vec![format!("[{host}]:{port}"), host] }
}

/// Parses one line of a `known_hosts`. Returns `None` for an empty line or a comment.
///
/// `ssh_key` accepts only single spaces between fields and fails for a comment that is not UTF-8, so only the fields
/// before the comment are passed to it.
pub(super) fn parse(line: &[u8]) -> Result<Option<Entry>, &'static str> {
    let mut fields = line.split(u8::is_ascii_whitespace).filter(|field| !field.is_empty()).peekable();
    let wanted = match fields.peek() {
        None => return Ok(None),
        Some(first) if first.starts_with(b"#") => return Ok(None),
        Some(first) if first.starts_with(b"@") => 4,
        Some(_) => 3,
    };
    let fields: Vec<&[u8]> = fields.take(wanted).collect();
    if fields.len() < wanted {
        return Err("ignored an incomplete line; expected a host and a key");
    }
    let entry = str::from_utf8(&fields.join(&b' ')).ok().and_then(|line| line.parse().ok());
    entry.map(Some).ok_or("ignored an invalid line; expected a host and a key")
}

/// Returns the HMAC-SHA1 of the name, keyed by the salt. HMAC accepts every salt, so the result is never `None`.
fn hashed(salt: &[u8], name: &str) -> Option<[u8; 20]> {
    let mut mac = Hmac::<Sha1>::new_from_slice(salt).ok()?;
    mac.update(name.as_bytes());
    Some(mac.finalize().into_bytes().into())
}
