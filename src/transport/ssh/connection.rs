//! A logged-in SSH connection: TCP, host key, login, then channels.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use russh::client::{Config, Handle, Msg};
use russh::keys::ssh_key::Algorithm;
use russh::{Channel, ChannelOpenFailure, Preferred, cipher, compression};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::SshEnvironment;
use super::algorithms::{in_words, key_exchanges};
use super::auth::{Login, Refused};
use super::client_handler::{ClientHandler, SharedNotes};
use super::congestion;
use super::endpoint::Endpoint;
use super::hop_tunnel;
use super::host_key::{HostKeys, SeenKey};
use super::login_limit::{Admission, Rank, Starts};
use super::login_order::{Lead, RoundTrip, Turn};
use super::quickack::QuickAck;
use crate::settings::Vessel;
use crate::transport::ConnectError;

/// How often the kernel looks after an idle connection.
const KEEPALIVE: Duration = Duration::from_secs(15);

/// How long after the last knock the next one follows; and where a link is waited for that was there before.
const KNOCK: Duration = Duration::from_secs(1);
const IMPATIENT_KNOCK: Duration = Duration::from_millis(250);
/// How long the kernel goes on with knocks that nobody answers.
const PATIENCE: Duration = Duration::from_secs(10);

/// A connection, through hops where the way has any. It ends when the last clone and the last channel are gone.
#[derive(Clone)]
pub(crate) struct Connection {
    vessel: Session,
    /// What it goes through, the nearest first.
    hops: Arc<[Session]>,
    starts: Starts,
}

/// Being logged in to one endpoint of the way.
#[derive(Clone)]
struct Session {
    endpoint: Endpoint,
    handle: Arc<Handle<ClientHandler>>,
    notes: SharedNotes,
}

impl Connection {
    /// Connects and logs in, when its turn has come. Every step has its deadline: `Timeout`, at each endpoint of the way. The
    /// turn ends with what comes beside it, when what the login starts on the vessel has started.
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

    /// How long what is started on the vessel may take to answer for the first time.
    pub(crate) fn start_deadline(&self) -> Duration {
        self.starts.start_deadline()
    }

    /// Opens a session channel.
    pub(crate) async fn channel(&self) -> Result<Channel<Msg>, russh::Error> {
        self.vessel.handle.channel_open_session().await
    }

