//! Vessels that dial in: a real `ssh -R` to a real sshd on the shore opens a socket or a port, behind which the vessel is.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use crate::fleet::Fleet;
use crate::fleet::content::{MIB, content};
use crate::fleet::plan::FleetPlan;
use crate::fleet::port::free_port;
use crate::fleet::process::tied_command;
use crate::fleet::wait::{never_within, wait_until};

/// A tunnel that a vessel keeps; killed, as by an outage, when it is dropped.
pub(crate) struct Tunnel(Child);

impl Drop for Tunnel {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Vessels that the settings reach by `address`, behind the shore's own sshd, which is called `gate`.
struct DialIn {
    fleet: Fleet,
}

impl DialIn {
    fn start(plan: FleetPlan, vessels: &[&str], address: impl Fn(&Fleet, &str) -> String) -> Option<Self> {
        let plan = vessels.iter().fold(plan, |plan, name| plan.openssh(name)).openssh("gate").proxied();
        let fleet = plan.start()?;
        fs::create_dir(fleet.path("tunnels")).unwrap();
        fleet.vessel("gate").configure("StreamLocalBindUnlink yes\nClientAliveInterval 1\nClientAliveCountMax 2");
        let mut text = fs::read_to_string(fleet.settings()).unwrap();
        text.truncate(text.find("[Vessel gate]").unwrap());
        let mut known = String::new();
        for name in vessels {
            let vessel = fleet.vessel(name);
            let own = format!("Address = 127.0.0.1\nPort = {}\n", vessel.port());
            text = text.replace(&own, &format!("Address = {}\nHostKeyAlias = {name}\n", address(&fleet, name)));
            known += &vessel.known_hosts_line().replace(&format!("[127.0.0.1]:{}", vessel.port()), name);
        }
        fleet.write_settings(&text);
        fs::write(fleet.known_hosts(), known).unwrap();
        let dial_in = Self { fleet };
        Some(dial_in)
    }

    /// The same with a socket for each vessel.
    fn by_sockets(vessels: &[&str]) -> Option<Self> {
        Self::start(Fleet::new(), vessels, |fleet, name| format!("unix:{}", socket(fleet, name).display()))
    }

    fn dial(&self, name: &str, opening: &str) -> Tunnel {
        tunnel(&self.fleet, name, opening)
    }

