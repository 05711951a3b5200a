//! Many slow writers at once, of all kinds that there are.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use crate::fleet::Fleet;
use crate::fleet::names_in;
use crate::fleet::wait::{DEADLINE, wait_until};

/// How many writers, and how long they pause at the most.
fn size() -> (usize, Duration) {
    match std::env::var("CONTENTMONSTER_WRITERS").ok().map(|text| text.parse().unwrap()) {
        Some(many) => (many, Duration::from_secs(20)),
        None => (16, Duration::from_secs(2)),
    }
}

/// Longer than the pauses of those who close their file after every row.
const SETTLE: &str = "4s";
const ROW_PAUSE: Duration = Duration::from_secs(1);

/// What one writer writes, and how long it pauses after each piece.
struct Job {
    name: String,
    pieces: Vec<(String, Duration)>,
}

impl Job {
    fn new(number: usize, longest: Duration, random: &mut fastrand::Rng) -> Self {
        let kind = KINDS[number % KINDS.len()];
        let longest = if kind == "rows" { longest.min(ROW_PAUSE) } else { longest };
        let pieces = (0..random.usize(2..6)).map(|piece| {
            let text = format!("{kind} {number} piece {piece} {}\n", "x".repeat(random.usize(0..3000)));
            // One in three does not pause at all.
            (text, if random.u8(0..3) == 0 { Duration::ZERO } else { longest.mul_f64(random.f64()) })
        });
        Self { name: format!("{kind}-{number}"), pieces: pieces.collect() }
    }

    fn whole(&self) -> String {
        self.pieces.iter().map(|(text, _)| text.as_str()).collect()
    }

    /// Lines of a shell, each followed by a pause.
    fn lines(&self, to: &str) -> String {
        self.pieces.iter().fold(String::new(), |mut lines, (text, pause)| {
            writeln!(lines, "printf %s '{text}' {to}; sleep {:.3}", pause.as_secs_f64()).unwrap();
            lines
        })
    }

    fn start(&self, kind: &str, place: &Path, scratch: &Path, web: u16) -> Child {
        let (name, scratch) = (place.display(), scratch.display());
        let script = match kind {
            "cp" => format!("{{ {}\n}} | cp /dev/stdin {name}", self.lines("")),
            "dd" => format!("{{ {}\n}} | dd of={name} bs=100 status=none", self.lines("")),
            "rows" => self.lines(&format!(">>{name}")),
            "held" => format!("exec 3>>{name}\n{}", self.lines(">&3")),
            "curl" => format!("curl -sS -o {name} http://127.0.0.1:{web}/{}", self.name),
            "rsync" => format!("printf %s '{}' >{scratch}; rsync --bwlimit=2 {scratch} {name}", self.whole()),
            "inplace" => {
                format!("printf %s '{}' >{scratch}; rsync --inplace --bwlimit=2 {scratch} {name}", self.whole())
            }
            "python" => format!(
                "{{ {}\n}} | python3 -u -c 'import sys\nwith open(sys.argv[1],\"w\") as f:\n for line in sys.stdin:\n  f.write(line); f.flush()' {name}",
                self.lines("")
            ),
            other => panic!("{other}"),
        };
        Command::new("sh").args(["-ec", &script]).stdin(Stdio::null()).spawn().unwrap()
    }
}

const KINDS: [&str; 8] = ["python", "cp", "dd", "rows", "held", "curl", "rsync", "inplace"];

/// Serves what `curl` asks for, as slowly as the other writers write.
fn serve(jobs: &[Job]) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let all: BTreeMap<String, Vec<(String, Duration)>> = jobs
        .iter()
        .filter(|job| job.name.starts_with("curl"))
        .map(|job| (job.name.clone(), job.pieces.clone()))
        .collect();
    let asked = all.len();
    thread::spawn(move || {
        for stream in listener.incoming().take(asked) {
            let all = all.clone();
            thread::spawn(move || answer(stream.unwrap(), &all));
        }
    });
    port
}

