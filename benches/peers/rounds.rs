//! The comparison: every program in turn, round by round, each run with fresh destinations, the order moving on by one.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::Result;
use crate::args::Args;
use crate::case::Case;
use crate::figures::{Outcome, Row, Sample};
use crate::freight::{Freight, at};
use crate::link::Shore;
use crate::machine::Machine;
use crate::ours::Ours;
use crate::program::{Program, peers};
use crate::report::Section;
use crate::stop::Stop;
use crate::task::Task;
use crate::vessel::{self, Vessel, make_open};
use crate::watch::{self, End, tail};

/// What holds for all cases of this run.
pub(crate) struct Bench {
    pub(crate) rounds: u32,
    limit: Option<Duration>,
    /// Lines for the vessels' sections.
    pub(crate) set: Vec<(String, String)>,
    pub(crate) ours: Vec<Ours>,
    peers: Vec<Program>,
    /// Whether the peers were chosen by the person, not by the case.
    peers_named: bool,
    shore: Shore,
    /// The link, the disk and the settings in words.
    conditions: String,
    pub(crate) machine: Machine,
    pub(crate) stop: Stop,
    scratch: TempDir,
}

impl Bench {
    pub(crate) fn prepare(args: &Args, stop: Stop) -> Result<Self> {
        let scratch = tempfile::Builder::new().prefix("peers-").tempdir_in(&args.dir).map_err(at(&args.dir))?;
        let plain = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
        if !scratch.path().to_string_lossy().chars().all(plain) {
            return Err(format!("{}: choose a --dir that needs no quotes in a shell", args.dir.display()));
        }
        make_open(scratch.path())?;
        let ours = Ours::builds(args.ours.as_deref())?;
        let peers = peers(&args.peers, args.mscp.as_deref(), args.original.as_deref());
        let programs = ours.iter().cloned().map(Program::Ours).chain(peers.iter().cloned());
        Ok(Self {
            rounds: args.rounds,
            limit: args.limit.map(Duration::from_secs),
            set: args.set.clone(),
            machine: Machine::look(programs),
            ours,
            peers,
            peers_named: !args.peers.is_empty(),
            shore: Shore::here(args.inside_link)?,
            conditions: conditions(args, scratch.path()),
            stop,
            scratch,
        })
    }

    /// Why this machine can't measure a case, if it can't.
    pub(crate) fn cannot(&self, case: &Case) -> Option<String> {
        vessel::cannot_run(case.server).map(str::to_owned)
    }

    /// How long a run may take.
    pub(crate) fn limit(&self, usual: Duration) -> Duration {
        self.limit.unwrap_or(usual)
    }

    /// A table for a case, without rows.
    pub(crate) fn section(&self, case: &Case) -> Section {
        Section::new(case.name, case.title, &self.conditions)
    }

    fn programs(&self, case: &Case) -> Vec<Program> {
        let fits = |peer: &&Program| self.peers_named || case.peers.is_empty() || case.peers.contains(&peer.name());
        let able = |peer: &&Program| match peer.cannot(case) {
            Some(reason) => {
                eprintln!("peers: {} takes no part in {}: {reason}", peer.name(), case.name);
                false
            }
            None => true,
        };
        let peers = self.peers.iter().filter(fits).filter(able).cloned();
        self.ours.iter().cloned().map(Program::Ours).chain(peers).collect()
    }
}

/// The link, where the files lie, and the settings, as far as they are not what everybody expects.
fn conditions(args: &Args, scratch: &Path) -> String {
    let mut words = vec![args.link.words()];
    // TMPFS_MAGIC of statfs(2); the field's type differs from one architecture to the next.
    let in_memory = rustix::fs::statfs(scratch).is_ok_and(|found| found.f_type == 0x0102_1994);
    words.push(if in_memory { "files in memory".to_owned() } else { "files on disk".to_owned() });
    words.extend(args.set.iter().map(|(key, value)| format!("{key} = {value}")));
    words.join("; ")
}

/// One case's server and files, with a place for what each run makes. All of it is removed when it is dropped.
pub(crate) struct Stage {
    // Dropped in this order: the server goes before its files.
    pub(crate) vessel: Vessel,
    pub(crate) freight: Freight,
    runs: PathBuf,
    directory: TempDir,
}

/// The places of one run, empty at its start and removed at its end.
pub(crate) struct Places {
    pub(crate) work: PathBuf,
    pub(crate) destinations: Vec<PathBuf>,
    pub(crate) log: PathBuf,
}

