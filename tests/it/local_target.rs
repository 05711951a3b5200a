//! `Transport = local`: a directory on this host, or a disk that is mounted here, is served as any vessel is.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use contentmonster::settings::{Environment, Settings};

use crate::fleet::content::{MIB, content};
use crate::fleet::daemon::Daemon;
use crate::fleet::namespace::Mounts;
use crate::fleet::tree::{differences, tree};
use crate::fleet::wait::{DEADLINE, never_within, wait_until};
use crate::fleet::{Fleet, at_second, mode_and_mtime, names_in};

/// A shore whose only vessel is the directory `disk/in` on this host; more lines for either section.
fn shore(directory: &str, vessel: &str) -> Option<Fleet> {
    let fleet = Fleet::new().start()?;
    fs::create_dir_all(place(&fleet)).unwrap();
    set(&fleet, directory, vessel);
    Some(fleet)
}

fn set(fleet: &Fleet, directory: &str, vessel: &str) {
    fleet.write_settings(&format!(
        "[MONSTER]\nChunkSize = 1 MiB\n[Directory in]\nLocation = {}\nRemoteLocation = {}\nSettleTime = 300ms\n{directory}\n\
         [Vessel disk]\nAddress = localhost\nTransport = local\n{vessel}\n",
        fleet.path("shore/in").display(),
        place(fleet).display()
    ));
}

fn place(fleet: &Fleet) -> PathBuf {
    fleet.path("disk/in")
}

#[track_caller]
fn assert_same(fleet: &Fleet, name: impl AsRef<OsStr>, bytes: &[u8]) {
    let name = name.as_ref();
    let held = fs::read(place(fleet).join(name)).unwrap_or_else(|e| panic!("{name:?}: {e}"));
    assert!(held == bytes, "{name:?} holds other bytes ({}, not {})", held.len(), bytes.len());
}

