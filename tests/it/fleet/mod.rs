//! `Fleet`: a shore and its vessels, real ones, for one test.
//!
//! Every vessel is a real SSH server on a free loopback port, in a mount namespace of its own: it has its own users,
//! keys, temporary directory and files at the very paths that the shore uses, and nothing of the machine is touched.
//! What a vessel holds is read directly, without SSH. Everything ends with the fleet, also when the test panics.

pub(crate) mod agent;
pub(crate) mod clocked;
pub(crate) mod content;
pub(crate) mod daemon;
pub(crate) mod embedded;
pub(crate) mod namespace;
mod others;
pub(crate) mod plan;
pub(crate) mod port;
#[path = "../../../src/ledger/postgres/server.rs"]
pub(crate) mod postgres;
pub(crate) mod process;
pub(crate) mod proxy;
mod server;
mod settings_text;
pub(crate) mod tree;
pub(crate) mod vessel;
pub(crate) mod wait;
pub(crate) mod web;

use std::cell::Cell;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use clocked::SetClock;
use daemon::{Daemon, Ended};
use namespace::Mounts;
use plan::{DirectoryPlan, FleetPlan};
use process::has_ended;
use vessel::Vessel;
use wait::wait_until;

/// A shore and its vessels.
pub(crate) struct Fleet {
    // The servers end before the directory goes: fields are dropped in this order.
    vessels: Vec<Vessel>,
    directories: Vec<DirectoryPlan>,
    monster: Vec<(String, String)>,
    staged: Cell<u64>,
    /// The daemon started last.
    daemon: Cell<Option<u32>>,
    root: tempfile::TempDir,
    /// The database of the ledger, if it is in PostgreSQL.
    database: Option<postgres::Place>,
}

/// Creates a database for the ledger if `CONTENTMONSTER_LEDGER=postgresql` asks for it.
pub(crate) fn database() -> Option<postgres::Place> {
    match std::env::var("CONTENTMONSTER_LEDGER").as_deref() {
        Ok("postgresql") => Some(postgres::Place::new()),
        Ok(other) => panic!("CONTENTMONSTER_LEDGER is {other}; expected postgresql"),
        Err(_) => None,
    }
}

impl Fleet {
    /// Begins the plan of a fleet.
    #[allow(clippy::new_ret_no_self, reason = "a test reads as `Fleet::new().openssh(\"a\").start()`")]
    pub(crate) fn new() -> FleetPlan {
        FleetPlan::default()
    }

    fn launch(plan: FleetPlan) -> Self {
        let root = tempfile::Builder::new().prefix("fleet-").tempdir().unwrap();
        let at = |below: &str| root.path().join(below);
        for directory in ["shore/temp", "staging"] {
            fs::create_dir_all(at(directory)).unwrap();
        }
        plan.directories.iter().for_each(|directory| fs::create_dir(at("shore").join(&directory.name)).unwrap());
        let login_key = make_login_key(&at("home/.ssh"));
        let launch = |vessel: plan::VesselPlan| {
            let home = at("vessels").join(&vessel.name);
            Vessel::launch(vessel, home, at("shore"), &login_key)
        };
        let vessels = plan.vessels.into_iter().map(launch).collect();
        let fleet = Self {
            vessels,
            directories: plan.directories,
            monster: plan.monster,
            staged: Cell::new(0),
            daemon: Cell::new(None),
            root,
            database: database(),
        };
        let known = fleet.vessels.iter().filter(|vessel| vessel.plan().known).map(Vessel::known_hosts_line);
        fs::write(fleet.known_hosts(), known.collect::<String>()).unwrap();
        fleet.write_settings(&settings_text::settings_text(&fleet));
        fleet
    }

    /// A path below the fleet's own directory.
    pub(crate) fn path(&self, below: impl AsRef<Path>) -> PathBuf {
        self.root.path().join(below)
    }

    /// The shore user's `known_hosts`.
    pub(crate) fn known_hosts(&self) -> PathBuf {
        self.path("home/.ssh/known_hosts")
    }

    /// The settings file.
    pub(crate) fn settings(&self) -> PathBuf {
        self.path("settings.ini")
    }

