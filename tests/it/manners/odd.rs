//! A server with odd manners: the rules by which it answers otherwise than OpenSSH.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use contentmonster::digest::Digest;
use contentmonster::embedded_vessel::{Faults, InjectedFault, Request};

use super::packet::{self, Body};

/// One odd manner.
#[derive(Clone, Copy, Debug)]
pub(super) enum Rule {
    /// These requests are answered with this status.
    Refuses(&'static [u8], u32),
    /// This extension is advertised and answered with "unsupported".
    OnlyAdvertises(&'static str),
    /// This extension is not there.
    Lacks(&'static str),
    /// Files can't be opened for reading.
    ReadsNothing,
    /// A file that is opened for writing is empty from then on.
    OpeningEmpties,
    /// A file that is there is not opened for writing unless it is made empty.
    ResumesNothing,
    /// A file that is there is not opened for writing at all.
    OverwritesNothing,
    /// The time of last change is set when a file is closed, to that moment.
    TimesAtClose,
    /// "No such file" has this number.
    MissingIs(u32),
    /// "No such file" has this number, and no words of its own.
    MissingIsWordless(u32),
    /// "No such file" is a failure that names the question.
    MissingNamesTheQuestion,
    /// Whatever names something that is not UTF-8 fails.
    RefusesOddNames,
    /// The first file of ours that was read is empty when it is closed.
    EmptiesOnce,
    /// Every write is refused with this status, which has no text.
    WritesEndWith(u32),
    /// Attributes have no owner, permissions and type.
    BareAttributes,
    /// Each listing holds an empty name.
    EmptyNames,
    /// Closing a file takes so long.
    ClosesSlowly(Duration),
    /// MKDIR's mode is ignored.
    IgnoresMode,
    /// A program takes each file in `in/` away as soon as it has its name.
    Consumes,
    /// What becomes of commands.
    Commands(Command),
}

/// What becomes of commands.
#[derive(Clone, Copy, Debug)]
pub(super) enum Command {
    Disconnects,
    IsNeverAnswered,
    IsRefused,
    /// This is run in its place.
    Is(&'static str),
}

/// What is seen and done on the way.
#[derive(Debug, Default)]
struct Seen {
    /// Which file a handle is of, and whether it was opened for writing.
    handles: HashMap<Bytes, (PathBuf, bool)>,
    /// Whether a file was emptied.
    emptied: bool,
    /// What became of promises.
    wrongs: Vec<String>,
}

/// A server with some odd manners, which also sees every rename before it happens: what gets a final name must be whole.
#[derive(Debug, Default)]
pub(super) struct Odd {
    rules: Vec<Rule>,
    /// The digests of all that a shore ever had.
    versions: Mutex<HashSet<Digest>>,
    seen: Mutex<Seen>,
}

impl Odd {
    pub(super) fn new(rules: &[Rule]) -> Arc<Self> {
        Arc::new(Self { rules: rules.to_vec(), ..Self::default() })
    }

    /// Notes that the shore has, or is about to have, this content.
    pub(super) fn note(&self, bytes: &[u8]) {
        self.versions.lock().unwrap().insert(Digest::of(bytes));
    }

    /// What must never have happened, and did.
    pub(super) fn wrongs(&self) -> Vec<String> {
        self.seen.lock().unwrap().wrongs.clone()
    }

    fn look_at_rename(&self, from: &Path, to: &Path) {
        let Ok(bytes) = fs::read(from) else { return };
        if !self.versions.lock().unwrap().contains(&Digest::of(&bytes)) {
            let wrong = format!("{} became {} bytes that are no version", to.display(), bytes.len());
            self.seen.lock().unwrap().wrongs.push(wrong);
        }
    }
}

impl Rule {
    fn on_request(self, request: Request<'_>) -> Option<InjectedFault> {
        let refuse = |code, words| Some(InjectedFault::Answer(packet::status(code, words)));
        match (self, request) {
            (Self::Commands(command), Request::Command) => Some(command.fault()),
            (_, Request::Packet(bytes)) => {
                let kind = *bytes.first()?;
                match self {
                    Self::Refuses(kinds, code) if kinds.contains(&kind) => refuse(code, "not here"),
                    Self::OnlyAdvertises(name) | Self::Lacks(name) if packet::extension_of(bytes)? == name => {
                        refuse(packet::UNSUPPORTED, "unknown request")
                    }
                    Self::WritesEndWith(code) if kind == packet::WRITE => {
                        Some(InjectedFault::Answer(packet::wordless(code)))
                    }
                    Self::ClosesSlowly(time) if kind == packet::CLOSE => Some(InjectedFault::Delay(time)),
                    Self::IgnoresMode if kind == packet::MKDIR => {
                        Some(InjectedFault::Change(packet::without_mode(bytes)))
                    }
                    Self::RefusesOddNames if packet::has_odd_name(bytes) => refuse(packet::FAILURE, "Failure"),
                    _ if kind == packet::OPEN => self.on_open(bytes),
                    _ => None,
                }
            }
            _ => None,
        }
    }

    fn on_open(self, bytes: &[u8]) -> Option<InjectedFault> {
        let mut body = Body::of(bytes);
        let (path, flags) = (body.path(), body.number());
        let writes = flags & packet::FOR_WRITING != 0;
        let again = writes && path.exists();
        let refuse = |code, words| Some(InjectedFault::Answer(packet::status(code, words)));
        match self {
            Self::ReadsNothing if flags & packet::FOR_READING != 0 => refuse(packet::DENIED, "reading is not allowed"),
            Self::OpeningEmpties if writes => Some(InjectedFault::Change(packet::opened_with(bytes, packet::TRUNCATE))),
            Self::ResumesNothing if again && flags & packet::TRUNCATE == 0 => {
                refuse(packet::FAILURE, "resume not supported")
            }
            Self::OverwritesNothing if again => refuse(packet::FAILURE, "file exists: overwriting is not allowed"),
            _ => None,
        }
    }

    fn on_reply(self, request: &[u8], reply: Bytes) -> Bytes {
        let code = packet::status_of(&reply);
        match (self, reply.first()) {
            (Self::Lacks(name), Some(&packet::VERSION)) => packet::without_extension(&reply, name),
            (Self::MissingIs(other), _) if code == Some(packet::NO_SUCH_FILE) => packet::with_code(&reply, other),
            (Self::MissingIsWordless(other), _) if code == Some(packet::NO_SUCH_FILE) => {
                packet::numbered_like(&reply, &packet::wordless(other))
            }
            (Self::MissingNamesTheQuestion, _) if code == Some(packet::NO_SUCH_FILE) => {
                let words = format!("request {} failed", request.first().copied().unwrap_or_default());
                packet::numbered_like(&reply, &packet::status(packet::FAILURE, &words))
            }
            (Self::BareAttributes, Some(&packet::ATTRS)) => packet::without_type(&reply),
            (Self::BareAttributes, Some(&packet::NAME)) => packet::without_type(&reply),
            (Self::EmptyNames, Some(&packet::NAME)) if request.first() == Some(&READDIR) => {
                packet::with_an_empty_name(&reply)
            }
            _ => reply,
        }
    }
}

const READDIR: u8 = 12;

impl Command {
    fn fault(self) -> InjectedFault {
        match self {
            Self::Disconnects => InjectedFault::CutBefore,
            Self::IsNeverAnswered => InjectedFault::Stall,
            Self::IsRefused => InjectedFault::Answer(Bytes::new()),
            Self::Is(other) => InjectedFault::Change(Bytes::from_static(other.as_bytes())),
        }
    }
}

impl Faults for Odd {
    fn decide(&self, request: Request<'_>) -> InjectedFault {
        let fault = self.rules.iter().find_map(|rule| rule.on_request(request)).unwrap_or(InjectedFault::Serve);
        if let (InjectedFault::Serve, Request::Packet(bytes)) = (&fault, request)
            && let Some((from, to)) = packet::rename_of(bytes)
        {
            self.look_at_rename(&from, &to);
        }
        fault
    }

    fn reply(&self, request: &[u8], reply: Bytes) -> Bytes {
        let done = packet::status_of(&reply) == Some(packet::OK);
        match request.first() {
            Some(&packet::OPEN) if reply.first() == Some(&packet::HANDLE) => {
                let mut body = Body::of(request);
                let file = (body.path(), body.number() & packet::FOR_WRITING != 0);
                self.seen.lock().unwrap().handles.insert(Body::of(&reply).word(), file);
            }
            Some(&packet::CLOSE) => {
                let file = self.seen.lock().unwrap().handles.remove(&Body::of(request).word());
                if let Some((path, false)) = &file {
                    self.empty_once(path);
                }
                if let (Some((path, true)), true) = (file, self.has(|rule| matches!(rule, Rule::TimesAtClose))) {
                    let _ = fs::File::options().write(true).open(path).map(|file| file.set_modified(SystemTime::now()));
                }
            }
            _ => {}
        }
        if let (true, Some((_, to))) =
            (done && self.has(|rule| matches!(rule, Rule::Consumes)), packet::rename_of(request))
        {
            consume(&to);
        }
        self.rules.iter().fold(reply, |reply, rule| rule.on_reply(request, reply))
    }
}

impl Odd {
    fn empty_once(&self, path: &Path) {
        let ours = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b".contentmonster"));
        if ours && self.has(|rule| matches!(rule, Rule::EmptiesOnce)) {
            let mut seen = self.seen.lock().unwrap();
            let first = !std::mem::replace(&mut seen.emptied, true);
            drop(seen);
            if first {
                fs::write(path, b"").unwrap();
            }
        }
    }

    fn has(&self, is: impl Fn(&Rule) -> bool) -> bool {
        self.rules.iter().any(is)
    }
}

/// Moves a file of `in/` into `consumed/` beside it.
fn consume(file: &Path) {
    let (Some(directory), Some(name)) = (file.parent(), file.file_name()) else { return };
    if !directory.ends_with("in") {
        return;
    }
    let consumed = directory.with_file_name("consumed");
    fs::create_dir_all(&consumed).unwrap();
    // Each time under another name, so that what comes twice is seen twice.
    let place = (0..).map(|n| consumed.join(format!("{}.{n}", name.to_string_lossy()))).find(|place| !place.exists());
    fs::rename(file, place.expect("there is always another number")).unwrap();
}
