//! The program under test, as a process: started, watched, stopped.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::process::{catches, has_ended, signal};
use super::wait::{wait_for, wait_until};

/// What a process wrote, line by line.
type Lines = Arc<Mutex<Vec<String>>>;

/// A running `contentmonster`; killed when it is dropped.
pub(crate) struct Daemon {
    child: Child,
    stdout: Lines,
    stderr: Lines,
    readers: Vec<JoinHandle<()>>,
}

/// A `contentmonster` that has ended.
#[derive(Debug)]
pub(crate) struct Ended {
    /// The exit code; `None` when a signal ended it.
    pub(crate) code: Option<i32>,
    /// What it wrote to its standard output.
    pub(crate) stdout: String,
    /// What it wrote to its standard error.
    pub(crate) stderr: String,
}

impl Daemon {
    /// Starts a command with `input` on its standard input.
    pub(crate) fn spawn(mut command: Command, input: &str) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // It may have ended without reading: then nobody wants the input.
        let _ = child.stdin.take().expect("it is piped").write_all(input.as_bytes());
        let (stdout, stderr) = (Lines::default(), Lines::default());
        let readers = vec![
            collect(child.stdout.take().expect("it is piped"), stdout.clone()),
            collect(child.stderr.take().expect("it is piped"), stderr.clone()),
        ];
        Self { child, stdout, stderr, readers }
    }

    /// Its process number.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Everything it logged so far.
    pub(crate) fn log(&self) -> Vec<String> {
        self.stderr.lock().unwrap().clone()
    }

    /// The first line of the log that holds all of these words, whatever their case.
    pub(crate) fn logged(&self, words: &[&str]) -> Option<String> {
        let words: Vec<_> = words.iter().map(|word| word.to_lowercase()).collect();
        self.log().into_iter().find(|line| {
            let line = line.to_lowercase();
            words.iter().all(|word| line.contains(word))
        })
    }

    /// Waits for such a line.
    #[track_caller]
    pub(crate) fn wait_for_log(&self, words: &[&str]) -> String {
        wait_for(&format!("a log line with {words:?}"), || {
            let ended = has_ended(self.pid());
            let line = self.logged(words);
            assert!(line.is_some() || !ended, "contentmonster has ended without a log line with {words:?}");
            line
        })
    }

    /// What lies at a path as the daemon sees it, which differs where it has mounts of its own.
    pub(crate) fn seen(&self, path: &Path) -> PathBuf {
        let root = PathBuf::from(format!("/proc/{}/root", self.child.id()));
        root.join(path.strip_prefix("/").expect("an absolute path"))
    }

    /// The most memory it has held at once so far, in KiB.
    pub(crate) fn peak_memory_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM:")).expect("the kernel counts it");
        line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("a number of KiB")
    }

    /// Whether it still runs.
    pub(crate) fn runs(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Has it read its settings anew.
    #[track_caller]
    pub(crate) fn reload(&self) {
        wait_until("contentmonster to catch SIGHUP", || catches(self.pid(), Signal::HUP));
        self.send(Signal::HUP);
    }

    /// Ends it as a power cut would.
    pub(crate) fn kill9(mut self) {
        self.send(Signal::KILL);
        let _ = self.child.wait();
    }

    /// Sends a signal.
    pub(crate) fn send(&self, which: Signal) {
        signal(self.child.id(), which);
    }

    /// Asks it to end, and fails the test unless it does so within seconds with code 0.
    #[track_caller]
    pub(crate) fn terminate(self) {
        wait_until("contentmonster to catch SIGTERM", || catches(self.pid(), Signal::TERM));
        let asked = Instant::now();
        self.send(Signal::TERM);
        let ended = self.ended();
        assert_eq!(ended.code, Some(0), "SIGTERM must end it with code 0: {ended:?}");
        assert!(asked.elapsed() < Duration::from_secs(10), "it took {:?} to end", asked.elapsed());
    }

    /// Waits for its end.
    #[track_caller]
    pub(crate) fn ended(mut self) -> Ended {
        let mut status: Option<ExitStatus> = None;
        wait_until("contentmonster to end", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        self.readers.drain(..).for_each(|reader| reader.join().unwrap());
        let text = |lines: &Lines| lines.lock().unwrap().join("\n");
        Ended { code: status.and_then(|status| status.code()), stdout: text(&self.stdout), stderr: text(&self.stderr) }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            println!("--- contentmonster's output\n{}", self.stdout.lock().unwrap().join("\n"));
            println!("--- contentmonster's log\n{}", self.stderr.lock().unwrap().join("\n"));
        }
    }
}

impl Ended {
    /// Whether one line of its output holds all of these words, whatever their case.
    pub(crate) fn says(&self, words: &[&str]) -> bool {
        let words: Vec<_> = words.iter().map(|word| word.to_lowercase()).collect();
        let lines = self.stdout.lines().chain(self.stderr.lines()).map(str::to_lowercase);
        lines.into_iter().any(|line| words.iter().all(|word| line.contains(word)))
    }

    /// Fails the test, with everything it wrote, unless one line holds all of these words.
    #[track_caller]
    pub(crate) fn must_say(&self, words: &[&str]) {
        assert!(self.says(words), "no line with {words:?} in\n{}\n{}", self.stdout, self.stderr);
    }
}

fn collect(from: impl Read + Send + 'static, to: Lines) -> JoinHandle<()> {
    std::thread::spawn(move || {
        for line in BufReader::new(from).split(b'\n').map_while(Result::ok) {
            to.lock().unwrap().push(String::from_utf8_lossy(&line).into_owned());
        }
    })
}