    /// Writes the settings file anew, readable by its owner alone.
    pub(crate) fn write_settings(&self, text: &str) {
        write_settings_to(&self.settings(), text);
    }

    /// A vessel by its name.
    #[track_caller]
    pub(crate) fn vessel(&self, name: &str) -> &Vessel {
        self.vessels.iter().find(|vessel| vessel.name() == name).expect("the plan names it")
    }

    // ---- the shore's files ----

    /// Where a file of the directory `in` lies on the shore.
    pub(crate) fn source(&self, name: impl AsRef<OsStr>) -> PathBuf {
        self.path("shore/in").join(name.as_ref())
    }

    /// Where it lies when it is retired.
    pub(crate) fn retired(&self, name: impl AsRef<OsStr>) -> PathBuf {
        self.path("shore/in/processed").join(name.as_ref())
    }

    /// Puts a file into the directory `in`, whole at once: written elsewhere and moved in.
    pub(crate) fn put(&self, name: impl AsRef<OsStr>, bytes: &[u8]) {
        self.put_as(name, bytes, 0o644, SystemTime::now());
    }

    /// The same with permission bits and a time of last change.
    pub(crate) fn put_as(&self, name: impl AsRef<OsStr>, bytes: &[u8], mode: u32, mtime: SystemTime) {
        self.put_at(&self.source(name), bytes, mode, mtime);
    }

    /// The same for any place on the shore's file system.
    pub(crate) fn put_at(&self, place: &Path, bytes: &[u8], mode: u32, mtime: SystemTime) {
        self.staged.set(self.staged.get() + 1);
        let staged = self.path("staging").join(self.staged.get().to_string());
        fs::write(&staged, bytes).unwrap();
        fs::set_permissions(&staged, fs::Permissions::from_mode(mode)).unwrap();
        File::options().write(true).open(&staged).unwrap().set_modified(mtime).unwrap();
        fs::rename(&staged, place).unwrap();
    }

    // ---- the program ----

    /// Starts the daemon.
    pub(crate) fn run(&self) -> Daemon {
        self.run_with(&Mounts::default())
    }

    /// Starts a shore of this name, beside others with the same ledger in PostgreSQL.
    pub(crate) fn run_shore(&self, name: &str) -> Daemon {
        // The test ends what does not end, so no wait depends on one of the shores.
        self.daemon.set(Some(std::process::id()));
        Daemon::spawn(self.command_of(name, None, &[]), "")
    }

    /// The same for a shore that reaches the database at an address of its own.
    pub(crate) fn run_shore_with(&self, name: &str, database: &str) -> Daemon {
        self.daemon.set(Some(std::process::id()));
        Daemon::spawn(self.command_of(name, Some(database), &[]), "")
    }

    /// Runs a command on the shore of this name, and waits for its end.
    #[track_caller]
    pub(crate) fn call_shore(&self, name: &str, arguments: &[&str]) -> Ended {
        Daemon::spawn(self.command_of(name, None, arguments), "").ended()
    }

    /// A command with the settings of one of several shores, which has a lock file of its own like another host.
    fn command_of(&self, shore: &str, database: Option<&str>, arguments: &[&str]) -> Command {
        let (settings, socket) = (self.path(format!("{shore}.ini")), self.path(format!("{shore}.sock")));
        let mut own = format!("[MONSTER]\nShoreName = {shore}\nSocket = {}\n", socket.display());
        let mut text = fs::read_to_string(self.settings()).unwrap();
        if let Some(database) = database {
            text = text.split_inclusive('\n').filter(|line| !line.starts_with("Database = ")).collect();
            own.push_str(&format!("Database = {database}\n"));
        }
        let text = text.replace("[MONSTER]\n", &own);
        write_settings_to(&settings, &text);
        let mut command = Mounts::default().command();
        command.arg(env!("CARGO_BIN_EXE_contentmonster")).arg("--settings").arg(settings).args(arguments);
        self.surround(&mut command);
        command
    }

    /// Starts the daemon with mounts of its own.
    pub(crate) fn run_with(&self, mounts: &Mounts) -> Daemon {
        let daemon = Daemon::spawn(self.command(mounts, &[]), "");
        self.daemon.set(Some(daemon.pid()));
        daemon
    }

