//! A connection to a vessel: its properties, and the channels that are opened on it.

use std::sync::Arc;
use std::time::Duration;

use contentmonster_kernel::TcpInfo;
use russh::Channel;
use russh::client::Msg;

use super::SshEnvironment;
use super::client_config::LONG;
use super::client_handler::SharedNotes;
use super::dial;
use super::endpoint::Endpoint;
use super::login_limit::{Admission, Starts};
use super::login_order::Turn;
use super::session::{Session, go_before};
use crate::settings::Vessel;
use crate::transport::ConnectError;

/// A connection to a vessel, through its hops if it has any. The connection ends when its last clone and its last
/// channel are dropped.
#[derive(Clone)]
pub(crate) struct Connection {
    vessel: Session,
    /// The sessions with the hops of the route, the nearest hop first.
    hops: Arc<[Session]>,
    starts: Starts,
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

    /// Returns the round-trip time if it is long, there is no hop, and the server is known to accept SFTP requests that
    /// are sent together with our SFTP greeting. Otherwise returns `None`; other servers might discard such requests.
    pub(crate) fn early_requests(&self) -> Option<Duration> {
        const KNOWN: [&[u8]; 2] = [b"SSH-2.0-OpenSSH", b"SSH-2.0-dropbear"];
        let is_known = |server: &[u8]| KNOWN.iter().any(|known| server.starts_with(known));
        let is_direct = self.hops.is_empty() && is_known(&self.vessel.notes.lock().server);
        let measured = self.tcp_info().filter(|_| is_direct)?.least_round_trip_micros;
        Some(Duration::from_micros(measured.into())).filter(|round_trip| *round_trip >= LONG)
    }

    /// Sets the highest rate, in bytes per second, at which the kernel sends on the connection; `None` removes the
    /// limit.
    pub(crate) fn limit_pace(&self, bytes_per_second: Option<u64>) {
        if let Some(socket) = &self.road().lock().socket {
            // An error is ignored, because its only effect is that the kernel sends without the limit.
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

    /// Cuts the connection off and discards unsent data, which the vessel could otherwise receive later, concurrently
    /// with the data of the next connection.
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
        if let Some(socket) = &self.road().lock().socket {
            // Lets the kernel send the message even after the socket is closed. The call fails only if the connection
            // has already ended.
            let _ = socket2::SockRef::from(socket).set_linger(None);
        }
        for session in std::iter::once(&self.vessel).chain(self.hops.iter().rev()) {
            let _ = session.handle.disconnect(russh::Disconnect::ByApplication, "", "").await;
        }
    }

    /// Returns the notes of the endpoint that the TCP socket is connected to: the first hop, or the vessel itself.
    fn road(&self) -> &SharedNotes {
        &self.hops.first().unwrap_or(&self.vessel).notes
    }
}
