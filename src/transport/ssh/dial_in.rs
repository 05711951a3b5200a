//! Detects that a vessel has dialled in again: the socket of its tunnel was created anew.
//!
//! A tunnel that has ended leaves its socket behind, and a tunnel whose link is dead may even accept connections on it.
//! Only a new socket shows that the vessel is back. The socket is polled several times per second rather than watched,
//! because its directory may be missing or replaced, and because the kernel limits the number of watches.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::settings::Vessel;

/// The interval at which a socket is checked.
const LOOK: Duration = Duration::from_millis(200);

/// The identity that distinguishes a socket from an earlier one at the same path.
type Identity = (u64, u64, i64, i64);

/// The sockets of a vessel's tunnels, as they were when this value was created.
pub struct DialIn(Vec<(PathBuf, Option<Identity>)>);

impl DialIn {
    /// Reads the identities of the sockets through which a vessel dials in. `ways` holds the vessel's settings for each
    /// of its ways (routes).
    pub async fn look(ways: &[&Vessel]) -> Self {
        let sockets: Vec<PathBuf> = ways.iter().filter_map(|it| it.ssh.socket().map(PathBuf::from)).collect();
        let mut seen = Vec::with_capacity(sockets.len());
        for socket in sockets {
            let now = identity(&socket).await;
            seen.push((socket, now));
        }
        Self(seen)
    }

    /// Waits until one of the sockets is created anew. Waits forever if the vessel does not dial in through a socket.
    pub async fn renewed(&self) {
        if self.0.is_empty() {
            return std::future::pending().await;
        }
        loop {
            tokio::time::sleep(LOOK).await;
            for (socket, seen) in &self.0 {
                let now = identity(socket).await;
                if now.is_some() && now != *seen {
                    return;
                }
            }
        }
    }
}

async fn identity(socket: &Path) -> Option<Identity> {
    let found = tokio::fs::metadata(socket).await.ok()?;
    Some((found.dev(), found.ino(), found.ctime(), found.ctime_nsec()))
}
