//! A link in front of a vessel that counts what goes through, can be made slow, and can be cut.
//!
//! It copies bytes and knows nothing of SSH.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// The link; ends when it is dropped.
pub(crate) struct Proxy {
    port: u16,
    link: Arc<Link>,
}

struct Link {
    target: u16,
    /// Bytes that came from the shore.
    sent: AtomicU64,
    /// Bytes that came from the vessel.
    received: AtomicU64,
    /// Number of connections that the shore has reset.
    resets: AtomicU64,
    /// Bytes per second towards the vessel; 0: as fast as it goes.
    rate: AtomicU64,
    /// Milliseconds that bytes towards the vessel are held back.
    delay: AtomicU64,
    /// The same for bytes from the vessel.
    answer_delay: AtomicU64,
    /// Whether nothing from the vessel passes.
    answers_stall: AtomicBool,
    /// When the next bytes may pass.
    free_at: Mutex<Instant>,
    /// Whether nothing passes, on any connection.
    down: AtomicBool,
    ended: AtomicBool,
    /// All connections there ever were, the oldest first.
    connections: Mutex<Vec<Connection>>,
}

struct Connection {
    ends: [TcpStream; 2],
    /// Bytes that came from the shore on it.
    sent: Arc<AtomicU64>,
    stalled: Arc<AtomicBool>,
    held: Arc<Mutex<Held>>,
}

/// The bytes that the shore has sent on a connection and the link has not sent to the vessel yet.
#[derive(Default)]
struct Held {
    /// `None` if everything is passed on.
    bytes: Option<Vec<u8>>,
    /// Number of pieces that are passed on before everything is held back; `None` if nothing is to be held back.
    after: Option<usize>,
}

impl Held {
    /// Holds bytes back, if that is wanted.
    fn keep(&mut self, bytes: &[u8]) -> bool {
        self.after = match self.after {
            Some(0) => {
                self.bytes.get_or_insert_default();
                None
            }
            after => after.map(|pieces| pieces - 1),
        };
        self.bytes.as_mut().map(|held| held.extend_from_slice(bytes)).is_some()
    }
}

impl Connection {
    fn cut(&self) {
        self.ends.iter().for_each(|end| drop(end.shutdown(Shutdown::Both)));
    }
}

/// Small, so that little is in flight and the count is close to what the vessel has.
const BUFFER: usize = 128 << 10;

impl Proxy {
    /// Listens on a port of the kernel's choice and passes every connection on to `target`.
    pub(crate) fn start(target: u16) -> Self {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.set_recv_buffer_size(BUFFER).unwrap();
        socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
        socket.listen(128).unwrap();
        socket.set_nonblocking(true).unwrap();
        let listener = TcpListener::from(socket);
        let port = listener.local_addr().unwrap().port();
        let link = Arc::new(Link {
            target,
            sent: AtomicU64::new(0),
            received: AtomicU64::new(0),
            resets: AtomicU64::new(0),
            rate: AtomicU64::new(0),
            delay: AtomicU64::new(0),
            answer_delay: AtomicU64::new(0),
            answers_stall: AtomicBool::new(false),
            free_at: Mutex::new(Instant::now()),
            down: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            connections: Mutex::default(),
        });
        let accepting = link.clone();
        std::thread::spawn(move || accepting.accept(&listener));
        Self { port, link }
    }

    /// Where it listens.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// How many bytes the shore has sent through it so far.
    pub(crate) fn sent(&self) -> u64 {
        self.link.sent.load(Ordering::Relaxed)
    }

    /// How many bytes the vessel has sent through it so far.
    pub(crate) fn received(&self) -> u64 {
        self.link.received.load(Ordering::Relaxed)
    }

    /// Returns how many connections the shore has reset so far.
    pub(crate) fn resets(&self) -> u64 {
        self.link.resets.load(Ordering::Relaxed)
    }

    /// Lets only so many bytes per second pass towards the vessel from now on; 0: as fast as it goes.
    pub(crate) fn limit(&self, bytes_per_second: u64) {
        self.link.rate.store(bytes_per_second, Ordering::Relaxed);
    }

