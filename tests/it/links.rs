//! Links that others make: nothing outside a directory is sent, written, moved or given another mode, however quickly somebody
//! swaps a directory for a link and back.
//!
//! The attackers run as another user for `CONTENTMONSTER_ATTACK_SECONDS`, or 3.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, lchown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::fleet::daemon::Daemon;
use crate::fleet::wait::{never_within, wait_until};
use crate::fleet::{Fleet, names_in};

/// A user that nobody is.
const ATTACKER: u32 = 54_321;
const SECRET: &str = "nobody outside may read this";

fn seconds() -> u64 {
    std::env::var("CONTENTMONSTER_ATTACK_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(3)
}

/// A shore whose only vessel is the directory `disk/in` on this host, and a directory `outside` that only root may enter.
fn shore(directory: &str) -> Option<Fleet> {
    let fleet = Fleet::new().start()?;
    fs::create_dir_all(fleet.path("disk/in")).unwrap();
    fs::create_dir_all(fleet.path("outside/in")).unwrap();
    fs::write(outside(&fleet).join("f"), SECRET).unwrap();
    for below in ["outside", "outside/in"] {
        fs::set_permissions(fleet.path(below), fs::Permissions::from_mode(0o700)).unwrap();
    }
    // The attacker must get through to what is his.
    fs::set_permissions(fleet.path(""), fs::Permissions::from_mode(0o711)).unwrap();
    fleet.write_settings(&format!(
        "[Directory in]\nLocation = {}\nRemoteLocation = {}\nSettleTime = 50ms\nRescanInterval = 1s\n{directory}\n\
         [Vessel disk]\nAddress = localhost\nTransport = local\n",
        fleet.path("shore/in").display(),
        fleet.path("disk/in").display()
    ));
    Some(fleet)
}

fn outside(fleet: &Fleet) -> PathBuf {
    fleet.path("outside/in")
}

/// What must not change: names, modes and bytes outside.
fn picture(fleet: &Fleet) -> Vec<(PathBuf, u32, Vec<u8>)> {
    let mut found = Vec::new();
    for place in [fleet.path("outside"), outside(fleet)] {
        found.push((place.clone(), fs::metadata(&place).unwrap().mode(), Vec::new()));
        for name in names_in(&place) {
            let path = place.join(name);
            let bytes = fs::read(&path).unwrap_or_default();
            found.push((path.clone(), fs::metadata(&path).unwrap().mode(), bytes));
        }
    }
    found
}

/// Files below a directory that hold the secret; links are not followed.
fn holding_the_secret(place: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for name in names_in(place) {
        let path = place.join(name);
        let Ok(meta) = fs::symlink_metadata(&path) else { continue };
        if meta.is_dir() {
            found.extend(holding_the_secret(&path));
        } else if meta.is_file() && fs::read(&path).is_ok_and(|bytes| bytes == SECRET.as_bytes()) {
            found.push(path);
        }
    }
    found
}

/// Runs Perl as the attacker in a directory that is his, with `$out` a directory outside and `$n` to be counted, again and
/// again for as long as the attack is to last.
fn attack(fleet: &Fleet, at: &Path, each: &str) -> Child {
    let script = format!(
        "my ($out, $seconds) = @ARGV; my $end = time + $seconds; my $n = 0; while (time < $end) {{ {each} }} print $n;"
    );
    let mut command = Command::new("setpriv");
    command.args(["--reuid", "54321", "--regid", "54321", "--clear-groups", "--", "perl", "-e", &script]);
    command.arg(outside(fleet)).arg(seconds().to_string()).current_dir(at);
    command.stdout(Stdio::piped()).spawn().expect("setpriv and perl are part of every Debian")
}

/// How often the attacker did it.
fn count(attacker: Child) -> u64 {
    let ended = attacker.wait_with_output().unwrap();
    String::from_utf8_lossy(&ended.stdout).parse().unwrap_or(0)
}

fn give_to_attacker(path: &Path) {
    chown(path, Some(ATTACKER), Some(ATTACKER)).unwrap();
}

fn delivered(daemon: &Daemon) -> usize {
    daemon.log().iter().filter(|line| line.contains("delivered") && line.contains("verified")).count()
}

/// Has somebody attack while files are put into a directory; says how often, and how many files were delivered meanwhile.
fn under_attack(fleet: &Fleet, at: &Path, each: &str, put: impl Fn(u64)) -> (u64, usize) {
    let before = picture(fleet);
    let daemon = fleet.run();
    put(0);
    wait_until("the first delivery", || delivered(&daemon) > 0);
    let first = delivered(&daemon);
    let attacker = attack(fleet, at, each);
    let end = Instant::now() + Duration::from_secs(seconds());
    for number in 1.. {
        if Instant::now() >= end {
            break;
        }
        put(number);
        std::thread::sleep(Duration::from_millis(20));
    }
    let swaps = count(attacker);
    let delivered = delivered(&daemon) - first;
    daemon.terminate();
    assert_eq!(picture(fleet), before, "something outside has changed");
    let arrived = holding_the_secret(&fleet.path("disk"));
    assert!(arrived.is_empty(), "what is outside has arrived: {arrived:?}");
    (swaps, delivered)
}

fn report(what: &str, (swaps, delivered): (u64, usize)) {
    println!("{what}: {swaps} swaps, {delivered} deliveries in {} s, nothing outside was touched", seconds());
    assert!(swaps > 10, "the attacker did nothing");
}

/// Swaps the directory `a` for a link to a place outside, and back.
const SWAP: &str = "symlink($out, 'x'); rename('a', 'b'); rename('x', 'a'); select(undef, undef, undef, rand(0.02)); \
                    rename('a', 'x'); rename('b', 'a'); unlink('x'); select(undef, undef, undef, rand(0.02)); $n++;";

#[test]
fn a_directory_of_the_shore_swapped_for_a_link_again_and_again_sends_nothing_from_outside() {
    for mode in ["Mode = mirror\nLinks = copy\nDelete = yes\nMaxDelete = 100%", "Mode = mirror", ""] {
        let Some(fleet) = shore(&format!("Recursive = yes\n{mode}")) else { return };
        fs::create_dir(fleet.source("a")).unwrap();
        ["", "a"].into_iter().for_each(|below| give_to_attacker(&fleet.source(below)));
        fs::write(fleet.source("a/f"), "harmless").unwrap();
        let put = |number: u64| {
            let touched = [fleet.source("a/f"), fleet.source(format!("{number}"))];
            for (path, text) in touched.iter().zip(["harmless", "more"]) {
                // By the attacker's hand: nothing of this test may write outside.
                let quoted = format!("echo {text}{number} > '{}'", path.display());
                let by = ["--reuid", "54321", "--regid", "54321", "--clear-groups", "--", "sh", "-c", &quoted];
                Command::new("setpriv").args(by).stderr(Stdio::null()).status().unwrap();
            }
        };
        report("a directory of the shore", under_attack(&fleet, &fleet.source(""), SWAP, put));
    }
}

#[test]
fn processed_swapped_for_a_link_again_and_again_leads_no_file_and_no_mode_elsewhere() {
    let Some(fleet) = shore("") else { return };
    give_to_attacker(&fleet.source(""));
    fs::set_permissions(fleet.source(""), fs::Permissions::from_mode(0o755)).unwrap();
    let swap = "rename('processed', \"gone$n\"); symlink($out, 'processed'); select(undef, undef, undef, rand(0.02)); \
                unlink('processed'); select(undef, undef, undef, rand(0.02)); $n++;";
    let put = |number: u64| fleet.put(format!("{number}"), b"cargo");
    report("processed", under_attack(&fleet, &fleet.source(""), swap, put));
    // Once it is over, what is left retires.
    fleet.put("last", b"last");
    let daemon = fleet.run();
    fleet.wait_until_retired("last");
    daemon.terminate();
}

#[test]
fn a_directory_of_a_local_target_swapped_for_a_link_again_and_again_leads_nothing_outside() {
    let Some(fleet) = shore("Mode = mirror\nRecursive = yes\nOwner = yes") else { return };
    let target = fleet.path("disk/in");
    fs::create_dir(fleet.source("a")).unwrap();
    fs::create_dir(target.join("a")).unwrap();
    ["", "a"].into_iter().for_each(|below| give_to_attacker(&target.join(below)));
    // And names that are ours he takes: a link, a file that all may write, another name of a file of his.
    let plant = "for my $ours ($n % 10 ? () : glob('.contentmonster* a/.contentmonster* b/.contentmonster*')) { \
                 unlink($ours); if ($n % 20) { symlink(\"$out/f\", $ours) } else { open(my $f, '>', $ours) && chmod(0666, $ours) } }";
    let put = |number: u64| {
        fleet.put_at(&fleet.source(format!("a/{number}")), b"cargo", 0o600, std::time::SystemTime::now());
        fleet.put_at(&fleet.source("a/f"), number.to_string().as_bytes(), 0o666, std::time::SystemTime::now());
    };
    report("a local target", under_attack(&fleet, &target, &format!("{plant} {SWAP}"), put));
}

#[test]
fn a_file_planted_under_the_name_of_an_assembly_is_replaced_not_written_to() {
    // What is planted under the very name of the assembly, whatever that is: the attacker sees it in a first run.
    let Some(fleet) = shore("") else { return };
    let target = fleet.path("disk/in");
    give_to_attacker(&target);
    let before = picture(&fleet);
    let names: Vec<_> = (0..40).map(|number| format!("{number}")).collect();
    names.iter().for_each(|name| fleet.put_as(name, b"payroll", 0o600, std::time::SystemTime::now()));
    let daemon = fleet.run();
    let plant = "for my $ours (glob('.contentmonster*')) { unlink($ours); symlink(\"$out/f\", $ours); $n++ }";
    let attacker = attack(&fleet, &target, plant);
    let planted = count(attacker);
    wait_until("a delivery", || planted == 0 || delivered(&daemon) > 0 || daemon.logged(&["postponed"]).is_some());
    daemon.terminate();
    assert_eq!(picture(&fleet), before);
    for name in names.iter().filter(|name| target.join(name).symlink_metadata().is_ok_and(|meta| meta.is_file())) {
        assert_eq!(fs::metadata(target.join(name)).unwrap().mode() & 0o7777, 0o600, "{name}");
    }
}

#[test]
fn what_is_behind_a_link_of_the_shore_is_neither_sent_nor_kept_on_the_vessel() {
    let Some(fleet) = shore("Mode = mirror\nRecursive = yes\nDelete = yes") else { return };
    fs::create_dir(fleet.source("a")).unwrap();
    fs::write(fleet.source("a/f"), "harmless").unwrap();
    fs::write(fleet.source("other"), "other").unwrap();
    let daemon = fleet.run();
    let there = |name: &str| fs::read(fleet.path("disk/in").join(name)).ok();
    wait_until("the mirror", || there("a/f").is_some() && there("other").is_some());
    fs::rename(fleet.source("a"), fleet.path("away")).unwrap();
    symlink(outside(&fleet), fleet.source("a")).unwrap();
    wait_until("what was there to go", || !fleet.path("disk/in/a/f").exists());
    fs::write(outside(&fleet).join("g"), SECRET).unwrap();
    never_within(Duration::from_secs(2), "a secret arrives", || !holding_the_secret(&fleet.path("disk")).is_empty());
    daemon.terminate();
}

#[test]
fn a_directory_that_became_a_link_is_replaced_by_the_link() {
    let Some(fleet) = shore("Mode = mirror\nRecursive = yes\nDelete = yes\nLinks = copy") else { return };
    fs::create_dir_all(fleet.source("a/deep")).unwrap();
    ["a/f", "a/deep/g", "other"].into_iter().for_each(|name| fs::write(fleet.source(name), name).unwrap());
    let daemon = fleet.run();
    let there = fleet.path("disk/in");
    wait_until("the mirror", || ["a/f", "a/deep/g", "other"].into_iter().all(|name| there.join(name).is_file()));
    fs::rename(fleet.source("a"), fleet.path("moved")).unwrap();
    symlink(fleet.path("moved"), fleet.source("a")).unwrap();
    wait_until("the link", || fs::read_link(there.join("a")).is_ok_and(|target| target == fleet.path("moved")));
    // And back.
    fs::remove_file(fleet.source("a")).unwrap();
    fs::rename(fleet.path("moved"), fleet.source("a")).unwrap();
    wait_until("the directory", || {
        !there.join("a").is_symlink() && fs::read(there.join("a/deep/g")).is_ok_and(|bytes| bytes == b"a/deep/g")
    });
    daemon.terminate();
}

#[test]
fn a_local_target_is_not_written_to_through_a_link() {
    let Some(fleet) = shore("Mode = mirror\nRecursive = yes") else { return };
    let before = picture(&fleet);
    symlink(outside(&fleet), fleet.path("disk/in/a")).unwrap();
    fs::create_dir(fleet.source("a")).unwrap();
    fs::write(fleet.source("a/new"), "new").unwrap();
    fs::write(fleet.source("other"), "other").unwrap();
    let daemon = fleet.run();
    wait_until("the other file", || fleet.path("disk/in/other").exists());
    daemon.wait_for_log(&["parked", "a/new", "is a symbolic link", "RemoteLocation"]);
    daemon.terminate();
    assert_eq!(picture(&fleet), before);
}

#[test]
fn a_processed_that_another_made_a_link_is_refused_and_the_files_stay() {
    let Some(fleet) = shore("") else { return };
    let before = picture(&fleet);
    symlink(outside(&fleet), fleet.source("processed")).unwrap();
    lchown(fleet.source("processed"), Some(ATTACKER), Some(ATTACKER)).unwrap();
    fleet.put("file", b"cargo");
    let daemon = fleet.run();
    daemon.wait_for_log(&["cannot retire", "processed", "belongs neither to root nor to the user", "mount --bind"]);
    daemon.terminate();
    assert!(fleet.source("file").exists());
    lchown(fleet.source("processed"), Some(0), Some(0)).unwrap();
    fs::set_permissions(fleet.source(""), fs::Permissions::from_mode(0o777)).unwrap();
    let daemon = fleet.run();
    daemon.wait_for_log(&["cannot retire", "other users may write to its directory"]);
    daemon.terminate();
    assert!(fleet.source("file").exists());
    assert_eq!(picture(&fleet), before);
    fs::set_permissions(fleet.source(""), fs::Permissions::from_mode(0o755)).unwrap();
    let daemon = fleet.run();
    fleet.wait_until_retired("file");
    daemon.terminate();
    assert!(outside(&fleet).join("file").exists(), "the operator's link is followed");
}

#[test]
fn check_says_who_else_may_write_to_a_location() {
    let Some(fleet) = shore("Mode = mirror\nLinks = follow") else { return };
    let check = || fleet.call(&["check"], "").stdout;
    fs::set_permissions(fleet.source(""), fs::Permissions::from_mode(0o755)).unwrap();
    assert!(!check().contains("is writable by"), "{}", check());
    fs::set_permissions(fleet.source(""), fs::Permissions::from_mode(0o777)).unwrap();
    assert!(check().contains("is writable by all users") && check().contains("with `Links = follow`"), "{}", check());
    fs::set_permissions(fleet.source(""), fs::Permissions::from_mode(0o755)).unwrap();
    give_to_attacker(&fleet.source(""));
    assert!(check().contains("is writable by its owner (user 54321)"), "{}", check());
}
