//! SSH sessions with the endpoints of a route: connects, checks the host key, and logs in.

use std::sync::Arc;
use std::time::Instant;

use russh::client::{Config, Handle, Msg};
use russh::{Channel, ChannelOpenFailure};
use tokio::io::{AsyncRead, AsyncWrite};

use super::SshEnvironment;
use super::algorithms::in_words;
use super::client_config::{config, wants_zlib};
use super::client_handler::{ClientHandler, SharedNotes};
use super::congestion;
use super::counted_stream::CountedStream;
use super::dial::{self, Dialled};
use super::endpoint::Endpoint;
use super::handshake_error::{handshake, login_refused, no_version, with_banner, with_note};
use super::hop_tunnel;
use super::host_key::{HostKeys, SeenKey};
use super::login::{Login, Refused};
use super::login_limit::{Admission, Rank};
use super::login_order::{Lead, RoundTrip, Turn};
use super::quickack::QuickAck;
use crate::text;
use crate::transport::ConnectError;

/// A logged-in SSH session with one endpoint of the route.
#[derive(Clone)]
pub(super) struct Session {
    pub(super) endpoint: Endpoint,
    pub(super) handle: Arc<Handle<ClientHandler>>,
    pub(super) notes: SharedNotes,
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
pub(super) async fn go_before(
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
    /// Connects to an endpoint, through the session with the hop before it if there is one, and logs in.
    pub(super) async fn enter(
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
            let why = "no login was tried, because the first connection to the vessel failed";
            return Err(handshake(&endpoint, why.into()));
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
                let key = endpoint.key_setting("IdentityFile");
                let remedy = format!("if the server rejected too many keys, set only the right key as {key}");
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
                Err(unreachable(format!("{hop} cannot connect to it")))
            }
            Ok(Err(russh::Error::ChannelOpenFailure(_))) => Err(ConnectError::NoPassage { hop, place: next.place() }),
            Ok(Err(e)) => Err(handshake(&self.endpoint, with_note(e.to_string(), &self.notes))),
            Err(_) => {
                Err(unreachable(format!("{hop} did not connect to it within {}", text::duration(host.connect_timeout))))
            }
        }
    }
}

/// Connects to an endpoint, through the hop before it if there is one, and checks the endpoint's host key. `host_keys`
/// reads the accepted keys. It is called only after the endpoint was reached, so that no file is read for an
/// unreachable endpoint.
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
            // Must come after connecting, because a route in the kernel can have its own congestion control, which
            // would replace an earlier choice.
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

/// Exchanges versions and keys over a connected stream, and checks the host key.
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
    let handler = ClientHandler { host_keys, notes: notes.clone() };
    let spoken = stream.spoken();
    let failed = |why: String| match (spoken.instead_of_version(), spoken.yet()) {
        (Some(said), _) => handshake(endpoint, no_version(endpoint, &said, &why)),
        (None, true) => handshake(endpoint, why),
        (None, false) => ConnectError::Mute { place: endpoint.place(), why },
    };
    let deadline = endpoint.host().connect_timeout;
    let greeting = russh::client::connect_stream(config, stream, handler);
    match tokio::time::timeout(deadline, greeting).await {
        Ok(Ok(handle)) => Ok(handle),
        Ok(Err(e)) => {
            let refused = notes.lock().refused.take();
            Err(refused.unwrap_or_else(|| failed(with_note(in_words(&e), &notes))))
        }
        Err(_) => Err(failed(format!("no SSH greeting within {}", text::duration(deadline)))),
    }
}
