//! A shore and its vessels, all inside the test, in a directory that goes with it.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use contentmonster::clock::Clock;
use contentmonster::daemon::{self, Mode, Report, Surroundings};
use contentmonster::digest::Digest;
use contentmonster::embedded_vessel::{EmbeddedVessel, Faults, Options, Quirks};
use contentmonster::fault::Fault;
use contentmonster::monitor::{Event, Monitor};
use contentmonster::settings::Settings;
use contentmonster::transport::{LinkMeters, LoginLimit, SshEnvironment};
use tokio_util::sync::CancellationToken;

use super::witness::{Versions, Witness};
use crate::fleet::clocked::SetClock;
use crate::fleet::process::tied_command;

const PASSWORD: &str = "seven seas";

/// On a busy machine, a round trip takes so long that small files would go through the vessel's shell, which the faults of
/// SFTP don't reach.
pub(super) const BY_SFTP: &str = "SmallFiles = sftp";

/// One vessel to be.
pub(crate) struct Berth {
    pub(crate) name: &'static str,
    /// Whether it has a shell.
    pub(crate) shell: bool,
    /// What goes wrong on it.
    pub(crate) policy: Arc<dyn Faults>,
}

struct Moored {
    name: &'static str,
    vessel: EmbeddedVessel,
    witness: Arc<Witness>,
}

/// What was said of vessels that were away and of files that were parked.
#[derive(Default)]
struct Told(Mutex<Vec<String>>);

impl Monitor for Told {
    fn notice(&self, event: &Event<'_>) {
        if let Event::Away { reason, .. } | Event::PutOff { reason, .. } = event {
            self.0.lock().unwrap().push((*reason).to_owned());
        }
    }
}

/// What the sections are called and where a vessel's files go: what a person may change while the program runs.
pub(crate) struct Sections {
    pub(crate) directory: String,
    /// For each vessel its name and the directory in its home.
    pub(crate) vessels: Vec<(String, &'static str)>,
}

/// The directories in a vessel's home that files may go to; the first one is where they go at first.
pub(crate) const PLACES: [&str; 2] = ["in", "elsewhere"];

/// The shore and its vessels.
pub(crate) struct Bay {
    sections: Mutex<Sections>,
    /// More lines for each vessel's section.
    keys: String,
    clock: SetClock,
    told: Arc<Told>,
    vessels: Vec<Moored>,
    versions: Versions,
    root: tempfile::TempDir,
    /// The database of the ledger, if it is in PostgreSQL.
    database: Option<crate::fleet::postgres::Place>,
}

impl Bay {
    /// Opens a bay; `keys` are more lines for each vessel's section. Call it inside a tokio runtime.
    pub(crate) fn open(berths: Vec<Berth>, keys: &str) -> Self {
        // In memory where there is such a place: what is measured here is no disk.
        let prefix = "bay-";
        let root = tempfile::Builder::new().prefix(prefix).tempdir_in("/dev/shm");
        let root = root.unwrap_or_else(|_| tempfile::Builder::new().prefix(prefix).tempdir().unwrap());
        for directory in ["in", "staging"] {
            fs::create_dir(root.path().join(directory)).unwrap();
        }
        let versions = Versions::default();
        let moor = |berth: Berth| {
            let home = root.path().join(berth.name);
            fs::create_dir_all(home.join("in")).unwrap();
            let programs = root.path().join(format!("programs of {}", berth.name));
            let witness = Arc::new(Witness::new(berth.policy, versions.clone(), &programs));
            let options = Options {
                user: "captain".into(),
                password: Some(PASSWORD.into()),
                authorized_key: None,
                exec: berth.shell,
                home,
                faults: Some(witness.clone()),
                quirks: Quirks { programs: Some(programs), ..Quirks::default() },
            };
            Moored { name: berth.name, vessel: EmbeddedVessel::start(options).unwrap(), witness }
        };
        let vessels: Vec<_> = berths.into_iter().map(moor).collect();
        let named = vessels.iter().map(|moored| (moored.name.to_owned(), PLACES[0])).collect();
        let sections = Mutex::new(Sections { directory: "in".to_owned(), vessels: named });
        let clock = SetClock::new(root.path().join("clock"));
        let (told, keys, database) = (Arc::default(), keys.to_owned(), crate::fleet::database());
        let bay = Self { told, sections, keys, clock, vessels, versions, root, database };
        bay.change_settings(|_| {});
        bay
    }

