//! Counts the bytes that the connections to each vessel send and receive on the link, separately for each way (route)
//! to the vessel.
//!
//! The kernel counts the payload bytes and the packets of a TCP connection, including retransmissions. The headers of
//! the packets are added as an estimate: 20 bytes of IPv4 or 40 bytes of IPv6, 20 bytes of TCP, and 12 bytes for
//! timestamps if the connection uses them. Not counted are options of single packets (selective acknowledgements after
//! a loss), connection attempts that no host accepted, and the bytes of lower layers (Ethernet, a VPN). With hops, only
//! the connection to the first hop is on the link and is counted. If a vessel dials in through a socket of this host,
//! this program counts the bytes that pass to and from the socket.
//!
//! The counters of a connection are read whenever the sums are queried, and once more before its socket is closed, so
//! that the bytes of a lost connection are counted too.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use contentmonster_kernel::{TcpInfo, tcp_info};
use socket2::SockRef;
use tokio::net::{TcpStream, UnixStream};

use super::congestion;
use super::counted_stream::Passed;
use super::path_state::PathState;
use crate::names::VesselName;
use crate::records::{LinkBytes, WayOf};
use crate::settings::Vessel;

/// The meters of all ways to all vessels. Cheap to clone; clones share the counts.
#[derive(Clone, Debug, Default)]
pub struct LinkMeters(Arc<Mutex<HashMap<WayOf, LinkMeter>>>);

impl LinkMeters {
    /// Returns the meter of the way over which these settings reach the vessel.
    pub fn on(&self, vessel: &Vessel) -> LinkMeter {
        self.of(vessel.name.clone(), vessel.way())
    }

    fn of(&self, vessel: VesselName, way: Option<String>) -> LinkMeter {
        lock(&self.0).entry((vessel, way)).or_default().clone()
    }

    /// Returns the bytes counted for each way so far. Leaves out ways on which no bytes were counted.
    pub fn all(&self) -> Vec<(WayOf, LinkBytes)> {
        let meters: Vec<_> = lock(&self.0).iter().map(|(way, meter)| (way.clone(), meter.clone())).collect();
        meters.into_iter().filter_map(|(way, meter)| Some((way, meter.bytes()?))).collect()
    }

    /// Returns the state of the open TCP connections to a vessel; `None` if there are none.
    pub fn path(&self, vessel: &VesselName) -> Option<PathState> {
        let meters: Vec<_> = {
            let all = lock(&self.0);
            all.iter().filter(|((name, _), _)| name == vessel).map(|(_, meter)| meter.clone()).collect()
        };
        let mut path = PathState::default();
        meters.iter().for_each(|meter| meter.add_to(&mut path));
        (path.connections > 0).then_some(path)
    }

    /// Returns the sum of the bytes counted on all ways to a vessel; `None` if no bytes were counted.
    pub fn sum(&self, vessel: &VesselName) -> Option<LinkBytes> {
        let meters: Vec<_> = {
            let all = lock(&self.0);
            all.iter().filter(|((name, _), _)| name == vessel).map(|(_, meter)| meter.clone()).collect()
        };
        meters.iter().filter_map(LinkMeter::bytes).reduce(LinkBytes::and)
    }
}

/// The meter of one way to a vessel: the sum over its connections since the program started. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct LinkMeter(Arc<Mutex<Counts>>);

#[derive(Debug, Default)]
struct Counts {
    /// The sum over the connections that have ended.
    ended: LinkBytes,
    open: HashMap<u64, Open>,
    next: u64,
}

#[derive(Debug)]
struct Open {
    source: Source,
    last: LinkBytes,
}

/// Where the bytes of a connection are counted.
#[derive(Debug)]
enum Source {
    /// In the kernel.
    Tcp {
        socket: Arc<OwnedFd>,
        /// Estimated bytes of the headers of one packet.
        header: u64,
    },
    /// In this program: the bytes that pass to and from a socket of this host, from which the tunnel leads to the
    /// vessel.
    Socket(Arc<Passed>),
}

