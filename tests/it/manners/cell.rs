//! The columns of the matrix, and one row of it: a fleet of one vessel that is sent all that the columns ask for.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::manner::{Manner, Proof, Server};
use super::odd::Odd;
use crate::fleet::content::{MIB, content};
use crate::fleet::daemon::{Daemon, Ended};
use crate::fleet::plan::{FleetPlan, Kind};
use crate::fleet::process::signal;
use crate::fleet::tree::tree;
use crate::fleet::{Fleet, at_second};

/// How long one run may take. Reached by what loops.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long a server may keep files to itself that were closed: rclone takes 5 s.
const WRITTEN_BACK: Duration = Duration::from_secs(20);
const LARGE: usize = 30 * MIB;
/// What is cut on its way: of 12 chunks.
const CUT: usize = 3 * MIB;

/// A column.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Cell {
    Zero,
    Small,
    Large,
    Names,
    Change,
    Delete,
    Resume,
}

impl Cell {
    pub(super) const ALL: [Self; 7] =
        [Self::Zero, Self::Small, Self::Large, Self::Names, Self::Change, Self::Delete, Self::Resume];

    pub(super) fn heading(self) -> &'static str {
        match self {
            Self::Zero => "zero bytes",
            Self::Small => "small",
            Self::Large => "30 MiB",
            Self::Names => "odd names",
            Self::Change => "mirror change",
            Self::Delete => "mirror delete",
            Self::Resume => "after a cut",
        }
    }
}

/// What became of a cell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Verified,
    NotVerified,
    Refused,
    NotTried,
    Wrong(String),
}

impl Outcome {
    pub(super) fn short(&self) -> &'static str {
        match self {
            Self::Verified => "verified",
            Self::NotVerified => "not verified",
            Self::Refused => "refused",
            Self::NotTried => "-",
            Self::Wrong(_) => "WRONG",
        }
    }

    pub(super) fn is(&self, wanted: Proof) -> bool {
        match self {
            Self::Verified => wanted == Proof::Verified,
            Self::NotVerified => wanted == Proof::NotVerified,
            Self::Refused => matches!(wanted, Proof::Refused(_)),
            Self::NotTried => true,
            Self::Wrong(_) => false,
        }
    }
}

/// A fleet of one vessel on which a row is tried.
pub(super) struct Row<'a> {
    manner: &'a Manner,
    fleet: Fleet,
    odd: Option<Arc<Odd>>,
    outcomes: Vec<(Cell, Outcome)>,
}

/// A file on its way: below which directory, under which name, with which bytes.
struct Cargo {
    cell: Cell,
    directory: &'static str,
    name: PathBuf,
    bytes: Vec<u8>,
}

impl<'a> Row<'a> {
    /// Starts the server. `None`, said aloud, where the machine does not allow it.
    pub(super) fn begin(manner: &'a Manner) -> Option<Self> {
        let plan = Fleet::new().monster("ChunkSize", "256 KiB");
        let plan = plan.directory("mirror").key("Mode", "mirror").key("Recursive", "yes").key("Delete", "yes");
        let embedded = manner.embedded();
        let plan: FleetPlan = match (manner.server, &embedded) {
            (Server::Real(kind), _) => plan.vessel("vessel", kind),
            (_, Some((_, manners))) => plan.embedded("vessel", manners.clone()),
            _ => plan.openssh("vessel"),
        };
        // The oddities of embedded vessels are those of their SFTP, and a busy machine makes the path look long.
        let plan = if embedded.is_some() { plan.key("SmallFiles", "sftp") } else { plan };
        let plan = plan.proxied().key("ReconnectWait", "1s").key("Timeout", manner.timeout);
        let fleet = plan.start()?;
        let vessel = fleet.vessel("vessel");
        match manner.server {
            Server::Configured(lines) => vessel.configure(lines),
            Server::Bash(text) => vessel.greet_with_bash(text),
            _ => {}
        }
        Some(Self { manner, fleet, odd: embedded.map(|(odd, _)| odd), outcomes: Vec::new() })
    }

    /// Tries all columns; the 30 MiB only where they are asked for.
    pub(super) fn run(mut self, large: bool) -> Vec<(Cell, Outcome)> {
        self.fresh_files(large);
        self.mirror();
        self.resume();
        let order = |(cell, _): &(Cell, Outcome)| *cell;
        self.outcomes.sort_by_key(order);
        self.outcomes
    }

    fn put(&self, cargo: &Cargo) {
        if let Some(odd) = &self.odd {
            odd.note(&cargo.bytes);
        }
        let place = self.fleet.path("shore").join(cargo.directory).join(&cargo.name);
        fs::create_dir_all(place.parent().expect("it lies in a directory")).unwrap();
        self.fleet.put_at(&place, &cargo.bytes, 0o640, at_second(1_700_000_000));
    }

