//! `demo`: delivers files to two vessels inside this process, without any installation.
//!
//! The settings are written to a file and read as usual, and the same code delivers the files as in production. One
//! vessel has a shell, which joins parts and computes hashes on the vessel; the other offers SFTP only.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressDrawTarget};
use secrecy::SecretString;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use super::{Exit, bars, runtime, say, say_error, sizes};
use crate::clock::Clock;
use crate::daemon::{self, Mode, Surroundings};
use crate::digest::{Digest, FileHasher};
use crate::embedded_vessel::{EmbeddedVessel, Options, Quirks};
use crate::fault::Fault;
use crate::local::PROCESSED;
use crate::logging;
use crate::monitor::{Event, Monitor};
use crate::settings::Settings;
use crate::transport::{LinkMeters, LoginLimit, SshEnvironment};

/// Names and sizes of the files to be delivered: names that often break programs, and sizes from zero to several
/// chunks.
const FILES: [(&str, u64); 6] = [
    ("empty", 0),
    ("one byte", 1),
    ("-rf", 4 << 10),
    ("it's \"$(quoted)\".txt", 300 << 10),
    ("chart.tif", (25 << 20) + 1),
    ("survey.dat", 64 << 20),
];
/// Names of the vessels, and whether the vessel has a shell.
const VESSELS: [(&str, bool); 2] = [("aurora", true), ("borealis", false)];

/// Runs the demo, and deletes its files afterwards unless `keep` is set.
pub(super) fn demo(keep: bool) -> Exit {
    let screen = bars::screen();
    let _ = logging::start(None, Some(screen.clone().unwrap_or_default()));
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(exit) => return exit,
    };
    let outcome = runtime.block_on(async {
        tokio::select! {
            outcome = run(screen, keep) => outcome,
            _ = tokio::signal::ctrl_c() => Ok(Exit::Interrupted),
        }
    });
    outcome.unwrap_or_else(|e| {
        say_error(format_args!("the demo failed: {e}"));
        Exit::Broken
    })
}

async fn run(screen: Option<MultiProgress>, keep: bool) -> Result<Exit, Box<dyn std::error::Error>> {
    let home = tempfile::Builder::new().prefix("contentmonster-demo-").tempdir()?;
    let outbox = home.path().join("outbox");
    std::fs::create_dir(&outbox)?;
    let made: Vec<_> =
        FILES.iter().map(|(name, size)| Ok((*name, make_file(&outbox, name, *size)?))).collect::<io::Result<_>>()?;

    let password = SecretString::from(format!("{:016x}{:016x}", fastrand::u64(..), fastrand::u64(..)));
    let vessels = start_vessels(home.path(), &password)?;
    let settings = write_settings(home.path(), &vessels, &password)?;
    say(format_args!("shore: {}", outbox.display()));
    for (name, vessel) in &vessels {
        say(format_args!("vessel {name}: SSH on {}, {}", vessel.address(), inbox(home.path(), name).display()));
    }
    let told = Arc::new(Told { bars: bars::monitor(screen.as_ref(), &settings.vessels), took: Mutex::default() });
    let outcome = deliver(settings, told.clone(), home.path()).await;
    if let Some(screen) = screen {
        screen.clear()?;
        // Hides the bars, because dropping them would draw them once more, below the result.
        screen.set_draw_target(ProgressDrawTarget::hidden());
    }
    for (_, vessel) in vessels {
        vessel.shutdown().await;
    }
    outcome?;
    let equal = show(home.path(), &made, &told)?;
    leave(home, keep);
    Ok(if equal { Exit::Good } else { Exit::Undelivered })
}

fn start_vessels(home: &Path, password: &SecretString) -> io::Result<Vec<(&'static str, EmbeddedVessel)>> {
    let start = |(name, exec): (&'static str, bool)| {
        let place = inbox(home, name);
        std::fs::create_dir_all(&place)?;
        let options = Options {
            user: "demo".into(),
            password: Some(password.clone()),
            authorized_key: None,
            exec,
            home: place,
            faults: None,
            quirks: Quirks::default(),
        };
        Ok((name, EmbeddedVessel::start(options)?))
    };
    VESSELS.into_iter().map(start).collect()
}

fn inbox(home: &Path, vessel: &str) -> PathBuf {
    home.join("vessels").join(vessel).join("inbox")
}

/// Writes a settings file as an operator would, and reads that file.
fn write_settings(
    home: &Path,
    vessels: &[(&str, EmbeddedVessel)],
    password: &SecretString,
) -> Result<Settings, Box<dyn std::error::Error>> {
    use secrecy::ExposeSecret;
    use std::fmt::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let mut text = "[Directory outbox]\nLocation = outbox\nSettleTime = 100ms\n".to_string();
    for (name, vessel) in vessels {
        let (address, key, place) = (vessel.address(), vessel.host_key_fingerprint(), home.join("vessels").join(name));
        write!(
            text,
            "\n[Vessel {name}]\nAddress = {}\nPort = {}\nUsername = demo\nPassword = {}\nHostKey = {key}\nSSHConfig = no\n\
             TempDir = {}\nRemoteLocation.outbox = {}\n",
            address.ip(),
            address.port(),
            password.expose_secret(),
            place.join("temp").display(),
            place.join("inbox").display(),
        )?;
    }
    let file = home.join("settings.ini");
    File::options().write(true).create_new(true).mode(0o600).open(&file)?.write_all(text.as_bytes())?;
    Ok(Settings::load(&file)?)
}

