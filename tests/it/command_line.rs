//! The command line: what each subcommand says and does, its exit codes, and how it ends.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::fleet::content::{MIB, content};
use crate::fleet::wait::wait_until;
use crate::fleet::{Fleet, names_in};

/// The program without a fleet.
fn contentmonster(arguments: &[&str]) -> std::process::Output {
    Command::new(env!("CARGO_BIN_EXE_contentmonster")).args(arguments).output().unwrap()
}

fn stdout(output: &std::process::Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn once_delivers_what_is_there_and_ends_with_code_0() {
    let Some(fleet) = Fleet::new().openssh("open").dropbear("drop").sftp_only("chroot").start() else { return };
    let files: Vec<_> = (0..5).map(|at| (format!("file {at}"), content(at, 100_000))).collect();
    files.iter().for_each(|(name, bytes)| fleet.put(name, bytes));
    let done = fleet.once();
    assert_eq!(done.code, Some(0), "{done:?}");
    for (name, bytes) in &files {
        ["open", "drop", "chroot"].into_iter().for_each(|vessel| fleet.assert_equal(vessel, name, bytes));
        assert!(fleet.retired(name).exists() && !fleet.source(name).exists(), "{name} is retired when it ends");
    }
    ["open", "drop", "chroot"].into_iter().for_each(|vessel| done.must_say(&[vessel, "5"]));
    let again = fleet.once();
    assert_eq!(again.code, Some(0), "nothing to do is no failure: {again:?}");
}

#[test]
fn once_says_what_is_left_and_ends_with_another_code() {
    let Some(fleet) = Fleet::new().openssh("up").openssh("down").start() else { return };
    fleet.vessel("down").stop();
    fleet.put("cargo", b"cargo");
    let done = fleet.once();
    assert!(done.code.is_some_and(|code| code != 0), "{done:?}");
    done.must_say(&["down"]);
    fleet.assert_equal("up", "cargo", b"cargo");
    assert!(fleet.source("cargo").exists());
    fleet.vessel("down").start();
    assert_eq!(fleet.once().code, Some(0));
    fleet.assert_equal("down", "cargo", b"cargo");
}

#[test]
fn once_does_not_call_delivered_what_no_vessel_would_take() {
    // The vessel refuses at once, long before the file has settled and is taken in.
    let plan = Fleet::new().directory("in").key("SettleTime", "2s").openssh("refusing").unknown();
    let Some(fleet) = plan.start() else { return };
    fleet.put("cargo", b"cargo");
    let done = fleet.once();
    assert!(done.code.is_some_and(|code| code != 0), "{done:?}");
    assert!(fleet.source("cargo").exists());
}

#[test]
fn it_ends_within_seconds_while_a_file_is_on_its_way() {
    let Some(fleet) = Fleet::new().openssh("open").proxied().start() else { return };
    let link = fleet.vessel("open").link();
    link.limit(MIB as u64);
    fleet.put("big", &content(1, 64 * MIB));
    for signal in [Signal::TERM, Signal::INT] {
        let daemon = fleet.run();
        let before = link.sent();
        wait_until("some of it to be sent", || link.sent() > before + MIB as u64);
        let asked = Instant::now();
        daemon.send(signal);
        let ended = daemon.ended();
        assert_eq!(ended.code, Some(0), "{ended:?}");
        assert!(asked.elapsed() < Duration::from_secs(10), "{signal:?} took {:?}", asked.elapsed());
    }
    assert!(fleet.source("big").exists());
}

#[test]
fn it_ends_within_seconds_although_a_vessel_answers_nothing_and_at_once_when_asked_twice() {
    let plan = Fleet::new().openssh("stuck").key("Timeout", "60s");
    let Some(fleet) = plan.start() else { return };
    for twice in [false, true] {
        let daemon = fleet.run();
        let first = format!("first {twice}");
        fleet.put(&first, b"first");
        fleet.wait_until_retired(&first);
        fleet.vessel("stuck").freeze();
        fleet.put("cargo", b"cargo");
        std::thread::sleep(Duration::from_millis(700));
        let asked = Instant::now();
        daemon.send(Signal::TERM);
        if twice {
            // Two signals of one kind at the same moment are one: the first must have been taken.
            std::thread::sleep(Duration::from_millis(100));
            daemon.send(Signal::TERM);
        }
        let ended = daemon.ended();
        let limit = Duration::from_secs(if twice { 2 } else { 10 });
        assert!(asked.elapsed() < limit, "it took {:?}", asked.elapsed());
        assert!(twice || ended.code == Some(0), "{ended:?}");
        fleet.vessel("stuck").thaw();
        let done = fleet.once();
        assert_eq!(done.code, Some(0), "{done:?}");
    }
}

#[test]
fn check_says_what_works_and_what_the_vessels_offer() {
    let Some(fleet) = Fleet::new().openssh("open").dropbear("drop").sftp_only("chroot").start() else { return };
    fleet.put("cargo", b"cargo");
    let checked = fleet.call(&["check"], "");
    assert_eq!(checked.code, Some(0), "{checked:?}");
    for vessel in ["open", "drop", "chroot"] {
        checked.must_say(&[vessel]);
        assert_eq!(names_in(&fleet.vessel(vessel).path("temp/parts")).len(), 0, "check leaves nothing behind");
    }
    checked.must_say(&["open", "shell yes", "flush"]);
    checked.must_say(&["chroot", "shell no"]);
    checked.must_say(&["drop", "TempDir", "free"]);
    assert!(fleet.source("cargo").exists(), "check delivers nothing");
}

#[test]
fn check_says_for_each_vessel_and_directory_whether_files_can_go_there() {
    let plan = Fleet::new().directory("in").directory("charts").openssh("good").key("IgnoreDirs", "charts");
    let Some(fleet) = plan.openssh("fixed").read_only("in").start() else { return };
    let checked = fleet.call(&["check"], "");
    assert!(checked.code.is_some_and(|code| code != 0), "{checked:?}");
    let place = |vessel: &str, directory: &str| fleet.vessel(vessel).remote(directory);
    checked.must_say(&["good", &place("good", "in")]);
    checked.must_say(&["fixed", &place("fixed", "in"), "read-only"]);
    checked.must_say(&["fixed", &place("fixed", "charts")]);
    assert!(!checked.says(&["good", &place("good", "charts")]), "an ignored directory is no concern: {checked:?}");
    assert_eq!(names_in(&fleet.vessel("good").path("in")).len(), 0, "check leaves nothing behind");
}

#[test]
fn check_names_what_does_not_work_and_how_to_mend_it() {
    let plan =
        Fleet::new().directory("in").directory("lost").openssh("good").openssh("down").openssh("unknown").unknown();
    let Some(fleet) = plan.start() else { return };
    fs::remove_dir(fleet.path("shore/lost")).unwrap();
    fleet.vessel("down").stop();
    let checked = fleet.call(&["check"], "");
    assert!(checked.code.is_some_and(|code| code != 0), "{checked:?}");
    checked.must_say(&["good"]);
    checked.must_say(&[&fleet.vessel("down").port().to_string()]);
    checked.must_say(&["trust unknown"]);
    checked.must_say(&["shore/lost"]);
}

#[test]
fn trust_shows_the_fingerprint_asks_and_records_the_key() {
    let Some(fleet) = Fleet::new().openssh("open").unknown().start() else { return };
    fleet.put("cargo", b"cargo");
    let declined = fleet.call(&["trust", "open"], "n\n");
    declined.must_say(&[&fleet.vessel("open").fingerprint()]);
    assert_eq!(fs::read_to_string(fleet.known_hosts()).unwrap(), "", "nothing is recorded without a yes");
    let silent = fleet.call(&["trust", "open"], "");
    assert_ne!(silent.code, Some(0), "no answer is no yes: {silent:?}");

    let accepted = fleet.call(&["trust", "open"], "y\n");
    assert_eq!(accepted.code, Some(0), "{accepted:?}");
    assert_ne!(fs::read_to_string(fleet.known_hosts()).unwrap(), "");
    let done = fleet.once();
    assert_eq!(done.code, Some(0), "{done:?}");
    fleet.assert_equal("open", "cargo", b"cargo");
}

#[test]
fn trust_makes_known_hosts_where_there_is_none() {
    let Some(fleet) = Fleet::new().dropbear("drop").unknown().start() else { return };
    fs::remove_file(fleet.known_hosts()).unwrap();
    let accepted = fleet.call(&["trust", "drop", "--yes"], "");
    assert_eq!(accepted.code, Some(0), "{accepted:?}");
    let line = fs::read_to_string(fleet.known_hosts()).unwrap();
    assert!(line.contains("ssh-ed25519"), "{line}");
    fleet.put("cargo", b"cargo");
    assert_eq!(fleet.once().code, Some(0));
}

#[test]
fn trust_knows_no_vessel_that_the_settings_do_not_name() {
    let Some(fleet) = Fleet::new().openssh("open").start() else { return };
    let refused = fleet.call(&["trust", "opne"], "");
    assert!(refused.code.is_some_and(|code| code != 0), "{refused:?}");
    refused.must_say(&["opne", "open"]);
}

#[test]
fn init_writes_settings_that_parse_and_never_overwrites() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("settings.ini");
    let path = file.to_str().unwrap();
    let made = contentmonster(&["--settings", path, "init"]);
    assert!(made.status.success(), "{made:?}");
    let text = fs::read_to_string(&file).unwrap();
    ["[MONSTER]", "[Directory ", "[Vessel "]
        .into_iter()
        .for_each(|word| assert!(text.contains(word), "{word} in\n{text}"));

    let again = contentmonster(&["--settings", path, "init"]);
    assert_eq!(again.status.code(), Some(2), "{again:?}");
    assert!(String::from_utf8_lossy(&again.stderr).contains(path), "{again:?}");
    assert_eq!(fs::read_to_string(&file).unwrap(), text);

    let checked = contentmonster(&["--settings", path, "check"]);
    let said = stdout(&checked) + &String::from_utf8_lossy(&checked.stderr);
    assert!(!said.contains(&format!("{path}:")), "the settings themselves are sound: {said}");
}

