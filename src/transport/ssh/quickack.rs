//! A TCP stream that acknowledges received data immediately.
//!
//! By default, an SSH server holds a small packet back until the previous one is acknowledged (Nagle), and a kernel
//! with nothing to send delays an acknowledgement by 40 ms. Together, the two delay every exchange of small packets by
//! 40 ms.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::text::excerpt;

/// A stream with immediate acknowledgements. Linux resets the socket option `TCP_QUICKACK` by itself, so the option is
/// set again with every read.
///
/// This type also wraps streams without such an option, such as a stream through a hop. For every stream, it skips the
/// text before the SSH version, and records whether the peer has sent anything.
pub(super) struct QuickAck<S> {
    stream: S,
    hasten: fn(&S),
    spoken: Spoken,
    greeting: Greeting,
}

/// Whether the peer has sent anything, and the first bytes that it sent. The bytes are discarded when the SSH version
/// arrives.
#[derive(Clone, Default)]
pub(super) struct Spoken(Arc<AtomicBool>, Arc<Mutex<Vec<u8>>>);

impl Spoken {
    pub(super) fn yet(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Returns the first line that is not empty, if the peer has sent text but no SSH version; otherwise `None`.
    pub(super) fn instead_of_version(&self) -> Option<String> {
        let heard = self.1.lock().unwrap_or_else(PoisonError::into_inner);
        let line = heard.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).find(|line| !line.is_empty())?;
        Some(excerpt(line))
    }

    fn hear(&self, bytes: &[u8]) {
        let mut heard = self.1.lock().unwrap_or_else(PoisonError::into_inner);
        let room = FIRST_LINE.saturating_sub(heard.len()).min(bytes.len());
        heard.extend_from_slice(&bytes[..room]);
    }

    fn hear_version(&self) {
        self.1.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

/// The number of bytes before the SSH version that are kept for messages.
const FIRST_LINE: usize = 512;

impl QuickAck<TcpStream> {
    pub(super) fn tcp(stream: TcpStream) -> Self {
        // Errors are ignored, because the stream also works without the option, only more slowly.
        let hasten = |stream: &TcpStream| drop(socket2::SockRef::from(stream).set_tcp_quickack(true));
        Self { stream, hasten, spoken: Spoken::default(), greeting: Greeting::default() }
    }
}

impl<S> QuickAck<S> {
    pub(super) fn through_hop(stream: S) -> Self {
        Self { stream, hasten: |_| (), spoken: Spoken::default(), greeting: Greeting::default() }
    }

    pub(super) fn spoken(&self) -> Spoken {
        self.spoken.clone()
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for QuickAck<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        loop {
            if this.greeting.serve(buf) {
                return Poll::Ready(Ok(()));
            }
            if this.greeting.over {
                let before = buf.filled().len();
                let read = Pin::new(&mut this.stream).poll_read(cx, buf);
                if read.is_ready() {
                    if buf.filled().len() > before {
                        this.spoken.0.store(true, Ordering::Relaxed);
                    }
                    (this.hasten)(&this.stream);
                }
                return read;
            }
            let mut bytes = [0; 512];
            let mut piece = ReadBuf::new(&mut bytes);
            let read = Pin::new(&mut this.stream).poll_read(cx, &mut piece);
            if read.is_ready() {
                (this.hasten)(&this.stream);
            }
            ready!(read)?;
            if piece.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
            this.spoken.0.store(true, Ordering::Relaxed);
            this.spoken.hear(piece.filled());
            this.greeting.hear(piece.filled())?;
            if this.greeting.over {
                this.spoken.hear_version();
            }
        }
    }
}

/// The text that a server sends before its SSH version. RFC 4253 (section 4.2) allows any number of lines, but the SSH
/// library accepts only few and short lines.
#[derive(Default)]
struct Greeting {
    /// Bytes received but not yet passed to the library.
    heard: Vec<u8>,
    skipped: usize,
    /// Whether the line with the SSH version was found. All bytes from this line on go to the library.
    over: bool,
}

/// The maximum number of bytes before the SSH version.
const MOST_GREETING: usize = 256 << 10;

impl Greeting {
    /// Adds received bytes, and discards complete lines before the line with the SSH version.
    fn hear(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.heard.extend_from_slice(bytes);
        while let Some(end) = self.heard.iter().position(|byte| *byte == b'\n') {
            if self.heard.starts_with(b"SSH-") {
                self.over = true;
                return Ok(());
            }
            self.skipped += end + 1;
            self.heard.drain(..=end);
        }
        if self.skipped + self.heard.len() > MOST_GREETING {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the server sent 256 KiB without an SSH version"));
        }
        Ok(())
    }

    /// Passes received bytes to the library, from the line with the SSH version on. Returns whether any bytes were
    /// passed.
    fn serve(&mut self, to: &mut ReadBuf<'_>) -> bool {
        if !self.over || self.heard.is_empty() {
            return false;
        }
        let length = self.heard.len().min(to.remaining());
        to.put_slice(&self.heard[..length]);
        self.heard.drain(..length);
        true
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for QuickAck<S> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt;

    async fn heard(said: &[u8]) -> io::Result<Vec<u8>> {
        let mut all = Vec::new();
        QuickAck::through_hop(said).read_to_end(&mut all).await?;
        Ok(all)
    }

    #[tokio::test]
    async fn lines_before_the_version_are_passed_over() {
        let long = "x".repeat(400);
        for greeting in ["", "\n", "\r\n", &"Authorized use only\r\n".repeat(30), &format!("{long}\n\n"), "SSH\n"] {
            let said = format!("{greeting}SSH-2.0-x\r\nabc\0\n");
            assert_eq!(heard(said.as_bytes()).await.unwrap(), b"SSH-2.0-x\r\nabc\0\n", "{greeting:?}");
        }
    }

    #[tokio::test]
    async fn what_never_speaks_ssh_is_given_up() {
        assert!(heard(&b"HTTP\n".repeat(MOST_GREETING)).await.is_err());
        assert!(heard(&vec![b'x'; 2 * MOST_GREETING]).await.is_err());
    }
}