    /// Starts a process that keeps mounts for daemons that come and go.
    pub(crate) fn keep_mounts(&self, mounts: &Mounts) -> Daemon {
        let mut command = mounts.command();
        command.args(["sleep", "infinity"]);
        Daemon::spawn(command, "")
    }

    /// Starts the daemon among the mounts that another process keeps, with a clock of its own.
    pub(crate) fn run_clocked(&self, mounts: &Daemon, clock: &SetClock) -> Daemon {
        let mut command = process::tied_command("nsenter");
        command.arg(format!("--target={}", mounts.pid())).args(["--mount", "--"]).args(clock.program(&self.settings()));
        self.surround(&mut command);
        let daemon = Daemon::spawn(command, "");
        self.daemon.set(Some(daemon.pid()));
        daemon
    }

    /// Starts the daemon, which logs as much as `filter` says.
    pub(crate) fn run_logging(&self, filter: &str) -> Daemon {
        self.run_in(&[("CONTENTMONSTER_LOG", Path::new(filter))])
    }

    /// Starts the daemon with more variables in its environment.
    pub(crate) fn run_in(&self, environment: &[(&str, &Path)]) -> Daemon {
        let mut command = self.command(&Mounts::default(), &[]);
        command.envs(environment.iter().copied());
        let daemon = Daemon::spawn(command, "");
        self.daemon.set(Some(daemon.pid()));
        daemon
    }

    /// Delivers what is there and ends.
    #[track_caller]
    pub(crate) fn once(&self) -> Ended {
        self.call(&["--once"], "")
    }

    /// Has the program check its settings and vessels, of which something must be wrong.
    #[track_caller]
    pub(crate) fn checked_unfit(&self) -> Ended {
        let checked = self.call(&["check"], "");
        assert_ne!(checked.code, Some(0), "{checked:?}");
        println!("{}", checked.stdout);
        checked
    }

    /// Runs the program with this fleet's settings and more arguments, and waits for its end.
    #[track_caller]
    pub(crate) fn call(&self, arguments: &[&str], input: &str) -> Ended {
        self.begin(arguments, input).ended()
    }

    /// The same with more variables in its environment and nothing on its input.
    #[track_caller]
    pub(crate) fn call_with(&self, environment: &[(&str, &Path)], arguments: &[&str]) -> Ended {
        let mut command = self.command(&Mounts::default(), arguments);
        command.envs(environment.iter().copied());
        Daemon::spawn(command, "").ended()
    }

    /// The same with mounts of its own.
    #[track_caller]
    pub(crate) fn call_among(&self, mounts: &Mounts, arguments: &[&str]) -> Ended {
        Daemon::spawn(self.command(mounts, arguments), "").ended()
    }

    /// The same without waiting.
    pub(crate) fn begin(&self, arguments: &[&str], input: &str) -> Daemon {
        Daemon::spawn(self.command(&Mounts::default(), arguments), input)
    }

    fn command(&self, mounts: &Mounts, arguments: &[&str]) -> Command {
        let mut command = mounts.command();
        command.arg(env!("CARGO_BIN_EXE_contentmonster")).arg("--settings").arg(self.settings()).args(arguments);
        self.surround(&mut command);
        command
    }

    /// Gives a command the place and the environment of the program.
    fn surround(&self, command: &mut Command) {
        command.current_dir(self.root.path()).env("HOME", self.path("home"));
        for foreign in ["SSH_AUTH_SOCK", "RUST_LOG", "NOTIFY_SOCKET", "JOURNAL_STREAM", "CREDENTIALS_DIRECTORY"] {
            command.env_remove(foreign);
        }
    }

    // ---- what became of the files ----

    /// Waits until a file of the directory `in` lies in `processed/`, and no longer where it was.
    #[track_caller]
    pub(crate) fn wait_until_retired(&self, name: impl AsRef<OsStr>) {
        let (source, retired) = (self.source(&name), self.retired(&name));
        self.wait_for_daemon(&format!("{retired:?}"), || retired.exists() && !source.exists());
    }

