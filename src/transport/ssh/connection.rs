//! A logged-in SSH connection: TCP, host key, login, then channels.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use russh::client::{Config, Handle, Msg};
use russh::keys::ssh_key::Algorithm;
use russh::{Channel, Preferred, cipher, compression};
use tokio::net::TcpStream;

use super::SshEnvironment;
use super::auth::{Login, Refused};
use super::congestion;
use super::doorkeeper::{Doorkeeper, SharedNotes};
use super::host_key::{HostKeys, SeenKey, place};
use super::prompt::Prompt;
use crate::settings::Vessel;
use crate::transport::ConnectError;

/// How often an idle connection is checked, and how often in vain before it is given up.
const KEEPALIVE: Duration = Duration::from_secs(15);
const KEEPALIVES_LOST: usize = 3;

/// How long after the last knock the next one follows.
const KNOCK: Duration = Duration::from_secs(2);

/// A connection. It ends when the last clone and the last channel are gone.
#[derive(Clone)]
pub(crate) struct Connection {
    handle: Arc<Handle<Doorkeeper>>,
    notes: SharedNotes,
}

impl Connection {
    /// Connects and logs in. Every step has the vessel's `Timeout` as its deadline.
    pub(crate) async fn open(vessel: &Arc<Vessel>, environment: &Arc<SshEnvironment>) -> Result<Self, ConnectError> {
        let host_keys = HostKeys::read(vessel.clone(), environment.clone());
        let notes = SharedNotes::default();
        let mut handle = greet(vessel, Some(host_keys), notes.clone()).await?;
        let login = Login::new(&mut handle, vessel, environment).run();
        match tokio::time::timeout(vessel.timeout * 2, login).await {
            Ok(Ok(())) => Ok(Self { handle: Arc::new(handle), notes }),
            Ok(Err(Refused::Login { why, remedy })) => Err(login_refused(vessel, why, remedy)),
            // A vessel that hangs up by itself has had enough of our keys; a link that is cut has not.
            Ok(Err(Refused::Broken(why))) if notes.lock().hung_up => {
                let remedy = format!("name the one right key as IdentityFile of [Vessel {}]", vessel.name);
                Err(login_refused(vessel, with_note(why, &notes), remedy))
            }
            Ok(Err(Refused::Broken(why))) => Err(handshake(vessel, with_note(why, &notes))),
            Err(_) => Err(handshake(vessel, format!("no answer to the login within {:?}", vessel.timeout * 2))),
        }
    }

    /// Opens a session channel.
    pub(crate) async fn channel(&self) -> Result<Channel<Msg>, russh::Error> {
        self.handle.channel_open_session().await
    }

    /// Whether both are one connection.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.handle, &other.handle)
    }

    /// Whether the connection has ended.
    pub(crate) fn is_closed(&self) -> bool {
        self.handle.is_closed()
    }

    /// Why it ended, where that is known.
    pub(crate) fn why_closed(&self) -> Option<String> {
        self.notes.lock().ended.clone()
    }

    /// The cipher in use.
    pub(crate) fn cipher(&self) -> String {
        self.notes.lock().cipher.clone().unwrap_or_default()
    }

    /// Whether it compresses what is sent.
    pub(crate) fn compresses(&self) -> bool {
        self.notes.lock().compression
    }

    /// The kernel's name of the congestion control that it sends with.
    pub(crate) fn congestion(&self) -> String {
        self.notes.lock().congestion.in_use.clone()
    }

    /// Why that is not the one that was wished for, and what a person can do; `None` when it is.
    pub(crate) fn congestion_refused(&self) -> Option<String> {
        self.notes.lock().congestion.refused.clone()
    }

    /// Asks for a sign of life and waits for it, for ever where none comes.
    pub(crate) async fn ping(&self) {
        if self.handle.send_ping().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Cuts it off. What is on its way or waits to be sent is forgotten: the vessel should not get it later, beside what
    /// the next connection sends.
    pub(crate) fn abandon(&self) {
        let socket = self.notes.lock().socket.take();
        if let Some(socket) = socket {
            let socket = socket2::SockRef::from(&socket);
            // Either fails only where the connection has ended by itself.
            let _ = socket.set_linger(Some(Duration::ZERO));
            let _ = socket.shutdown(std::net::Shutdown::Both);
        }
    }

    /// Says good-bye. Nobody waits for an answer.
    pub(crate) async fn hang_up(&self) {
        let _ = self.handle.disconnect(russh::Disconnect::ByApplication, "", "").await;
    }
}

/// Fetches a vessel's host key, trusting nothing and logging in nowhere.
///
/// # Errors
/// [`ConnectError`] when the vessel can't be reached or shows no key.
pub async fn see_host_key(vessel: &Arc<Vessel>) -> Result<SeenKey, ConnectError> {
    let notes = SharedNotes::default();
    let failed = greet(vessel, None, notes.clone()).await.err();
    let seen = notes.lock().seen.take();
    seen.ok_or_else(|| failed.unwrap_or_else(|| handshake(vessel, "it showed no host key".into())))
}

