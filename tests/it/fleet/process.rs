//! Processes of the tests: started so that they end with the test, found by parentage, signalled by number.

use std::fs;
use std::process::Command;

use rustix::process::{Pid, Signal};

/// A command that is killed by the kernel when the test's thread ends, even when the test run itself is killed.
///
/// Each wrapper replaces itself by the next program, so the child's number is the program's own.
pub(crate) fn tied_command(program: &str) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "SIGKILL", "--", program]);
    command
}

/// Sends a signal; a process that has just ended is no error.
pub(crate) fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _ = rustix::process::kill_process(pid, signal);
    }
}

/// Whether a process catches a signal, which a just started program does after a moment. An ended one counts as if.
pub(crate) fn catches(pid: u32, which: Signal) -> bool {
    let Ok(status) = fs::read_to_string(format!("/proc/{pid}/status")) else { return true };
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).map(str::trim);
    status.contains("State:\tZ") || caught.is_some_and(|bits| has_signal(bits, which))
}

/// Whether a set of signals as the kernel writes it, in hexadecimal, holds one of them.
fn has_signal(bits: &str, which: Signal) -> bool {
    let bits = u64::from_str_radix(bits, 16).expect("the kernel writes hexadecimal");
    bits >> (which.as_raw() - 1) & 1 == 1
}

/// The children of a process, by number.
pub(crate) fn children(parent: u32) -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| parent_of(*pid) == Some(parent)).collect()
}

/// All descendants of a process, parents first.
pub(crate) fn descendants(parent: u32) -> Vec<u32> {
    let mut found = children(parent);
    let mut at = 0;
    while at < found.len() {
        found.extend(children(found[at]));
        at += 1;
    }
    found
}

/// Whether a process has ended, waited for or not.
pub(crate) fn has_ended(pid: u32) -> bool {
    stat(pid, 0).is_none_or(|state| state == "Z")
}

/// The name of the program that a process runs.
pub(crate) fn program_of(pid: u32) -> Option<String> {
    fs::read_to_string(format!("/proc/{pid}/comm")).ok().map(|name| name.trim_end().to_owned())
}

fn parent_of(pid: u32) -> Option<u32> {
    stat(pid, 1)?.parse().ok()
}

/// A field of `/proc/<pid>/stat`, counted from the state, which is 0.
fn stat(pid: u32, field: usize) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The program's name stands in brackets and may hold spaces and brackets itself.
    let after_name = &stat[stat.rfind(')')? + 1..];
    after_name.split_whitespace().nth(field).map(str::to_owned)
}

/// Whether mount namespaces can be made, which all servers need; says aloud what is skipped when not.
pub(crate) fn can_mount() -> bool {
    let root = rustix::process::geteuid().is_root();
    let try_out = || Command::new("unshare").args(["--mount", "--pid", "--fork", "--mount-proc", "true"]).output();
    let possible = root && try_out().is_ok_and(|out| out.status.success());
    if !possible {
        let test = std::thread::current().name().unwrap_or("a test").to_owned();
        // Straight to the terminal: the test harness swallows what a passing test prints.
        let message =
            format!("\n!!! SKIPPED {test}: it starts real servers in mount namespaces; run the tests as root\n");
        let _ = std::io::Write::write_all(&mut std::io::stderr(), message.as_bytes());
    }
    possible
}
