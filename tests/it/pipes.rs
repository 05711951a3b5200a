//! Commands whose reader goes away early, as `| head -1` does, and output that can't be written.

use std::process::{Command, Output};

use crate::fleet::wait::wait_until;
use crate::fleet::{Fleet, names_in};

/// Runs a shell's pipeline with `cm` as the program with this fleet's settings; the exit code is that of `cm`.
fn pipeline(fleet: &Fleet, words: &str) -> Output {
    let script = format!(
        "cm() {{ '{}' --settings '{}' \"$@\"; }}\n{words}\nexit ${{PIPESTATUS[0]}}",
        env!("CARGO_BIN_EXE_contentmonster"),
        fleet.settings().display()
    );
    let mut command = Command::new("bash");
    command.args(["-c", &script]).current_dir(fleet.path("")).env("HOME", fleet.path("home"));
    command.env_remove("SSH_AUTH_SOCK").env_remove("RUST_LOG");
    command.output().unwrap()
}

#[test]
fn a_closed_pipe_ends_every_command_quietly_with_its_own_code() {
    let Some(fleet) = Fleet::new().openssh("tern").start() else { return };
    fleet.put("cargo", b"cargo");
    assert_eq!(fleet.once().code, Some(0));
    fleet.put("waits", b"waits");
    std::fs::write(
        fleet.path("config.yml"),
        "sync:\n  a:\n    source_path: /srv/a\n    remote_host: h\n    remote_path: /b\n",
    )
    .unwrap();
    for command in [
        "status",
        "status --json",
        "status --check",
        "why in/cargo",
        "why in/cargo --json",
        "queue",
        "queue --json",
        "receipts",
        "receipts --json",
        "receipts --csv",
        "check",
        "--simulate",
        "settings show",
        "settings show --json",
        "settings check",
        "settings schema",
        "completions bash",
        "completions zsh",
        "import poni config.yml",
        "--help",
        "pause tern",
        "resume tern",
        "retry",
        "resend in",
        "init",
    ] {
        let whole = pipeline(&fleet, &format!("cm {command} >/dev/null"));
        for reader in ["head -1", "true", "head -c 3"] {
            let cut = pipeline(&fleet, &format!("cm {command} | {reader}"));
            let said = String::from_utf8_lossy(&cut.stderr).into_owned();
            assert!(!said.contains("panicked") && !said.contains("Broken pipe"), "{command} | {reader}: {said}");
            assert_eq!(cut.status.code(), whole.status.code(), "{command} | {reader}: {said}");
        }
        // Errors and the log go to a pipe too.
        let cut = pipeline(&fleet, &format!("cm {command} 2>&1 >/dev/null | true"));
        assert_eq!(cut.status.code(), whole.status.code(), "{command} 2>&1");
    }
    assert!(names_in(&fleet.vessel("tern").path("temp/parts")).is_empty(), "check tidied up without its reader");
    let once = pipeline(&fleet, "cm --once 2>&1 | true");
    assert_eq!(once.status.code(), Some(0), "{once:?}");
    fleet.assert_equal("tern", "waits", b"waits");
}

#[test]
fn watching_ends_when_its_reader_is_gone() {
    let Some(fleet) = Fleet::new().openssh("tern").start() else { return };
    assert_eq!(fleet.once().code, Some(0));
    let seen = pipeline(&fleet, "cm status --watch | head -1");
    assert_eq!(seen.status.code(), Some(0), "{seen:?}");
}

#[test]
fn output_that_cannot_be_written_is_an_error() {
    let Some(fleet) = Fleet::new().openssh("tern").start() else { return };
    for command in ["settings show", "settings check", "completions bash", "receipts --json"] {
        assert_eq!(fleet.once().code, Some(0));
        fleet.put(format!("{command} "), b"x");
        assert_eq!(fleet.once().code, Some(0));
        let full = pipeline(&fleet, &format!("cm {command} >/dev/full"));
        let said = String::from_utf8_lossy(&full.stderr).into_owned();
        assert_eq!(full.status.code(), Some(4), "{command}: {said}");
        assert!(said.contains("cannot write the output"), "{command}: {said}");
        assert!(!said.contains("panicked"), "{command}: {said}");
    }
}

#[test]
fn a_daemon_whose_log_nobody_reads_goes_on() {
    let Some(fleet) = Fleet::new().openssh("tern").start() else { return };
    let script = format!(
        "'{}' --settings '{}' 2>&1 | true & wait %1; sleep 0; echo",
        env!("CARGO_BIN_EXE_contentmonster"),
        fleet.settings().display()
    );
    let mut command = crate::fleet::process::tied_command("bash");
    command.args(["-c", &script]).env("HOME", fleet.path("home")).env_remove("SSH_AUTH_SOCK");
    let shell = crate::fleet::daemon::Daemon::spawn(command, "");
    fleet.put("cargo", b"cargo");
    wait_until("the file to arrive", || fleet.held("tern", "cargo").is_some());
    wait_until("the file to retire", || fleet.retired("cargo").exists());
    for pid in crate::fleet::process::descendants(shell.pid()) {
        crate::fleet::process::signal(pid, rustix::process::Signal::TERM);
    }
    shell.ended();
}
