//! Opens the stream to the first host of a route. The stream is a TCP connection, or a connection to a socket of this
//! host through which the vessel has dialled in.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::net::{TcpSocket, TcpStream, UnixStream};

use super::endpoint::Endpoint;
use crate::settings::Link;
use crate::text;
use crate::transport::ConnectError;

/// The interval of the kernel's TCP keepalives on an idle connection.
const KEEPALIVE: Duration = Duration::from_secs(15);

/// The interval between connection attempts to one address. `WAYS_KNOCK` applies to a vessel with several ways, because
/// a better way may return at any time. `IMPATIENT_KNOCK` applies while a lost link is expected to return.
const KNOCK: Duration = Duration::from_secs(1);
const WAYS_KNOCK: Duration = Duration::from_millis(500);
const IMPATIENT_KNOCK: Duration = Duration::from_millis(250);
/// After this time, connection attempts without an answer are given up, and new ones begin.
const PATIENCE: Duration = Duration::from_secs(10);

/// Error numbers of the kernel for an interface that does not exist, and for one that this program may not choose.
const ENODEV: i32 = 19;
const EPERM: i32 = 1;

/// A stream to a host.
pub(super) enum Dialled {
    Tcp(TcpStream),
    Socket(UnixStream),
}

/// Connects to an endpoint that is not behind a hop. Also returns how long that took.
pub(super) async fn dial(endpoint: &Endpoint) -> Result<(Dialled, Duration), ConnectError> {
    match endpoint.host().socket() {
        Some(path) => {
            let since = Instant::now();
            Ok((Dialled::Socket(through_socket(endpoint, path).await?), since.elapsed()))
        }
        None => connect(endpoint).await.map(|(stream, took)| (Dialled::Tcp(stream), took)),
    }
}

async fn through_socket(endpoint: &Endpoint, path: &Path) -> Result<UnixStream, ConnectError> {
    let place = endpoint.place();
    let deadline = endpoint.host().connect_timeout;
    let error = match tokio::time::timeout(deadline, UnixStream::connect(path)).await {
        Ok(Ok(stream)) => return Ok(stream),
        Ok(Err(error)) => error,
        Err(_) => ErrorKind::TimedOut.into(),
    };
    Err(match error.kind() {
        ErrorKind::NotFound => ConnectError::NotDialledIn { place, why: "its socket does not exist".into() },
        ErrorKind::ConnectionRefused => ConnectError::NotDialledIn {
            place,
            why: "nothing listens on its socket, which is left over from an earlier tunnel".into(),
        },
        ErrorKind::PermissionDenied => ConnectError::Away {
            why: format!("cannot connect to {place}: permission denied"),
            remedy: "give the user that runs contentmonster write permission on the socket and access to its directory"
                .into(),
        },
        _ => ConnectError::Unreachable { place, why: error.to_string() },
    })
}

/// Waits until a host accepts a new connection, which is then closed at once.
pub(super) async fn answers(host: SocketAddr, link: Option<&Link>) {
    // Attempts without an answer are discarded after `PATIENCE`, and new ones begin.
    while !matches!(tokio::time::timeout(PATIENCE, knock(host, link, IMPATIENT_KNOCK)).await, Ok(Ok(_))) {
        tokio::time::sleep(IMPATIENT_KNOCK).await;
    }
}

