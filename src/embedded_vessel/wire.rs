//! Transfers the bytes of an SFTP session between its channel and russh-sftp's server.
//!
//! All bytes of SFTP pass through this module, in both directions, so [`Faults`] are applied here.
//!
//! russh-sftp also accepts russh's own channel stream, but then the session loop and the server can deadlock: the
//! session loop waits for the server to take requests, and the server waits for the session loop to take replies or to
//! process a window update of the client. So this module queues all replies without limit, including those that
//! [`Faults`] inject; the queue holds only data that the client has requested and not fetched yet. Requests are not
//! queued: they wait for the server, which slows the client down over TCP.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use russh::server::Msg;
use russh::{Channel, ChannelMsg, ChannelReadHalf, ChannelWriteHalf};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, WeakUnboundedSender, unbounded_channel};
use tokio_util::sync::CancellationToken;

use super::fault_injection::{Faults, Passage, Strait, next_packet};
use super::files::{Files, MAX_PACKET};

/// Serves SFTP on a channel until the client closes the channel, or `stop` is cancelled. `stop` belongs to the whole
/// connection.
pub(super) async fn carry(
    channel: Channel<Msg>,
    files: Files,
    faults: Option<Arc<dyn Faults>>,
    stop: CancellationToken,
) {
    let (reader, writer) = channel.split();
    let (requests, theirs) = tokio::io::duplex(MAX_PACKET as usize);
    let (replies, outbox) = unbounded_channel();
    // A weak sender, so that the queue of replies ends when the server drops its sender.
    let injected = replies.downgrade();
    let config = russh_sftp::server::Config { max_client_packet_len: MAX_PACKET };
    russh_sftp::server::run_with_config(Wire { requests: theirs, replies }, files, config).await;
    let passage = faults.map(|faults| (faults, Strait::default()));
    let (passage, stop) = (passage.as_ref(), &stop);
    let served = tokio::select! {
        () = deliver(outbox, &writer, passage, stop) => true,
        () = take(reader, requests, injected, passage, stop) => false,
        () = stop.cancelled() => false,
    };
    // The results are ignored: an error means that the connection is closed and the client reads no messages.
    if served {
        let _ = writer.eof().await;
        let _ = writer.exit_status(0).await;
    }
    let _ = writer.close().await;
}

/// The decisions on requests, and the state of the session's packets.
type Watched = (Arc<dyn Faults>, Strait);

/// Passes the client's bytes to the server; returns when the client closes the channel, or the connection is lost.
async fn take(
    mut reader: ChannelReadHalf,
    requests: DuplexStream,
    replies: WeakUnboundedSender<Reply>,
    passage: Option<&Watched>,
    stop: &CancellationToken,
) {
    let (mut requests, mut arrived) = (Some(requests), BytesMut::new());
    while let Some(message) = reader.wait().await {
        match message {
            ChannelMsg::Data { data } => {
                let Some(stream) = requests.as_mut() else { continue };
                let passed = match passage {
                    None => stream.write_all(&data).await.is_ok(),
                    Some((faults, strait)) => {
                        arrived.extend_from_slice(&data);
                        let mut passed = true;
                        while let Some(packet) = next_packet(&mut arrived) {
                            passed &= match strait.request(packet, faults.as_ref()).await {
                                Passage::On(packet) => stream.write_all(&packet).await.is_ok(),
                                // The answer is queued like the server's replies, because this task must never wait for
                                // the client.
                                Passage::Back(answer) => replies
                                    .upgrade()
                                    .is_some_and(|replies| replies.send(Reply::Injected(answer)).is_ok()),
                                Passage::Cut => return stop.cancel(),
                                Passage::Nowhere => true,
                            };
                        }
                        passed
                    }
                };
                if !passed {
                    requests = None;
                }
            }
            // Dropping the stream makes the server answer all pending requests and end.
            ChannelMsg::Eof => requests = None,
            ChannelMsg::Close => return,
            _ => {}
        }
    }
}

/// Sends the server's replies to the client; returns when the server has ended.
async fn deliver(
    mut outbox: UnboundedReceiver<Reply>,
    writer: &ChannelWriteHalf<Msg>,
    passage: Option<&Watched>,
    stop: &CancellationToken,
) {
    let mut arrived = BytesMut::new();
    while let Some(reply) = outbox.recv().await {
        let reply = match reply {
            Reply::OfServer(bytes) => bytes,
            Reply::Injected(packet) => {
                if writer.data_bytes(packet).await.is_err() {
                    return;
                }
                continue;
            }
        };
        let Some((faults, strait)) = passage else {
            if writer.data_bytes(reply).await.is_err() {
                return;
            }
            continue;
        };
        arrived.extend_from_slice(&reply);
        while let Some(packet) = next_packet(&mut arrived) {
            match strait.reply(&packet, faults.as_ref()) {
                Passage::On(reply) | Passage::Back(reply) => {
                    if writer.data_bytes(reply).await.is_err() {
                        return;
                    }
                }
                Passage::Cut => return stop.cancel(),
                Passage::Nowhere => {}
            }
        }
    }
}

/// A reply that waits to be sent to the client.
enum Reply {
    /// Bytes of the server, not necessarily a whole packet.
    OfServer(Bytes),
    /// A whole packet that [`Faults`] send instead of the server's reply.
    Injected(Bytes),
}

/// The server's end of the connection: russh-sftp's server reads requests from it and writes replies to it.
struct Wire {
    requests: DuplexStream,
    replies: UnboundedSender<Reply>,
}

impl AsyncRead for Wire {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.requests).poll_read(cx, buf)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let sent = self.replies.send(Reply::OfServer(Bytes::copy_from_slice(data)));
        Poll::Ready(sent.map(|()| data.len()).map_err(|_| io::ErrorKind::BrokenPipe.into()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
