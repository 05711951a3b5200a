//! The part of `check` about this host: the files, ports, commands and keys that the program needs to start. The checks
//! create and change nothing; only [`take_back_refusal`], which follows the check of a vessel, writes to the ledger.

use std::fs;
use std::io;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{Access, AtFlags, CWD, accessat};

use super::shore::Shore;
use crate::ledger::{LedgerError, LedgerView};
use crate::local::{self, PROCESSED};
use crate::records::EventKind;
use crate::settings::{Directory, Hooks, Links, LogTarget, Settings};
use crate::status;
use crate::text;
use crate::vessel::Finding;

/// Timeout for a query to a disk.
const MOMENT: Duration = Duration::from_secs(2);

/// Checks everything on this host that the program needs to start.
pub(super) async fn check(settings: &Settings) -> Vec<Finding> {
    let running = is_running(settings).await;
    let mut findings = Vec::new();
    if running {
        let database = &settings.monster.database;
        findings.push(Finding::Note(format!("contentmonster is running with the Database {database}")));
    }
    findings.push(database(settings).await);
    if let Some(address) = settings.monster.listen.filter(|_| !running) {
        findings.push(match TcpListener::bind(address) {
            Ok(_) => Finding::Good(format!("Listen: {address} is free")),
            Err(e) => Finding::Bad(format!(
                "Listen: cannot listen on {address}: {e}; choose another Listen in [MONSTER], or stop the program that \
                 listens there"
            )),
        });
    }
    if let LogTarget::File(file) = &settings.monster.logging.target
        && let Err(why) = can_write(file)
    {
        findings.push(Finding::Bad(format!("LogFile {}: {why}", file.display())));
    }
    findings.extend(hooks(settings));
    findings.extend(settings.directories.iter().flat_map(|directory| location(settings, directory)));
    findings.extend(keys(settings));
    findings
}

/// Returns whether a program with these settings runs and answers on its socket.
async fn is_running(settings: &Settings) -> bool {
    status::call(&settings.monster.socket, "/healthz", None).await.is_ok()
}

async fn database(settings: &Settings) -> Finding {
    let database = &settings.monster.database;
    let shown = database;
    let Some(file) = database.file() else { return postgres(settings).await };
    if let Err(why) = can_write(file) {
        return Finding::Bad(format!("Database {shown}: {why}"));
    }
    if !file.exists() {
        return Finding::Good(format!("Database {shown}: it will be created"));
    }
    match LedgerView::glance_at(database).await {
        Ok(_) => Finding::Good(format!("Database {shown}")),
        Err(LedgerError::NotThere { .. }) => {
            Finding::Good(format!("Database {shown}: it has no tables yet; the next start creates them"))
        }
        Err(LedgerError::TooOld { .. }) => {
            Finding::Good(format!("Database {shown}: the next start updates its format"))
        }
        Err(e) => Finding::Bad(format!("Database {shown}: {}", e.fault())),
    }
}

/// Checks a ledger in PostgreSQL, and whether this host's socket and lock for it can be created.
async fn postgres(settings: &Settings) -> Finding {
    let (shown, socket) = (&settings.monster.database, &settings.monster.socket);
    if let Err(why) = can_write(socket) {
        return Finding::Bad(format!("Socket {}: {why}", socket.display()));
    }
    match LedgerView::glance_at(shown).await {
        Ok(_) => Finding::Good(format!("Database {shown}")),
        Err(LedgerError::NotThere { .. }) => Finding::Good(format!("Database {shown}: its tables will be created")),
        Err(LedgerError::TooOld { .. }) => {
            Finding::Good(format!("Database {shown}: the next start updates its tables"))
        }
        Err(e) => Finding::Bad(format!("Database {shown}: {}", e.fault())),
    }
}

/// Checks whether a file can be written, or created if it doesn't exist.
fn can_write(file: &Path) -> Result<(), String> {
    let asked = file.to_owned();
    let answer = local::within(MOMENT, move || match fs::metadata(&asked) {
        Ok(meta) if meta.is_dir() => Err("is a directory; set the path of a file".to_owned()),
        // The program also creates files next to this file, such as a lock.
        Ok(_) => may(&asked, Access::WRITE_OK).and_then(|()| may_create_in(&asked)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => may_create_in(&asked),
        Err(e) => Err(e.to_string()),
    });
    answer.unwrap_or_else(|| {
        Err("the file system does not answer; restore its server, or unmount it (umount -l)".to_owned())
    })
}

fn may_create_in(file: &Path) -> Result<(), String> {
    let directory = file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    match fs::metadata(directory) {
        Ok(meta) if meta.is_dir() => may(directory, Access::WRITE_OK | Access::EXEC_OK),
        Ok(_) => Err(format!("{} is not a directory", directory.display())),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            Err(format!("the directory {} does not exist; create it", directory.display()))
        }
        Err(e) => Err(format!("{}: {e}", directory.display())),
    }
}

/// Checks whether this process may access a path.
fn may(path: &Path, access: Access) -> Result<(), String> {
    accessat(CWD, path, access, AtFlags::EACCESS).map_err(|e| {
        let (path, e) = (path.display(), io::Error::from(e));
        format!("{path} is not writable: {e}; grant write permission to the user that runs contentmonster")
    })
}