    fn dial_socket(&self, name: &str) -> Tunnel {
        self.dial(name, &socket(&self.fleet, name).display().to_string())
    }
}

/// Has a vessel forward `opening`, a socket or a port on the shore, to its own sshd, through the vessel `gate`.
pub(crate) fn tunnel(fleet: &Fleet, name: &str, opening: &str) -> Tunnel {
    let gate = fleet.vessel("gate");
    let known = gate.etc("known");
    fs::write(&known, gate.known_hosts_line()).unwrap();
    let mut command = tied_command("ssh");
    command.args(["-N", "-T", "-F", "/dev/null", "-o", "ExitOnForwardFailure=yes", "-o", "BatchMode=yes"]);
    command.arg("-o").arg(format!("UserKnownHostsFile={}", known.display()));
    command.arg("-i").arg(fleet.path("home/.ssh/id_ed25519"));
    command.args(["-R", &format!("{opening}:127.0.0.1:{}", fleet.vessel(name).port())]);
    command.args(["-p", &gate.port().to_string(), "root@127.0.0.1"]);
    Tunnel(command.stdin(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
}

/// What tells a socket from an earlier one at the same path, whose inode it may have.
fn identity(path: &Path) -> Option<(u64, i64, i64)> {
    fs::metadata(path).ok().map(|found| (found.ino(), found.ctime(), found.ctime_nsec()))
}

fn socket(fleet: &Fleet, name: &str) -> PathBuf {
    fleet.path("tunnels").join(format!("{name}.sock"))
}

#[test]
fn a_vessel_is_served_while_its_tunnel_is_there() {
    let Some(dial_in) = DialIn::by_sockets(&["tern"]) else { return };
    let fleet = &dial_in.fleet;
    let files = [("small", content(1, 3000)), ("large", content(2, 25 * MIB))];
    let daemon = fleet.run();
    daemon.wait_for_log(&["tern", "away", "has not dialled in", "its socket does not exist"]);
    files.iter().for_each(|(name, bytes)| fleet.put(name, bytes));
    let tunnel = dial_in.dial_socket("tern");
    files.iter().for_each(|(name, bytes)| fleet.wait_until_served("tern", name, bytes));
    fleet.wait_until_retired("large");
    let status = fleet.call(&["status", "--json"], "");
    let status: serde_json::Value = serde_json::from_str(&status.stdout).unwrap();
    let sent = status["vessels"][0]["link_bytes"]["sent"].as_u64().unwrap();
    assert!((25 * MIB as u64..30 * MIB as u64).contains(&sent), "{sent}");
    drop(tunnel);
    daemon.wait_for_log(&["tern", "away", "the connection"]);
    daemon.terminate();
}

/// The lines of a block in the chapter that begins with `first`, without that line, up to `END` or the block's end.
fn lines_of_the_chapter(first: &str) -> String {
    let chapter = include_str!("../../docs/src/dial-in.md");
    let lines = chapter.lines().skip_while(|line| *line != first).skip(1);
    lines.take_while(|line| *line != "END" && !line.starts_with("```")).map(|line| format!("{line}\n")).collect()
}

#[test]
fn the_restricted_account_of_the_chapter_opens_sockets_and_nothing_else() {
    let Some(dial_in) = DialIn::by_sockets(&["tern"]) else { return };
    let (fleet, gate) = (&dial_in.fleet, dial_in.fleet.vessel("gate"));
    let keys = gate.etc("tunnels");
    let key = fs::read_to_string(fleet.path("home/.ssh/id_ed25519.pub")).unwrap();
    fs::write(&keys, format!("restrict,port-forwarding {key}")).unwrap();
    let account = lines_of_the_chapter("Match User tunnels");
    assert!(account.contains("StreamLocalBindUnlink yes"), "{account}");
    let account = account.replace("/etc/ssh/authorized_keys/%u", &keys.display().to_string());
    gate.replace_in_configuration("StreamLocalBindUnlink yes\n", "");
    let config = fs::read_to_string(gate.etc("sshd_config")).unwrap();
    let last = config.lines().last().unwrap().to_owned();
    gate.replace_in_configuration(&last, &format!("{last}\nMatch User root\n{account}"));
    let daemon = fleet.run();
    // The second tunnel replaces the socket that the first one left behind.
    for name in ["first", "second"] {
        let tunnel = dial_in.dial_socket("tern");
        fleet.put(name, name.as_bytes());
        fleet.wait_until_served("tern", name, name.as_bytes());
        drop(tunnel);
    }
    let mut port = dial_in.dial("tern", &free_port().to_string());
    assert!(!port.0.wait().unwrap().success(), "no port may be opened");
    let refused = |words: &[&str]| {
        let mut command = tied_command("ssh");
        command.args(["-F", "/dev/null", "-o", "BatchMode=yes", "-o", "ExitOnForwardFailure=yes"]);
        command.arg("-o").arg(format!("UserKnownHostsFile={}", gate.etc("known").display()));
        command.arg("-i").arg(fleet.path("home/.ssh/id_ed25519"));
        let output = command.args(words).stdin(Stdio::null()).output().unwrap();
        assert!(!output.status.success() && output.stdout.is_empty(), "{words:?}: {output:?}");
    };
    let port = gate.port().to_string();
    refused(&["-p", &port, "root@127.0.0.1", "id"]);
    refused(&["-p", &port, "-W", &format!("127.0.0.1:{}", fleet.vessel("tern").port()), "root@127.0.0.1"]);
    daemon.terminate();
}

#[test]
fn a_vessel_behind_a_port_is_served_when_it_returns() {
    let port = free_port();
    let address = |_: &Fleet, _: &str| format!("localhost:{port}");
    let Some(dial_in) = DialIn::start(Fleet::new(), &["tern"], address) else { return };
    let fleet = &dial_in.fleet;
    let daemon = fleet.run();
    daemon.wait_for_log(&["tern", "away", "can't be reached"]);
    for round in 0..3 {
        let name = format!("file {round}");
        fleet.put(&name, name.as_bytes());
        let tunnel = dial_in.dial("tern", &port.to_string());
        wait_until("the port to be opened", || std::net::TcpListener::bind(("127.0.0.1", port)).is_err());
        let opened = Instant::now();
        fleet.wait_until_served("tern", &name, name.as_bytes());
        println!("served {:?} after the port was opened", opened.elapsed());
        assert!(opened.elapsed() < Duration::from_secs(3), "{:?}", opened.elapsed());
        drop(tunnel);
        wait_until("the port to be closed", || std::net::TcpListener::bind(("127.0.0.1", port)).is_ok());
    }
    daemon.terminate();
}

#[test]
fn a_stale_socket_costs_nothing_and_a_new_one_is_used_at_once() {
    let Some(dial_in) = DialIn::by_sockets(&["tern"]) else { return };
    let fleet = &dial_in.fleet;
    let path = socket(fleet, "tern");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.exists(), "a listener leaves its socket behind");
    let daemon = fleet.run();
    daemon.wait_for_log(&["tern", "away", "has not dialled in", "nothing listens on its socket"]);
    fleet.put("waiting", b"waiting");
    never_within(Duration::from_secs(2), "more than one line about the tunnel", || {
        daemon.log().iter().filter(|line| line.contains("dialled in")).count() > 1
    });
    let before = identity(&path);
    let _tunnel = dial_in.dial_socket("tern");
    wait_until("the tunnel's own socket", || identity(&path).is_some_and(|now| Some(now) != before));
    let opened = Instant::now();
    fleet.wait_until_served("tern", "waiting", b"waiting");
    assert!(opened.elapsed() < Duration::from_secs(3), "{:?}", opened.elapsed());
    daemon.terminate();
}

#[test]
fn a_tunnel_whose_link_died_is_left_for_the_next_one() {
    let Some(dial_in) = DialIn::by_sockets(&["tern"]) else { return };
    let fleet = &dial_in.fleet;
    // The shore's sshd keeps dead tunnels for a long time.
    fleet.vessel("gate").replace_in_configuration("ClientAliveInterval 1", "ClientAliveInterval 600");
    let (link, path) = (fleet.vessel("gate").link(), socket(fleet, "tern"));
    let daemon = fleet.run();
    let _dead = dial_in.dial_socket("tern");
    daemon.wait_for_log(&["tern", "connected"]);
    fleet.put("first", b"first");
    fleet.wait_until_served("tern", "first", b"first");
    link.stall();
    let before = identity(&path);
    let _tunnel = dial_in.dial_socket("tern");
    wait_until("the new socket", || identity(&path).is_some_and(|now| Some(now) != before));
    let opened = Instant::now();
    fleet.put("second", b"second");
    fleet.wait_until_served("tern", "second", b"second");
    println!("served {:?} after the new socket was there", opened.elapsed());
    assert!(opened.elapsed() < Duration::from_secs(5), "{:?}", opened.elapsed());
    daemon.terminate();
}

#[test]
fn vessels_that_swap_their_sockets_are_refused_by_their_host_keys() {
    let Some(dial_in) = DialIn::by_sockets(&["tern", "gull"]) else { return };
    let fleet = &dial_in.fleet;
    let daemon = fleet.run();
    let path = |name| socket(fleet, name).display().to_string();
    let swapped = [dial_in.dial("tern", &path("gull")), dial_in.dial("gull", &path("tern"))];
    for name in ["tern", "gull"] {
        daemon.wait_for_log(&[name, "away", "shows the host key", "someone may be intercepting"]);
    }
    fleet.put("secret", b"secret");
    never_within(Duration::from_secs(2), "a file on the wrong vessel", || {
        ["tern", "gull"].iter().any(|name| fleet.held(name, "secret").is_some())
    });
    drop(swapped);
    let _right = [dial_in.dial_socket("tern"), dial_in.dial_socket("gull")];
    ["tern", "gull"].iter().for_each(|name| fleet.wait_until_served(name, "secret", b"secret"));
    daemon.terminate();
}

#[test]
fn many_vessels_that_come_and_go_get_everything() {
    let setting = |name: &str, otherwise: u64| std::env::var(name).map_or(otherwise, |text| text.parse().unwrap());
    let (count, seconds) = (setting("CONTENTMONSTER_DIALS_IN", 4), setting("CONTENTMONSTER_DIAL_SECONDS", 6));
    let names: Vec<String> = (0..count).map(|number| format!("ship{number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let Some(dial_in) = DialIn::by_sockets(&names) else { return };
    let fleet = &dial_in.fleet;
    let seed = setting("CONTENTMONSTER_SEED", u64::from(std::process::id()));
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let daemon = fleet.run();
    let mut tunnels: Vec<Option<Tunnel>> = names.iter().map(|name| Some(dial_in.dial_socket(name))).collect();
    let (start, mut files, mut cuts) = (Instant::now(), Vec::new(), 0);
    while start.elapsed() < Duration::from_secs(seconds) {
        let size = random.usize(0..200_000);
        files.push((format!("file{}", files.len()), content(files.len() as u64, size)));
        let (name, bytes) = files.last().unwrap();
        fleet.put(name, bytes);
        let which = random.usize(0..names.len());
        tunnels[which] = match tunnels[which].take() {
            Some(_) => None,
            None => Some(dial_in.dial_socket(names[which])),
        };
        cuts += 1;
        std::thread::sleep(Duration::from_millis(random.u64(20..400)));
    }
    // Each vessel returns, and its first answer is waited for.
    let mut slowest = Duration::ZERO;
    for (tunnel, name) in tunnels.iter_mut().zip(&names) {
        *tunnel = None;
        let connected = || {
            let lines = daemon.log();
            lines.iter().filter(|line| line.contains(name) && line.contains("Connected")).count()
        };
        let path = socket(fleet, name);
        let (before, times) = (identity(&path), connected());
        *tunnel = Some(dial_in.dial_socket(name));
        wait_until("the socket's return", || identity(&path).is_some_and(|now| Some(now) != before));
        let since = Instant::now();
        wait_until(&format!("{name} to be connected"), || connected() > times);
        slowest = slowest.max(since.elapsed());
    }
    println!("{cuts} cuts and returns, {} files; the slowest was connected {slowest:?} after its return", files.len());
    for name in &names {
        files.iter().for_each(|(file, bytes)| fleet.wait_until_served(name, file, bytes));
    }
    files.iter().for_each(|(file, _)| fleet.wait_until_retired(file));
    assert!(slowest < Duration::from_secs(3), "{slowest:?}");
    daemon.terminate();
}

#[test]
fn what_means_nothing_for_a_socket_is_refused_with_a_remedy() {
    let Some(fleet) = Fleet::new().openssh("tern").key("Address", "unix:/run/x/tern.sock").start() else { return };
    let checked = fleet.checked_unfit();
    checked.must_say(&["Vessel tern", "Port", "has no effect on a socket", "remove the line"]);
}