    /// Makes everything that goes to the vessel take so many milliseconds longer.
    pub(crate) fn lengthen(&self, milliseconds: u64) {
        self.link.delay.store(milliseconds, Ordering::Relaxed);
    }

    /// Makes everything that comes from the vessel take so many milliseconds longer.
    pub(crate) fn delay_answers(&self, milliseconds: u64) {
        self.link.answer_delay.store(milliseconds, Ordering::Relaxed);
    }

    /// Lets nothing from the vessel pass, on any connection, until it is called with `false`.
    pub(crate) fn stall_answers(&self, stall: bool) {
        self.link.answers_stall.store(stall, Ordering::Relaxed);
    }

    /// Cuts the connections there are; new ones are welcome.
    pub(crate) fn cut(&self) {
        self.link.connections.lock().unwrap().iter().for_each(Connection::cut);
    }

    /// Lets nothing pass on the connections there are, as TCP does for long after an outage; new ones are welcome.
    pub(crate) fn stall(&self) {
        self.link.connections.lock().unwrap().iter().for_each(|one| one.stalled.store(true, Ordering::Relaxed));
    }

    /// Holds back what the shore sends on the connections there are, and loses the vessel's answers; new connections are
    /// welcome. What is held back does not get lost when the shore gives such a connection up.
    pub(crate) fn hold(&self) {
        self.hold_after(0);
    }

    /// Like [`Self::hold`], but first passes this many more reads from the shore on, on each connection.
    pub(crate) fn hold_after(&self, pieces: usize) {
        for one in self.link.connections.lock().unwrap().iter() {
            one.held.lock().unwrap().after = Some(pieces);
        }
    }

    /// Closes the connections on which bytes are held back, as the shore sees it.
    pub(crate) fn close_for_shore(&self) {
        for one in self.link.connections.lock().unwrap().iter() {
            if one.held.lock().unwrap().bytes.is_some() {
                let _ = one.ends[0].shutdown(Shutdown::Both);
            }
        }
    }

    /// Returns how many bytes are held back.
    pub(crate) fn held(&self) -> usize {
        let connections = self.link.connections.lock().unwrap();
        connections.iter().map(|one| one.held.lock().unwrap().bytes.as_ref().map_or(0, Vec::len)).sum()
    }

    /// Sends the held bytes to the vessel.
    pub(crate) fn release(&self) {
        for one in self.link.connections.lock().unwrap().iter() {
            if let Some(bytes) = one.held.lock().unwrap().bytes.take() {
                (&one.ends[1]).write_all(&bytes).unwrap();
            }
        }
    }

    /// Lets nothing pass, on old connections and new ones, until it is up again.
    pub(crate) fn take_down(&self, down: bool) {
        self.link.down.store(down, Ordering::Relaxed);
    }

    /// Lets nothing pass on one connection any more, counted from the oldest, which is 0.
    pub(crate) fn stall_one(&self, which: usize) {
        self.link.connections.lock().unwrap()[which].stalled.store(true, Ordering::Relaxed);
    }

    /// How many bytes the shore has sent on each connection that there ever was, the oldest first.
    pub(crate) fn sent_on_each(&self) -> Vec<u64> {
        self.link.connections.lock().unwrap().iter().map(|one| one.sent.load(Ordering::Relaxed)).collect()
    }

    /// Cuts one connection, counted from the oldest, which is 0.
    pub(crate) fn cut_one(&self, which: usize) {
        self.link.connections.lock().unwrap()[which].cut();
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.link.ended.store(true, Ordering::Relaxed);
        self.cut();
    }
}

impl Link {
    fn accept(self: Arc<Self>, listener: &TcpListener) {
        while !self.ended.load(Ordering::Relaxed) {
            match listener.accept() {
                Ok((shore, _)) => self.clone().join(shore),
                Err(_) => std::thread::sleep(Duration::from_millis(10)),
            }
        }
    }