    fn fresh_files(&mut self, large: bool) {
        let odd = |name: &[u8]| {
            let name = std::ffi::OsStr::from_bytes(name).into();
            Cargo { cell: Cell::Names, directory: "in", name, bytes: content(7, 2_000) }
        };
        let plain =
            |cell, name: &str, size| Cargo { cell, directory: "in", name: name.into(), bytes: content(3, size) };
        let mut cargo = vec![plain(Cell::Zero, "zero", 0), plain(Cell::Small, "small", 3_000)];
        let names: [&[u8]; 6] =
            [b"-rf", b"two words", b"quo'te\"s", "h\u{e4}fen \u{2693}".as_bytes(), b"a\nline", b"$(x)*?[y];&"];
        cargo.extend(names.map(odd));
        if self.manner.takes_any_name {
            cargo.push(odd(b"no\xffutf8"));
        }
        if large {
            cargo.push(plain(Cell::Large, "large", LARGE));
        } else {
            self.outcomes.push((Cell::Large, Outcome::NotTried));
        }
        cargo.iter().for_each(|cargo| self.put(cargo));
        let run = self.once();
        for cell in [Cell::Zero, Cell::Small, Cell::Large, Cell::Names] {
            let of_cell: Vec<_> = cargo.iter().filter(|cargo| cargo.cell == cell).collect();
            if !of_cell.is_empty() {
                self.conclude(cell, &of_cell, &run);
            }
        }
    }

    /// The first state of a mirror, and a change and a deletion in it.
    fn mirror(&mut self) {
        let file = |cell, name: &str, seed| Cargo {
            cell,
            directory: "mirror",
            name: name.into(),
            bytes: content(seed, 2_000 + usize::try_from(seed).unwrap()),
        };
        let before =
            [file(Cell::Change, "chart", 11), file(Cell::Delete, "below/old", 12), file(Cell::Delete, "old", 13)];
        before.iter().for_each(|cargo| self.put(cargo));
        let first = self.once();
        let came = before.iter().all(|cargo| self.held(cargo).as_ref() == Some(&cargo.bytes));
        if !came {
            let before: Vec<_> = before.iter().collect();
            [Cell::Change, Cell::Delete].into_iter().for_each(|cell| self.conclude(cell, &before, &first));
            return;
        }
        let after = file(Cell::Change, "chart", 400);
        if let Some(odd) = &self.odd {
            odd.note(&after.bytes);
        }
        self.fleet.put_at(&self.fleet.path("shore/mirror/chart"), &after.bytes, 0o640, at_second(1_700_000_500));
        let run = self.once();
        self.conclude(Cell::Change, &[&after], &run);
        fs::remove_file(self.fleet.path("shore/mirror/old")).unwrap();
        fs::remove_dir_all(self.fleet.path("shore/mirror/below")).unwrap();
        let run = self.once();
        let there = self.fleet.vessel("vessel").path("mirror");
        let left = || ["old", "below"].into_iter().filter(|name| there.join(name).exists()).collect::<Vec<_>>();
        let left = self.after_a_while(left);
        let outcome = match self.trouble(&run) {
            Some(wrong) => Outcome::Wrong(wrong),
            None if left.is_empty() && run.code == Some(0) => self.best(),
            None => self.refusal(Cell::Delete, &format!("{left:?} is still there"), &run),
        };
        self.outcomes.push((Cell::Delete, outcome));
    }

    /// What a deletion counts as where nothing is wrong: there are no bytes to verify.
    fn best(&self) -> Outcome {
        if self.manner.proof == Proof::NotVerified { Outcome::NotVerified } else { Outcome::Verified }
    }

