//! A stream through a hop: what is written goes over an SSH channel to the hop, and on from there by TCP.
//!
//! The library's own stream for that has a small inbox. The session inside doesn't read while it writes, and the one
//! around it stands still while that inbox is full, without which nothing can be written: both would wait for ever. So
//! this inbox has no bounds of its own. The windows of the channels inside, and what was asked for, keep it small.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use russh::Channel;
use russh::client::Msg;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, Join, ReadBuf};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

/// How much is taken from the channel at once: what SSH sends in one packet.
const PACKET: usize = 32 << 10;

/// What came from beyond the hop and was not read yet.
pub(super) struct Inbox {
    receiver: UnboundedReceiver<Bytes>,
    rest: Bytes,
}

/// Makes a stream of a channel.
pub(super) fn stream(channel: Channel<Msg>) -> Join<Inbox, impl AsyncWrite + Unpin + Send + 'static> {
    let (mut incoming, outgoing) = tokio::io::split(channel.into_stream());
    let (sender, receiver) = unbounded_channel();
    tokio::spawn(async move {
        let mut buffer = BytesMut::new();
        loop {
            buffer.reserve(PACKET);
            // Nobody is left to read: the channel closes with this half, and with the last one the session with the hop.
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