fn answer(mut stream: TcpStream, all: &BTreeMap<String, Vec<(String, Duration)>>) {
    let mut request = [0; 4096];
    let read = stream.read(&mut request).unwrap();
    let request = String::from_utf8_lossy(&request[..read]).into_owned();
    let name = request.split_whitespace().nth(1).unwrap().trim_start_matches('/');
    let pieces = &all[name];
    let length: usize = pieces.iter().map(|(text, _)| text.len()).sum();
    write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n").unwrap();
    for (text, pause) in pieces {
        stream.write_all(text.as_bytes()).unwrap();
        thread::sleep(*pause);
    }
}

/// Lets all write into the directory `in` while the daemon runs, and demands every byte on the vessel.
fn all_write(fleet: &Fleet, kept: bool) {
    let (many, longest) = size();
    let mut random = fastrand::Rng::with_seed(12);
    let jobs: Vec<Job> = (0..many).map(|number| Job::new(number, longest, &mut random)).collect();
    let web = serve(&jobs);
    let daemon = fleet.run();
    let scratch = |job: &Job| fleet.path(format!("scratch-{}", job.name));
    let start = |(number, job): (usize, &Job)| {
        job.start(KINDS[number % KINDS.len()], &fleet.source(&job.name), &scratch(job), web)
    };
    let mut writers: Vec<Child> = jobs.iter().enumerate().map(start).collect();
    for (writer, job) in writers.iter_mut().zip(&jobs) {
        assert!(writer.wait().unwrap().success(), "{} failed", job.name);
    }
    wait_until(&format!("{many} sources to retire within {DEADLINE:?}"), || {
        names_in(&fleet.path("shore/in")).iter().all(|name| name == "processed")
    });
    daemon.terminate();
    for job in &jobs {
        fleet.assert_equal("open", &job.name, job.whole().as_bytes());
        assert!(!kept || fs::read_to_string(fleet.retired(&job.name)).unwrap() == job.whole(), "{} is whole", job.name);
    }
    let kept_names = names_in(&fleet.path("shore/in/processed"));
    assert_eq!(kept_names.len(), if kept { many } else { 0 }, "nothing else is in processed/: {kept_names:?}");
}

#[test]
fn every_byte_of_many_slow_writers_arrives() {
    let plan = Fleet::new().directory("in").key("SettleTime", SETTLE).openssh("open");
    if let Some(fleet) = plan.start() {
        all_write(&fleet, true);
    }
}

#[test]
fn every_byte_of_many_slow_writers_arrives_where_sources_are_not_kept() {
    let plan = Fleet::new().directory("in").key("SettleTime", SETTLE).key("KeepProcessed", "no").openssh("open");
    if let Some(fleet) = plan.start() {
        fs::create_dir(fleet.path("shore/in/processed")).unwrap();
        all_write(&fleet, false);
    }
}

/// A mounted FUSE file system, which ends with this.
struct Bind<'a> {
    at: &'a Path,
    server: Child,
}

impl<'a> Bind<'a> {
    fn new(lower: &Path, at: &'a Path) -> Self {
        let mut command = Command::new("bindfs");
        let server = command.arg("-f").arg(lower).arg(at).spawn().expect("scripts/test installs bindfs");
        let bind = Self { at, server };
        let mounts = || fs::read_to_string("/proc/self/mounts").unwrap();
        wait_until("the mount", || mounts().contains(&at.display().to_string()));
        bind
    }
}

impl Drop for Bind<'_> {
    fn drop(&mut self) {
        // Lazily: a test that failed may still have writers there.
        Command::new("fusermount3").args(["-u", "-z"]).arg(self.at).status().ok();
        self.server.wait().ok();
    }
}

/// Other hosts may write to what lies behind FUSE: what the kernel says of leases counts for nothing there.
#[test]
fn every_byte_of_many_slow_writers_arrives_from_a_file_system_where_leases_tell_nothing() {
    let plan = Fleet::new().directory("in").key("SettleTime", SETTLE).openssh("open");
    let Some(fleet) = plan.start() else { return };
    let (lower, at) = (fleet.path("lower"), fleet.path("shore/in"));
    fs::create_dir(&lower).unwrap();
    let bind = Bind::new(&lower, &at);
    all_write(&fleet, true);
    drop(bind);
}
