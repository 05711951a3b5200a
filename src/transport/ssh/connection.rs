//! Opens SSH connections: checks the host key, logs in, and opens channels.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use contentmonster_kernel::TcpInfo;
use russh::client::{Config, Handle, Msg};
use russh::keys::ssh_key::Algorithm;
use russh::{Channel, ChannelOpenFailure, Preferred, cipher, compression};
use tokio::io::{AsyncRead, AsyncWrite};

use super::SshEnvironment;
use super::algorithms::{in_words, key_exchanges};
use super::auth::{Login, Refused};
use super::client_handler::{ClientHandler, SharedNotes};
use super::congestion;
use super::counted_stream::CountedStream;
use super::dial::{self, Dialled, patience};
use super::endpoint::Endpoint;
use super::hop_tunnel;
use super::host_key::{HostKeys, SeenKey};
use super::login_limit::{Admission, Rank, Starts};
use super::login_order::{Lead, RoundTrip, Turn};
use super::quickack::QuickAck;
use crate::settings::{Compression, Vessel};
use crate::text;
use crate::transport::ConnectError;

/// Round-trip time from which on SSH may compress with `Compression = auto`, because it would slow a fast link down.
const LONG: Duration = Duration::from_millis(20);

/// A connection to a vessel, through its hops if it has any. The connection ends when its last clone and its last
/// channel are dropped.
#[derive(Clone)]
pub(crate) struct Connection {
    vessel: Session,
    /// The sessions with the hops of the route, the nearest hop first.
    hops: Arc<[Session]>,
    starts: Starts,
}

/// A logged-in SSH session with one endpoint of the route.
#[derive(Clone)]
struct Session {
    endpoint: Endpoint,
    handle: Arc<Handle<ClientHandler>>,
    notes: SharedNotes,
}

impl Connection {
    /// Connects and logs in once the login limit admits the login. At each endpoint of the route, every step has a
    /// deadline that depends on `Timeout` or `ConnectTimeout`. The caller keeps the returned [`Admission`] until
    /// everything that the login starts on the vessel is running.
    pub(crate) async fn open(
        vessel: &Arc<Vessel>,
        environment: &Arc<SshEnvironment>,
        turn: Turn<'_>,
    ) -> Result<(Self, Admission), ConnectError> {
        let endpoint = Endpoint::last(vessel);
        let hops = go_before(&endpoint, environment, turn.rank()).await?;
        let (vessel, admission) = Session::enter(endpoint, hops.last(), environment, turn).await?;
        Ok((Self { vessel, hops: hops.into(), starts: admission.starts() }, admission))
    }

    /// Returns how long a program started on the vessel may take until its first output.
    pub(crate) fn start_deadline(&self) -> Duration {
        self.starts.start_deadline()
    }

    /// Opens a session channel.
    pub(crate) async fn channel(&self) -> Result<Channel<Msg>, russh::Error> {
        self.vessel.handle.channel_open_session().await
    }

