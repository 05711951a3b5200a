//! Who may hold how much of the service: connections, the time to say what is asked, and pages that stay open.
//!
//! Anybody who reaches the port can open connections. One that sends half a request, or that never reads, must not keep
//! others out for ever.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

/// How many connections there may be at once, on the port and on the socket each.
const MOST_CONNECTIONS: usize = 256;
/// How long the head of a request may take.
const HEAD: Duration = Duration::from_secs(10);
/// How long a request may take until its answer begins.
const ANSWER: Duration = Duration::from_secs(60);
/// How many pages may be open at once. Each costs a document twice a second.
const MOST_PAGES: usize = 64;
/// How many of them at one address.
const MOST_PAGES_OF_ONE: usize = 16;

/// Something that listens.
pub(super) trait Door {
    /// The next connection, and the address that it comes from, where it has one.
    async fn next(&self) -> io::Result<(impl AsyncRead + AsyncWrite + Unpin + Send + 'static, Option<IpAddr>)>;
}

impl Door for TcpListener {
    async fn next(&self) -> io::Result<(impl AsyncRead + AsyncWrite + Unpin + Send + 'static, Option<IpAddr>)> {
        let (stream, from) = self.accept().await?;
        Ok((stream, Some(from.ip())))
    }
}

impl Door for UnixListener {
    async fn next(&self) -> io::Result<(impl AsyncRead + AsyncWrite + Unpin + Send + 'static, Option<IpAddr>)> {
        let (stream, _) = self.accept().await?;
        Ok((stream, None))
    }
}

/// Takes connections until it is stopped, then lets the answers that are under way end.
pub(super) async fn attend(
    door: impl Door,
    app: impl Fn(Option<IpAddr>) -> Router,
    stop: CancellationToken,
) -> io::Result<()> {
    let room = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    let answers = tokio_util::task::TaskTracker::new();
    loop {
        let next = async {
            let permit = room.clone().acquire_owned().await;
            (permit, door.next().await)
        };
        let Some((permit, connection)) = stop.run_until_cancelled(next).await else { break };
        match connection {
            Ok((stream, from)) => {
                drop(answers.spawn(answer(stream, app(from), stop.clone(), permit.ok())));
            }
            // Out of descriptors, or the caller is gone already.
            Err(e) => {
                tracing::debug!("Cannot accept a connection to the status service: {e}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    answers.close();
    answers.wait().await;
    Ok(())
}

/// Serves one connection.
async fn answer(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    app: Router,
    stop: CancellationToken,
    _permit: Option<OwnedSemaphorePermit>,
) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD);
    let connection = http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(app));
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        // What went wrong concerns the other end alone.
        ended = connection.as_mut() => drop(ended),
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            drop(connection.await);
        }
    }
}

/// Gives up on a request whose answer doesn't begin in time, as when only half of its body comes.
pub(super) async fn in_time(request: Request, next: Next) -> Response {
    let answered = tokio::time::timeout(ANSWER, next.run(request)).await;
    answered.unwrap_or_else(|_| (StatusCode::REQUEST_TIMEOUT, "the request took too long\n").into_response())
}

/// The pages that are open. Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Pages(Arc<Mutex<HashMap<Option<IpAddr>, usize>>>);

/// A page that is open; it makes room when it goes.
pub(super) struct Page {
    pages: Pages,
    from: Option<IpAddr>,
}

impl Pages {
    /// Opens one more from this address; `None` when there are too many.
    pub(super) fn open(&self, from: Option<IpAddr>) -> Option<Page> {
        let from = from.map(household);
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (all, own) = (open.values().sum::<usize>(), open.get(&from).copied().unwrap_or_default());
        if all >= MOST_PAGES || own >= MOST_PAGES_OF_ONE {
            return None;
        }
        open.insert(from, own + 1);
        drop(open);
        Some(Page { pages: self.clone(), from })
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        let mut open = self.pages.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = open.get_mut(&self.from) {
            *own -= 1;
            if *own == 0 {
                open.remove(&self.from);
            }
        }
    }
}

/// What counts as one address: of IPv6 the first 64 bits, for whoever has one address has them all (RFC 4291, 2.5.4).
fn household(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_can_not_keep_all_others_from_the_page() {
        let pages = Pages::default();
        let from = |address: &str| Some(address.parse::<IpAddr>().unwrap());
        let greedy: Vec<_> = (0..100).map_while(|_| pages.open(from("192.0.2.1"))).collect();
        assert_eq!(greedy.len(), MOST_PAGES_OF_ONE);
        let neighbours = |n: u16| from(&format!("2001:db8::{n:x}"));
        let many: Vec<_> = (1..100).map_while(|n| pages.open(neighbours(n))).collect();
        assert_eq!(many.len(), MOST_PAGES_OF_ONE);
        assert!(pages.open(from("192.0.2.2")).is_some());
        drop(greedy);
        assert!(pages.open(from("192.0.2.1")).is_some());
        let crowd: Vec<_> = (0..200).filter_map(|n| pages.open(from(&format!("198.51.100.{n}")))).collect();
        assert_eq!(crowd.len(), MOST_PAGES - many.len());
    }
}
