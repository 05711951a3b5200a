//! The state of a TCP connection (`TCP_INFO` in tcp(7)), and an upper bound of its pace (`SO_MAX_PACING_RATE` in
//! socket(7)).

use std::io;
use std::mem::{offset_of, size_of};
use std::os::fd::{AsFd, AsRawFd};

use libc::{IPPROTO_TCP, SO_MAX_PACING_RATE, SOL_SOCKET, TCP_INFO, c_void, socklen_t};

/// The state of a TCP connection, as the kernel knows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpInfo {
    /// The smoothed round-trip time in microseconds.
    pub round_trip_micros: u32,
    /// The shortest round-trip time of the last minutes, in microseconds (Linux 4.6 and later, otherwise 0).
    pub least_round_trip_micros: u32,
    /// The current limit of unacknowledged packets (the congestion window).
    pub congestion_window: u32,
    /// The payload bytes of one full packet.
    pub packet_bytes: u32,
    /// Packets that were sent and not acknowledged.
    pub unacknowledged: u32,
    /// Packets that are counted as lost and were not sent again yet.
    pub lost: u32,
    /// Packets that were sent again, since the connection began.
    pub retransmits: u32,
    /// Packets that were sent, those sent again included (Linux 4.2 and later, otherwise 0).
    pub packets_sent: u32,
    /// Packets that were received (Linux 4.2 and later, otherwise 0).
    pub packets_received: u32,
    /// Payload bytes that were sent, those sent again included (Linux 4.19 and later, otherwise 0).
    pub bytes_sent: u64,
    /// Payload bytes that were sent again (Linux 4.19 and later, otherwise 0).
    pub bytes_resent: u64,
    /// Payload bytes that the other end acknowledged (Linux 4.1 and later, otherwise 0).
    pub bytes_acknowledged: u64,
    /// Payload bytes that were received (Linux 4.1 and later, otherwise 0).
    pub bytes_received: u64,
    /// Bytes that were written to the socket and not sent yet (Linux 4.6 and later, otherwise 0).
    pub bytes_unsent: u32,
    /// Packets with payload that were sent, those sent again included (Linux 4.6 and later, otherwise 0).
    pub data_packets_sent: u32,
    /// Packets with payload that the other end received, selectively acknowledged ones included (Linux 4.18 and later,
    /// otherwise 0).
    pub packets_delivered: u32,
    /// The latest rate at which the other end acknowledged bytes, in bytes per second (Linux 4.9 and later, otherwise
    /// 0).
    pub delivery_rate: u64,
    /// Whether [`delivery_rate`](Self::delivery_rate) was measured while this end had too little to send, so that the
    /// path may carry more.
    pub limited_by_sender: bool,
    /// The rate at which the kernel spaces the packets, in bytes per second (Linux 3.15 and later, otherwise 0).
    pub pacing_rate: u64,
    /// Whether each packet carries timestamps, which take 12 bytes.
    pub timestamps: bool,
}

/// The fields of `struct tcp_info` in `include/uapi/linux/tcp.h`. The structure only grows at its end, so an older
/// kernel fills a part of it, and a newer one leaves out the fields that this structure lacks. `libc` has a shorter one.
#[derive(Clone, Copy, Default)]
#[repr(C)]
struct Raw {
    state_to_backoff: [u8; 5],
    options: u8,
    scales: u8,
    flags: u8,
    timeouts: [u32; 2],
    snd_mss: u32,
    rcv_mss: u32,
    unacked: u32,
    sacked: u32,
    lost: u32,
    retrans: u32,
    fackets: u32,
    times: [u32; 4],
    pmtu: u32,
    rcv_ssthresh: u32,
    rtt: u32,
    rttvar: u32,
    snd_ssthresh: u32,
    snd_cwnd: u32,
    advmss: u32,
    reordering: u32,
    rcv_rtt: u32,
    rcv_space: u32,
    total_retrans: u32,
    pacing_rate: u64,
    max_pacing_rate: u64,
    bytes_acked: u64,
    bytes_received: u64,
    segs_out: u32,
    segs_in: u32,
    notsent_bytes: u32,
    min_rtt: u32,
    data_segs_in: u32,
    data_segs_out: u32,
    delivery_rate: u64,
    busy_time: u64,
    rwnd_limited: u64,
    sndbuf_limited: u64,
    delivered: u32,
    delivered_ce: u32,
    bytes_sent: u64,
    bytes_retrans: u64,
}

