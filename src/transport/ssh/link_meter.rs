//! Counts the bytes that the connections to each vessel put on the link.
//!
//! The kernel counts the payload bytes and the packets of a TCP connection, also those sent again. The headers of the
//! packets are added as an estimate: 20 bytes of IPv4 or 40 bytes of IPv6, 20 bytes of TCP, and 12 bytes for timestamps
//! if the connection uses them. Not included are options of single packets (selective acknowledgements after a loss),
//! connection attempts that no host accepted, and what lower layers add (Ethernet, a VPN). With hops, the connection to
//! the first hop is the one that is on the link.
//!
//! A connection is read whenever somebody asks for the sums, and once more when its socket is given back, so a lost
//! connection takes nothing along.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use contentmonster_kernel::{TcpInfo, tcp_info};
use tokio::net::TcpStream;

use crate::names::VesselName;
use crate::records::LinkBytes;

/// The meters of all vessels. Cheap to clone; clones share the counts.
#[derive(Clone, Debug, Default)]
pub struct LinkMeters(Arc<Mutex<HashMap<VesselName, LinkMeter>>>);

impl LinkMeters {
    /// Returns the meter of a vessel.
    pub fn of(&self, vessel: &VesselName) -> LinkMeter {
        lock(&self.0).entry(vessel.clone()).or_default().clone()
    }

    /// Returns the bytes counted for each vessel so far, without vessels for which none were counted.
    pub fn all(&self) -> Vec<(VesselName, LinkBytes)> {
        let meters: Vec<_> = lock(&self.0).iter().map(|(name, meter)| (name.clone(), meter.clone())).collect();
        meters.into_iter().filter_map(|(name, meter)| Some((name, meter.bytes()?))).collect()
    }
}

/// The meter of one vessel: the sum over its connections since the program started. Cheap to clone.
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
    socket: Arc<OwnedFd>,
    /// Estimated bytes of the headers of one packet.
    header: u64,
    last: LinkBytes,
}

impl Open {
    fn read(&mut self) -> LinkBytes {
        // The kernel keeps the counts of a closed connection until the socket is closed. If it fails to report them,
        // the last ones stand.
        if let Ok(info) = tcp_info(&*self.socket) {
            self.last = self.last.max(on_the_link(&info, self.header));
        }
        self.last
    }
}

impl LinkMeter {
    /// Returns the bytes counted so far; `None` if there were none, because no connection was made, the vessel is
    /// reached without TCP, or the kernel doesn't count (before Linux 4.19).
    pub fn bytes(&self) -> Option<LinkBytes> {
        let mut counts = lock(&self.0);
        let ended = counts.ended;
        let sum = counts.open.values_mut().fold(ended, |sum, open| sum.and(open.read()));
        (sum.sent > 0).then_some(sum)
    }

    /// Counts a connection from now on, until the returned value is dropped.
    pub(super) fn count(&self, stream: &TcpStream) -> std::io::Result<Counted> {
        let socket = Arc::new(stream.as_fd().try_clone_to_owned()?);
        let header = header_bytes(stream.peer_addr()?, tcp_info(&*socket)?.timestamps);
        let mut counts = lock(&self.0);
        counts.next += 1;
        let number = counts.next;
        counts.open.insert(number, Open { socket: socket.clone(), header, last: LinkBytes::default() });
        drop(counts);
        Ok(Counted { meter: self.clone(), number, socket })
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

/// Returns the bytes of a connection on the link, as far as the kernel knows; nothing if the kernel doesn't count bytes.
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

    /// Sends bytes there and some back.
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
        assert!(meters.of(&vessel).bytes().is_none() && meters.all().is_empty());
        let (mut one, mut one_there) = connected().await;
        let (mut other, mut other_there) = connected().await;
        let meter = meters.of(&vessel);
        let (first, second) = (meter.count(&one).unwrap(), meter.count(&other).unwrap());
        exchange(&mut one, &mut one_there, 30_000, 2000).await;
        exchange(&mut other, &mut other_there, 50_000, 4000).await;
        let both = meter.bytes().unwrap();
        assert!((80_000..90_000).contains(&both.sent) && (6000..8000).contains(&both.received), "{both:?}");
        // The connection sends once more and is cut; nobody has read it since.
        exchange(&mut one, &mut one_there, 10_000, 100).await;
        drop((one, one_there));
        drop(first);
        let after = meter.bytes().unwrap();
        assert!((90_000..100_000).contains(&after.sent) && after.received >= both.received + 100, "{after:?}");
        drop(second);
        assert_eq!(lock(&meter.0).open.len(), 0);
        let all = meters.all();
        assert!(all.len() == 1 && all[0].0 == vessel && all[0].1.sent >= after.sent, "{all:?}");
    }

    #[tokio::test]
    async fn a_vessel_has_its_own_sum() {
        let meters = LinkMeters::default();
        let (mut shore, mut there) = connected().await;
        let _counted = meters.of(&VesselName::new("tern")).count(&shore).unwrap();
        exchange(&mut shore, &mut there, 1000, 1000).await;
        assert!(meters.of(&VesselName::new("gull")).bytes().is_none());
    }
}
