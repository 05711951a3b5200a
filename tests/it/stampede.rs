//! Many vessels on one host whose logins are expensive: they take turns, all are connected, and none has to begin anew.
//!
//! `CONTENTMONSTER_LOGINS=200` makes it two hundred vessels that get 20 MiB each, half a second of a processor for each
//! start of a shell.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use crate::fleet::Fleet;
use crate::fleet::content::{MIB, content};
use crate::fleet::daemon::Daemon;

/// How much of it.
struct Size {
    vessels: usize,
    /// Seconds of CPU, of the user and the kernel, that each start of a shell takes.
    burn: f64,
    timeout: &'static str,
    files: u64,
    bytes: usize,
    deadline: Duration,
}

fn size() -> Size {
    match std::env::var("CONTENTMONSTER_LOGINS").ok().map(|number| number.parse().expect("a number of vessels")) {
        Some(vessels) => Size {
            vessels,
            burn: 0.5,
            timeout: "10s",
            files: 20,
            bytes: MIB,
            deadline: Duration::from_secs(5 * vessels as u64),
        },
        None => Size {
            vessels: 40,
            burn: 0.2,
            timeout: "5s",
            files: 3,
            bytes: MIB / 16,
            deadline: Duration::from_secs(120),
        },
    }
}

fn account(number: usize) -> String {
    format!("v{number}")
}

/// Gives the vessel `host` as many accounts as there are to be vessels, with a shell that takes its time.
fn add_accounts(fleet: &Fleet, size: &Size) {
    let host = fleet.vessel("host");
    let shell = host.etc("slow-shell");
    // It asks for the time now and then: asked again and again, the kernel would take several times as much.
    let burn = format!(
        "#!/bin/sh\nperl -e 'do {{ $n++ for 1..20000; ($user, $kernel) = times }} while $user + $kernel < {}'\n\
         exec /bin/sh \"$@\"\n",
        size.burn
    );
    fs::write(&shell, burn).unwrap();
    fs::set_permissions(&shell, fs::Permissions::from_mode(0o755)).unwrap();
    let (mut passwd, mut shadow) = (String::new(), String::new());
    for name in (0..size.vessels).map(account) {
        passwd.push_str(&format!("{name}:x:0:0:{name}:/root:{}\n", shell.display()));
        shadow.push_str(&format!("{name}:*:20000:0:99999:7:::\n"));
    }
    for (file, more) in [("passwd", passwd), ("shadow", shadow)] {
        let text = fs::read_to_string(host.etc(file)).unwrap();
        fs::write(host.etc(file), text + &more).unwrap();
    }
    // As most hosts have it.
    host.configure("MaxStartups 10:30:100");
}

/// Has the settings name a vessel for each account; `way` are further lines for each.
fn name_vessels(fleet: &Fleet, size: &Size, way: &str) {
    let text = fs::read_to_string(fleet.settings()).unwrap();
    let mut text = text.split("[Vessel ").next().unwrap().to_owned();
    let host = fleet.vessel("host");
    for name in (0..size.vessels).map(account) {
        text.push_str(&format!(
            "[Vessel {name}]\nAddress = 127.0.0.1\nPort = {}\nUsername = {name}\nTempDir = {}\nRemoteLocation.in = {}\n\
             Timeout = {}\n{way}\n",
            host.port(),
            host.remote("temp/parts"),
            host.remote(&format!("in/{name}")),
            size.timeout,
        ));
    }
    fleet.write_settings(&text);
}

/// How often each account of the vessel `host` was logged in to.
fn logins(fleet: &Fleet) -> HashMap<String, usize> {
    let mut logins = HashMap::new();
    for line in fs::read_to_string(fleet.path("vessels/host/log")).unwrap().lines() {
        if let Some((_, rest)) = line.split_once("Accepted publickey for ") {
            *logins.entry(rest.split(' ').next().unwrap().to_owned()).or_default() += 1;
        }
    }
    logins
}

fn wait_for_all(daemon: &Daemon, size: &Size, what: &str, so: impl Fn(usize) -> bool) -> Duration {
    let since = Instant::now();
    let mut missing: Vec<usize> = (0..size.vessels).collect();
    while !missing.is_empty() {
        missing.retain(|number| !so(*number));
        assert!(
            since.elapsed() < size.deadline,
            "{} of {} vessels not {what} after {:?}:\n{}",
            missing.len(),
            size.vessels,
            since.elapsed(),
            daemon.log().iter().filter(|line| !line.contains(" INFO ")).cloned().collect::<Vec<_>>().join("\n"),
        );
        std::thread::sleep(Duration::from_millis(100));
    }
    since.elapsed()
}

/// Delivers to all, and fails the test unless each has everything and nobody logged in again and again.
fn deliver_to_all(fleet: &Fleet, size: &Size) {
    let files: Vec<_> = (0..size.files).map(|n| (format!("file{n}"), content(n, size.bytes))).collect();
    files.iter().for_each(|(name, bytes)| fleet.put(name, bytes));
    let since = Instant::now();
    let daemon = fleet.run();
    let log = |words: &[&str]| daemon.log().iter().filter(|line| words.iter().all(|word| line.contains(word))).count();
    let connected = wait_for_all(&daemon, size, "connected", |number| {
        logins(fleet).contains_key(&account(number)) || log(&[&format!("vessel={}", account(number)), "Connected"]) > 0
    });
    let place = fleet.vessel("host").path("in");
    wait_for_all(&daemon, size, "served", |number| {
        let held = |name: &str| fs::metadata(place.join(account(number)).join(name)).map_or(0, |found| found.len());
        files.iter().all(|(name, bytes)| held(name) == bytes.len() as u64)
    });
    let served = since.elapsed();
    for number in [0, size.vessels / 2, size.vessels - 1] {
        for (name, bytes) in &files {
            assert!(fs::read(place.join(account(number)).join(name)).unwrap() == *bytes, "{name} on {number}");
        }
    }
    let logins = logins(fleet);
    let most = logins.values().max().copied().unwrap_or(0);
    println!(
        "{} vessels connected in {connected:?}, served in {served:?}; {} logins, at most {most} each, {} MiB of memory",
        size.vessels,
        logins.values().sum::<usize>(),
        daemon.peak_memory_kib() >> 10,
    );
    assert_eq!(logins.len(), size.vessels);
    assert!(most <= 2, "{logins:?}");
    daemon.terminate();
}

#[test]
fn many_vessels_on_one_host_with_a_slow_shell_take_turns_to_log_in() {
    let Some(fleet) = Fleet::new().openssh("host").start() else { return };
    let size = size();
    add_accounts(&fleet, &size);
    name_vessels(&fleet, &size, "");
    deliver_to_all(&fleet, &size);
}

#[test]
fn many_vessels_behind_one_hop_take_turns_to_log_in_at_both() {
    let Some(fleet) = Fleet::new().openssh("host").openssh("hop").start() else { return };
    let size = size();
    add_accounts(&fleet, &size);
    fleet.vessel("hop").configure("MaxStartups 10:30:100");
    let hop = format!("ProxyJump = root@127.0.0.1:{}\n", fleet.vessel("hop").port());
    name_vessels(&fleet, &size, &hop);
    deliver_to_all(&fleet, &size);
}