async fn greet(
    vessel: &Arc<Vessel>,
    host_keys: Option<HostKeys>,
    notes: SharedNotes,
) -> Result<Handle<Doorkeeper>, ConnectError> {
    let stream = connect(vessel).await?;
    // After connecting: a route may have a choice of its own, which would take the place of an earlier one.
    notes.lock().congestion = congestion::choose(&stream, &vessel.congestion_control);
    notes.lock().socket = stream.as_fd().try_clone_to_owned().ok();
    let config = Arc::new(config(vessel, host_keys.as_ref()));
    let doorkeeper = Doorkeeper { host_keys, notes: notes.clone() };
    let stream = Prompt::new(stream);
    let spoken = stream.spoken();
    let failed = |why: String| match spoken.yet() {
        true => handshake(vessel, why),
        false => ConnectError::Mute { place: place(vessel), why },
    };
    let greeting = russh::client::connect_stream(config, stream, doorkeeper);
    match tokio::time::timeout(vessel.timeout, greeting).await {
        Ok(Ok(handle)) => Ok(handle),
        Ok(Err(e)) => {
            let refused = notes.lock().refused.take();
            Err(refused.unwrap_or_else(|| failed(with_note(e.to_string(), &notes))))
        }
        Err(_) => Err(failed(format!("no SSH greeting within {:?}", vessel.timeout))),
    }
}

fn login_refused(vessel: &Vessel, why: String, remedy: String) -> ConnectError {
    ConnectError::Login { place: place(vessel), user: vessel.username.clone(), why, remedy }
}

fn handshake(vessel: &Vessel, why: String) -> ConnectError {
    ConnectError::Handshake { place: place(vessel), why }
}

/// Adds what the library told only its handler.
fn with_note(why: String, notes: &SharedNotes) -> String {
    let note = notes.lock().ended.clone();
    match note {
        Some(note) if note != why => format!("{why}; {note}"),
        _ => why,
    }
}

async fn connect(vessel: &Vessel) -> Result<TcpStream, ConnectError> {
    let unreachable = |why: String| ConnectError::Unreachable { place: place(vessel), why };
    let looking_up = tokio::net::lookup_host((vessel.address.as_str(), vessel.port));
    let addresses: Vec<_> = match tokio::time::timeout(vessel.timeout, looking_up).await {
        Ok(Ok(addresses)) => addresses.collect(),
        Ok(Err(e)) => return Err(unreachable(format!("its address can't be found ({e})"))),
        Err(_) => return Err(unreachable("no answer to the search for its address".into())),
    };
    let mut why = "it has no address".to_string();
    for address in &addresses {
        // Each has its share of the time: a dead IPv6 must not keep us from a living IPv4.
        let share = vessel.timeout / u32::try_from(addresses.len()).unwrap_or(u32::MAX);
        match tokio::time::timeout(share, knock(*address)).await {
            Ok(Ok(stream)) => {
                prepare(&stream, vessel.timeout).map_err(|e| unreachable(e.to_string()))?;
                return Ok(stream);
            }
            Ok(Err(e)) => why = e.to_string(),
            Err(_) => why = format!("no answer within {share:?}"),
        }
    }
    Err(unreachable(why))
}

/// Connects to an address, knocking again and again: the kernel by itself repeats after one, two, four seconds and so
/// on, and would find out late that a link has returned.
async fn knock(address: SocketAddr) -> std::io::Result<TcpStream> {
    let mut knocks = FuturesUnordered::new();
    loop {
        knocks.push(TcpStream::connect(address));
        if let Ok(Some(connected)) = tokio::time::timeout(KNOCK, knocks.next()).await {
            return connected;
        }
    }
}

/// Has the kernel notice a dead link: bytes that nobody acknowledges end the connection, and so does silence when idle.
fn prepare(stream: &TcpStream, timeout: Duration) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = socket2::SockRef::from(stream);
    socket.set_tcp_user_timeout(Some(patience(timeout)))?;
    socket.set_tcp_keepalive(&socket2::TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE))
}

/// How long a connection may make no progress at all before it is given up: longer than the short outages that TCP
/// bridges by itself.
fn patience(timeout: Duration) -> Duration {
    (timeout * 3).max(Duration::from_secs(30))
}

fn config(vessel: &Vessel, host_keys: Option<&HostKeys>) -> Config {
    let all: Vec<Algorithm> =
        Preferred::DEFAULT.key.iter().filter(|a| !matches!(a, Algorithm::Rsa { hash: None })).cloned().collect();
    let key = host_keys.map_or_else(|| all.clone(), |keys| keys.preferred(&all));
    let certificates = if host_keys.is_some_and(HostKeys::want_certificate) { all } else { Vec::new() };
    Config {
        // AES-GCM costs half of what ChaCha20 does per byte; CTR, the dearest, stays for servers that have nothing else.
        preferred: Preferred {
            cipher: Cow::Borrowed(&[
                cipher::AES_128_GCM,
                cipher::AES_256_GCM,
                cipher::CHACHA20_POLY1305,
                cipher::AES_256_CTR,
                cipher::AES_192_CTR,
                cipher::AES_128_CTR,
            ]),
            // The other zlib would decompress what a stranger sends before the login.
            compression: Cow::Borrowed(if vessel.compression {
                &[compression::ZLIB_LEGACY, compression::NONE]
            } else {
                &[compression::NONE, compression::ZLIB_LEGACY]
            }),
            key: key.into(),
            host_key_certificates: certificates.into(),
            ..Preferred::DEFAULT
        },
        nodelay: true,
        keepalive_interval: Some(KEEPALIVE),
        keepalive_max: KEEPALIVES_LOST,
        // Covers what keepalives don't: a write that blocks, and a handshake that never ends.
        inactivity_timeout: Some(patience(vessel.timeout).max(KEEPALIVE * 4)),
        ..Config::default()
    }
}