/// Connects to an endpoint by TCP. Also returns how long the TCP handshake took.
async fn connect(endpoint: &Endpoint) -> Result<(TcpStream, Duration), ConnectError> {
    let unreachable = |why: String| ConnectError::Unreachable { place: endpoint.place(), why };
    let host = endpoint.host();
    let looking_up = tokio::net::lookup_host((host.address.as_str(), host.port));
    let addresses: Vec<_> = match tokio::time::timeout(host.connect_timeout, looking_up).await {
        Ok(Ok(addresses)) => addresses.collect(),
        Ok(Err(e)) => {
            let key = endpoint.key_setting("Address");
            return Err(unreachable(format!("its host name can't be resolved ({e}); check {key}")));
        }
        Err(_) => return Err(unreachable("the lookup of its host name timed out".into())),
    };
    let link = endpoint.vessel().link.as_deref();
    let source = link.and_then(|link| link.bind_address);
    let addresses: Vec<_> =
        addresses.into_iter().filter(|to| source.is_none_or(|it| it.is_ipv4() == to.is_ipv4())).collect();
    let mut why = match source {
        Some(source) => {
            format!("its host name has no address of the same family (IPv4 or IPv6) as BindAddress {source}")
        }
        None => "its host name has no address".to_string(),
    };
    for address in &addresses {
        // Each address gets an equal share of the timeout, so that a dead IPv6 address does not prevent a connection
        // over IPv4.
        let every = if endpoint.vessel().ways.len() > 1 { WAYS_KNOCK } else { KNOCK };
        let share = host.connect_timeout / u32::try_from(addresses.len()).unwrap_or(u32::MAX);
        match tokio::time::timeout(share, knock(*address, link, every)).await {
            Ok(Ok((stream, took))) => {
                prepare(&stream, endpoint.vessel().timeout).map_err(|e| unreachable(e.to_string()))?;
                return Ok((stream, took));
            }
            Ok(Err(e)) => why = with_link(&e, link, endpoint),
            Err(_) => why = format!("no answer within {}", text::duration(share)),
        }
    }
    Err(unreachable(why))
}

/// Connects to an address. Starts another attempt after each interval `every`, because the kernel alone repeats an
/// attempt only after 1 s, 2 s, 4 s and so on, and would notice late that a link has returned.
async fn knock(address: SocketAddr, link: Option<&Link>, every: Duration) -> std::io::Result<(TcpStream, Duration)> {
    let mut knocks = FuturesUnordered::new();
    loop {
        let since = Instant::now();
        knocks.push(async move { Ok((open(address, link).await?, since.elapsed())) });
        if let Ok(Some(connected)) = tokio::time::timeout(every, knocks.next()).await {
            return connected;
        }
    }
}

/// Opens one connection, through the interface and from the address that the link's settings name, if any.
async fn open(address: SocketAddr, link: Option<&Link>) -> std::io::Result<TcpStream> {
    let Some(link) = link.filter(|link| link.interface.is_some() || link.bind_address.is_some()) else {
        return TcpStream::connect(address).await;
    };
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if let Some(interface) = &link.interface {
        socket.bind_device(Some(interface.as_bytes()))?;
    }
    if let Some(source) = link.bind_address {
        socket.bind((source, 0).into())?;
    }
    socket.connect(address).await
}

/// Returns the text of an error, with the setting of the link that may have caused it.
fn with_link(error: &std::io::Error, link: Option<&Link>, endpoint: &Endpoint) -> String {
    match link.map(|link| (&link.interface, link.bind_address)) {
        Some((Some(interface), _)) if matches!(error.raw_os_error(), Some(ENODEV | EPERM)) => {
            format!("cannot use the interface {interface}: {error}")
        }
        Some((_, Some(source))) if error.kind() == ErrorKind::AddrNotAvailable => {
            format!("this host does not have the BindAddress {source} now")
        }
        _ => with_settings(error, endpoint),
    }
}

/// Returns the text of a network error, followed by the settings to check if they may have caused it.
fn with_settings(error: &std::io::Error, endpoint: &Endpoint) -> String {
    match error.kind() {
        ErrorKind::ConnectionRefused => {
            let port = endpoint.key_setting("Port");
            format!("{error}; check that sshd runs there, and listens on this port ({port})")
        }
        _ => error.to_string(),
    }
}

/// Makes the kernel detect a dead link: it ends the connection if sent bytes or keepalives are not acknowledged. If
/// this process ends unexpectedly, the kernel discards unsent data, which the vessel could otherwise receive later,
/// concurrently with the data of the next process.
fn prepare(stream: &TcpStream, timeout: Duration) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = socket2::SockRef::from(stream);
    socket.set_tcp_user_timeout(Some(patience(timeout)))?;
    socket.set_linger(Some(Duration::ZERO))?;
    socket.set_tcp_keepalive(&socket2::TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE))
}

/// Returns after how long without progress a connection is closed. The time is longer than the short outages that TCP
/// survives.
pub(super) fn patience(timeout: Duration) -> Duration {
    (timeout * 3).max(Duration::from_secs(30))
}