    /// Whether both are one connection.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.vessel.handle, &other.vessel.handle)
    }

    /// Whether the connection has ended.
    pub(crate) fn is_closed(&self) -> bool {
        self.vessel.handle.is_closed()
    }

    /// Why it ended, where that is known.
    pub(crate) fn why_closed(&self) -> Option<String> {
        let ended = |session: &Session| session.notes.lock().ended.clone();
        // What became of a hop is why the connection through it ended.
        let hop = self.hops.iter().find_map(|hop| Some(format!("{}: {}", hop.endpoint.place(), ended(hop)?)));
        hop.or_else(|| ended(&self.vessel))
    }

    /// What the vessel said before the login.
    pub(crate) fn banner(&self) -> Option<String> {
        self.vessel.notes.lock().banner.clone()
    }

    /// Whether the vessel ended it, with a word.
    pub(crate) fn was_hung_up(&self) -> bool {
        self.vessel.notes.lock().hung_up
    }

    /// The cipher in use.
    pub(crate) fn cipher(&self) -> String {
        self.vessel.notes.lock().cipher.clone().unwrap_or_default()
    }

    /// Algorithm and fingerprint of the vessel's key.
    pub(crate) fn host_key(&self) -> Option<(String, String)> {
        self.vessel.notes.lock().host_key.clone()
    }

    /// Whether it compresses what is sent.
    pub(crate) fn compresses(&self) -> bool {
        self.vessel.notes.lock().compression
    }

    /// The kernel's name of the congestion control that it sends with.
    pub(crate) fn congestion(&self) -> String {
        self.road().lock().congestion.in_use.clone()
    }

    /// Whether it sends with BBR.
    pub(crate) fn sends_with_bbr(&self) -> bool {
        self.road().lock().congestion.is_bbr()
    }

    /// Why that is not the one that was wished for, and what a person can do; `None` when it is.
    pub(crate) fn congestion_refused(&self) -> Option<String> {
        self.road().lock().congestion.refused.clone()
    }

    /// Asks for a sign of life and waits for it, for ever where none comes.
    pub(crate) async fn ping(&self) {
        // The library says that all is well, too, when the connection ends meanwhile.
        if self.vessel.handle.send_ping().await.is_err() || self.is_closed() {
            std::future::pending::<()>().await;
        }
    }

    /// Asks for a sign of life again and again, and cuts the connection off when too many are missing: for one that was a
    /// spare and carries now. Ends with the connection.
    pub(crate) async fn keep_alive(&self) {
        let (interval, count) = self.vessel.endpoint.host().alive;
        // 0: however many are missing, as for the library.
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

    /// Waits until the host that the socket leads to takes a connection, which is closed at once; for ever, where it is not
    /// known any more.
    pub(crate) async fn host_answers(&self) {
        let host =
            self.road().lock().socket.as_ref().and_then(|socket| socket2::SockRef::from(socket).peer_addr().ok());
        if let Some(host) = host.and_then(|address| address.as_socket()) {
            // Those that were in vain are forgotten now and then.
            while !matches!(tokio::time::timeout(PATIENCE, knock(host, IMPATIENT_KNOCK)).await, Ok(Ok(_))) {
                tokio::time::sleep(IMPATIENT_KNOCK).await;
            }
            return;
        }
        std::future::pending().await
    }

    /// Cuts it off. What is on its way or waits to be sent is forgotten: the vessel should not get it later, beside what
    /// the next connection sends.
    pub(crate) fn abandon(&self) {
        let socket = self.road().lock().socket.take();
        if let Some(socket) = socket {
            let socket = socket2::SockRef::from(&socket);
            // Either fails only where the connection has ended by itself.
            let _ = socket.set_linger(Some(Duration::ZERO));
            let _ = socket.shutdown(std::net::Shutdown::Both);
        }
    }

    /// Says good-bye. Nobody waits for an answer.
    pub(crate) async fn hang_up(&self) {
        for session in std::iter::once(&self.vessel).chain(self.hops.iter().rev()) {
            let _ = session.handle.disconnect(russh::Disconnect::ByApplication, "", "").await;
        }
    }

    /// The notes of the endpoint that the socket leads to.
    fn road(&self) -> &SharedNotes {
        &self.hops.first().unwrap_or(&self.vessel).notes
    }
}

/// Fetches the host key of a endpoint, trusting nothing and logging in nowhere but at the hops before it.
///
/// # Errors
/// [`ConnectError`] when it can't be reached or shows no key.
pub async fn see_host_key(endpoint: &Endpoint, environment: &Arc<SshEnvironment>) -> Result<SeenKey, ConnectError> {
    let rank = Rank::first(true, 0);
    let hops = go_before(endpoint, environment, rank).await?;
    let (notes, lead) = (SharedNotes::default(), Lead::alone(rank));
    let turn = Turn::Lead(&lead);
    let failed = greet(endpoint, hops.last(), None, notes.clone(), &turn).await.err();
    let seen = notes.lock().seen.take();
    seen.ok_or_else(|| failed.unwrap_or_else(|| handshake(endpoint, "it sent no host key".into())))
}

