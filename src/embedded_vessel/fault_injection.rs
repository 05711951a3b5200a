//! What befalls a request: the hook by which a test has an embedded vessel fail at any step it likes.
//!
//! Knows bytes and what to do with them; what they mean is the test's business. Without [`Faults`] nothing of this is in
//! the way.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// Something that a client asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request<'a> {
    /// A connection, before any byte of SSH.
    Connection,
    /// A try to log in.
    Login,
    /// The start of SFTP on a channel.
    Sftp,
    /// The start of a command on a channel.
    Command,
    /// A packet of SFTP, without the length before it.
    Packet(&'a [u8]),
    /// Bytes for a command's standard input.
    Input(&'a [u8]),
}

/// What becomes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InjectedFault {
    /// It is served.
    Serve,
    /// It is served after a while; so is what comes after it on the same channel.
    Delay(Duration),
    /// This packet, input or command is served in its place.
    Change(Bytes),
    /// It is not served. A packet is answered with this one, which gets the request's number; a command ends; anything
    /// else is refused.
    Answer(Bytes),
    /// As [`InjectedFault::Answer`], but it was served.
    ServeAndAnswer(Bytes),
    /// The connection is cut in its place.
    CutBefore,
    /// It is served, and the connection is cut in place of the answer.
    CutAfter,
    /// Neither it nor anything after it on the same channel is served or answered; the connection stays.
    Stall,
}

/// Decides what becomes of requests.
pub trait Faults: fmt::Debug + Send + Sync {
    /// Is asked once for each request, in the order in which they arrive. Must not block.
    fn decide(&self, request: Request<'_>) -> InjectedFault;

    /// Is given each packet of SFTP that answers another one, and gives the one that is sent in its place. Must not block
    /// for long. `request` is the packet that was served.
    fn reply(&self, _request: &[u8], reply: Bytes) -> Bytes {
        reply
    }
}

/// What happens in place of a reply that is still to come.
#[derive(Clone, Debug)]
enum Instead {
    Cut,
    Answer(Bytes),
}

/// The requests and replies of one SFTP session on their way past the [`Faults`].
#[derive(Debug, Default)]
pub(super) struct Strait {
    instead: Mutex<HashMap<u32, Instead>>,
    /// What was passed on and is not answered yet.
    asked: Mutex<HashMap<u32, Bytes>>,
    stalled: Mutex<bool>,
}

/// What to do with a packet.
pub(super) enum Passage {
    /// Send these bytes on to the server.
    On(Bytes),
    /// Send these bytes back to the client.
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

    /// A packet from the client.
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

    /// A packet from the server.
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

/// The number of a packet: of the greeting, its version, which is number 3 for the request and the reply alike.
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

/// Takes the next whole packet, without its length, off the bytes that have arrived.
pub(super) fn next_packet(arrived: &mut BytesMut) -> Option<Bytes> {
    let length = usize::try_from(arrived.get(..4)?.get_u32()).unwrap_or(usize::MAX);
    if arrived.len() - 4 < length {
        return None;
    }
    arrived.advance(4);
    Some(arrived.split_to(length).freeze())
}