    fn resume(&mut self) {
        let cargo = Cargo { cell: Cell::Resume, directory: "in", name: "cut".into(), bytes: content(17, CUT) };
        let link = self.fleet.vessel("vessel").link();
        let before = link.sent();
        link.limit(2 * MIB as u64);
        self.put(&cargo);
        let started = Instant::now();
        let mut program = self.fleet.begin(&["--once"], "");
        while link.sent() - before < (CUT / 2) as u64 && program.runs() && started.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(10));
        }
        link.cut();
        link.limit(0);
        let run = ended(program, started);
        let sent = link.sent() - before;
        self.conclude(Cell::Resume, &[&cargo], &run);
        // Half of it once more, where nothing can be resumed all of it, and once more where that was in vain.
        if sent > 4 * CUT as u64 {
            let wrong = format!("{sent} bytes were sent for a file of {CUT}");
            self.outcomes.retain(|(cell, _)| *cell != Cell::Resume);
            self.outcomes.push((Cell::Resume, Outcome::Wrong(wrong)));
        }
    }

    fn once(&self) -> Ended {
        ended(self.fleet.begin(&["--once"], ""), Instant::now())
    }

    /// What a vessel has of it: what was taken away there counts, once.
    fn held(&self, cargo: &Cargo) -> Option<Vec<u8>> {
        let tree = self.fleet.vessel("vessel").path("");
        let read = |path: PathBuf| fs::read(path).ok();
        if !self.manner.consumes || cargo.directory != "in" {
            return read(tree.join(cargo.directory).join(&cargo.name));
        }
        let consumed = |n: usize| tree.join("consumed").join(format!("{}.{n}", cargo.name.to_string_lossy()));
        if consumed(1).exists() { None } else { read(consumed(0)) }
    }

    fn conclude(&mut self, cell: Cell, cargo: &[&Cargo], run: &Ended) {
        let missing = || -> Vec<String> { cargo.iter().filter_map(|cargo| self.what_is_wrong_with(cargo)).collect() };
        let missing = self.after_a_while(missing);
        let outcome = match self.trouble(run) {
            Some(wrong) => Outcome::Wrong(wrong),
            None if missing.is_empty() => self.proof_of(cargo),
            None => self.refusal(cell, &missing.join(", "), run),
        };
        self.outcomes.push((cell, outcome));
    }

    fn what_is_wrong_with(&self, cargo: &Cargo) -> Option<String> {
        let name = cargo.name.display();
        match self.held(cargo) {
            Some(held) if held == cargo.bytes => {}
            Some(held) => return Some(format!("{name}: {} other bytes are there", held.len())),
            None => return Some(format!("{name} is not there, or twice")),
        }
        let retired = cargo.directory != "in" || self.fleet.retired(&cargo.name).exists();
        (!retired).then(|| format!("{name} is there but not retired"))
    }

    /// What there is to complain of. A server that caches what it is sent has some time until its files show it.
    fn after_a_while<T>(&self, complain: impl Fn() -> Vec<T>) -> Vec<T> {
        let started = Instant::now();
        loop {
            let complaints = complain();
            let caches = matches!(self.manner.server, Server::Real(Kind::Rclone("writes")));
            if complaints.is_empty() || !caches || started.elapsed() > WRITTEN_BACK {
                return complaints;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// What is wrong whatever became of the files: a run that does not end, litter, a broken promise.
    fn trouble(&self, run: &Ended) -> Option<String> {
        if run.code.is_none() {
            return Some(format!("it does not end: {}", last_words(run)));
        }
        let wrongs = self.odd.as_ref().map(|odd| odd.wrongs()).unwrap_or_default();
        if !wrongs.is_empty() {
            return Some(wrongs.join(", "));
        }
        let place = self.fleet.vessel("vessel").path("");
        let litter = || tree(&place).into_keys().filter(|path| is_litter(path)).collect::<Vec<_>>();
        let left = self.after_a_while(litter);
        (!left.is_empty()).then(|| format!("{left:?} is left there; {}", last_words(run)))
    }

    /// Not delivered: that is right where the source is intact, nothing half is there, and the reason is told.
    fn refusal(&self, cell: Cell, missing: &str, run: &Ended) -> Outcome {
        let Proof::Refused(words) = self.manner.wanted(cell) else {
            return Outcome::Wrong(format!("{missing}; {}", last_words(run)));
        };
        if run.code == Some(0) || !run.says(words) {
            return Outcome::Wrong(format!("{missing}, and no word of {words:?}; {}", last_words(run)));
        }
        Outcome::Refused
    }

    fn proof_of(&self, cargo: &[&Cargo]) -> Outcome {
        let receipts = self.fleet.call(&["receipts", "--json"], "").stdout;
        let lines: Vec<serde_json::Value> = receipts.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let mut all_verified = true;
        for cargo in cargo {
            let digest = contentmonster::digest::Digest::of(&cargo.bytes).to_string();
            let Some(line) = lines.iter().rfind(|line| line["sha256"] == digest.as_str()) else {
                return Outcome::Wrong(format!("{} has no receipt", cargo.name.display()));
            };
            all_verified &= !line["verified"].as_str().unwrap_or_default().contains("not verified");
        }
        if all_verified { Outcome::Verified } else { Outcome::NotVerified }
    }
}

/// Waits for its end; what takes too long is killed, and has no exit code then.
fn ended(mut program: Daemon, started: Instant) -> Ended {
    while program.runs() && started.elapsed() < PATIENCE {
        std::thread::sleep(Duration::from_millis(20));
    }
    if program.runs() {
        signal(program.pid(), rustix::process::Signal::KILL);
    }
    program.ended()
}

/// The last line but a few of what it said, shortened.
fn last_words(run: &Ended) -> String {
    let worth = |line: &&str| line.contains("WARN") || line.contains("parked for") || line.contains("ERROR");
    let lines: Vec<_> = run.stderr.lines().chain(run.stdout.lines()).filter(worth).collect();
    let tail = &lines[lines.len().saturating_sub(2)..];
    tail.iter().map(|line| line.chars().take(300).collect::<String>()).collect::<Vec<_>>().join(" | ")
}

/// Whether a path on the vessel is of ours and of no use any more.
fn is_litter(path: &Path) -> bool {
    let ours = path.file_name().is_some_and(|name| name.as_bytes().starts_with(b".contentmonster"));
    ours || (path.starts_with("temp/parts") && path != Path::new("temp/parts"))
}