    /// Returns whether both values refer to the same connection.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.vessel.handle, &other.vessel.handle)
    }

    /// Returns whether the connection has ended.
    pub(crate) fn is_closed(&self) -> bool {
        self.vessel.handle.is_closed()
    }

    /// Returns why the connection ended, if known.
    pub(crate) fn why_closed(&self) -> Option<String> {
        let ended = |session: &Session| session.notes.lock().ended.clone();
        // If the session with a hop ended, the connection through the hop ended for the same reason.
        let hop = self.hops.iter().find_map(|hop| Some(format!("{}: {}", hop.endpoint.place(), ended(hop)?)));
        hop.or_else(|| ended(&self.vessel))
    }

    /// Returns the banner that the vessel sent before the login.
    pub(crate) fn banner(&self) -> Option<String> {
        self.vessel.notes.lock().banner.clone()
    }

    /// Returns whether the vessel ended the connection with a disconnect message.
    pub(crate) fn was_hung_up(&self) -> bool {
        self.vessel.notes.lock().hung_up
    }

    /// Returns the cipher in use.
    pub(crate) fn cipher(&self) -> String {
        self.vessel.notes.lock().cipher.clone().unwrap_or_default()
    }

    /// Returns algorithm and fingerprint of the vessel's host key, if the vessel has shown one.
    pub(crate) fn host_key(&self) -> Option<(String, String)> {
        self.vessel.notes.lock().host_key.clone()
    }

    /// Returns whether sent data is compressed.
    pub(crate) fn compresses(&self) -> bool {
        self.vessel.notes.lock().compression
    }

    /// Returns the kernel's name of the congestion control in use.
    pub(crate) fn congestion(&self) -> String {
        self.road().lock().congestion.in_use.clone()
    }

    /// Returns whether the connection sends with BBR.
    pub(crate) fn sends_with_bbr(&self) -> bool {
        self.road().lock().congestion.is_bbr()
    }

    /// Returns why the configured congestion control is not in use, with a remedy; `None` when it is in use.
    pub(crate) fn congestion_refused(&self) -> Option<String> {
        self.road().lock().congestion.refused.clone()
    }

    /// Returns the state of the TCP connection, to the first hop if there is one; `None` if the connection was cut off.
    pub(crate) fn tcp_info(&self) -> Option<TcpInfo> {
        let notes = self.road().lock();
        notes.socket.as_ref().and_then(|socket| contentmonster_kernel::tcp_info(socket).ok())
    }

    /// Returns the round-trip time if the path is long, and if the server is known to take SFTP requests together with
    /// the greeting. Other servers might discard them.
    pub(crate) fn early_requests(&self) -> Option<Duration> {
        const KNOWN: [&[u8]; 2] = [b"SSH-2.0-OpenSSH", b"SSH-2.0-dropbear"];
        let is_known = |server: &[u8]| KNOWN.iter().any(|known| server.starts_with(known));
        let is_direct = self.hops.is_empty() && is_known(&self.vessel.notes.lock().server);
        let measured = self.tcp_info().filter(|_| is_direct)?.least_round_trip_micros;
        Some(Duration::from_micros(measured.into())).filter(|round_trip| *round_trip >= LONG)
    }

    /// Sets the highest rate, in bytes per second, at which the kernel sends on the connection.
    pub(crate) fn limit_pace(&self, bytes_per_second: Option<u64>) {
        if let Some(socket) = &self.road().lock().socket {
            // Without the limit, the kernel sends as it would have done anyway.
            let _ = contentmonster_kernel::limit_pace(socket, bytes_per_second);
        }
    }

    /// Sends a keepalive request and waits for the reply, forever if none arrives.
    pub(crate) async fn ping(&self) {
        // The SSH library also reports success if the connection ends before the reply arrives.
        if self.vessel.handle.send_ping().await.is_err() || self.is_closed() {
            std::future::pending::<()>().await;
        }
    }

    /// Sends keepalive requests periodically, and cuts the connection off when too many replies are missing. Used for a
    /// former standby connection that is now in use. Returns when the connection has ended, or at once if missing
    /// replies must not end it.
    pub(crate) async fn keep_alive(&self) {
        let (interval, count) = self.vessel.endpoint.host().alive;
        // As in the SSH library, a count of 0 means that missing replies never end the connection.
        if count == 0 {
            return;
        }
        let patience = interval.saturating_mul(u32::try_from(count).unwrap_or(u32::MAX));
        while !self.vessel.handle.is_closed() {
            tokio::time::sleep(interval).await;
            if tokio::time::timeout(patience, self.ping()).await.is_err() {
                return self.abandon();
            }
        }
    }

    /// Waits until the host that the socket is connected to accepts a new connection, which is then closed at once.
    /// Waits forever if the host's address is no longer known.
    pub(crate) async fn host_answers(&self) {
        let host =
            self.road().lock().socket.as_ref().and_then(|socket| socket2::SockRef::from(socket).peer_addr().ok());
        if let Some(host) = host.and_then(|address| address.as_socket()) {
            return dial::answers(host, self.vessel.endpoint.vessel().link.as_deref()).await;
        }
        std::future::pending().await
    }

    /// Cuts the connection off and discards unsent data, because the vessel must not receive the data later,
    /// concurrently with the data of the next connection.
    pub(crate) fn abandon(&self) {
        let socket = self.road().lock().socket.take();
        if let Some(socket) = socket {
            let socket = socket2::SockRef::from(&socket);
            // Either call fails only if the connection has already ended.
            let _ = socket.set_linger(Some(Duration::ZERO));
            let _ = socket.shutdown(std::net::Shutdown::Both);
        }
    }

    /// Sends a disconnect message to the vessel and the hops without waiting for a reply.
    pub(crate) async fn hang_up(&self) {
        for session in std::iter::once(&self.vessel).chain(self.hops.iter().rev()) {
            let _ = session.handle.disconnect(russh::Disconnect::ByApplication, "", "").await;
        }
    }

    /// Returns the notes of the endpoint that the TCP socket is connected to.
    fn road(&self) -> &SharedNotes {
        &self.hops.first().unwrap_or(&self.vessel).notes
    }
}

