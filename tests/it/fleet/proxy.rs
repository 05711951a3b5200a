//! A link in front of a vessel that counts what goes through, can be made slow, and can be cut.
//!
//! It copies bytes and knows nothing of SSH.

use std::io::{Read, Write};
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
    /// Bytes per second towards the vessel; 0: as fast as it goes.
    rate: AtomicU64,
    /// Milliseconds that bytes towards the vessel are held back.
    delay: AtomicU64,
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
            rate: AtomicU64::new(0),
            delay: AtomicU64::new(0),
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

    /// Lets only so many bytes per second pass towards the vessel from now on; 0: as fast as it goes.
    pub(crate) fn limit(&self, bytes_per_second: u64) {
        self.link.rate.store(bytes_per_second, Ordering::Relaxed);
    }

    /// Makes everything that goes to the vessel take so many milliseconds longer.
    pub(crate) fn lengthen(&self, milliseconds: u64) {
        self.link.delay.store(milliseconds, Ordering::Relaxed);
    }

    /// Cuts the connections there are; new ones are welcome.
    pub(crate) fn cut(&self) {
        self.link.connections.lock().unwrap().iter().for_each(Connection::cut);
    }

    /// Lets nothing pass on the connections there are, as TCP does for long after an outage; new ones are welcome.
    pub(crate) fn stall(&self) {
        self.link.connections.lock().unwrap().iter().for_each(|one| one.stalled.store(true, Ordering::Relaxed));
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
        let stalled = Arc::new(AtomicBool::new(false));
        self.connections.lock().unwrap().push(Connection { ends, sent: sent.clone(), stalled: stalled.clone() });
        let (link, stalled_too) = (self.clone(), stalled.clone());
        let count = move |bytes| {
            self.wait_while(&stalled);
            sent.fetch_add(bytes, Ordering::Relaxed);
            self.count(bytes);
        };
        std::thread::spawn(move || copy(shore, vessel, count));
        let back = move |bytes| {
            link.wait_while(&stalled_too);
            link.received.fetch_add(bytes, Ordering::Relaxed);
        };
        std::thread::spawn(move || copy(vessel_too, shore_too, back));
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

/// Copies one direction until either side closes.
fn copy(mut from: TcpStream, mut to: TcpStream, pass: impl Fn(u64)) {
    let mut buffer = [0; 16 << 10];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        pass(count as u64);
        if to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}