impl Stage {
    pub(crate) fn set_up(bench: &Bench, case: &Case) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix(case.name).tempdir_in(bench.scratch.path());
        let directory = directory.map_err(at(bench.scratch.path()))?;
        make_open(directory.path())?;
        eprintln!("peers: {}: {}, {}", case.name, case.title, bench.conditions);
        let vessel = Vessel::launch(case.server, &directory.path().join("home"), &bench.shore, &bench.stop)?;
        let freight = Freight::make(&directory.path().join("source"), case.files, case.size, &bench.stop)?;
        Ok(Self { vessel, freight, runs: directory.path().join("run"), directory })
    }

    /// Makes empty places, in place of those of the run before.
    pub(crate) fn fresh(&self, vessels: usize) -> Result<Places> {
        self.clear()?;
        let destinations: Vec<_> = (0..vessels).map(|number| self.runs.join(format!("to-{number}"))).collect();
        let places = Places { work: self.runs.join("work"), log: self.directory.path().join("run.log"), destinations };
        for directory in places.destinations.iter().chain([&places.work]) {
            fs::create_dir_all(directory).map_err(at(directory))?;
        }
        let _ = fs::remove_file(&places.log);
        Ok(places)
    }

    /// Removes what a run made, and puts the sources back. What is still on its way to the disk would be the next one's
    /// burden.
    pub(crate) fn clear(&self) -> Result<()> {
        self.freight.bring_back()?;
        let mut removed = fs::remove_dir_all(&self.runs);
        // The server may still be writing what a killed program had sent.
        for _ in 0..50 {
            if !removed.as_ref().is_err_and(|e| e.kind() == ErrorKind::DirectoryNotEmpty) {
                break;
            }
            std::thread::sleep(Duration::from_millis(100));
            removed = fs::remove_dir_all(&self.runs);
        }
        rustix::fs::sync();
        match removed {
            Err(e) if e.kind() != ErrorKind::NotFound => Err(at(&self.runs)(e)),
            _ => Ok(()),
        }
    }

    pub(crate) fn task<'a>(&'a self, places: &'a Places) -> Task<'a> {
        let (vessel, freight) = (&self.vessel, &self.freight);
        Task { vessel, freight, destinations: &places.destinations, work: &places.work }
    }
}

/// Measures a case.
pub(crate) fn compare(bench: &Bench, case: &Case) -> Result<Section> {
    let stage = Stage::set_up(bench, case)?;
    let programs = bench.programs(case);
    let mut outcomes: Vec<Vec<Outcome>> = vec![Vec::new(); programs.len()];
    for round in 0..bench.rounds as usize {
        for turn in 0..programs.len() {
            let number = (round + turn) % programs.len();
            if outcomes[number].iter().any(|outcome| matches!(outcome, Outcome::Overtime(_))) {
                continue;
            }
            let outcome = one_run(bench, case, &stage, &programs[number])?;
            eprintln!("peers: {}: round {}: {}: {outcome}", case.name, round + 1, programs[number].name());
            outcomes[number].push(outcome);
        }
    }
    let bytes = stage.freight.bytes;
    let rows = programs.iter().zip(outcomes).map(|(program, outcomes)| Row::new(program, outcomes)).collect::<Vec<_>>();
    let mut section = bench.section(case);
    section.compare(&rows, bytes, case.vessels as u64);
    Ok(section)
}

/// Measures a case that has no peers: `one_run` gives the figures of one build of this program, under all headings but the
/// first. What goes wrong is shown in their place.
pub(crate) fn alone(
    bench: &Bench,
    case: &Case,
    header: &[&'static str],
    one_run: fn(&Bench, &Case, &Stage, &Ours) -> Result<Vec<String>>,
) -> Result<Section> {
    let stage = Stage::set_up(bench, case)?;
    let mut section = bench.section(case);
    for ours in &bench.ours {
        let figures = one_run(bench, case, &stage, ours);
        bench.stop.check()?;
        let mut line = vec![ours.name.clone()];
        line.extend(figures.unwrap_or_else(|wrong| vec![format!("FAILED: {wrong}")]));
        line.resize(header.len(), String::new());
        eprintln!("peers: {}: {}", case.name, line.join("  "));
        section.add(header, line);
    }
    Ok(section)
}

/// Lets the sources lie for as long as `SettleTime` asks by default: putting them back changes them, and one that changed a
/// moment ago stays until it was left alone, however quickly it was delivered.
fn rest(stop: &Stop) -> Result<()> {
    const SETTLE_TIME: Duration = Duration::from_secs(2);
    let since = Instant::now();
    while since.elapsed() < SETTLE_TIME {
        stop.check()?;
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

fn one_run(bench: &Bench, case: &Case, stage: &Stage, program: &Program) -> Result<Outcome> {
    const USUAL_LIMIT: Duration = Duration::from_secs(300);
    let limit = bench.limit(USUAL_LIMIT);
    let places = stage.fresh(case.vessels)?;
    let commands = program.commands(&stage.task(&places), &bench.set)?;
    let all_processed = || stage.freight.is_processed();
    rest(&bench.stop)?;
    let run = watch::run(commands, &places.log, program.until(&all_processed), limit, &bench.stop)?;
    let outcome = match run.end {
        End::Overtime => Outcome::Overtime(limit),
        End::Bad(status) => Outcome::Failed(format!("it ended with {status}: {}", tail(&places.log, 3))),
        End::Good if program.is_ours() && !all_processed() => {
            Outcome::Failed(format!("not everything is in processed/: {}", tail(&places.log, 3)))
        }
        End::Good => match stage.arrived(&places, &bench.stop)? {
            Ok(()) => Outcome::Good(Sample { wall: run.wall, cpu: run.cpu, peak: run.peak, read: run.read }),
            Err(wrong) => Outcome::Failed(wrong),
        },
    };
    stage.clear()?;
    Ok(outcome)
}

impl Stage {
    /// Whether every destination holds every file with the right bytes.
    pub(crate) fn arrived(&self, places: &Places, stop: &Stop) -> Result<std::result::Result<(), String>> {
        for destination in &places.destinations {
            if let Err(wrong) = self.freight.compare(destination, stop)? {
                return Ok(Err(wrong));
            }
        }
        Ok(Ok(()))
    }
}
