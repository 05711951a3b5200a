//! Parsers for single values: addresses, ports, local and remote paths, lists, and host keys.
//!
//! Each takes the text of a value and returns the typed value, or a diagnostic. The parsers must not be used on
//! secrets, because diagnostics may repeat the text.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use super::problems::Diagnostic;
use crate::names::RemotePath;

/// The directories at which relative paths and `~/` paths on the shore start.
pub(super) struct Start {
    /// The directory of the settings file, absolute.
    pub(super) beside: PathBuf,
    /// The home directory, which replaces `~`; `None` if it is unknown.
    pub(super) home: Option<PathBuf>,
}

impl Start {
    /// Parses a path on the shore, makes it absolute, and removes `.` and doubled slashes. A `..` stays, because a link
    /// may precede it.
    pub(super) fn path(&self, text: &str) -> Result<PathBuf, Diagnostic> {
        let text = not_empty(text)?;
        let path = match text.strip_prefix('~') {
            None => self.beside.join(text),
            Some(below) if below.is_empty() || below.starts_with('/') => {
                let home = self.home.as_deref();
                let diagnostic =
                    || Diagnostic::new("cannot expand `~`: the home directory is unknown", "write the path in full");
                home.ok_or_else(diagnostic)?.join(below.trim_start_matches('/'))
            }
            Some(_) => {
                let message = format!("`{text}` starts with a `~` that is not followed by `/`");
                return Err(Diagnostic::new(
                    message,
                    "write another user's path in full, or ./~ for a file of that name",
                ));
            }
        };
        Ok(path.components().collect())
    }

    /// Parses paths on the shore, separated by commas.
    pub(super) fn paths(&self, text: &str) -> Result<Vec<PathBuf>, Diagnostic> {
        list(text).map(|path| self.path(path)).collect()
    }
}

/// Parses a path on a vessel.
pub(super) fn remote_path(text: &str) -> Result<RemotePath, Diagnostic> {
    let text = not_empty(text)?;
    match text.strip_prefix('~') {
        Some("" | "/") => Err(no_tilde(text, ".")),
        Some(below) if below.starts_with('/') => Err(no_tilde(text, below.trim_start_matches('/'))),
        _ => Ok(RemotePath::new(text)),
    }
}

fn no_tilde(text: &str, instead: &str) -> Diagnostic {
    let remedy = format!("a relative path starts at the login directory: write `{instead}`");
    Diagnostic::new(format!("`{text}`: SFTP does not expand `~`"), remedy)
}

/// Returns the text, or a diagnostic if it is empty.
pub(super) fn not_empty(text: &str) -> Result<&str, Diagnostic> {
    let remedy = "give a value or remove the line; a value that starts with # or ; goes in double quotes";
    if text.is_empty() { Err(Diagnostic::new("empty", remedy)) } else { Ok(text) }
}

/// Splits a text at commas, and returns the trimmed parts without empty ones.
pub(super) fn list(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|part| !part.is_empty())
}

/// Parses a user name.
pub(super) fn username(text: &str) -> Result<String, Diagnostic> {
    not_empty(text).map(str::to_owned)
}

/// Parses a host name or an IP address and the port, if one follows; or `unix:` and the path of a socket. Removes the
/// brackets of an IPv6 address.
pub(super) fn address(text: &str) -> Result<(String, Option<u16>), Diagnostic> {
    let text = not_empty(text)?;
    if let Some(path) = text.strip_prefix(SOCKET) {
        return socket(text, path).map(|()| (text.to_owned(), None));
    }
    // The message does not repeat the text, because a password may precede the `@`.
    if text.contains('@') {
        return Err(Diagnostic::new("the address contains an `@`", "write the host alone, and the user as Username"));
    }
    if let Some(rest) = text.strip_prefix('[') {
        let Some((inside, behind)) = rest.split_once(']').filter(|(inside, _)| is_ipv6(inside)) else {
            return Err(not_an_address(text));
        };
        return match behind.strip_prefix(':') {
            Some(number) => Ok((inside.to_owned(), Some(port(number)?))),
            None if behind.is_empty() => Ok((inside.to_owned(), None)),
            None => Err(not_an_address(text)),
        };
    }
    if is_ipv6(text) {
        return Ok((text.to_owned(), None));
    }
    if let Some(host) = host_before_path(text) {
        return Err(Diagnostic::new(
            format!("`{text}` names a path after the host"),
            format!("write `Address = {host}`, and the path as RemoteLocation of the directory"),
        ));
    }
    match text.split_once(':') {
        Some((host, number)) if is_host(host) => Ok((host.to_owned(), Some(port(number)?))),
        None if is_host(text) => Ok((text.to_owned(), None)),
        _ => Err(not_an_address(text)),
    }
}