    pub(crate) fn path(&self, below: impl AsRef<Path>) -> PathBuf {
        self.root.path().join(below)
    }

    /// Changes the sections of the settings, for the next start or reload.
    pub(crate) fn change_settings(&self, change: impl FnOnce(&mut Sections)) {
        let mut sections = self.sections.lock().unwrap();
        change(&mut sections);
        let directory = &sections.directory;
        let mut text = format!(
            "[MONSTER]\nChunkSize = 64 KiB\n{}[Directory {directory}]\nLocation = {}\nSettleTime = 20ms\n",
            self.database.iter().map(|it| format!("Database = {}\n", it.url())).collect::<String>(),
            self.path("in").display()
        );
        for (moored, (name, place)) in self.vessels.iter().zip(&sections.vessels) {
            let (address, key) = (moored.vessel.address(), moored.vessel.host_key_fingerprint());
            let home = self.path(moored.name);
            text.push_str(&format!(
                "[Vessel {name}]\nAddress = {}\nPort = {}\nUsername = captain\nPassword = {PASSWORD}\nHostKey = {key}\n\
                 TempDir = {}\nRemoteLocation.{directory} = {}\n{}\n",
                address.ip(),
                address.port(),
                home.join("temp").display(),
                home.join(place).display(),
                self.keys,
            ));
        }
        // In one step: a program that starts meanwhile reads the settings of before or these.
        let new = self.path("settings.new");
        let mut options = fs::File::options();
        let mut file = options.write(true).create_new(true).mode(0o600).open(&new).unwrap();
        file.write_all(text.as_bytes()).unwrap();
        fs::rename(new, self.path("settings.ini")).unwrap();
    }

    /// The clock of [`Self::spawn_clocked`].
    pub(crate) fn clock(&self) -> &SetClock {
        &self.clock
    }

    /// Notes that the shore has, or is about to have, this content.
    pub(crate) fn note(&self, bytes: &[u8]) {
        self.versions.lock().unwrap().insert(Digest::of(bytes));
    }

    /// Puts a file into the directory, whole at once and finished for a while.
    pub(crate) fn put(&self, name: &str, bytes: &[u8]) {
        self.note(bytes);
        let staged = self.path("staging").join(name);
        fs::write(&staged, bytes).unwrap();
        fs::set_permissions(&staged, fs::Permissions::from_mode(0o640)).unwrap();
        let then = SystemTime::now() - Duration::from_secs(60);
        fs::File::options().write(true).open(&staged).unwrap().set_modified(then).unwrap();
        fs::rename(&staged, self.source(name)).unwrap();
    }

    pub(crate) fn source(&self, name: &str) -> PathBuf {
        self.path("in").join(name)
    }

    /// Runs the program in this process until nothing is left that can be done.
    ///
    /// What the run before has left to the runtime may hold the ledger for a moment longer, as no dead process could.
    pub(crate) async fn once(&self, timeout: Duration) -> Result<Report, Fault> {
        let started = Instant::now();
        loop {
            match self.try_once(timeout).await {
                Err(fault) if fault.reason.contains("in use") && started.elapsed() < Duration::from_secs(5) => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                outcome => return outcome,
            }
        }
    }

    async fn try_once(&self, timeout: Duration) -> Result<Report, Fault> {
        let mut settings = Settings::load(&self.path("settings.ini")).unwrap();
        settings.vessels.iter_mut().for_each(|vessel| vessel.timeout = timeout);
        let surroundings = Surroundings {
            monitor: self.told.clone(),
            ssh: SshEnvironment {
                records_host_keys: true,
                home: None,
                agent: None,
                global_known_hosts: self.path("known_hosts"),
                program: "contentmonster".into(),
                logins: LoginLimit::default(),
                meters: LinkMeters::default(),
                unexpanding: Default::default(),
            },
            clock: Clock::system(),
            log: Default::default(),
            allow_deletes: false,
            stop: CancellationToken::new(),
        };
        daemon::run(settings, Mode::Once, surroundings).await
    }

    /// Fails the test unless one thing that was said holds all of these words.
    #[track_caller]
    pub(crate) fn must_have_said(&self, words: &[&str]) {
        let told = self.told.0.lock().unwrap();
        assert!(told.iter().any(|line| words.iter().all(|word| line.contains(word))), "{words:?} in {told:#?}");
    }

