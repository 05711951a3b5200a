//! Limits for clients of the HTTP service: number of connections, duration of requests, and number of open status
//! pages.
//!
//! Anyone who reaches the port can open connections. A client that sends half a request, or that never reads the
//! response, must not block other clients for ever.

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

use crate::text::duration;

/// Maximum number of concurrent connections, for the port and for the Unix socket separately.
const MOST_CONNECTIONS: usize = 256;
/// Timeout for receiving the head of a request.
const HEAD: Duration = Duration::from_secs(10);
/// Timeout from the end of the request's head until the response begins.
const ANSWER: Duration = Duration::from_secs(60);
/// Maximum number of open status pages. Each open page receives updates up to twice a second.
const MOST_PAGES: usize = 64;
/// Maximum number of open status pages of one address.
const MOST_PAGES_OF_ONE: usize = 16;

/// A listening socket.
pub(super) trait Door {
    /// Accepts the next connection; returns it with its remote address, which is `None` for a Unix socket.
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

/// Accepts connections until `stop` is cancelled, then waits for the responses in progress.
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
            // Possible reasons: the process is out of file descriptors, or the client has already disconnected.
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
        // An error of the connection affects only its client, so the error is ignored.
        ended = connection.as_mut() => drop(ended),
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            drop(connection.await);
        }
    }
}

/// Aborts a request whose response doesn't begin in time, for example because half of its body is missing.
pub(super) async fn in_time(request: Request, next: Next) -> Response {
    let answered = tokio::time::timeout(ANSWER, next.run(request)).await;
    answered.unwrap_or_else(|_| {
        let why = format!("the request was not answered within {}\n", duration(ANSWER));
        (StatusCode::REQUEST_TIMEOUT, why).into_response()
    })
}

/// The counts of open status pages by address. Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Pages(Arc<Mutex<HashMap<Option<IpAddr>, usize>>>);

/// A slot for an open status page; dropping the value frees the slot.
pub(super) struct Page {
    pages: Pages,
    from: Option<IpAddr>,
}

impl Pages {
    /// Takes a slot for one more page of this address; returns `None` when a limit is reached.
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

/// Returns the address under which pages are counted. IPv6 addresses count by their first 64 bits, because one client
/// usually owns all addresses of such a network (RFC 4291, 2.5.4).
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