impl Open {
    fn read(&mut self) -> LinkBytes {
        // After a connection has ended, the kernel keeps its counts until the socket is closed. If the kernel fails to
        // report the counts, the counts of the last query remain.
        let now = match &self.source {
            Source::Tcp { socket, header } => tcp_info(&**socket).ok().map(|info| on_the_link(&info, *header)),
            Source::Socket(passed) => Some(through_a_tunnel(passed.bytes())),
        };
        self.last = now.map_or(self.last, |now| self.last.max(now));
        self.last
    }
}

impl LinkMeter {
    /// Returns the bytes counted so far; `None` if there are none: no connection was made, the target is on this host,
    /// or the kernel doesn't count bytes (before Linux 4.19).
    pub fn bytes(&self) -> Option<LinkBytes> {
        let mut counts = lock(&self.0);
        let ended = counts.ended;
        let sum = counts.open.values_mut().fold(ended, |sum, open| sum.and(open.read()));
        (sum.sent > 0).then_some(sum)
    }

    /// Adds the open connections to the state of a path.
    fn add_to(&self, path: &mut PathState) {
        for open in lock(&self.0).open.values() {
            let Source::Tcp { socket, .. } = &open.source else { continue };
            let Ok(info) = tcp_info(&**socket) else { continue };
            path.add(&info, &congestion::in_use(&SockRef::from(&**socket)));
        }
    }

    /// Counts a connection from now on, until the returned value is dropped.
    pub(super) fn count(&self, stream: &TcpStream) -> std::io::Result<Counted> {
        let socket = Arc::new(stream.as_fd().try_clone_to_owned()?);
        let header = header_bytes(stream.peer_addr()?, tcp_info(&*socket)?.timestamps);
        Ok(self.counted(socket.clone(), Source::Tcp { socket, header }))
    }

    /// Counts a connection to a socket of this host from now on, until the returned [`Counted`] is dropped. The stream
    /// must add the bytes that pass through it to the returned [`Passed`].
    pub(super) fn count_socket(&self, stream: &UnixStream) -> std::io::Result<(Counted, Arc<Passed>)> {
        let (socket, passed) = (Arc::new(stream.as_fd().try_clone_to_owned()?), Arc::<Passed>::default());
        Ok((self.counted(socket, Source::Socket(passed.clone())), passed))
    }

    fn counted(&self, socket: Arc<OwnedFd>, source: Source) -> Counted {
        let mut counts = lock(&self.0);
        counts.next += 1;
        let number = counts.next;
        counts.open.insert(number, Open { source, last: LinkBytes::default() });
        drop(counts);
        Counted { meter: self.clone(), number, socket }
    }
}

/// A connection that a meter counts, and its socket.
pub(super) struct Counted {
    meter: LinkMeter,
    number: u64,
    socket: Arc<OwnedFd>,
}

impl AsFd for Counted {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut counts = lock(&self.meter.0);
        if let Some(mut open) = counts.open.remove(&self.number) {
            counts.ended = counts.ended.and(open.read());
        }
    }
}

/// Returns the bytes of a connection on the link, as the kernel counts them; zeros if the kernel doesn't count bytes.
fn on_the_link(info: &TcpInfo, header: u64) -> LinkBytes {
    if info.bytes_sent == 0 {
        return LinkBytes::default();
    }
    let with_headers = |bytes: u64, packets: u32| bytes.saturating_add(u64::from(packets) * header);
    LinkBytes {
        sent: with_headers(info.bytes_sent, info.packets_sent),
        received: with_headers(info.bytes_received, info.packets_received),
        resent: with_headers(info.bytes_resent, if info.bytes_resent > 0 { info.retransmits } else { 0 }),
    }
}

/// Estimates the bytes on the link to a vessel that dials in, from the bytes that pass to and from its tunnel. The
/// kernel only knows the connection to the socket on this host.
fn through_a_tunnel((sent, received): (u64, u64)) -> LinkBytes {
    /// Bytes of the tunnel's data in a full packet, and the bytes of its headers (IPv4, TCP with timestamps).
    const DATA: u64 = 1448;
    const HEADER: u64 = 52;
    let with_headers = |bytes: u64| bytes.saturating_add(bytes.div_ceil(DATA) * HEADER);
    LinkBytes { sent: with_headers(sent), received: with_headers(received), resent: 0 }
}

