//! An SSH server with SFTP and a shell inside this process, on loopback: a vessel for the demo and for tests.
//!
//! Owns its listener, its host key (made on the spot), its sessions and their children, and the order in which they end.
//! It serves the real file system of this host with the rights of this process, and so must never listen beyond
//! loopback. Knows nothing of the program's own client: the two meet on the wire only.
//!
//! One task accepts; each connection is a task of its own (`session`), and so is each channel: a command (`shell`), or
//! SFTP (`wire` carries the bytes, `files` answers). All of them hold the one stop token and are counted by the one
//! tracker, so that [`EmbeddedVessel::shutdown`] returns when nothing is left.
//!
//! Limits: names that are no UTF-8 can't be served, as russh-sftp's server keeps them in `String`; such a request is
//! answered with a failure rather than done under another name. Input that a command doesn't read is held in memory.

mod attributes;
mod fault_injection;
mod files;
mod quirks;
mod session;
mod shell;
mod status;
mod wire;

use std::borrow::Cow;
use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use russh::keys::key::safe_rng;
use russh::keys::{Algorithm, HashAlg, PrivateKey, PublicKey};
use russh::server::Config;
use russh::{MethodKind, MethodSet, Preferred, cipher};
use secrecy::SecretString;
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

pub use fault_injection::{Faults, InjectedFault, Request};
pub use quirks::Quirks;
use session::Visitor;

/// How long a refused login takes: long enough to look like one, short enough for tests.
const REJECTION_TIME: Duration = Duration::from_millis(100);

/// Who may enter, and what is offered.
#[derive(Clone, Debug)]
pub struct Options {
    /// The only user name that is let in.
    pub user: String,
    /// The password that lets the user in; `None` turns password login off.
    pub password: Option<SecretString>,
    /// The key that lets the user in; `None` turns public key login off.
    pub authorized_key: Option<PublicKey>,
    /// Whether commands are run. Without, the vessel is one of the SFTP-only kind.
    pub exec: bool,
    /// Where relative paths and commands start.
    pub home: PathBuf,
    /// Who decides what becomes of requests; `None`: they are served.
    pub faults: Option<Arc<dyn Faults>>,
    /// Where it differs from OpenSSH.
    pub quirks: Quirks,
}

/// A running embedded vessel. Dropping it tells everything to stop; [`EmbeddedVessel::shutdown`] also waits for it.
pub struct EmbeddedVessel {
    address: SocketAddr,
    host_key: PublicKey,
    tasks: TaskTracker,
    stop: DropGuard,
}

/// What every session shares.
struct House {
    options: Options,
    /// The name of the next file handle.
    next_handle: Arc<AtomicU64>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl EmbeddedVessel {
    /// Starts a vessel on a free port of 127.0.0.1, with a fresh Ed25519 host key. Call it inside a tokio runtime.
    ///
    /// # Errors
    /// Where no port can be had, or no key made.
    pub fn start(options: Options) -> io::Result<Self> {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let listener = TcpListener::from_std(listener)?;
        let address = listener.local_addr()?;
        let key = PrivateKey::random(&mut safe_rng(), Algorithm::Ed25519).map_err(io::Error::other)?;
        let host_key = key.public_key().clone();

        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let config = Arc::new(config(&options, key));
        let house = Arc::new(House { options, next_handle: Arc::default(), tasks: tasks.clone(), stop: stop.clone() });
        tasks.spawn(accept(listener, config, house));
        Ok(Self { address, host_key, tasks, stop: stop.drop_guard() })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The public half of its host key.
    pub fn host_key(&self) -> &PublicKey {
        &self.host_key
    }

    /// The fingerprint of its host key, as OpenSSH shows it: `SHA256:` and 43 characters.
    pub fn host_key_fingerprint(&self) -> String {
        self.host_key.fingerprint(HashAlg::Sha256).to_string()
    }

    /// Cuts all connections, kills all commands, and returns when no task and no child is left.
    pub async fn shutdown(self) {
        drop(self.stop);
        self.tasks.close();
        self.tasks.wait().await;
    }
}

impl fmt::Debug for EmbeddedVessel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EmbeddedVessel").field("address", &self.address).finish_non_exhaustive()
    }
}

/// No timeouts: on loopback a peer that is gone is noticed, and a session may idle as long as the vessel lives.
fn config(options: &Options, key: PrivateKey) -> Config {
    let mut methods = MethodSet::empty();
    if options.authorized_key.is_some() {
        methods.push(MethodKind::PublicKey);
    }
    if options.password.is_some() {
        methods.push(MethodKind::Password);
    }
    let ciphers = vec![cipher::AES_128_GCM, cipher::AES_256_GCM, cipher::CHACHA20_POLY1305, cipher::AES_256_CTR];
    Config {
        methods,
        auth_rejection_time: REJECTION_TIME,
        auth_rejection_time_initial: Some(Duration::ZERO),
        keys: vec![key],
        preferred: Preferred { cipher: Cow::Owned(ciphers), ..Preferred::DEFAULT },
        inactivity_timeout: None,
        ..Config::default()
    }
}

async fn accept(listener: TcpListener, config: Arc<Config>, house: Arc<House>) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = house.stop.cancelled() => return,
        };
        match accepted {
            Ok((socket, peer)) => {
                tracing::debug!(%peer, "Embedded vessel: accepted a connection");
                // Cuts this connection alone, and whatever goes on over it.
                let cut = house.stop.child_token();
                let visitor = Visitor::new(house.clone(), cut.clone());
                house.tasks.spawn(session::serve(socket, config.clone(), visitor, cut));
            }
            // Out of file descriptors, mostly: trying at once again would spin.
            Err(error) => {
                tracing::warn!(%error, "Embedded vessel: cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}