/// The bit of `flags` that says that the delivery rate was measured while the sender had too little to send.
const LIMITED_BY_SENDER: u8 = 1;

/// The bit of `options` that says that both ends send timestamps (`TCPI_OPT_TIMESTAMPS`).
const TIMESTAMPS: u8 = 1;

// The places of two fields in the kernel's structure. A field that is missing above would move them.
const _: () = assert!(offset_of!(Raw, pacing_rate) == 104 && offset_of!(Raw, bytes_retrans) == 208);

/// Returns the state of a TCP connection.
///
/// # Errors
/// When the socket is no TCP socket.
pub fn tcp_info(socket: impl AsFd) -> io::Result<TcpInfo> {
    let mut raw = Raw::default();
    let mut length = size_of::<Raw>() as socklen_t;
    // SAFETY: the descriptor is open for the whole call. `raw` is `length` bytes long, the kernel writes at most that
    // many, and every bit pattern is a valid `Raw`, which consists of integers.
    let done = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            IPPROTO_TCP,
            TCP_INFO,
            (&raw mut raw).cast::<c_void>(),
            &raw mut length,
        )
    };
    if done != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(TcpInfo {
        round_trip_micros: raw.rtt,
        least_round_trip_micros: raw.min_rtt,
        congestion_window: raw.snd_cwnd,
        packet_bytes: raw.snd_mss,
        unacknowledged: raw.unacked,
        lost: raw.lost,
        retransmits: raw.total_retrans,
        packets_sent: raw.segs_out,
        packets_received: raw.segs_in,
        bytes_sent: raw.bytes_sent,
        bytes_resent: raw.bytes_retrans,
        bytes_acknowledged: raw.bytes_acked,
        bytes_received: raw.bytes_received,
        bytes_unsent: raw.notsent_bytes,
        data_packets_sent: raw.data_segs_out,
        packets_delivered: raw.delivered,
        delivery_rate: raw.delivery_rate,
        limited_by_sender: raw.flags & LIMITED_BY_SENDER != 0,
        pacing_rate: raw.pacing_rate,
        timestamps: raw.options & TIMESTAMPS != 0,
    })
}

/// Sets the highest rate, in bytes per second, at which the kernel sends on a socket; `None` removes the limit. Needs no
/// privilege.
///
/// # Errors
/// When the socket has no such option.
pub fn limit_pace(socket: impl AsFd, bytes_per_second: Option<u64>) -> io::Result<()> {
    // All bits set means no limit. Kernels before 4.20 read only 32 bits, which every limit of use fits into.
    let rate: u64 = bytes_per_second.unwrap_or(u64::MAX);
    // SAFETY: the descriptor is open for the whole call, and the kernel only reads the 8 bytes of `rate`.
    let done = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            SOL_SOCKET,
            SO_MAX_PACING_RATE,
            (&raw const rate).cast::<c_void>(),
            size_of::<u64>() as socklen_t,
        )
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};

    fn connected() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let one = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (one, listener.accept().unwrap().0)
    }

    #[test]
    fn the_bytes_of_a_connection_are_counted_in_both_directions() {
        let (mut one, mut other) = connected();
        one.write_all(&[7; 70_000]).unwrap();
        let mut got = vec![0; 70_000];
        other.read_exact(&mut got).unwrap();
        let (sent, received) = (tcp_info(&one).unwrap(), tcp_info(&other).unwrap());
        assert!(sent.bytes_sent >= 70_000 && sent.bytes_resent <= sent.bytes_sent - 70_000, "{sent:?}");
        assert_eq!((received.bytes_received, received.bytes_sent), (70_000, 0));
        assert!(sent.packets_sent > 0 && sent.round_trip_micros > 0 && sent.packet_bytes > 500, "{sent:?}");
        assert!(sent.congestion_window > 0, "{sent:?}");
    }

    #[test]
    fn a_pace_can_be_limited_and_the_limit_removed() {
        let (one, _other) = connected();
        limit_pace(&one, Some(50_000)).unwrap();
        assert!(tcp_info(&one).unwrap().pacing_rate <= 50_000);
        limit_pace(&one, None).unwrap();
    }

    #[test]
    fn what_is_no_tcp_socket_is_an_error() {
        let socket = std::os::unix::net::UnixDatagram::unbound().unwrap();
        assert!(tcp_info(&socket).is_err());
    }
}