    /// All that was said.
    pub(crate) fn said(&self) -> Vec<String> {
        self.told.0.lock().unwrap().clone()
    }

    /// Starts the real program as a process of its own.
    pub(crate) fn spawn(&self, arguments: &[&str]) -> Child {
        let mut words: Vec<OsString> = [env!("CARGO_BIN_EXE_contentmonster"), "--settings"].map(OsString::from).into();
        words.push(self.path("settings.ini").into());
        words.extend(arguments.iter().map(OsString::from));
        self.start(&words)
    }

    /// Starts the daemon with the clock of this bay.
    pub(crate) fn spawn_clocked(&self) -> Child {
        self.start(&self.clock.program(&self.path("settings.ini")))
    }

    fn start(&self, words: &[OsString]) -> Child {
        let mut command = tied_command("env");
        command.args(words);
        for foreign in ["SSH_AUTH_SOCK", "RUST_LOG", "NOTIFY_SOCKET", "JOURNAL_STREAM", "CREDENTIALS_DIRECTORY"] {
            command.env_remove(foreign);
        }
        let log = fs::File::options().create(true).append(true).open(self.path("log")).unwrap();
        command.env("HOME", self.root.path()).stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        command.spawn().unwrap()
    }

    /// The end of what the program said.
    pub(crate) fn log_tail(&self) -> String {
        let text = fs::read_to_string(self.path("log")).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(60)..].join("\n")
    }

    /// What broke a promise so far; nothing, that is.
    pub(crate) fn broken_promises(&self) -> Vec<String> {
        let mut broken: Vec<String> = self.vessels.iter().flat_map(|moored| moored.witness.wrongs()).collect();
        for (name, digest) in digests_in(&self.path("in/processed")) {
            if !self.versions.lock().unwrap().contains(&digest) {
                broken.push(format!("processed/{name} is no version that ever was"));
            }
            for moored in &self.vessels {
                if !moored.witness.has_published(&digest) {
                    broken.push(format!("processed/{name} was never delivered to {}", moored.name));
                }
            }
        }
        broken
    }

    /// What isn't as it must be when these files, and no others, have been delivered everywhere.
    pub(crate) fn unfinished(&self, files: &[(String, Vec<u8>)]) -> Vec<String> {
        let mut wrong = self.undelivered(files);
        wrong.extend(self.leftovers());
        wrong
    }

    /// The same, whatever is left of us on the vessels. A file may be at any of its places.
    pub(crate) fn undelivered(&self, files: &[(String, Vec<u8>)]) -> Vec<String> {
        let mut wrong = self.broken_promises();
        let retired: HashSet<Digest> =
            digests_in(&self.path("in/processed")).into_iter().map(|(_, digest)| digest).collect();
        for (name, bytes) in files {
            if self.source(name).exists() || !retired.contains(&Digest::of(bytes)) {
                wrong.push(format!("{name} is not retired"));
            }
            for moored in &self.vessels {
                let held = PLACES.map(|place| fs::read(self.path(moored.name).join(place).join(name)).ok());
                if !held.contains(&Some(bytes.clone())) {
                    let held = held.map(|held| held.map(|held| held.len()));
                    wrong.push(format!("{} holds {held:?} other bytes as {name}", moored.name));
                }
            }
        }
        wrong
    }

    /// What is left of us on the vessels but the files themselves.
    pub(crate) fn leftovers(&self) -> Vec<String> {
        let mut left = Vec::new();
        for moored in &self.vessels {
            let home = self.path(moored.name);
            left.extend(names_in(&home.join("temp")).iter().map(|name| format!("{} keeps temp/{name}", moored.name)));
            let ours = names_in(&home.join("in")).into_iter().filter(|name| name.starts_with(".contentmonster"));
            left.extend(ours.map(|name| format!("{} keeps in/{name}", moored.name)));
        }
        left
    }

    pub(crate) async fn close(self) {
        for moored in self.vessels {
            moored.vessel.shutdown().await;
        }
    }
}

pub(crate) fn names_in(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

fn digests_in(directory: &Path) -> Vec<(String, Digest)> {
    let digest = |name: String| Some((name.clone(), Digest::of(&fs::read(directory.join(&name)).ok()?)));
    names_in(directory).into_iter().filter_map(digest).collect()
}
