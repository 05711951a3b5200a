//! The network path between one shore and the database: it can go silent, as a link does that drops all packets.
//!
//! It copies bytes between a port and the server's socket, and knows nothing of PostgreSQL.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};

/// The path; it ends when it is dropped.
pub(super) struct DatabasePath {
    port: u16,
    shared: Arc<Shared>,
}

struct Shared {
    server: PathBuf,
    is_silent: Mutex<bool>,
    changed: Condvar,
    has_ended: AtomicBool,
}

impl DatabasePath {
    pub(super) fn start(server: PathBuf) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared {
            server,
            is_silent: Mutex::new(false),
            changed: Condvar::new(),
            has_ended: AtomicBool::new(false),
        });
        let accepting = shared.clone();
        std::thread::spawn(move || accepting.accept(&listener));
        Self { port, shared }
    }

    /// Where the shore reaches it.
    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// Neither delivers nor refuses anything, also on new connections, until it is silent no longer. Then it delivers what
    /// was sent meanwhile, as TCP does.
    pub(super) fn silence(&self, silent: bool) {
        *self.shared.is_silent.lock().unwrap() = silent;
        self.shared.changed.notify_all();
    }
}

impl Drop for DatabasePath {
    fn drop(&mut self) {
        self.shared.has_ended.store(true, Ordering::Relaxed);
        self.silence(false);
        // Wakes the thread that accepts; its connections end with the shore.
        let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
    }
}

impl Shared {
    fn accept(self: Arc<Self>, listener: &TcpListener) {
        for shore in listener.incoming() {
            if self.has_ended.load(Ordering::Relaxed) {
                return;
            }
            let (shared, Ok(shore)) = (self.clone(), shore) else { continue };
            std::thread::spawn(move || shared.join(shore));
        }
    }

    /// A server that can't be reached shows as a connection that closes at once.
    fn join(self: Arc<Self>, shore: TcpStream) {
        self.wait_while_silent();
        let Ok(server) = UnixStream::connect(&self.server) else { return };
        shore.set_nodelay(true).unwrap();
        let ends = Arc::new((shore, server));
        let (shared, back) = (self.clone(), ends.clone());
        std::thread::spawn(move || {
            shared.copy(&back.1, &back.0);
            close(&back);
        });
        self.copy(&ends.0, &ends.1);
        close(&ends);
    }

    fn wait_while_silent(&self) {
        let silent = self.is_silent.lock().unwrap();
        drop(self.changed.wait_while(silent, |silent| *silent).unwrap());
    }

    /// Copies one direction until either side closes. The end is delivered as late as bytes are.
    fn copy(&self, mut from: impl Read, mut to: impl Write) {
        let mut buffer = [0; 16 << 10];
        loop {
            let count = from.read(&mut buffer);
            self.wait_while_silent();
            match count {
                Ok(count @ 1..) if to.write_all(&buffer[..count]).is_ok() => {}
                _ => return,
            }
        }
    }
}

fn close((shore, server): &(TcpStream, UnixStream)) {
    let _ = shore.shutdown(Shutdown::Both);
    let _ = server.shutdown(Shutdown::Both);
}