/// Checks whether a `Location` can be read and, if delivered files are moved to `processed/`, also written.
fn location(settings: &Settings, directory: &Directory) -> Vec<Finding> {
    let (name, location, asked) = (&directory.name, directory.location.display(), directory.location.clone());
    let moves = !directory.is_mirror() && !settings.vessels_of(name).is_empty();
    let answer = local::within(MOMENT, move || {
        if let Err(e) = fs::read_dir(&asked) {
            return Err(format!(
                "cannot read Location {}: {e}; create this path, make it readable, or correct Location",
                asked.display()
            ));
        }
        let processed = asked.join(PROCESSED);
        let written = [Some(asked), Some(processed).filter(|path| path.exists())];
        let refused = written.iter().flatten().filter(|_| moves).find_map(|path| {
            may(path, Access::WRITE_OK | Access::EXEC_OK)
                .err()
                .map(|why| format!("delivered files cannot be moved: {why}"))
        });
        refused.map_or(Ok(()), Err)
    });
    match answer {
        Some(Ok(())) => {
            let mut findings = vec![Finding::Good(format!("directory {name}: {location}"))];
            findings.extend(exposure(directory));
            findings
        }
        Some(Err(why)) => vec![Finding::Bad(format!("directory {name}: {why}"))],
        None => vec![Finding::Bad(format!(
            "directory {name}: Location {location} does not answer: its file system hangs; restore its server, or \
             unmount it (umount -l)"
        ))],
    }
}

/// Returns notes if other users may write to a directory.
fn exposure(directory: &Directory) -> Vec<Finding> {
    let asked = directory.location.clone();
    let Some(who) = local::within(MOMENT, move || local::exposed_to(&asked)).flatten() else { return Vec::new() };
    let (name, location) = (&directory.name, directory.location.display());
    let mut notes = vec![format!(
        "directory {name}: {location} is writable by {who}, so they can choose which files are sent; if this is not \
         intended, remove the write permission (chmod, chown)"
    )];
    if directory.links == Links::Follow {
        notes.push(format!(
            "directory {name}: {location} is writable by {who}; with `Links = follow`, a link created there makes \
             contentmonster send any file that it can read; write `Links = copy` or `Links = skip`"
        ));
    }
    notes.into_iter().map(Finding::Note).collect()
}

/// Checks whether the programs of the hooks can be run.
fn hooks(settings: &Settings) -> Vec<Finding> {
    let of_directories = settings.directories.iter().map(|one| (format!("directory {}: ", one.name), &one.hooks));
    let all = std::iter::once((String::new(), &settings.monster.hooks)).chain(of_directories);
    let mut tried: Vec<&str> = Vec::new();
    let mut findings = Vec::new();
    for (whose, hooks) in all {
        for (key, program) in programs(hooks) {
            if tried.contains(&program) {
                continue;
            }
            tried.push(program);
            findings.push(match find_program(program) {
                Ok(()) => Finding::Good(format!("{whose}{key}: {program}")),
                Err(why) => Finding::Bad(format!("{whose}{key}: {why}")),
            });
        }
    }
    findings
}

fn programs(hooks: &Hooks) -> impl Iterator<Item = (&'static str, &str)> {
    let keys =
        [(EventKind::Delivered, "OnDelivered"), (EventKind::Retired, "OnRetired"), (EventKind::Parked, "OnParked")];
    keys.into_iter().filter_map(|(kind, key)| Some((key, hooks.on(kind).first()?.as_str())))
}

/// Checks that a program can be run. Finds it as a shell does: by its path, or in `PATH`.
fn find_program(program: &str) -> Result<(), String> {
    let runs = |path: &Path| {
        fs::metadata(path).is_ok_and(|meta| meta.is_file())
            && accessat(CWD, path, Access::EXEC_OK, AtFlags::EACCESS).is_ok()
    };
    if program.contains('/') {
        let path = Path::new(program);
        return match fs::metadata(path) {
            Err(e) => Err(format!("{program}: {e}; install the program, or correct the path")),
            Ok(_) if runs(path) => Ok(()),
            Ok(_) => Err(format!(
                "{program} is not an executable file; set the path of a program, or run: chmod +x {program}"
            )),
        };
    }
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&paths).any(|directory| runs(&directory.join(program)));
    if found {
        Ok(())
    } else {
        Err(format!("{program} was not found in PATH; install it, or give its full path in the settings"))
    }
}

/// Returns a note for each private key that other users can read; `ssh` would refuse such a key.
fn keys(settings: &Settings) -> Vec<Finding> {
    let hosts = settings.vessels.iter().flat_map(|vessel| vessel.hops.iter().chain([&vessel.ssh]));
    let mut files: Vec<&PathBuf> = hosts.flat_map(|host| &host.identity_files).collect();
    files.sort();
    files.dedup();
    let exposed = |file: &&PathBuf| {
        let asked = (*file).clone();
        let meta = local::within(MOMENT, move || fs::metadata(asked).ok()).flatten()?;
        let mode = meta.permissions().mode() & 0o777;
        (mode & 0o077 != 0).then_some(mode)
    };
    let note = |(file, mode): (&PathBuf, u32)| {
        let file = text::visible(&file.display().to_string()).into_owned();
        Finding::Note(format!(
            "IdentityFile {file}: other users can read this key (mode {mode:04o}); run: chmod 600 {file}"
        ))
    };
    files.iter().filter_map(|file| Some((*file, exposed(file)?))).map(note).collect()
}

/// Clears the record that a vessel's shell did not work, so that the next connection tries the shell again. Returns
/// whether there was such a record.
pub(super) async fn take_back_refusal(settings: &Settings, vessel: &crate::names::VesselName) -> bool {
    let shore = Shore::new(settings.clone());
    // Without a ledger, there is no such record.
    let Ok(ledger) = LedgerView::glance_at(&settings.monster.database).await else { return false };
    let Ok(summary) = ledger.summary(0).await else { return false };
    let is_refused = summary.notes.iter().any(|note| note.vessel == *vessel && note.shell_refusal.is_some());
    drop(ledger);
    let order = crate::orders::Order::AskShell { vessel: vessel.to_string() };
    is_refused && shore.carry_out(&order).await.unwrap_or(false)
}
