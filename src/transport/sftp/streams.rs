//! The two tasks of an SFTP session: one writes and one reads. The writer is never cancelled while the session lives,
//! because a half-written packet would corrupt all later packets.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use russh::ChannelMsg;
use russh::client::Msg;
use tokio::sync::mpsc;

use super::SftpError;
use super::requests::{Outgoing, Shared};

/// Small packets are collected up to this size in bytes and sent together, so that a burst of requests does not become
/// a burst of SSH packets.
const GATHER: usize = 32 * 1024;

/// Writes the queued requests until the session ends.
pub(super) async fn write_all(
    mut queue: mpsc::Receiver<Outgoing>,
    writer: russh::ChannelWriteHalf<Msg>,
    shared: Arc<Shared>,
) {
    let mut gathered = BytesMut::new();
    while let Some(Some(next)) = shared.over.run_until_cancelled(queue.recv()).await {
        gathered.extend_from_slice(&next.head);
        let mut payload = next.payload;
        // Small payloads are copied into one buffer with the neighbouring requests; large payloads are sent without a
        // copy.
        while payload.len() < GATHER && gathered.len() < GATHER {
            gathered.extend_from_slice(&payload);
            payload = Bytes::new();
            let Ok(next) = queue.try_recv() else { break };
            gathered.extend_from_slice(&next.head);
            payload = next.payload;
        }
        for bytes in [gathered.split().freeze(), payload] {
            if bytes.is_empty() {
                continue;
            }
            // The SSH library waits forever for window space on a dead connection, so the write is cancelled when the
            // session ends. A half-written packet does no harm then, because the session reads no more replies.
            match shared.over.run_until_cancelled(writer.data_bytes(bytes)).await {
                Some(Ok(())) => shared.moved(),
                Some(Err(_)) => return shared.end(SftpError::Lost("the connection was closed".into())),
                None => return,
            }
        }
    }
    // The last handle was dropped, or the session has ended. The vessel's SFTP server exits when its input ends.
    let _ = writer.eof().await;
    let _ = writer.close().await;
}

/// Reads replies, and ends the session when the channel ends or a reply is overdue.
pub(super) async fn read_all(mut reader: russh::ChannelReadHalf, mut arrived: BytesMut, shared: Arc<Shared>) {
    let mut look = tokio::time::interval(Duration::from_millis(500));
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let next_look = async {
            shared.asked().await;
            look.tick().await
        };
        tokio::select! {
            message = reader.wait() => match message {
                Some(ChannelMsg::Data { data }) => {
                    arrived.extend_from_slice(&data);
                    if shared.answer_all(&mut arrived).is_err() {
                        return shared.end(SftpError::Garbled);
                    }
                }
                Some(ChannelMsg::Eof | ChannelMsg::Close) | None => {
                    return shared.end(SftpError::Lost("the connection was closed".into()));
                }
                Some(_) => {}
            },
            _ = next_look => if let Some(silent) = shared.overdue() {
                return shared.end(SftpError::Silent(silent));
            },
        }
    }
}
