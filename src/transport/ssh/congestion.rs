//! Selects the congestion control of a connection.
//!
//! The sender's congestion control matters on lossy links, where BBR is many times faster than the usual default of
//! kernels. It is set for each socket. The kernel lets an unprivileged process choose among the algorithms that are
//! loaded and allowed.

use std::io::ErrorKind;

use socket2::SockRef;
use tokio::net::TcpStream;

use crate::settings::CongestionControl;

/// The kernel's list of algorithms that an unprivileged process may choose.
const ALLOWED: &str = "/proc/sys/net/ipv4/tcp_allowed_congestion_control";

/// The congestion control that a connection uses.
#[derive(Default)]
pub(super) struct Congestion {
    /// The kernel's name of the algorithm in use.
    pub(super) in_use: String,
    /// Why the configured algorithm is not in use, with a remedy.
    pub(super) refused: Option<String>,
}

impl Congestion {
    pub(super) fn is_bbr(&self) -> bool {
        self.in_use == BBR
    }
}

const BBR: &str = "bbr";

/// Sets the configured algorithm on a connected socket. If the kernel rejects it, the kernel's default stays in use.
pub(super) fn choose(stream: &TcpStream, wish: &CongestionControl) -> Congestion {
    let socket = SockRef::from(stream);
    let wished = match wish {
        CongestionControl::Auto => Some(BBR),
        CongestionControl::System => None,
        CongestionControl::Named(name) => Some(name.as_str()),
    };
    let error = wished.and_then(|name| Some((name, socket.set_tcp_congestion(name.as_bytes()).err()?)));
    let in_use = in_use(&socket);
    let refused = error.map(|(name, error)| {
        let allowed = std::fs::read_to_string(ALLOWED).unwrap_or_default();
        format!("{in_use} is used, not {name}: {}", advice(name, &error, allowed.trim()))
    });
    Congestion { in_use, refused }
}

/// Returns the name of the algorithm that a socket uses; empty if the kernel does not say.
pub(super) fn in_use(socket: &SockRef<'_>) -> String {
    // The kernel pads the name with zeros to a fixed length.
    let in_use = socket.tcp_congestion().unwrap_or_default();
    String::from_utf8_lossy(in_use.split(|byte| *byte == 0).next().unwrap_or_default()).into_owned()
}

/// Returns why an algorithm was rejected, and the remedy.
fn advice(name: &str, error: &std::io::Error, allowed: &str) -> String {
    match error.kind() {
        ErrorKind::NotFound => format!("this host's kernel has not loaded {name}; run: modprobe tcp_{name}"),
        ErrorKind::PermissionDenied => format!(
            "only root may use {name} here; run: sysctl 'net.ipv4.tcp_allowed_congestion_control={allowed} {name}'"
        ),
        _ => format!("{error}; set another CongestionControl"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Error;

    async fn connected() -> (TcpStream, tokio::net::TcpListener) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        (TcpStream::connect(listener.local_addr().unwrap()).await.unwrap(), listener)
    }

    #[tokio::test]
    async fn what_the_kernel_grants_is_in_use() {
        let (stream, _listener) = connected().await;
        let system = choose(&stream, &CongestionControl::System);
        assert!(!system.in_use.is_empty() && system.refused.is_none());
        // Every kernel has reno and lets every user choose it.
        let reno = choose(&stream, &CongestionControl::Named("reno".into()));
        assert_eq!((reno.in_use.as_str(), reno.refused), ("reno", None));
    }

    #[tokio::test]
    async fn what_the_kernel_does_not_have_leaves_the_systems() {
        let (stream, _listener) = connected().await;
        let system = choose(&stream, &CongestionControl::System).in_use;
        let unknown = choose(&stream, &CongestionControl::Named("no_such".into()));
        assert_eq!(unknown.in_use, system);
        let expected = format!("{system} is used, not no_such: ");
        assert!(unknown.refused.is_some_and(|why| why.starts_with(&expected) && why.contains("tcp_no_such")));
    }

    #[test]
    fn a_refusal_comes_with_the_command_that_mends_it() {
        let permission = Error::from(ErrorKind::PermissionDenied);
        let advised = advice("cubic", &permission, "reno bbr");
        assert!(advised.ends_with("sysctl 'net.ipv4.tcp_allowed_congestion_control=reno bbr cubic'"), "{advised}");
        let missing = Error::from(ErrorKind::NotFound);
        assert!(advice("bbr", &missing, "reno cubic").ends_with("modprobe tcp_bbr"));
    }
}