    /// Waits until a vessel holds a file of the directory `in` with these bytes.
    #[track_caller]
    pub(crate) fn wait_until_served(&self, vessel: &str, name: impl AsRef<OsStr>, bytes: &[u8]) {
        let what = format!("{:?} on {vessel}", name.as_ref());
        self.wait_for_daemon(&what, || self.held(vessel, &name).is_some_and(|held| held == bytes));
    }

    /// Waits, but not for what a daemon that has ended won't do any more.
    #[track_caller]
    fn wait_for_daemon(&self, what: &str, mut so: impl FnMut() -> bool) {
        wait_until(what, || {
            let ended = self.daemon.get().is_none_or(has_ended);
            let so = so();
            assert!(so || !ended, "contentmonster has ended without {what}");
            so
        });
    }

    /// What a vessel holds under a name of the directory `in`.
    pub(crate) fn held(&self, vessel: &str, name: impl AsRef<OsStr>) -> Option<Vec<u8>> {
        fs::read(self.vessel(vessel).path("in").join(name.as_ref())).ok()
    }

    /// Fails the test unless a vessel holds exactly these bytes under a name.
    #[track_caller]
    pub(crate) fn assert_equal(&self, vessel: &str, name: impl AsRef<OsStr>, bytes: &[u8]) {
        let held = self.held(vessel, &name).unwrap_or_else(|| panic!("{vessel} has no {:?}", name.as_ref()));
        // Not assert_eq: nobody reads 25 MiB of differing bytes.
        assert!(
            held == bytes,
            "{vessel} holds other bytes as {:?} ({}, not {})",
            name.as_ref(),
            held.len(),
            bytes.len()
        );
    }

    /// Waits until nothing of ours is left on a vessel but the files themselves, while the daemon runs.
    #[track_caller]
    pub(crate) fn wait_until_tidy(&self, vessel: &str) {
        self.wait_for_daemon(&format!("{vessel} to be tidy"), || self.left_on(vessel).is_empty());
    }

    /// Fails the test unless nothing of ours is left on a vessel but the files themselves.
    #[track_caller]
    pub(crate) fn assert_tidy(&self, vessel: &str) {
        let left = self.left_on(vessel);
        assert!(left.is_empty(), "{vessel} still holds {left:?}");
    }

    /// What is left of us in a vessel's TempDir and beside the files.
    fn left_on(&self, vessel: &str) -> Vec<PathBuf> {
        let at = self.vessel(vessel);
        let inside =
            |below: &str| names_in(&at.path(below)).into_iter().map(|name| Path::new(below).join(name)).collect();
        let mut left: Vec<PathBuf> = inside("temp/parts");
        let beside = self.directories.iter().flat_map(|directory| inside(&directory.name));
        let is_ours =
            |path: &PathBuf| path.file_name().is_some_and(|name| name.as_bytes().starts_with(b".contentmonster"));
        left.extend(beside.filter(is_ours));
        left
    }
}

/// The names in a directory, sorted; none when there is no such directory.
pub(crate) fn names_in(directory: &Path) -> Vec<std::ffi::OsString> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut names: Vec<_> = entries.map(|entry| entry.file_name()).collect();
    names.sort();
    names
}

/// Permission bits and time of last change (seconds since 1970) of a file.
#[track_caller]
pub(crate) fn mode_and_mtime(path: &Path) -> (u32, i64) {
    let metadata = fs::metadata(path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
    (metadata.mode() & 0o7777, metadata.mtime())
}

/// A time in the past, whole seconds since 1970.
pub(crate) fn at_second(second: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(second)
}

/// Writes a settings file, readable by its owner alone, in one step: a daemon that starts may be reading it.
fn write_settings_to(path: &Path, text: &str) {
    let mut new = tempfile::NamedTempFile::new_in(path.parent().unwrap()).unwrap();
    new.write_all(text.as_bytes()).unwrap();
    new.persist(path).unwrap();
}

/// Makes the shore user's key where `ssh` looks for it, and gives its public half.
fn make_login_key(ssh: &Path) -> String {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(ssh).unwrap();
    let key = ssh.join("id_ed25519");
    let made = Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&key).status().unwrap();
    assert!(made.success(), "ssh-keygen: {made}");
    fs::read_to_string(key.with_extension("pub")).unwrap()
}
