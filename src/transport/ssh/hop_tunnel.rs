//! A stream through a hop: an SSH channel carries the data to the hop, which forwards the data by TCP.
//!
//! The SSH library's own stream has a small, bounded inbox, which can deadlock. The inner session (with the next
//! endpoint) does not read while it writes. While the inbox is full, the outer session (with the hop) stops, which
//! blocks all writes. So the inbox of this module is unbounded. The windows of the inner channels and the number of
//! pending requests keep it small.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use russh::Channel;
use russh::client::Msg;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, Join, ReadBuf};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

/// How many bytes are read from the channel at once: the size of one SSH packet.
const PACKET: usize = 32 << 10;

/// Data that arrived through the hop and was not read yet.
pub(super) struct Inbox {
    receiver: UnboundedReceiver<Bytes>,
    rest: Bytes,
}

/// Converts a channel through a hop to a stream with an unbounded inbox.
pub(super) fn stream(channel: Channel<Msg>) -> Join<Inbox, impl AsyncWrite + Unpin + Send + 'static> {
    let (mut incoming, outgoing) = tokio::io::split(channel.into_stream());
    let (sender, receiver) = unbounded_channel();
    tokio::spawn(async move {
        let mut buffer = BytesMut::new();
        loop {
            buffer.reserve(PACKET);
            // Stops when the inbox is dropped. Dropping `incoming` then closes the channel, and closing the last
            // channel ends the session with the hop.
            let read = tokio::select! {
                read = incoming.read_buf(&mut buffer) => read,
                () = sender.closed() => break,
            };
            if !matches!(read, Ok(1..)) || sender.send(buffer.split().freeze()).is_err() {
                break;
            }
        }
    });
    tokio::io::join(Inbox { receiver, rest: Bytes::new() }, outgoing)
}

impl AsyncRead for Inbox {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        while self.rest.is_empty() {
            match ready!(self.receiver.poll_recv(cx)) {
                Some(bytes) => self.rest = bytes,
                None => return Poll::Ready(Ok(())),
            }
        }
        let length = self.rest.len().min(buf.remaining());
        buf.put_slice(&self.rest[..length]);
        self.rest.advance(length);
        Poll::Ready(Ok(()))
    }
}
