//! The fixture is right: OpenSSH's own clients find the vessels to be what the tests take them for.

use std::fs;
use std::process::{Command, Output};

use crate::fleet::Fleet;
use crate::fleet::vessel::PASSWORD;
use crate::fleet::wait::wait_until;

fn client(fleet: &Fleet, program: &str, vessel: &str, arguments: &[&str]) -> Output {
    let option = |key: &str, value: &str| format!("-o{key}={value}");
    Command::new(program)
        .args([option("UserKnownHostsFile", fleet.known_hosts().to_str().unwrap()), option("BatchMode", "yes")])
        .args([option("IdentityFile", fleet.path("home/.ssh/id_ed25519").to_str().unwrap()), "-F/dev/null".into()])
        .args([option("Port", &fleet.vessel(vessel).port().to_string()), option("User", "root")])
        .args(arguments)
        .env_remove("SSH_AUTH_SOCK")
        .output()
        .unwrap()
}

/// Uploads `bytes` as `temp/sample` with `sftp`.
fn upload(fleet: &Fleet, vessel: &str, bytes: &[u8]) -> Output {
    let (sample, batch) = (fleet.path("sample"), fleet.path("batch"));
    fs::write(&sample, bytes).unwrap();
    fs::write(&batch, format!("put {} {}\n", sample.display(), fleet.vessel(vessel).remote("temp/sample"))).unwrap();
    client(fleet, "sftp", vessel, &["-b", batch.to_str().unwrap(), "127.0.0.1"])
}

#[test]
fn every_kind_of_vessel_takes_files_over_sftp_into_its_own_tree() {
    let plan = Fleet::new().openssh("open").dropbear("drop").sftp_only("chroot").proftpd("pro");
    let Some(fleet) = plan.rclone("stream", "off").rclone("cached", "writes").start() else { return };
    for vessel in ["open", "drop", "chroot", "pro", "stream", "cached"] {
        let done = upload(&fleet, vessel, vessel.as_bytes());
        assert!(done.status.success(), "{vessel}: {}", String::from_utf8_lossy(&done.stderr));
        // rclone with a cache writes the file some seconds after it was closed.
        let arrived = || fs::read(fleet.vessel(vessel).path("temp/sample")).is_ok_and(|held| held == vessel.as_bytes());
        wait_until(&format!("the file on {vessel}"), arrived);
    }
    assert!(!fleet.path("shore/temp/sample").exists(), "the shore's own tree must not be touched");
}

#[test]
fn only_vessels_with_a_shell_run_commands() {
    let Some(fleet) = Fleet::new().openssh("open").dropbear("drop").sftp_only("chroot").start() else { return };
    for vessel in ["open", "drop"] {
        let said = client(&fleet, "ssh", vessel, &["127.0.0.1", "echo $HOME; cat /etc/shadow | wc -l"]);
        assert_eq!(String::from_utf8_lossy(&said.stdout), "/root\n2\n", "{}", String::from_utf8_lossy(&said.stderr));
    }
    let said = client(&fleet, "ssh", "chroot", &["127.0.0.1", "echo aboard"]);
    assert!(!String::from_utf8_lossy(&said.stdout).contains("aboard"));
}

#[test]
fn a_stopped_vessel_is_gone_and_comes_back_as_it_was() {
    let Some(fleet) = Fleet::new().openssh("open").dropbear("drop").start() else { return };
    for vessel in ["open", "drop"] {
        fleet.vessel(vessel).stop();
        assert!(!upload(&fleet, vessel, b"x").status.success());
        fleet.vessel(vessel).start();
        assert!(upload(&fleet, vessel, b"x").status.success());
        fleet.vessel(vessel).stop();
        fleet.vessel(vessel).change_host_key();
        fleet.vessel(vessel).start();
        let refused = upload(&fleet, vessel, b"x");
        assert!(String::from_utf8_lossy(&refused.stderr).contains("IDENTIFICATION HAS CHANGED"), "{refused:?}");
    }
}

#[test]
fn stopping_a_vessel_ends_what_its_sessions_started() {
    let Some(fleet) = Fleet::new().openssh("open").start() else { return };
    let mark = fleet.path("mark").display().to_string();
    let asleep = |seconds: &str| {
        fs::read_dir("/proc").unwrap().flatten().any(|entry| {
            let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&line).split('\0').collect::<Vec<_>>() == ["sleep", seconds, ""]
        })
    };
    // A number that no other process on this machine sleeps for.
    let seconds = format!("{}77", std::process::id());
    client(&fleet, "ssh", "open", &["127.0.0.1", &format!("setsid sleep {seconds} >{mark} 2>&1 </dev/null &")]);
    wait_until("the command to run", || asleep(&seconds));
    fleet.vessel("open").stop();
    assert!(!asleep(&seconds));
}

#[test]
fn small_and_read_only_file_systems_refuse_what_they_should() {
    let plan = Fleet::new().openssh("small").temp_on_tmpfs("1m").openssh("fixed").read_only("temp");
    let Some(fleet) = plan.start() else { return };
    assert!(upload(&fleet, "small", b"fits").status.success());
    assert_eq!(fs::read(fleet.vessel("small").path("temp/sample")).unwrap(), b"fits");
    assert!(!upload(&fleet, "small", &[0; 2 << 20]).status.success());
    assert!(!upload(&fleet, "fixed", b"x").status.success());
}

#[test]
fn the_password_is_what_the_tests_take_it_for() {
    let plan = Fleet::new().openssh("open").without_key().dropbear("drop").without_key().proxied();
    let Some(fleet) = plan.start() else { return };
    for vessel in ["open", "drop"] {
        assert!(!upload(&fleet, vessel, b"x").status.success(), "no key opens it");
        let askpass = fleet.path("askpass");
        fs::write(&askpass, format!("#!/bin/sh\necho '{PASSWORD}'\n")).unwrap();
        fs::set_permissions(&askpass, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
        let said = Command::new("ssh")
            .arg(format!("-oUserKnownHostsFile={}", fleet.known_hosts().display()))
            .args(["-F/dev/null", "-p", &fleet.vessel(vessel).port().to_string(), "root@127.0.0.1", "echo in"])
            .env_remove("SSH_AUTH_SOCK")
            .env("SSH_ASKPASS", askpass)
            .env("SSH_ASKPASS_REQUIRE", "force")
            .output()
            .unwrap();
        assert_eq!(String::from_utf8_lossy(&said.stdout), "in\n", "{}", String::from_utf8_lossy(&said.stderr));
    }
    assert!(fleet.vessel("drop").link().sent() > 0);
}