/// Logs in at every endpoint before this one.
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
        let host_keys = HostKeys::read(endpoint.clone(), environment.clone());
        let notes = SharedNotes::default();
        let mut handle = match greet(&endpoint, before, Some(host_keys), notes.clone(), &turn).await {
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
            // Who hangs up by himself has had enough of our keys; a link that is cut has not.
            Ok(Err(Refused::Broken(why))) if notes.lock().hung_up => {
                let remedy = format!("set the one right key as {}", endpoint.key_setting("IdentityFile"));
                Err(login_refused(&endpoint, with_note(why, &notes), remedy))
            }
            Ok(Err(Refused::Broken(why))) => Err(handshake(&endpoint, with_note(why, &notes))),
            Err(_) => Err(handshake(&endpoint, format!("no answer to the login within {deadline:?}"))),
        }
    }

    /// Has this hop connect to the next endpoint.
    async fn pass_on_to(&self, next: &Endpoint) -> Result<Channel<Msg>, ConnectError> {
        let (hop, host) = (self.endpoint.place(), next.host());
        let unreachable = |why: String| ConnectError::Unreachable { place: next.place(), why };
        let opening = self.handle.channel_open_direct_tcpip(&host.address, host.port.into(), "127.0.0.1", 0);
        match tokio::time::timeout(host.connect_timeout, opening).await {
            Ok(Ok(channel)) => Ok(channel),
            Ok(Err(russh::Error::ChannelOpenFailure(ChannelOpenFailure::ConnectFailed))) => {
                Err(unreachable(format!("{hop} cannot connect to it")))
            }
            Ok(Err(russh::Error::ChannelOpenFailure(_))) => Err(ConnectError::NoPassage { hop, place: next.place() }),
            Ok(Err(e)) => Err(handshake(&self.endpoint, with_note(e.to_string(), &self.notes))),
            Err(_) => Err(unreachable(format!("{hop} did not connect to it within {:?}", host.connect_timeout))),
        }
    }
}

/// Connects to a endpoint, through the hop before it, and checks its host key.
async fn greet(
    endpoint: &Endpoint,
    before: Option<&Session>,
    host_keys: Option<HostKeys>,
    notes: SharedNotes,
    turn: &Turn<'_>,
) -> Result<Handle<ClientHandler>, ConnectError> {
    let reached = |round_trip, bbr| {
        if let Turn::Lead(lead) = turn {
            lead.reached(RoundTrip { round_trip, bbr });
        }
    };
    if let Some(hop) = before {
        let since = Instant::now();
        let stream = hop_tunnel::stream(hop.pass_on_to(endpoint).await?);
        reached(since.elapsed(), hop.notes.lock().congestion.is_bbr());
        return speak(endpoint, QuickAck::through_hop(stream), host_keys, notes, turn).await;
    }
    let (stream, took) = connect(endpoint).await?;
    // After connecting: a route may have a choice of its own, which would take the place of an earlier one.
    let congestion = congestion::choose(&stream, &endpoint.vessel().congestion_control);
    reached(took, congestion.is_bbr());
    notes.lock().congestion = congestion;
    notes.lock().socket = stream.as_fd().try_clone_to_owned().ok();
    speak(endpoint, QuickAck::tcp(stream), host_keys, notes, turn).await
}

async fn speak<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    endpoint: &Endpoint,
    stream: QuickAck<S>,
    host_keys: Option<HostKeys>,
    notes: SharedNotes,
    turn: &Turn<'_>,
) -> Result<Handle<ClientHandler>, ConnectError> {
    let config = config(endpoint, host_keys.as_ref());
    let config = Arc::new(match turn.keeps_alive() {
        true => config,
        false => Config { keepalive_interval: None, inactivity_timeout: None, ..config },
    });
    let doorkeeper = ClientHandler { host_keys, notes: notes.clone() };
    let spoken = stream.spoken();
    let failed = |why: String| match spoken.yet() {
        true => handshake(endpoint, why),
        false => ConnectError::Mute { place: endpoint.place(), why },
    };
    let deadline = endpoint.host().connect_timeout;
    let greeting = russh::client::connect_stream(config, stream, doorkeeper);
    match tokio::time::timeout(deadline, greeting).await {
        Ok(Ok(handle)) => Ok(handle),
        Ok(Err(e)) => {
            let refused = notes.lock().refused.take();
            Err(refused.unwrap_or_else(|| failed(with_note(in_words(&e), &notes))))
        }
        Err(_) => Err(failed(format!("no SSH greeting within {deadline:?}"))),
    }
}