/// Fetches the host key of an endpoint. Does not trust the key, and logs in only at the hops before the endpoint.
///
/// # Errors
/// [`ConnectError`] when the endpoint is unreachable or shows no key.
pub async fn see_host_key(endpoint: &Endpoint, environment: &Arc<SshEnvironment>) -> Result<SeenKey, ConnectError> {
    let rank = Rank::first(true, 0);
    let hops = go_before(endpoint, environment, rank).await?;
    let (notes, lead) = (SharedNotes::default(), Lead::alone(rank));
    let turn = Turn::Lead(&lead);
    let failed = greet(endpoint, hops.last(), || None, notes.clone(), &turn, environment).await.err();
    let seen = notes.lock().seen.take();
    seen.ok_or_else(|| failed.unwrap_or_else(|| handshake(endpoint, "the server sent no host key".into())))
}

/// Logs in at every hop before an endpoint, and returns the sessions in the order of the route.
async fn go_before(
    endpoint: &Endpoint,
    environment: &Arc<SshEnvironment>,
    rank: Rank,
) -> Result<Vec<Session>, ConnectError> {
    let mut hops: Vec<Session> = Vec::new();
    for hop in endpoint.before() {
        let lead = Lead::alone(rank);
        let (session, admission) = Session::enter(hop, hops.last(), environment, Turn::Lead(&lead)).await?;
        admission.ready();
        hops.push(session);
    }
    Ok(hops)
}

impl Session {
    async fn enter(
        endpoint: Endpoint,
        before: Option<&Self>,
        environment: &Arc<SshEnvironment>,
        mut turn: Turn<'_>,
    ) -> Result<(Self, Admission), ConnectError> {
        let (vessel, logins) = (endpoint.vessel(), &environment.logins);
        let mut admission = logins.admit(&endpoint.way(), &vessel.name, turn.rank(), vessel.timeout).await;
        let host_keys = || Some(HostKeys::read(endpoint.clone(), environment.clone()));
        let notes = SharedNotes::default();
        let mut handle = match greet(&endpoint, before, host_keys, notes.clone(), &turn, environment).await {
            Ok(handle) => handle,
            Err(e) => {
                if matches!(e, ConnectError::Mute { .. } | ConnectError::Handshake { .. }) {
                    admission.turned_away();
                }
                return Err(e);
            }
        };
        if let Turn::Follow(follow) = &mut turn
            && !follow.may_log_in().await
        {
            return Err(handshake(&endpoint, "the first connection to the vessel failed".into()));
        }
        admission.answered().await;
        let deadline = admission.starts().deadline() * 2;
        let login = Login::new(&mut handle, &endpoint, environment).run();
        match tokio::time::timeout(deadline, login).await {
            Ok(Ok(())) => {
                if let Turn::Lead(lead) = turn {
                    lead.logged_in();
                }
                Ok((Self { endpoint, handle: Arc::new(handle), notes }, admission))
            }
            Ok(Err(Refused::Login { why, remedy })) => Err(login_refused(&endpoint, with_banner(why, &notes), remedy)),
            // A server that sends a disconnect message has probably rejected too many keys; a broken link sends no
            // message.
            Ok(Err(Refused::Broken(why))) if notes.lock().hung_up => {
                let remedy = format!("set the one right key as {}", endpoint.key_setting("IdentityFile"));
                Err(login_refused(&endpoint, with_note(why, &notes), remedy))
            }
            Ok(Err(Refused::Broken(why))) => Err(handshake(&endpoint, with_note(why, &notes))),
            Err(_) => Err(handshake(&endpoint, format!("no answer to the login within {}", text::duration(deadline)))),
        }
    }