/// The prefix of a socket's path in an address.
pub(super) const SOCKET: &str = "unix:";

/// The longest path of a socket that the kernel allows (`sun_path`, without the terminating zero).
const LONGEST_SOCKET: usize = 107;

fn socket(text: &str, path: &str) -> Result<(), Diagnostic> {
    if !path.starts_with('/') || path.ends_with('/') {
        let remedy = "expected an absolute path, such as unix:/run/contentmonster/vessel.sock";
        return Err(Diagnostic::new(format!("invalid socket `{text}`"), remedy));
    }
    if path.len() > LONGEST_SOCKET {
        let message =
            format!("the path of the socket has {} bytes; the kernel allows at most {LONGEST_SOCKET}", path.len());
        return Err(Diagnostic::new(message, "choose a shorter path"));
    }
    Ok(())
}

/// Parses a name to look up in `known_hosts`.
pub(super) fn host_key_alias(text: &str) -> Result<String, Diagnostic> {
    let text = not_empty(text)?;
    let remedy = "expected letters, digits, and the characters . - _ :";
    let diagnostic = || Diagnostic::new(format!("invalid name `{text}` for known_hosts"), remedy);
    if is_alias(text) { Ok(text.to_owned()) } else { Err(diagnostic()) }
}

/// Returns whether a text can be a name in `known_hosts`.
pub(super) fn is_alias(text: &str) -> bool {
    let plain = |c: char| c.is_alphanumeric() || matches!(c, '-' | '.' | '_' | ':');
    !text.is_empty() && text.chars().all(plain)
}

/// Returns the host of an address with a path, such as `host:/path`, `host:path` or `host/path`, as used with rsync and
/// scp. Returns `None` for other texts.
fn host_before_path(text: &str) -> Option<&str> {
    let (host, rest) = text.split_at(text.find([':', '/'])?);
    let path = &rest[1..];
    let is_path = rest.starts_with('/') || path.contains('/') || path.starts_with(|c: char| c.is_alphabetic());
    (is_path && is_host(host) && !path.starts_with("//") && !path.contains(':')).then_some(host)
}

fn is_ipv6(text: &str) -> bool {
    let (address, zone) = text.split_once('%').map_or((text, None), |(address, zone)| (address, Some(zone)));
    address.parse::<Ipv6Addr>().is_ok() && zone.is_none_or(|zone| !zone.is_empty() && is_host(zone))
}

fn is_host(text: &str) -> bool {
    let plain = |c: char| c.is_alphanumeric() || matches!(c, '-' | '.' | '_');
    // A text that consists only of digits and dots must be a complete IP address.
    let numeric = text.chars().all(|c| c.is_ascii_digit() || c == '.');
    !text.is_empty() && !text.starts_with(['-', '.']) && text.chars().all(plain) && (!numeric || is_ip(text))
}

fn is_ip(text: &str) -> bool {
    text.parse::<IpAddr>().is_ok()
}

fn not_an_address(text: &str) -> Diagnostic {
    Diagnostic::new(
        format!("invalid host name or IP address `{text}`"),
        "expected one such as example.com, 192.0.2.7 or ::1",
    )
}

/// Parses an IP address, or `localhost`, and a port.
pub(super) fn socket_address(text: &str) -> Option<SocketAddr> {
    match text.strip_prefix("localhost:") {
        Some(port) => format!("127.0.0.1:{port}").parse().ok(),
        None => text.parse().ok(),
    }
}

/// Parses a port number.
pub(super) fn port(text: &str) -> Result<u16, Diagnostic> {
    let number = text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse::<u16>().ok()).flatten();
    let diagnostic = || Diagnostic::new(format!("invalid port `{text}`"), "expected a number from 1 to 65535");
    number.filter(|port| *port != 0).ok_or_else(diagnostic)
}

/// Parses host keys in OpenSSH's format: `SHA256:` and 32 bytes in base64 without padding.
pub(super) fn host_keys(text: &str) -> Result<Vec<String>, Diagnostic> {
    let keys: Vec<String> = list(text).map(host_key).collect::<Result<_, _>>()?;
    not_empty(text).map(|_| keys)
}

