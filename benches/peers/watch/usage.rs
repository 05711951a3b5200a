//! What processes use, as `/proc` tells it (proc(5)).

use std::fs;
use std::time::Duration;

/// What a process uses, with its descendants.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    /// User and system time of the process and its living descendants, each with the children it has waited for.
    pub(crate) cpu: Duration,
    /// The sum of the highest resident sizes of the process and its living descendants, bytes. 0 once it has ended.
    pub(crate) peak: u64,
    /// What is resident now, of the same processes, bytes.
    pub(crate) resident: u64,
    /// Bytes that it got from `read` and its kin, whatever they read from.
    pub(crate) read: u64,
}

impl Usage {
    /// Of a running process, or of one that has ended and is not reaped yet.
    pub(super) fn of(pid: u32) -> Self {
        let mut usage = Self { read: field(&proc(pid, "io"), "rchar:"), ..Self::default() };
        for pid in std::iter::once(pid).chain(descendants(pid)) {
            let status = proc(pid, "status");
            usage.cpu += cpu(pid);
            usage.peak += field(&status, "VmHWM:") << 10;
            usage.resident += field(&status, "VmRSS:") << 10;
        }
        usage
    }
}

fn proc(pid: u32, file: &str) -> String {
    fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default()
}

/// The number behind a name at the beginning of a line; 0 if there is none.
fn field(text: &str, name: &str) -> u64 {
    let value = text.lines().find_map(|line| line.strip_prefix(name));
    value.and_then(|value| value.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

fn cpu(pid: u32) -> Duration {
    let stat = proc(pid, "stat");
    // The program's name stands in brackets and may hold anything.
    let Some((_, after_name)) = stat.rsplit_once(')') else { return Duration::ZERO };
    // utime, stime, cutime, cstime: the fields 14 to 17, of which the state is number 3.
    let ticks: u64 = after_name.split_whitespace().skip(11).take(4).filter_map(|field| field.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 1000 / rustix::param::clock_ticks_per_second().max(1))
}

/// All descendants of a process that live now.
pub(super) fn descendants(pid: u32) -> Vec<u32> {
    let mut found = children(pid);
    let mut at = 0;
    while at < found.len() {
        found.extend(children(found[at]));
        at += 1;
    }
    found
}

fn children(pid: u32) -> Vec<u32> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let lists = threads.filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
    lists.flat_map(|list| list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>()).collect()
}

/// How many TCP connections over IPv4 to this port a process's network namespace has established, seen from the client.
pub(crate) fn connections_to(pid: u32, port: u16) -> usize {
    const ESTABLISHED: &str = "01";
    let to = format!(":{port:04X}");
    let established = |line: &&str| {
        let mut fields = line.split_whitespace().skip(2);
        fields.next().is_some_and(|remote| remote.ends_with(&to)) && fields.next() == Some(ESTABLISHED)
    };
    proc(pid, "net/tcp").lines().filter(established).count()
}
