//! The bytes of an SFTP session between its channel and russh-sftp's server.
//!
//! Every byte of SFTP passes here, in both directions: the place to cut, delay or count them. Knows no packet.
//!
//! russh-sftp would also take russh's own channel stream, but then the two can block each other: the session loop waits
//! for the server to take requests, and the server waits for the session loop to take replies, or to see the client
//! grow its window. So replies are queued here without limit. What is queued is what the client asked for and hasn't
//! fetched; requests do wait, which slows the sender down over TCP.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use russh::server::Msg;
use russh::{Channel, ChannelMsg, ChannelReadHalf, ChannelWriteHalf};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio_util::sync::CancellationToken;

use super::files::{Files, MAX_PACKET};

/// Serves SFTP on this channel until the client closes it or `stop`.
pub(super) async fn carry(channel: Channel<Msg>, files: Files, stop: CancellationToken) {
    let (reader, writer) = channel.split();
    let (requests, theirs) = tokio::io::duplex(MAX_PACKET as usize);
    let (replies, outbox) = unbounded_channel();
    let config = russh_sftp::server::Config { max_client_packet_len: MAX_PACKET };
    russh_sftp::server::run_with_config(Wire { requests: theirs, replies }, files, config).await;
    let served = tokio::select! {
        () = deliver(outbox, &writer) => true,
        () = take(reader, requests) => false,
        () = stop.cancelled() => false,
    };
    // Where the connection is gone, nobody misses these.
    if served {
        let _ = writer.eof().await;
        let _ = writer.exit_status(0).await;
    }
    let _ = writer.close().await;
}

/// Passes the client's bytes on; returns when it closes the channel, or the connection is lost.
async fn take(mut reader: ChannelReadHalf, requests: DuplexStream) {
    let mut requests = Some(requests);
    while let Some(message) = reader.wait().await {
        match message {
            ChannelMsg::Data { data } => {
                let Some(stream) = requests.as_mut() else { continue };
                if stream.write_all(&data).await.is_err() {
                    requests = None;
                }
            }
            // The server answers what it has, and ends.
            ChannelMsg::Eof => requests = None,
            ChannelMsg::Close => return,
            _ => {}
        }
    }
}

/// Sends the replies; returns when the server has ended.
async fn deliver(mut outbox: UnboundedReceiver<Bytes>, writer: &ChannelWriteHalf<Msg>) {
    while let Some(reply) = outbox.recv().await {
        if writer.data_bytes(reply).await.is_err() {
            return;
        }
    }
}

/// The server's end.
struct Wire {
    requests: DuplexStream,
    replies: UnboundedSender<Bytes>,
}

impl AsyncRead for Wire {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.requests).poll_read(cx, buf)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let sent = self.replies.send(Bytes::copy_from_slice(data));
        Poll::Ready(sent.map(|()| data.len()).map_err(|_| io::ErrorKind::BrokenPipe.into()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