/// Returns the estimated bytes of the headers of one packet.
fn header_bytes(peer: SocketAddr, timestamps: bool) -> u64 {
    let ip = if peer.ip().to_canonical().is_ipv4() { 20 } else { 40 };
    ip + 20 + if timestamps { 12 } else { 0 }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    async fn connected() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let shore = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (shore, listener.accept().await.unwrap().0)
    }

    /// Sends `there` bytes to the vessel and `back` bytes to the shore.
    async fn exchange(shore: &mut TcpStream, vessel: &mut TcpStream, there: usize, back: usize) {
        shore.write_all(&vec![7; there]).await.unwrap();
        vessel.read_exact(&mut vec![0; there]).await.unwrap();
        vessel.write_all(&vec![7; back]).await.unwrap();
        shore.read_exact(&mut vec![0; back]).await.unwrap();
    }

    #[test]
    fn headers_are_estimated_by_the_protocol_and_the_timestamps() {
        let header = |address: &str, timestamps| header_bytes(address.parse().unwrap(), timestamps);
        assert_eq!((header("192.0.2.1:22", false), header("192.0.2.1:22", true)), (40, 52));
        assert_eq!((header("[2001:db8::1]:22", false), header("[2001:db8::1]:22", true)), (60, 72));
        assert_eq!(header("[::ffff:192.0.2.1]:22", true), 52);
    }

    #[test]
    fn each_packet_and_each_resent_packet_has_a_header() {
        let info = TcpInfo {
            bytes_sent: 10_000,
            bytes_resent: 2800,
            bytes_received: 500,
            packets_sent: 9,
            packets_received: 6,
            retransmits: 2,
            ..TcpInfo::default()
        };
        let expected = LinkBytes { sent: 10_000 + 9 * 52, received: 500 + 6 * 52, resent: 2800 + 2 * 52 };
        assert_eq!(on_the_link(&info, 52), expected);
    }

    #[test]
    fn a_kernel_that_counts_no_bytes_gives_nothing() {
        let info = TcpInfo { bytes_received: 500, packets_sent: 9, packets_received: 6, ..TcpInfo::default() };
        assert_eq!(on_the_link(&info, 52), LinkBytes::default());
    }

    #[tokio::test]
    async fn connections_are_summed_and_their_bytes_outlive_them() {
        let (meters, vessel) = (LinkMeters::default(), VesselName::new("tern"));
        assert!(meters.of(vessel.clone(), None).bytes().is_none() && meters.all().is_empty());
        let (mut one, mut one_there) = connected().await;
        let (mut other, mut other_there) = connected().await;
        let meter = meters.of(vessel.clone(), None);
        let (first, second) = (meter.count(&one).unwrap(), meter.count(&other).unwrap());
        exchange(&mut one, &mut one_there, 30_000, 2000).await;
        exchange(&mut other, &mut other_there, 50_000, 4000).await;
        let both = meter.bytes().unwrap();
        assert!((80_000..90_000).contains(&both.sent) && (6000..8000).contains(&both.received), "{both:?}");
        // The connection transfers more bytes and is then closed. The meter was not read in between.
        exchange(&mut one, &mut one_there, 10_000, 100).await;
        drop((one, one_there));
        drop(first);
        let after = meter.bytes().unwrap();
        assert!((90_000..100_000).contains(&after.sent) && after.received >= both.received + 100, "{after:?}");
        drop(second);
        assert_eq!(lock(&meter.0).open.len(), 0);
        let all = meters.all();
        assert!(all.len() == 1 && all[0].0 == (vessel, None) && all[0].1.sent >= after.sent, "{all:?}");
    }

    #[tokio::test]
    async fn a_vessel_has_its_own_sum_over_its_ways() {
        let (meters, tern) = (LinkMeters::default(), VesselName::new("tern"));
        let mut counted = Vec::new();
        for way in ["lte", "vsat"] {
            let (mut shore, mut there) = connected().await;
            counted.push(meters.of(tern.clone(), Some(way.into())).count(&shore).unwrap());
            exchange(&mut shore, &mut there, 1000, 1000).await;
        }
        assert!(meters.sum(&VesselName::new("gull")).is_none() && meters.all().len() == 2);
        let sum = meters.sum(&tern).unwrap();
        assert!((2000..3000).contains(&sum.sent), "{sum:?}");
    }
}