    /// A vessel that can't be reached shows as a connection that closes at once.
    fn join(self: Arc<Self>, shore: TcpStream) {
        let Ok(vessel) = TcpStream::connect((Ipv4Addr::LOCALHOST, self.target)) else { return };
        shore.set_nonblocking(false).unwrap();
        let (shore_too, vessel_too) = (shore.try_clone().unwrap(), vessel.try_clone().unwrap());
        let (ends, sent) = ([shore.try_clone().unwrap(), vessel.try_clone().unwrap()], Arc::new(AtomicU64::new(0)));
        let (stalled, answers_are_lost, held) = <(Arc<AtomicBool>, Arc<AtomicBool>, Arc<Mutex<Held>>)>::default();
        self.connections.lock().unwrap().push(Connection {
            ends,
            sent: sent.clone(),
            stalled: stalled.clone(),
            held: held.clone(),
        });
        let (link, stalled_too, holding) = (self.clone(), stalled.clone(), self.clone());
        let count = move |bytes| {
            self.wait_while(&stalled);
            sent.fetch_add(bytes, Ordering::Relaxed);
            self.count(bytes);
        };
        let lost = answers_are_lost.clone();
        std::thread::spawn(move || {
            let pass = |bytes: &[u8]| {
                let passes = !held.lock().unwrap().keep(bytes);
                if passes {
                    count(bytes.len() as u64);
                } else {
                    lost.store(true, Ordering::Relaxed);
                }
                passes
            };
            if copy(&shore, &vessel, pass).is_err_and(|e| e.kind() == ErrorKind::ConnectionReset) {
                holding.resets.fetch_add(1, Ordering::Relaxed);
            }
            let is_held = || held.lock().unwrap().bytes.is_some();
            let _ = shore.shutdown(Shutdown::Both);
            let how = if is_held() { Shutdown::Write } else { Shutdown::Both };
            // What is held back is passed on although the shore has closed the connection.
            while is_held() && !holding.ended.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(10));
            }
            let _ = vessel.shutdown(how);
        });
        let back = move |bytes: &[u8]| {
            std::thread::sleep(Duration::from_millis(link.answer_delay.load(Ordering::Relaxed)));
            link.wait_while(&link.answers_stall);
            link.wait_while(&stalled_too);
            link.received.fetch_add(bytes.len() as u64, Ordering::Relaxed);
            !answers_are_lost.load(Ordering::Relaxed)
        };
        std::thread::spawn(move || {
            let _ = copy(&vessel_too, &shore_too, back);
            [vessel_too, shore_too].iter().for_each(|end| drop(end.shutdown(Shutdown::Both)));
        });
    }

    fn wait_while(&self, stalled: &AtomicBool) {
        let stalled = || self.down.load(Ordering::Relaxed) || stalled.load(Ordering::Relaxed);
        while stalled() && !self.ended.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn count(&self, bytes: u64) {
        self.sent.fetch_add(bytes, Ordering::Relaxed);
        self.hold_back(bytes);
    }

    /// Waits until the rate, shared by all connections, lets these bytes pass.
    fn hold_back(&self, bytes: u64) {
        std::thread::sleep(Duration::from_millis(self.delay.load(Ordering::Relaxed)));
        let rate = self.rate.load(Ordering::Relaxed);
        if rate == 0 {
            return;
        }
        let pass_at = {
            let mut free_at = self.free_at.lock().unwrap();
            *free_at = (*free_at).max(Instant::now()) + Duration::from_nanos(bytes * 1_000_000_000 / rate);
            *free_at
        };
        std::thread::sleep(pass_at.saturating_duration_since(Instant::now()));
    }
}

/// Copies one direction until either side closes. `pass` tells which bytes are passed on.
fn copy(mut from: &TcpStream, mut to: &TcpStream, pass: impl Fn(&[u8]) -> bool) -> std::io::Result<()> {
    let mut buffer = [0; 16 << 10];
    loop {
        let count = from.read(&mut buffer)?;
        if count == 0 {
            return Ok(());
        }
        let bytes = &buffer[..count];
        if pass(bytes) {
            to.write_all(bytes)?;
        }
    }
}