fn host_key(text: &str) -> Result<String, Diagnostic> {
    let sound = text.strip_prefix("SHA256:").is_some_and(|hash| {
        let digits = hash.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/'));
        // 43 base64 digits have 258 bits, two more than the hash. So the lowest two bits of the last digit must be
        // zero, as in every fourth digit of the base64 alphabet.
        digits && hash.len() == 43 && hash.ends_with(|last| "AEIMQUYcgkosw048".contains(last))
    });
    let diagnostic = || {
        Diagnostic::new(
            format!("invalid SHA256 fingerprint `{text}`"),
            "expected SHA256: and 43 characters, as `ssh-keygen -lf FILE` shows them for the host's key",
        )
    };
    if sound { Ok(text.to_owned()) } else { Err(diagnostic()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rstest::rstest;

    fn start() -> Start {
        Start { beside: "/etc/cm".into(), home: Some("/home/ann".into()) }
    }

    #[rstest]
    #[case("/srv/in/", "/srv/in")]
    #[case("in", "/etc/cm/in")]
    #[case("./in//out", "/etc/cm/in/out")]
    #[case("../in", "/etc/cm/../in")]
    #[case("~/in", "/home/ann/in")]
    #[case("~//in", "/home/ann/in")]
    #[case("~", "/home/ann")]
    #[case("./~bob", "/etc/cm/~bob")]
    fn shore_paths_become_absolute(#[case] text: &str, #[case] path: &str) {
        assert_eq!(start().path(text).unwrap().as_os_str(), path);
    }

    #[test]
    fn shore_paths_that_mean_nothing_are_refused() {
        assert!(start().path("").is_err());
        assert!(start().path("~bob/in").is_err());
        assert!(Start { home: None, ..start() }.path("~/in").is_err());
    }

    #[test]
    fn a_tilde_on_a_vessel_is_refused_with_what_to_write() {
        assert!(remote_path("~/in").unwrap_err().remedy.ends_with("write `in`"));
        assert!(remote_path("~").unwrap_err().remedy.ends_with("write `.`"));
        assert_eq!(remote_path("in/").unwrap(), RemotePath::new("in"));
        assert_eq!(remote_path("~bob").unwrap(), RemotePath::new("~bob"));
    }

    #[rstest]
    #[case("example.com", "example.com", None)]
    #[case("host:2222", "host", Some(2222))]
    #[case("192.0.2.7", "192.0.2.7", None)]
    #[case("192.0.2.7:22", "192.0.2.7", Some(22))]
    #[case("::1", "::1", None)]
    #[case("[::1]", "::1", None)]
    #[case("[::1]:2222", "::1", Some(2222))]
    #[case("fe80::1%eth0", "fe80::1%eth0", None)]
    #[case("unix:/run/cm/aurora.sock", "unix:/run/cm/aurora.sock", None)]
    #[case("[fe80::1%eth0]:22", "fe80::1%eth0", Some(22))]
    fn addresses_are_taken_apart(#[case] text: &str, #[case] host: &str, #[case] port: Option<u16>) {
        assert_eq!(address(text).unwrap(), (host.to_owned(), port));
    }

    #[rstest]
    fn what_is_no_address_is_refused(
        #[values(
            "",
            "a b",
            "ssh://host",
            "host:",
            "host:0",
            "host:99999",
            "host:+22",
            "a:b:c",
            "[host]",
            "[::1",
            "[::1]22",
            "-oX",
            "1.2.3",
            "1.2.3.400",
            "ann:hunter2@host",
            "host/path",
            "fe80::1%",
            "unix:",
            "unix:run/x.sock",
            "unix:/run/",
            "unix:@abstract",
            &format!("unix:/{}", "x".repeat(107))
        )]
        text: &str,
    ) {
        let refused = address(text).unwrap_err();
        assert!(!refused.message.contains("hunter2") && !refused.remedy.contains("hunter2"));
    }

    #[test]
    fn a_path_after_the_host_is_refused_with_where_to_write_it() {
        for text in ["127.0.0.1:/data", "host:data", "host/data", "host:22/data"] {
            let refused = address(text).unwrap_err();
            assert!(
                refused.message.contains("names a path") && refused.remedy.contains("RemoteLocation"),
                "{refused:?}"
            );
        }
        assert!(!address("host:99999").unwrap_err().message.contains("path"));
    }

    #[test]
    fn only_whole_fingerprints_are_host_keys() {
        let good = "SHA256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU";
        assert_eq!(host_keys(&format!("{good}, {good}")).unwrap(), [good, good]);
        for bad in [
            "",
            "SHA256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=",
            "SHA256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFV",
            "sha256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU",
            "MD5:16:27:ac:a5:76:28:2d:36:63:1b:56:4d:eb:df:a6:48",
            "SHA256:short",
        ] {
            assert!(host_keys(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_a_value_panic(text: String) {
            let _ = (start().path(&text), remote_path(&text), address(&text), host_keys(&text), port(&text));
        }
    }
}