async fn deliver(settings: Settings, told: Arc<Told>, home: &Path) -> Result<(), Fault> {
    let surroundings = Surroundings {
        monitor: told,
        // No home and no agent, so that the demo does not use the keys of the user.
        ssh: SshEnvironment {
            records_host_keys: true,
            home: None,
            agent: None,
            global_known_hosts: home.join("known_hosts"),
            program: "contentmonster".into(),
            logins: LoginLimit::default(),
            meters: LinkMeters::default(),
            unexpanding: Default::default(),
        },
        clock: Clock::system(),
        stop: CancellationToken::new(),
        log: Default::default(),
        allow_deletes: false,
    };
    daemon::run(settings, Mode::Once, surroundings).await.map(|_| ())
}

/// A monitor that passes every event to the bars, and records how long each delivery took.
struct Told {
    bars: Arc<dyn Monitor>,
    took: Mutex<HashMap<(String, Vec<u8>), Duration>>,
}

impl Monitor for Told {
    fn notice(&self, event: &Event<'_>) {
        if let Event::Delivered { vessel, path, took, .. } = event {
            let key = (vessel.to_string(), path.as_bytes().to_vec());
            self.took.lock().expect("no code panics while it holds this lock").insert(key, *took);
        }
        self.bars.notice(event);
    }
}

/// The advice that the demo prints at its end.
const NEXT: &str = "
To deliver files of your own:
  contentmonster init      writes settings.ini; set a Location and an Address in this file
  contentmonster check     tests the settings and every vessel, and says how to fix what does not work
  contentmonster trust --new
                           shows the vessels' host keys, and records those that you confirm
  contentmonster           watches and delivers until it is stopped";

/// Prints the path of every file and its hash on the shore and on the vessels; returns whether all hashes are equal.
fn show(home: &Path, made: &[(&str, Digest)], told: &Told) -> io::Result<bool> {
    let mut all_equal = true;
    say(format_args!(
        "\n{:<24} {:>10}  {:<9} {:>8}  {:<18} {:<18}",
        "file", "size", "vessel", "took", "on the shore", "on the vessel"
    ));
    for (name, _) in made {
        let shore = home.join("outbox").join(PROCESSED).join(name);
        let size = std::fs::metadata(&shore).map_or(0, |meta| meta.len());
        let ours = hash(&shore).ok();
        for (vessel, _) in VESSELS {
            let theirs = hash(&inbox(home, vessel).join(name)).ok();
            let wanted = made.iter().find(|(made, _)| made == name).map(|(_, digest)| *digest);
            let equal = ours.is_some() && ours == theirs && ours == wanted;
            all_equal &= equal;
            let took = told.took.lock().expect("no code panics while it holds this lock");
            let took = took.get(&(vessel.to_string(), name.as_bytes().to_vec())).copied();
            say(format_args!(
                "{name:<24} {:>10}  {vessel:<9} {:>8}  {:<18} {:<18} {}",
                sizes::bytes(size),
                took.map_or("-".into(), sizes::duration),
                short(ours),
                short(theirs),
                if equal { "equal" } else { "DIFFERENT" },
            ));
        }
    }
    say(format_args!("\n{}", if all_equal { "every file is equal on both sides" } else { "not every file arrived" }));
    if all_equal {
        say(format_args!("{NEXT}"));
    }
    Ok(all_equal)
}

fn short(digest: Option<Digest>) -> String {
    digest.map_or("missing".into(), |digest| digest.to_string()[..16].to_string())
}

fn leave(home: TempDir, keep: bool) {
    if keep {
        say(format_args!("kept: {}", home.keep().display()));
    } else if let Err(e) = home.close() {
        say_error(format_args!("cannot remove the directory of the demo: {e}"));
    }
}

/// Creates a file of random bytes, and returns their digest.
fn make_file(directory: &Path, name: &str, size: u64) -> io::Result<Digest> {
    let mut file = File::create_new(directory.join(name))?;
    let mut hasher = FileHasher::new(u64::MAX);
    let mut left = size;
    let mut buffer = vec![0; 1 << 20];
    while left > 0 {
        let piece = &mut buffer[..usize::try_from(left.min(1 << 20)).unwrap_or(1 << 20)];
        fastrand::fill(piece);
        file.write_all(piece)?;
        hasher.update(piece);
        left -= piece.len() as u64;
    }
    Ok(hasher.finish().file)
}

fn hash(file: &Path) -> io::Result<Digest> {
    use std::io::Read;
    let mut file = File::open(file)?;
    let mut hasher = FileHasher::new(u64::MAX);
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hasher.finish().file),
            read => hasher.update(&buffer[..read]),
        }
    }
}