    /// Opens a channel through which this hop connects to the next endpoint.
    async fn pass_on_to(&self, next: &Endpoint) -> Result<Channel<Msg>, ConnectError> {
        let (hop, host) = (self.endpoint.place(), next.host());
        let unreachable = |why: String| ConnectError::Unreachable { place: next.place(), why };
        let opening = self.handle.channel_open_direct_tcpip(&host.address, host.port.into(), "127.0.0.1", 0);
        match tokio::time::timeout(host.connect_timeout, opening).await {
            Ok(Ok(channel)) => Ok(channel),
            Ok(Err(russh::Error::ChannelOpenFailure(ChannelOpenFailure::ConnectFailed))) => {
                Err(unreachable(format!("{hop} cannot connect to this host")))
            }
            Ok(Err(russh::Error::ChannelOpenFailure(_))) => Err(ConnectError::NoPassage { hop, place: next.place() }),
            Ok(Err(e)) => Err(handshake(&self.endpoint, with_note(e.to_string(), &self.notes))),
            Err(_) => Err(unreachable(format!(
                "{hop} did not connect to this host within {}",
                text::duration(host.connect_timeout)
            ))),
        }
    }
}

/// Connects to an endpoint, through the hop before it if there is one, and checks the endpoint's host key. `host_keys`
/// reads the accepted keys; it is called only once the endpoint was reached, so that an unreachable one costs no file.
async fn greet(
    endpoint: &Endpoint,
    before: Option<&Session>,
    host_keys: impl FnOnce() -> Option<HostKeys>,
    notes: SharedNotes,
    turn: &Turn<'_>,
    environment: &SshEnvironment,
) -> Result<Handle<ClientHandler>, ConnectError> {
    let reached = |round_trip, bbr| {
        if let Turn::Lead(lead) = turn {
            lead.reached(RoundTrip { round_trip, bbr });
        }
    };
    if let Some(hop) = before {
        let since = Instant::now();
        let stream = hop_tunnel::stream(hop.pass_on_to(endpoint).await?);
        let took = since.elapsed();
        reached(took, hop.notes.lock().congestion.is_bbr());
        let zlib = wants_zlib(endpoint, environment, took);
        return speak(endpoint, QuickAck::through_hop(stream), zlib, host_keys(), notes, turn).await;
    }
    let (stream, took) = dial::dial(endpoint).await?;
    let host_keys = host_keys();
    let zlib = wants_zlib(endpoint, environment, took);
    let meter = environment.meters.on(endpoint.vessel());
    match stream {
        Dialled::Tcp(stream) => {
            // Must come after connecting, because a route of the kernel can set its own congestion control, which would
            // replace an earlier choice.
            let congestion = congestion::choose(&stream, &endpoint.vessel().congestion_control);
            reached(took, congestion.is_bbr());
            notes.lock().congestion = congestion;
            notes.lock().socket = meter.count(&stream).ok();
            speak(endpoint, QuickAck::tcp(stream), zlib, host_keys, notes, turn).await
        }
        Dialled::Socket(stream) => {
            reached(took, false);
            let (counted, passed) = meter.count_socket(&stream).map_err(|e| handshake(endpoint, e.to_string()))?;
            notes.lock().socket = Some(counted);
            let stream = CountedStream::new(stream, passed);
            speak(endpoint, QuickAck::through_hop(stream), zlib, host_keys, notes, turn).await
        }
    }
}

