//! An SSH server with SFTP and a shell inside this process, on loopback: a vessel for the demo and for tests.
//!
//! The vessel owns its listener, its host key (generated at the start), its sessions and their child processes. It
//! serves the real file system of this host with the rights of this process, so it must never listen beyond loopback.
//! It shares no code with the program's SSH client; the two interact only over the network.
//!
//! One task accepts connections. Each connection has its own task (`session`), and so has each channel: a command
//! (`shell`), or SFTP (`wire` transfers the bytes, `files` answers). All tasks share one stop token and one task
//! tracker, so that [`EmbeddedVessel::shutdown`] returns when no task is left.
//!
//! Limits: russh-sftp's server keeps names in `String`, so a request with a name that is not UTF-8 fails. Input that a
//! command doesn't read is kept in memory.

mod attributes;
mod check_file;
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
pub use quirks::{CheckFile, Quirks};
use session::Visitor;

/// Delay before a login is refused: long enough to be realistic, short enough for tests.
const REJECTION_TIME: Duration = Duration::from_millis(100);

/// The accepted login, and the services that the vessel offers.
#[derive(Clone, Debug)]
pub struct Options {
    /// The only accepted user name.
    pub user: String,
    /// The accepted password; `None` disables password login.
    pub password: Option<SecretString>,
    /// The accepted key; `None` disables public key login.
    pub authorized_key: Option<PublicKey>,
    /// Whether commands are run. If not, the vessel offers SFTP only.
    pub exec: bool,
    /// The directory in which relative paths start, and the working directory of commands.
    pub home: PathBuf,
    /// The decisions on requests; `None` serves all requests.
    pub faults: Option<Arc<dyn Faults>>,
    /// Differences from OpenSSH.
    pub quirks: Quirks,
}

/// A running embedded vessel. Dropping the value signals all tasks to stop; [`EmbeddedVessel::shutdown`] also waits for
/// the tasks.
pub struct EmbeddedVessel {
    address: SocketAddr,
    host_key: PublicKey,
    tasks: TaskTracker,
    stop: DropGuard,
}

/// State that all sessions share.
struct House {
    options: Options,
    /// The number of the next file handle.
    next_handle: Arc<AtomicU64>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl EmbeddedVessel {
    /// Starts a vessel on a free port of 127.0.0.1, with a new Ed25519 host key. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// When no port can be bound, or no key can be generated.
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

    /// Returns the address on which the vessel listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the vessel's public host key.
    pub fn host_key(&self) -> &PublicKey {
        &self.host_key
    }

    /// Returns the fingerprint of the vessel's host key in OpenSSH's format: `SHA256:` and 43 characters.
    pub fn host_key_fingerprint(&self) -> String {
        self.host_key.fingerprint(HashAlg::Sha256).to_string()
    }

    /// Cuts all connections, kills all commands, and returns when no task and no child process is left.
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

/// Returns the SSH server's configuration. It has no timeouts: on loopback the server always notices a closed client,
/// and a session may be idle.
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
                // Cancelling `cut` cuts this connection only, with all its channels.
                let cut = house.stop.child_token();
                let visitor = Visitor::new(house.clone(), cut.clone());
                house.tasks.spawn(session::serve(socket, config.clone(), visitor, cut));
            }
            // The usual reason is a lack of file descriptors, so an immediate retry would fail again and use the whole
            // CPU.
            Err(error) => {
                tracing::warn!(%error, "Embedded vessel: cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}
