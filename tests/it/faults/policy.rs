//! What goes wrong, and when.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use contentmonster::embedded_vessel::{Faults, InjectedFault, Request};

/// Packet types that matter here.
const WRITE: u8 = 6;
const RENAME: u8 = 18;
const EXTENDED: u8 = 200;

/// A kind of failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The connection is cut, and the vessel did nothing.
    CutBefore,
    /// The vessel did it, and the connection is cut before it can say so.
    CutAfter,
    /// The vessel says "failure", and did nothing.
    Fails,
    /// The vessel says "permission denied", and did nothing.
    Denied,
    /// The vessel did it, and says "failure".
    DoneButFails,
    /// Nothing is answered any more on that channel.
    Stall,
    /// A byte on its way to the disk becomes another.
    Corrupt,
    /// Only half of a write reaches the disk, and the vessel says that all is well.
    Short,
}

impl Kind {
    /// Those that take longest first.
    pub(crate) const ALL: [Self; 8] = [
        Self::Stall,
        Self::CutBefore,
        Self::CutAfter,
        Self::Fails,
        Self::Denied,
        Self::DoneButFails,
        Self::Corrupt,
        Self::Short,
    ];

    /// Whether it can befall a request. A command that never answers is waited for over a minute: that is tried apart.
    pub(crate) fn can_befall(self, request: Request<'_>) -> bool {
        match (self, request) {
            (Self::Corrupt | Self::Short, Request::Packet([WRITE, ..])) => true,
            (Self::Corrupt | Self::Short, _) | (Self::Stall, Request::Input(_)) => false,
            // Refusing a login or the like has no after, and one word for it.
            (Self::Denied | Self::DoneButFails | Self::CutAfter, Request::Packet(_) | Request::Input(_)) => true,
            (Self::Denied | Self::DoneButFails | Self::CutAfter, _) => false,
            _ => true,
        }
    }

    pub(crate) fn fault(self, request: Request<'_>) -> InjectedFault {
        match self {
            Self::CutBefore => InjectedFault::CutBefore,
            Self::CutAfter => InjectedFault::CutAfter,
            Self::Fails => InjectedFault::Answer(status(4)),
            Self::Denied => InjectedFault::Answer(status(3)),
            Self::DoneButFails => InjectedFault::ServeAndAnswer(status(4)),
            Self::Stall => InjectedFault::Stall,
            Self::Corrupt => change_write(request, |data| *data.last_mut().expect("no write is empty") ^= 0x20),
            Self::Short => change_write(request, |data| {
                let end = data.len() / 2;
                data.truncate(end);
            }),
        }
    }
}

/// A status packet.
pub(crate) fn status(code: u32) -> Bytes {
    let mut packet = BytesMut::new();
    packet.put_u8(101);
    packet.put_u32(0);
    packet.put_u32(code);
    for text in ["on purpose", ""] {
        packet.put_u32(u32::try_from(text.len()).unwrap());
        packet.extend_from_slice(text.as_bytes());
    }
    packet.freeze()
}

fn change_write(request: Request<'_>, change: impl FnOnce(&mut Vec<u8>)) -> InjectedFault {
    let Request::Packet(packet) = request else { return InjectedFault::Serve };
    // Type, number, handle, offset; then the data.
    let handle = u32::from_be_bytes(packet[5..9].try_into().unwrap()) as usize;
    let head = 9 + handle + 8;
    let mut data = packet[head + 4..].to_vec();
    change(&mut data);
    let mut changed = BytesMut::from(&packet[..head]);
    changed.put_u32(u32::try_from(data.len()).unwrap());
    changed.extend_from_slice(&data);
    InjectedFault::Change(changed.freeze())
}

/// The two paths of a rename, whichever way it is asked for.
pub(crate) fn rename_of(packet: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let mut words = Words(packet.get(5..)?);
    match packet[0] {
        RENAME => Some((words.next()?, words.next()?)),
        EXTENDED if words.next()? == b"posix-rename@openssh.com" => Some((words.next()?, words.next()?)),
        _ => None,
    }
}

struct Words<'a>(&'a [u8]);

impl Iterator for Words<'_> {
    type Item = Vec<u8>;

    fn next(&mut self) -> Option<Vec<u8>> {
        let length = u32::from_be_bytes(self.0.get(..4)?.try_into().ok()?) as usize;
        let word = self.0.get(4..4 + length)?.to_vec();
        self.0 = &self.0[4 + length..];
        Some(word)
    }
}