fn login_refused(endpoint: &Endpoint, why: String, remedy: String) -> ConnectError {
    ConnectError::Login { place: endpoint.place(), user: endpoint.host().username.clone(), why, remedy }
}

fn handshake(endpoint: &Endpoint, why: String) -> ConnectError {
    ConnectError::Handshake { place: endpoint.place(), why }
}

/// Adds what the vessel said before the login.
fn with_banner(why: String, notes: &SharedNotes) -> String {
    match &notes.lock().banner {
        Some(banner) => format!("{why}; it says: {banner}"),
        None => why,
    }
}

/// Adds what the library told only its handler.
fn with_note(why: String, notes: &SharedNotes) -> String {
    let note = notes.lock().ended.clone();
    match note {
        Some(note) if note != why => format!("{why}; {note}"),
        _ => why,
    }
}

/// Connects to a endpoint; also says how long it took to be answered.
async fn connect(endpoint: &Endpoint) -> Result<(TcpStream, Duration), ConnectError> {
    let unreachable = |why: String| ConnectError::Unreachable { place: endpoint.place(), why };
    let host = endpoint.host();
    let looking_up = tokio::net::lookup_host((host.address.as_str(), host.port));
    let addresses: Vec<_> = match tokio::time::timeout(host.connect_timeout, looking_up).await {
        Ok(Ok(addresses)) => addresses.collect(),
        Ok(Err(e)) => return Err(unreachable(format!("its address can't be found ({e})"))),
        Err(_) => return Err(unreachable("the lookup of its address timed out".into())),
    };
    let mut why = "it has no address".to_string();
    for address in &addresses {
        // Each has its share of the time: a dead IPv6 must not keep us from a living IPv4.
        let share = host.connect_timeout / u32::try_from(addresses.len()).unwrap_or(u32::MAX);
        match tokio::time::timeout(share, knock(*address, KNOCK)).await {
            Ok(Ok((stream, took))) => {
                prepare(&stream, endpoint.vessel().timeout).map_err(|e| unreachable(e.to_string()))?;
                return Ok((stream, took));
            }
            Ok(Err(e)) => why = e.to_string(),
            Err(_) => why = format!("no answer within {share:?}"),
        }
    }
    Err(unreachable(why))
}

/// Connects to an address, knocking again and again: the kernel by itself repeats after one, two, four seconds and so
/// on, and would find out late that a link has returned.
async fn knock(address: SocketAddr, every: Duration) -> std::io::Result<(TcpStream, Duration)> {
    let mut knocks = FuturesUnordered::new();
    loop {
        let since = Instant::now();
        knocks.push(async move { Ok((TcpStream::connect(address).await?, since.elapsed())) });
        if let Ok(Some(connected)) = tokio::time::timeout(every, knocks.next()).await {
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

fn config(endpoint: &Endpoint, host_keys: Option<&HostKeys>) -> Config {
    let all: Vec<Algorithm> =
        Preferred::DEFAULT.key.iter().filter(|a| !matches!(a, Algorithm::Rsa { hash: None })).cloned().collect();
    let key = host_keys.map_or_else(|| all.clone(), |keys| keys.preferred(&all));
    let vessel = endpoint.vessel();
    let (alive_interval, alive_count) = endpoint.host().alive;
    let certificates = if host_keys.is_some_and(HostKeys::want_certificate) { all } else { Vec::new() };
    let in_vain = u32::try_from(alive_count).unwrap_or(u32::MAX - 1);
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
            kex: key_exchanges().into(),
            key: key.into(),
            host_key_certificates: certificates.into(),
            ..Preferred::DEFAULT
        },
        nodelay: true,
        keepalive_interval: Some(alive_interval),
        keepalive_max: alive_count,
        // Covers what keepalives don't: a write that blocks, and a handshake that never ends.
        inactivity_timeout: Some(patience(vessel.timeout).max(alive_interval.saturating_mul(in_vain + 1))),
        ..Config::default()
    }
}