#[test]
fn two_daemons_on_one_ledger_are_refused() {
    let Some(fleet) = Fleet::new().openssh("open").start() else { return };
    let mut daemon = fleet.run();
    fleet.put("cargo", b"cargo");
    fleet.wait_until_retired("cargo");
    let second = fleet.call(&[], "");
    assert!(second.code.is_some_and(|code| code != 0), "{second:?}");
    second.must_say(&["database.sqlite3"]);
    assert!(daemon.runs(), "the first is not disturbed");
    daemon.terminate();
}

#[test]
fn help_version_and_completions_are_there() {
    let version = contentmonster(&["--version"]);
    assert!(version.status.success());
    assert_eq!(stdout(&version).trim(), format!("contentmonster {}", contentmonster::VERSION));
    let help = stdout(&contentmonster(&["--help"]));
    for word in ["--settings", "--once", "check", "trust", "init", "demo", "completions"] {
        assert!(help.contains(word), "{word} in\n{help}");
    }
    let completions = contentmonster(&["completions", "bash"]);
    assert!(completions.status.success() && stdout(&completions).contains("contentmonster"));
    let wrong = contentmonster(&["--no-such-thing"]);
    assert!(
        !wrong.status.success() && wrong.status.code() != Some(1),
        "usage errors have a code of their own: {wrong:?}"
    );
}