/// A word for a request, for people.
pub(crate) fn label(request: Request<'_>) -> String {
    match request {
        Request::Packet(packet) => {
            let extended = || Words(packet.get(5..)?).next().map(|name| String::from_utf8_lossy(&name).into_owned());
            match packet.first() {
                Some(&EXTENDED) => extended().unwrap_or_default(),
                kind => format!("packet {}", kind.copied().unwrap_or_default()),
            }
        }
        Request::Input(input) => {
            let text: String = String::from_utf8_lossy(input).chars().skip(44).take(40).collect();
            format!("input {}", text.escape_debug())
        }
        other => format!("{other:?}"),
    }
}

/// Delays each request that another policy lets pass, so that the path counts as long.
#[derive(Debug)]
pub(crate) struct Far(pub(crate) Arc<dyn Faults>);

impl Faults for Far {
    fn decide(&self, request: Request<'_>) -> InjectedFault {
        match (self.0.decide(request), request) {
            (InjectedFault::Serve, Request::Packet(_)) => InjectedFault::Delay(Duration::from_millis(25)),
            (decided, _) => decided,
        }
    }
}

/// Nothing goes wrong; counts how many requests each kind of failure could befall.
#[derive(Debug, Default)]
pub(crate) struct Tally(Mutex<BTreeMap<String, usize>>);

impl Tally {
    pub(crate) fn of(&self, kind: Kind) -> usize {
        self.0.lock().unwrap().get(&format!("{kind:?}")).copied().unwrap_or_default()
    }
}

impl Faults for Tally {
    fn decide(&self, request: Request<'_>) -> InjectedFault {
        let mut tally = self.0.lock().unwrap();
        for kind in Kind::ALL.into_iter().filter(|kind| kind.can_befall(request)) {
            *tally.entry(format!("{kind:?}")).or_default() += 1;
        }
        InjectedFault::Serve
    }
}

/// One failure, at the request of a number among those that it can befall.
#[derive(Debug)]
pub(crate) struct At {
    pub(crate) kind: Kind,
    pub(crate) index: usize,
    seen: AtomicUsize,
    hit: Mutex<Option<String>>,
}

impl At {
    pub(crate) fn new(kind: Kind, index: usize) -> Self {
        Self { kind, index, seen: AtomicUsize::new(0), hit: Mutex::default() }
    }

    /// What it hit.
    pub(crate) fn hit(&self) -> Option<String> {
        self.hit.lock().unwrap().clone()
    }
}

impl Faults for At {
    fn decide(&self, request: Request<'_>) -> InjectedFault {
        if !self.kind.can_befall(request) || self.seen.fetch_add(1, Ordering::Relaxed) != self.index {
            return InjectedFault::Serve;
        }
        *self.hit.lock().unwrap() = Some(label(request));
        self.kind.fault(request)
    }
}

/// Failures of all kinds now and then, by a seed; none once it is calm.
pub(crate) struct Gale {
    dice: Mutex<fastrand::Rng>,
    /// One request of so many fails.
    one_in: usize,
    calm: AtomicBool,
    pub(crate) failures: AtomicUsize,
}

impl fmt::Debug for Gale {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gale").finish_non_exhaustive()
    }
}

impl Gale {
    pub(crate) fn new(seed: u64, one_in: usize) -> Self {
        let dice = Mutex::new(fastrand::Rng::with_seed(seed));
        Self { dice, one_in, calm: AtomicBool::new(false), failures: AtomicUsize::new(0) }
    }

    pub(crate) fn end(&self) {
        self.calm.store(true, Ordering::Relaxed);
    }
}

impl Faults for Gale {
    fn decide(&self, request: Request<'_>) -> InjectedFault {
        let mut dice = self.dice.lock().unwrap();
        if self.calm.load(Ordering::Relaxed) || dice.usize(..self.one_in) > 0 {
            return InjectedFault::Serve;
        }
        let kind = Kind::ALL[dice.usize(..Kind::ALL.len())];
        // What ends a whole visit for long is no part of the weather.
        if !kind.can_befall(request) || matches!(request, Request::Login | Request::Sftp) {
            return InjectedFault::Serve;
        }
        self.failures.fetch_add(1, Ordering::Relaxed);
        kind.fault(request)
    }
}