/// Returns whether SSH compresses on a connection to an endpoint that took so long to establish. With `auto`, only the
/// way to the vessel is compressed, if it is long and the vessel can't expand files.
fn wants_zlib(endpoint: &Endpoint, environment: &SshEnvironment, took: Duration) -> bool {
    match endpoint.vessel().compression {
        Compression::No => false,
        Compression::Yes => true,
        Compression::Auto => {
            took >= LONG && endpoint.host().hop.is_none() && environment.unexpanding.has(endpoint.vessel())
        }
    }
}

async fn speak<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    endpoint: &Endpoint,
    stream: QuickAck<S>,
    zlib: bool,
    host_keys: Option<HostKeys>,
    notes: SharedNotes,
    turn: &Turn<'_>,
) -> Result<Handle<ClientHandler>, ConnectError> {
    let config = config(endpoint, zlib, host_keys.as_ref());
    let config = Arc::new(match turn.keeps_alive() {
        true => config,
        false => Config { keepalive_interval: None, inactivity_timeout: None, ..config },
    });
    let doorkeeper = ClientHandler { host_keys, notes: notes.clone() };
    let spoken = stream.spoken();
    let failed = |why: String| match (spoken.instead_of_version(), spoken.yet()) {
        (Some(said), _) => handshake(endpoint, no_version(endpoint, &said, &why)),
        (None, true) => handshake(endpoint, why),
        (None, false) => ConnectError::Mute { place: endpoint.place(), why },
    };
    let deadline = endpoint.host().connect_timeout;
    let greeting = russh::client::connect_stream(config, stream, doorkeeper);
    match tokio::time::timeout(deadline, greeting).await {
        Ok(Ok(handle)) => Ok(handle),
        Ok(Err(e)) => {
            let refused = notes.lock().refused.take();
            Err(refused.unwrap_or_else(|| failed(with_note(in_words(&e), &notes))))
        }
        Err(_) => Err(failed(format!("no SSH greeting within {}", text::duration(deadline)))),
    }
}

/// Explains a failed handshake with a server that sent `said` and no SSH version.
fn no_version(endpoint: &Endpoint, said: &str, why: &str) -> String {
    // These are from an SSH server that has too many connections.
    let is_busy = ["Exceeded MaxStartups", "Not allowed at this time"].iter().any(|text| said.starts_with(text));
    if is_busy {
        return format!("the server sent `{said}` instead of an SSH version ({why})");
    }
    format!(
        "the server sent `{said}` instead of an SSH version, so it is not an SSH server; check {}",
        endpoint.key_setting("Address and Port")
    )
}

fn login_refused(endpoint: &Endpoint, why: String, remedy: String) -> ConnectError {
    ConnectError::Login { place: endpoint.place(), user: endpoint.host().username.clone(), why, remedy }
}

fn handshake(endpoint: &Endpoint, why: String) -> ConnectError {
    ConnectError::Handshake { place: endpoint.place(), why }
}

/// Appends to an error text the banner that the vessel sent before the login, if any.
fn with_banner(why: String, notes: &SharedNotes) -> String {
    match &notes.lock().banner {
        Some(banner) => format!("{why}; the server says: {banner}"),
        None => why,
    }
}

/// Appends to an error text the reason for the end of the connection that the SSH library reported only to its handler,
/// if any.
fn with_note(why: String, notes: &SharedNotes) -> String {
    let note = notes.lock().ended.clone();
    match note {
        Some(note) if note != why => format!("{why}; {note}"),
        _ => why,
    }
}

fn config(endpoint: &Endpoint, zlib: bool, host_keys: Option<&HostKeys>) -> Config {
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
            // The other zlib variant would decompress data of a peer that is not authenticated yet.
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
