//! A fleet of very many vessels: settings of twenty lines, all connected, and what the program needs while nothing happens.
//!
//! `CONTENTMONSTER_VESSELS=1000` makes it a thousand, and measures for half a minute.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use contentmonster::embedded_vessel::{Faults, InjectedFault, Quirks, Request};

use crate::fleet::Fleet;
use crate::fleet::daemon::Daemon;
use crate::fleet::embedded::Manners;
use crate::fleet::wait::wait_until;
use crate::fleet::web::{get, page_of};

/// The most memory that a thousand idle vessels may need, in KiB.
const MEMORY_KIB: u64 = 300 << 10;

/// How long the idle program is watched.
const WATCHED: Duration = Duration::from_secs(30);

/// The type of a request for an absolute path (`SSH_FXP_REALPATH`).
const REALPATH: u8 = 16;

/// Counts the requests for absolute paths.
#[derive(Debug, Default)]
struct Counter(AtomicUsize);

impl Faults for Counter {
    fn decide(&self, request: Request<'_>) -> InjectedFault {
        if matches!(request, Request::Packet([REALPATH, ..])) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
        InjectedFault::Serve
    }
}

/// Settings of as many vessels, all of them accounts on one host.
fn settings(fleet: &Fleet, number: usize) -> String {
    let hub = fleet.vessel("hub");
    let (port, shore, remote) = (hub.port(), fleet.path("shore").display().to_string(), hub.remote("fleet"));
    format!(
        "[MONSTER]
Listen = 127.0.0.1:0

[DEFAULT]
Address = 127.0.0.1
Port = {port}
Username = root
TempDir = {remote}/temp/{{vessel}}

[Directory in]
Location = {shore}/in
RemoteLocation = {remote}/{{group}}/{{vessel}}
SettleTime = 300ms

[Group fleet]
Timeout = 60s

[Vessel ship{{0001..{number:04}}}]
Groups = fleet
"
    )
}

/// A line of `/proc/PID/status`, in KiB.
fn memory(daemon: &Daemon, field: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with(field)).expect("the kernel counts it");
    line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("a number of KiB")
}

/// The processor time that the program has used.
fn processor_time(daemon: &Daemon) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{}/stat", daemon.pid())).unwrap();
    // Fields 14 and 15 (proc(5)); the second may contain blanks.
    let (_, rest) = stat.rsplit_once(") ").unwrap();
    let ticks: u64 = rest.split(' ').skip(11).take(2).map(|ticks| ticks.parse::<u64>().unwrap()).sum();
    let per_second = rustix::param::clock_ticks_per_second();
    Duration::from_millis(ticks * 1000 / per_second)
}

#[test]
fn very_many_vessels_of_twenty_lines_are_connected_and_cost_little_while_idle() {
    let wanted = std::env::var("CONTENTMONSTER_VESSELS").ok();
    let number: usize = wanted.as_deref().map_or(20, |number| number.parse().expect("a number"));
    let counter = Arc::new(Counter::default());
    let manners = Manners { faults: counter.clone(), quirks: Quirks::default(), shell: false, rooted: false };
    let Some(fleet) = Fleet::new().embedded("hub", manners).start() else { return };
    let text = settings(&fleet, number);
    assert!(text.lines().count() <= 20, "{} lines", text.lines().count());
    fleet.write_settings(&text);
    let started = Instant::now();
    let daemon = fleet.run();
    let page = page_of(&daemon);
    let connected = || {
        // Each answer costs the program time, which it needs for its logins.
        std::thread::sleep(Duration::from_millis(300));
        let metrics = get(&page, "/metrics").body;
        metrics
            .lines()
            .filter(|line| line.starts_with("contentmonster_vessel_connected{") && line.ends_with(" 1"))
            .count()
    };
    wait_until("all to be connected", || connected() == number);
    println!("{number} vessels are connected after {:.1} s", started.elapsed().as_secs_f64());
    if wanted.is_some() {
        std::thread::sleep(Duration::from_secs(10));
        let (began, before) = (Instant::now(), processor_time(&daemon));
        std::thread::sleep(WATCHED);
        let used = processor_time(&daemon) - before;
        let share = used.as_secs_f64() / began.elapsed().as_secs_f64() * 100.0;
        println!(
            "idle: {:.1} MiB resident, {:.1} MiB at most, {share:.1} % of a core",
            memory(&daemon, "VmRSS:") as f64 / 1024.0,
            memory(&daemon, "VmHWM:") as f64 / 1024.0
        );
    }
    let resident = memory(&daemon, "VmRSS:");
    assert!(resident <= MEMORY_KIB, "{resident} KiB");
    fleet.put("chart", b"chart");
    let place = fleet.vessel("hub").path("fleet/fleet");
    let arrived = || {
        (1..=number)
            .filter(|at| fs::read(place.join(format!("ship{at:04}/chart"))).is_ok_and(|held| held == b"chart"))
            .count()
    };
    wait_until("all to have the chart", || arrived() == number);
    fleet.wait_until_retired("chart");
    // Vessels with one account are compared with each other, which must not cost a request for each pair.
    let asked = counter.0.load(Ordering::Relaxed);
    assert!(asked <= 4 * number, "{asked} requests for absolute paths of {number} vessels");
    daemon.terminate();
}
