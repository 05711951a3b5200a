//! A TCP stream that acknowledges at once what it reads.
//!
//! An SSH server that isn't told otherwise holds a small packet back until the one before is acknowledged (Nagle), and a
//! kernel with nothing to send waits 40 ms before it acknowledges: together they cost every quiet conversation 40 ms.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// The stream. Linux forgets the wish at every turn, so it is renewed with every read.
///
/// Also one that is no TCP stream but goes through a hop: then it only notes whether the other end has spoken.
pub(super) struct Prompt<S> {
    stream: S,
    hasten: fn(&S),
    spoken: Spoken,
}

/// Whether the other end has said anything yet.
#[derive(Clone, Default)]
pub(super) struct Spoken(Arc<AtomicBool>);

impl Spoken {
    pub(super) fn yet(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl Prompt<TcpStream> {
    pub(super) fn tcp(stream: TcpStream) -> Self {
        // Only a wish: without it everything works, later.
        let hasten = |stream: &TcpStream| drop(socket2::SockRef::from(stream).set_tcp_quickack(true));
        Self { stream, hasten, spoken: Spoken::default() }
    }
}

impl<S> Prompt<S> {
    pub(super) fn through_hop(stream: S) -> Self {
        Self { stream, hasten: |_| (), spoken: Spoken::default() }
    }

    pub(super) fn spoken(&self) -> Spoken {
        self.spoken.clone()
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Prompt<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if read.is_ready() {
            if buf.filled().len() > before {
                self.spoken.0.store(true, Ordering::Relaxed);
            }
            (self.hasten)(&self.stream);
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Prompt<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