#[track_caller]
fn wait_until_equal(fleet: &Fleet) {
    let mut last = Vec::new();
    let start = std::time::Instant::now();
    while start.elapsed() < DEADLINE {
        last = differences(&tree(&fleet.path("shore/in")), &tree(&place(fleet)));
        if last.is_empty() {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("the target differs from the shore:\n{}", last.join("\n"));
}

#[test]
fn files_of_any_name_and_size_are_copied_verified_and_retired() {
    let Some(fleet) = shore("", "") else { return };
    let odd = OsStr::from_bytes(b"-odd 'name'\n\xff\xfe");
    let files = [
        (odd, content(1, 10_000)),
        (OsStr::new("empty"), Vec::new()),
        (OsStr::new("chunks"), content(2, 5 * MIB + 17)),
        (OsStr::new("hollow"), [content(3, MIB), vec![0; 3 * MIB], content(4, 1000)].concat()),
    ];
    for (name, bytes) in &files {
        fleet.put_as(name, bytes, 0o640, at_second(1_500_000_000));
    }
    let ended = fleet.once();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    for (name, bytes) in &files {
        assert_same(&fleet, name, bytes);
        assert_eq!(mode_and_mtime(&place(&fleet).join(name)), (0o640, 1_500_000_000), "{name:?}");
        assert!(fleet.retired(name).exists() && !fleet.source(name).exists(), "{name:?}");
    }
    assert_eq!(names_in(&place(&fleet)).len(), files.len(), "nothing else is left there");
    let receipts = fleet.call(&["receipts", "--csv"], "");
    assert!(receipts.stdout.contains("chunks") && receipts.stdout.contains("disk"), "{receipts:?}");
    let why = fleet.call(&["why", "chunks"], "");
    assert_eq!(why.code, Some(0), "{why:?}");
}

#[test]
fn hundreds_of_small_files_are_copied() {
    let Some(fleet) = shore("", "") else { return };
    let files = 600;
    (0..files).for_each(|n| fs::write(fleet.source(n.to_string()), content(n, 500)).unwrap());
    let ended = fleet.once();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    (0..files).for_each(|n| assert_same(&fleet, n.to_string(), &content(n, 500)));
}

#[test]
fn check_status_and_simulate_know_it() {
    let Some(fleet) = shore("", "") else { return };
    fleet.put("cargo", b"cargo");
    let check = fleet.call(&["check"], "");
    assert_eq!(check.code, Some(0), "{check:?}");
    assert!(check.stdout.contains("this host, without SSH") && check.stdout.contains("MiB free"), "{check:?}");
    let simulated = fleet.call(&["--simulate"], "");
    assert!(simulated.stdout.contains("send to disk"), "{simulated:?}");
    assert!(names_in(&place(&fleet)).is_empty());
    let trust = fleet.call(&["trust", "disk"], "");
    assert!(trust.stderr.contains("no host key"), "{trust:?}");
    assert_eq!(fleet.once().code, Some(0));
    let status = fleet.call(&["status"], "");
    assert!(status.code == Some(0) && status.stdout.contains("disk"), "{status:?}");
    // No byte of it was on a link.
    let status = fleet.call(&["status", "--json"], "").stdout;
    assert!(status.contains("\"link_bytes\": null") && status.contains("\"link_bytes_today\": null"), "{status}");
    let receipts = fleet.call(&["receipts", "--json"], "").stdout;
    assert!(receipts.contains("\"written_bytes\":null,\"link_bytes\":null"), "{receipts}");
}

#[test]
fn a_mirror_follows_with_links_modes_and_deletions() {
    let mirror = "Mode = mirror\nRecursive = yes\nDelete = yes\nLinks = copy";
    let Some(fleet) = shore(mirror, "") else { return };
    fs::create_dir_all(fleet.source("sub/empty")).unwrap();
    fleet.put_as("sub/file", b"one", 0o600, at_second(1_400_000_000));
    fleet.put("keeper", b"stays");
    symlink("sub/file", fleet.source("link")).unwrap();
    let daemon = fleet.run();
    wait_until_equal(&fleet);
    fleet.put_as("sub/file", b"two and more", 0o755, at_second(1_400_000_001));
    fs::remove_file(fleet.source("link")).unwrap();
    fs::remove_dir(fleet.source("sub/empty")).unwrap();
    fs::write(fleet.source("sub/empty"), b"a file by now").unwrap();
    fs::create_dir(fleet.source("link")).unwrap();
    fs::write(fleet.source("link/below"), b"a directory by now").unwrap();
    wait_until_equal(&fleet);
    assert!(daemon.logged(&["warn"]).is_none(), "{:?}", daemon.log());
    daemon.terminate();
}

#[test]
fn only_what_was_delivered_from_here_is_deleted() {
    let Some(fleet) = shore("Mode = mirror\nDelete = yes", "") else { return };
    ["ours", "changed", "keeper"].iter().for_each(|name| fleet.put(name, b"ours"));
    fs::write(place(&fleet).join("theirs"), b"theirs").unwrap();
    let daemon = fleet.run();
    wait_until("the files", || names_in(&place(&fleet)) == ["changed", "keeper", "ours", "theirs"]);
    fs::write(place(&fleet).join("changed"), b"changed there").unwrap();
    ["ours", "changed"].iter().for_each(|name| fs::remove_file(fleet.source(name)).unwrap());
    daemon.wait_for_log(&["kept on the vessel", "changed"]);
    wait_until("the deletion", || names_in(&place(&fleet)) == ["changed", "keeper", "theirs"]);
    daemon.terminate();
}

#[test]
fn a_changed_file_is_copied_whole_or_where_that_is_wished_as_a_delta() {
    for (wish, is_delta) in [("auto", false), ("yes", true)] {
        let Some(fleet) = shore(&format!("Mode = mirror\nDelta = {wish}"), "") else { return };
        let daemon = fleet.run_logging("contentmonster=debug");
        let mut bytes = content(5, 8 * MIB);
        fleet.put("big", &bytes);
        let there = place(&fleet).join("big");
        // Once it is there, it still has to be acknowledged: what is changed before that was never delivered.
        daemon.wait_for_log(&["delivered", "big"]);
        assert!(fs::read(&there).unwrap() == bytes);
        bytes[4 * MIB..4 * MIB + 1000].copy_from_slice(&content(6, 1000));
        fleet.put("big", &bytes);
        wait_until("the second version", || fs::read(&there).is_ok_and(|held| held == bytes));
        assert_eq!(
            daemon.logged(&["compared a file with one on the vessel", "is_worth_it=true"]).is_some(),
            is_delta,
            "{wish}"
        );
        daemon.terminate();
    }
}

#[test]
fn a_full_disk_is_named_with_numbers_and_waited_for() {
    let Some(fleet) = shore("", "") else { return };
    let daemon = fleet.run_with(&Mounts::default().tmpfs("8m", &place(&fleet)));
    fleet.put("first", b"first");
    fleet.wait_until_retired("first");
    let there = daemon.seen(&place(&fleet));
    fs::write(there.join("ballast"), content(1, 7 * MIB)).unwrap();
    let big = content(2, 3 * MIB);
    fleet.put("cargo", &big);
    daemon.wait_for_log(&["full", "bytes are free", "bytes are needed", "free some space there"]);
    assert!(fleet.source("cargo").exists());
    fs::remove_file(there.join("ballast")).unwrap();
    fleet.wait_until_retired("cargo");
    assert!(fs::read(there.join("cargo")).unwrap() == big);
    assert!(names_in(&place(&fleet)).is_empty(), "nothing was written beside the mounted disk");
    daemon.terminate();
}

#[test]
fn a_place_that_is_not_there_is_waited_for_and_never_made() {
    let Some(fleet) = shore("", "") else { return };
    fs::remove_dir_all(fleet.path("disk")).unwrap();
    fleet.put("cargo", b"cargo");
    let once = fleet.once();
    assert_eq!(once.code, Some(1), "{once:?}");
    assert!(once.stderr.contains("does not exist") && once.stderr.contains("mount its disk"), "{once:?}");
    let daemon = fleet.run();
    daemon.wait_for_log(&["away", "disk/in", "does not exist"]);
    assert!(!fleet.path("disk").exists());
    assert!(fleet.call(&["status"], "").stdout.contains("does not exist"));
    fs::create_dir_all(place(&fleet)).unwrap();
    fleet.wait_until_retired("cargo");
    assert_same(&fleet, "cargo", b"cargo");
    // Taken away under the running program, and put back.
    fs::rename(fleet.path("disk"), fleet.path("elsewhere")).unwrap();
    fleet.put("more", b"more");
    wait_until("it to be missed", || daemon.log().iter().filter(|line| line.contains("Away:")).count() > 1);
    assert!(!fleet.path("disk").exists());
    fs::rename(fleet.path("elsewhere"), fleet.path("disk")).unwrap();
    fleet.wait_until_retired("more");
    daemon.terminate();
}

/// Runs a command among the mounts that a daemon sees.
#[track_caller]
fn among_mounts_of(daemon: &Daemon, command: &[&str]) {
    let target = format!("--target={}", daemon.pid());
    let status = Command::new("nsenter").arg(target).args(["--mount", "--"]).args(command).status().unwrap();
    assert!(status.success(), "{command:?}: {status}");
}

#[test]
fn a_disk_that_is_not_mounted_is_not_written_beside() {
    let Some(fleet) = shore("", "") else { return };
    set(&fleet, "", &format!("MountPoint = {}", place(&fleet).display()));
    fleet.put("cargo", b"cargo");
    let daemon = fleet.run();
    daemon.wait_for_log(&["away", "nothing is mounted at"]);
    let at = place(&fleet);
    let mount = ["mount", "-t", "tmpfs", "tmpfs", at.to_str().unwrap()];
    among_mounts_of(&daemon, &mount);
    fleet.wait_until_retired("cargo");
    // Unmounted while nothing is under way: nothing of ours keeps it busy.
    among_mounts_of(&daemon, &["umount", at.to_str().unwrap()]);
    fleet.put("more", b"more");
    wait_until("it to be missed", || {
        daemon.log().iter().filter(|line| line.contains("nothing is mounted")).count() > 1
    });
    never_within(Duration::from_secs(1), "a write beside the disk", || !names_in(&place(&fleet)).is_empty());
    among_mounts_of(&daemon, &mount);
    fleet.wait_until_retired("more");
    assert_eq!(names_in(&daemon.seen(&place(&fleet))), ["more"]);
    assert!(names_in(&place(&fleet)).is_empty());
    daemon.terminate();
}

#[test]
fn killed_again_and_again_it_goes_on_where_it_was() {
    let Some(fleet) = shore("", "RateLimit = 8 MiB/s") else { return };
    let big = content(7, 24 * MIB);
    fleet.put("big", &big);
    let assembly = || {
        let names = names_in(&place(&fleet));
        let name = names.iter().find(|name| name.as_bytes().starts_with(b".contentmonster"))?;
        fs::metadata(place(&fleet).join(name)).ok().map(|meta| meta.len())
    };
    let mut reached = 0;
    for _ in 0..5 {
        let daemon = fleet.run();
        wait_until("some of it", || {
            assembly().is_some_and(|now| now > reached + MIB as u64) || place(&fleet).join("big").exists()
        });
        daemon.kill9();
        let now = assembly().unwrap_or(big.len() as u64);
        assert!(now >= reached, "it began anew: {now} < {reached}");
        reached = now;
    }
    let daemon = fleet.run();
    fleet.wait_until_retired("big");
    assert_same(&fleet, "big", &big);
    assert_eq!(names_in(&place(&fleet)), ["big"]);
    daemon.terminate();
}

#[test]
fn a_single_file_goes_to_a_path_of_its_own() {
    let Some(fleet) = shore("", "") else { return };
    let (source, target) = (fleet.path("shore/one.conf"), fleet.path("disk/in/other.conf"));
    fs::write(&source, b"one").unwrap();
    fleet.write_settings(&format!(
        "[Directory in]\nLocation = {}\nRemoteLocation = {}\nMode = mirror\nSettleTime = 100ms\n\
         [Vessel disk]\nAddress = localhost\nTransport = local\n",
        source.display(),
        target.display()
    ));
    assert_eq!(fleet.call(&["check"], "").code, Some(0));
    let daemon = fleet.run();
    wait_until("the file", || fs::read(&target).is_ok_and(|held| held == b"one"));
    fs::write(&source, b"another").unwrap();
    wait_until("the change", || fs::read(&target).is_ok_and(|held| held == b"another"));
    daemon.terminate();
}

#[test]
fn a_target_that_leads_into_a_source_is_refused() {
    let Some(fleet) = shore("", "") else { return };
    fs::remove_dir(place(&fleet)).unwrap();
    fs::create_dir(fleet.source("inside")).unwrap();
    symlink(fleet.source("inside"), place(&fleet)).unwrap();
    fleet.put("cargo", b"cargo");
    let once = fleet.once();
    assert!(once.stderr.contains("overlaps with"), "{once:?}");
    assert!(names_in(&fleet.source("inside")).is_empty());
}

#[test]
fn what_cannot_be_written_is_parked_and_delays_nothing_else() {
    let Some(fleet) = shore("", "") else { return };
    fs::create_dir(place(&fleet).join("taken")).unwrap();
    fleet.put("taken", b"a directory has its name");
    fleet.put("free", b"free");
    let daemon = fleet.run();
    fleet.wait_until_retired("free");
    daemon.wait_for_log(&["parked", "taken", "is a directory"]);
    assert!(fleet.source("taken").exists());
    fs::set_permissions(place(&fleet), fs::Permissions::from_mode(0o755)).unwrap();
    daemon.terminate();
}

/// What the settings check says, without the path of the file.
fn problems(text: &str) -> String {
    let environment =
        Environment { user: Some("ann".into()), home: Some("/home/ann".into()), ..Environment::default() };
    match Settings::parse(text, Path::new("/etc/cm/settings.ini"), &environment) {
        Ok(settings) => settings.warnings.join("\n").replace("/etc/cm/", ""),
        Err(e) => e.to_string().replace("/etc/cm/", ""),
    }
}

#[test]
fn the_settings_check_refuses_what_cannot_be_meant() {
    let text = "[DEFAULT]
Connections = 3
[Directory same]
Location = /srv/same
[Directory within]
Location = /srv/within
RemoteLocation = /srv/within/copy
[Directory around]
Location = /srv/around/deep
RemoteLocation = copies
[Vessel disk]
Address = example.com
Transport = local
Port = 22
Compression = yes
TempDir = /var/tmp/x
RemoteLocation.around = /srv/around
[Vessel mounted]
Address = localhost
Transport = local
MountPoint = /mnt/disk
Dirs = around
RemoteLocation.around = /mnt/other
[Vessel loose]
Address = localhost
Transport = local
Dirs = around
[Vessel odd]
Address = localhost
Transport = pigeon
";
    insta::assert_snapshot!(problems(text), @r"
    settings.ini:3: [Directory same] RemoteLocation: /srv/same on this host overlaps with the Location of [Directory same], /srv/same; set `RemoteLocation.same` in [Vessel disk] to a path outside of all Locations
    settings.ini:5: [Directory within] RemoteLocation: /srv/within/copy on this host overlaps with the Location of [Directory within], /srv/within; set `RemoteLocation.within` in [Vessel disk] to a path outside of all Locations
    settings.ini:8: [Directory around] RemoteLocation: `copies` is relative, and Transport = local has no login directory; set `RemoteLocation.around` in [Vessel loose] to an absolute path
    settings.ini:11: [Vessel disk] RemoteLocation.around: /srv/around on this host overlaps with the Location of [Directory around], /srv/around/deep; set `RemoteLocation.around` in [Vessel disk] to a path outside of all Locations
    settings.ini:12: [Vessel disk] Address: with Transport = local, files are copied on this host, so no other address can be used; write `Address = localhost`
    settings.ini:14: [Vessel disk] Port: has no effect with Transport = local, which uses no SSH; remove the line
    settings.ini:15: [Vessel disk] Compression: has no effect with Transport = local, which uses no SSH; remove the line
    settings.ini:18: [Vessel mounted] RemoteLocation.around: /mnt/other is not below the MountPoint of [Vessel mounted], /mnt/disk; set `RemoteLocation.around` in [Vessel mounted] to a path below /mnt/disk
    settings.ini:30: [Vessel odd] Transport: invalid value `pigeon`; expected ssh or local
    ");
}

#[test]
fn a_sound_local_target_takes_nothing_of_ssh_from_the_defaults() {
    let text = "[DEFAULT]
Connections = 3
Username = bob
[Directory d]
Location = /srv/d
RemoteLocation = /mnt/disk/d
[Vessel disk]
Address = localhost
Transport = local
MountPoint = /mnt/disk
TempDir = /var/tmp/x
[Vessel far]
Address = example.com
MountPoint = /mnt/disk
";
    insta::assert_snapshot!(problems(text), @r"
    settings.ini:11: [Vessel disk] TempDir: is not used with Transport = local: files are assembled beside their destinations; remove the line
    settings.ini:14: [Vessel far] MountPoint: has no effect without Transport = local; remove the line
    ");
}
