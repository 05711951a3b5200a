//! Fault injection: a hook through which a test makes an embedded vessel fail at any step.
//!
//! This module treats packets as bytes; the test interprets them. Without [`Faults`], the data doesn't pass through
//! this module.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// A client's request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request<'a> {
    /// A new connection, before the first byte of SSH.
    Connection,
    /// A login attempt.
    Login,
    /// The start of SFTP on a channel.
    Sftp,
    /// The start of a command on a channel.
    Command,
    /// An SFTP packet, without its length prefix.
    Packet(&'a [u8]),
    /// Bytes for a command's standard input.
    Input(&'a [u8]),
}

/// How a request is handled; [`Faults::decide`] chooses it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InjectedFault {
    /// The request is served.
    Serve,
    /// The request is served after a delay, which also delays later requests on the same channel.
    Delay(Duration),
    /// These bytes are served instead of the packet, the command or the input.
    Change(Bytes),
    /// The request is not served. An SFTP packet is answered with these bytes as a packet, which gets the id of the
    /// request. For input, the command is ended. Any other request is refused.
    Answer(Bytes),
    /// An SFTP packet or input is served, but answered as by [`InjectedFault::Answer`]. Any other request is refused.
    ServeAndAnswer(Bytes),
    /// The connection is cut before the request is served.
    CutBefore,
    /// An SFTP packet or input is served, and the connection is cut before the reply. For any other request, the same
    /// as [`InjectedFault::CutBefore`].
    CutAfter,
    /// Neither this request nor any later one on the same channel is served or answered; the connection stays open.
    Stall,
}

/// Decides how requests are handled.
pub trait Faults: fmt::Debug + Send + Sync {
    /// Decides how one request is handled. Called once per request, in order of arrival. Must not block.
    fn decide(&self, request: Request<'_>) -> InjectedFault;

    /// Replaces the server's reply to the SFTP packet `request` before the reply is sent. Must not block for long.
    fn reply(&self, _request: &[u8], reply: Bytes) -> Bytes {
        reply
    }
}

/// The replacement of a reply that the server has not sent yet.
#[derive(Clone, Debug)]
enum Instead {
    Cut,
    Answer(Bytes),
}

/// The state of one SFTP session whose packets pass through the [`Faults`].
#[derive(Debug, Default)]
pub(super) struct Strait {
    instead: Mutex<HashMap<u32, Instead>>,
    /// Requests that were passed to the server and not answered yet, by id.
    asked: Mutex<HashMap<u32, Bytes>>,
    stalled: Mutex<bool>,
}

/// The destination of a packet.
pub(super) enum Passage {
    /// To the server.
    On(Bytes),
    /// To the client.
    Back(Bytes),
    Cut,
    Nowhere,
}

impl Strait {
    fn instead(&self) -> MutexGuard<'_, HashMap<u32, Instead>> {
        self.instead.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn asked(&self) -> MutexGuard<'_, HashMap<u32, Bytes>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stalled(&self) -> MutexGuard<'_, bool> {
        self.stalled.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Decides on a packet from the client.
    pub(super) async fn request(&self, packet: Bytes, faults: &dyn Faults) -> Passage {
        if *self.stalled() {
            return Passage::Nowhere;
        }
        let id = id_of(&packet);
        match faults.decide(Request::Packet(&packet)) {
            InjectedFault::Serve => self.serve(packet, id),
            InjectedFault::Delay(time) => {
                tokio::time::sleep(time).await;
                self.serve(packet, id)
            }
            InjectedFault::Change(packet) => self.serve(packet, id),
            InjectedFault::Answer(answer) => Passage::Back(framed(&numbered(&answer, id))),
            InjectedFault::ServeAndAnswer(answer) => self.serve_instead(packet, id, Instead::Answer(answer)),
            InjectedFault::CutBefore => Passage::Cut,
            InjectedFault::CutAfter => self.serve_instead(packet, id, Instead::Cut),
            InjectedFault::Stall => {
                *self.stalled() = true;
                Passage::Nowhere
            }
        }
    }

    fn serve(&self, packet: Bytes, id: u32) -> Passage {
        let framed = framed(&packet);
        self.asked().insert(id, packet);
        Passage::On(framed)
    }

    fn serve_instead(&self, packet: Bytes, id: u32, instead: Instead) -> Passage {
        self.instead().insert(id, instead);
        self.serve(packet, id)
    }

    /// Decides on a packet from the server.
    pub(super) fn reply(&self, packet: &Bytes, faults: &dyn Faults) -> Passage {
        if *self.stalled() {
            return Passage::Nowhere;
        }
        let id = id_of(packet);
        let asked = self.asked().remove(&id).unwrap_or_default();
        match self.instead().remove(&id) {
            None => Passage::Back(framed(&faults.reply(&asked, packet.clone()))),
            Some(Instead::Cut) => Passage::Cut,
            Some(Instead::Answer(answer)) => Passage::Back(framed(&numbered(&answer, id))),
        }
    }
}

/// Returns the id of a packet. The version packets of the client and of the server have the version number 3 in place
/// of an id, so their ids are equal, too.
fn id_of(packet: &[u8]) -> u32 {
    packet.get(1..5).map_or(0, |mut id| id.get_u32())
}

fn numbered(packet: &Bytes, id: u32) -> Bytes {
    let mut packet = BytesMut::from(&packet[..]);
    if let Some(place) = packet.get_mut(1..5) {
        place.copy_from_slice(&id.to_be_bytes());
    }
    packet.freeze()
}

fn framed(packet: &[u8]) -> Bytes {
    let mut framed = BytesMut::with_capacity(packet.len() + 4);
    framed.put_u32(u32::try_from(packet.len()).unwrap_or(u32::MAX));
    framed.extend_from_slice(packet);
    framed.freeze()
}

/// Removes the next complete packet from the received bytes, and returns it without its length prefix.
pub(super) fn next_packet(arrived: &mut BytesMut) -> Option<Bytes> {
    let length = usize::try_from(arrived.get(..4)?.get_u32()).unwrap_or(usize::MAX);
    if arrived.len() - 4 < length {
        return None;
    }
    arrived.advance(4);
    Some(arrived.split_to(length).freeze())
}