#[test]
fn completions_know_the_names_of_vessels_groups_and_directories() {
    let place = tempfile::tempdir().unwrap();
    let settings = place.path().join("my settings.ini");
    let text = "[Directory charts]\nLocation = /srv\n[Group north]\n[Vessel ship{1..2}]\nAddress = a\nGroups = north\n[Vessel \
                old ship]\nAddress = b\n";
    fs::write(&settings, text).unwrap();
    let script = place.path().join("completions");
    fs::write(&script, contentmonster(&["completions", "bash"]).stdout).unwrap();
    let completed = |words: &[&str]| {
        let program = env!("CARGO_BIN_EXE_contentmonster");
        let mut all = vec![program, "--settings", settings.to_str().unwrap()];
        all.extend(words);
        let typed: String = all.iter().map(|word| format!("'{word}' ")).collect();
        let run = format!(
            "source '{}'; COMP_WORDS=({typed}); COMP_CWORD={}; _contentmonster_with_names '{program}' '' ''; printf \
             '%s\\n' \"${{COMPREPLY[@]}}\"",
            script.display(),
            all.len() - 1
        );
        stdout(&Command::new("bash").args(["-c", &run]).output().unwrap())
            .lines()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    assert_eq!(completed(&["pause", "sh"]), ["ship1", "ship2"]);
    assert_eq!(completed(&["resume", "o"]), ["old\\ ship"]);
    assert_eq!(completed(&["status", "--group", ""]), ["north"]);
    assert_eq!(completed(&["queue", "c"]), ["charts"]);
    assert!(completed(&["pause", "--gr"]).contains(&"--group".to_owned()));
    for (shell, words) in [("zsh", ":_contentmonster_vessels'"), ("fish", "__contentmonster_names groups")] {
        assert!(stdout(&contentmonster(&["completions", shell])).contains(words), "{shell}");
    }
    assert!(!stdout(&contentmonster(&["--help"])).contains("names"), "a command for scripts is not listed");
}

#[test]
fn demo_shows_the_main_job_and_cleans_up() {
    let home = tempfile::tempdir().unwrap();
    let shown = Command::new(env!("CARGO_BIN_EXE_contentmonster"))
        .arg("demo")
        .current_dir(home.path())
        .env("HOME", home.path())
        .env("TMPDIR", home.path())
        .output()
        .unwrap();
    assert!(shown.status.success(), "{shown:?}");
    let said = stdout(&shown);
    for words in ["every file is equal", "contentmonster init", "contentmonster check", "trust --new"] {
        assert!(said.contains(words), "no {words} in\n{said}");
    }
    assert_eq!(names_in(home.path()).len(), 0, "demo cleans up: {:?}", names_in(home.path()));
}
