//! `check`: tests the settings, the directories and the vessels, and prints remedies.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::shore::Shore;
use super::{Exit, load, runtime, say, ssh_environment};
use crate::local;
use crate::logging;
use crate::names::VesselName;
use crate::orders::Order;
use crate::settings::{Directory, Links, Settings};
use crate::vessel::{self, Finding};

/// Timeout for a query to a disk.
const MOMENT: Duration = Duration::from_secs(2);

/// Prints a note when other users may write to a directory.
fn exposure(directory: &Directory) {
    let asked = directory.location.clone();
    let Some(who) = local::within(MOMENT, move || local::exposed_to(&asked)).flatten() else { return };
    let location = directory.location.display();
    say(format_args!(
        "note  directory {}: {who} may write to {location}, and so decide what is sent; remove the write permission \
         (chmod, chown) if that is not intended",
        directory.name
    ));
    if directory.links == Links::Follow {
        say(format_args!(
            "note  directory {}: Links = follow sends every file that a link leads to and contentmonster may read, and \
             {who} may create links in {location}; write `Links = copy` or `Links = skip`",
            directory.name
        ));
    }
}

/// Clears the recorded refusal of a vessel's shell; returns whether a refusal was recorded.
async fn take_back_refusal(settings: &Settings, vessel: &VesselName) -> bool {
    let shore = Shore::new(settings.clone());
    // When there is no ledger, no refusal is recorded.
    let Ok(ledger) = shore.ledger().await else { return false };
    let Ok(summary) = ledger.summary(0).await else { return false };
    let is_refused = summary.notes.iter().any(|note| note.vessel == *vessel && note.shell_refusal.is_some());
    drop(ledger);
    is_refused && shore.carry_out(&Order::AskShell { vessel: vessel.to_string() }).await.unwrap_or(false)
}

/// Checks whether a `Location` can be read, and prints the result.
fn check_location(directory: &Directory) -> bool {
    let (name, location, asked) = (&directory.name, directory.location.display(), directory.location.clone());
    match local::within(MOMENT, move || std::fs::read_dir(asked).map(drop)) {
        Some(Ok(())) => {
            say(format_args!("ok    directory {name}: {location}"));
            exposure(directory);
            return true;
        }
        Some(Err(e)) => say(format_args!(
            "BAD   directory {name}: cannot read Location {location}: {e}; create this path, or correct Location"
        )),
        None => say(format_args!(
            "BAD   directory {name}: Location {location} does not answer: its file system hangs; restore its server, \
             or unmount it (umount -l)"
        )),
    }
    false
}

/// Checks the settings, the directories and every vessel.
pub(super) fn check(file: &Path) -> Exit {
    let settings = match load(file) {
        Ok(mut settings) => {
            settings.find_single_files(|location| {
                let asked = location.to_owned();
                local::within(MOMENT, move || local::is_file(&asked)).unwrap_or(false)
            });
            settings
        }
        Err(exit) => return exit,
    };
    let _ = logging::start(None, None);
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(exit) => return exit,
    };
    say(format_args!("ok    settings: {} is valid", file.display()));
    settings.listing.iter().for_each(|line| say(format_args!("ok    settings: {line}")));
    settings.warnings.iter().for_each(|warning| say(format_args!("note  settings: {warning}")));
    let mut fit = true;
    for directory in &settings.directories {
        fit &= check_location(directory);
    }
    let environment = Arc::new(ssh_environment(&settings));
    let directories: Vec<_> = settings.directories.iter().cloned().map(Arc::new).collect();
    for vessel in settings.vessels.iter().cloned().map(Arc::new) {
        let (findings, has_shell) = runtime.block_on(vessel::check(&vessel, &directories, &environment));
        if has_shell && runtime.block_on(take_back_refusal(&settings, &vessel.name)) {
            say(format_args!(
                "note  vessel {}: its shell did not work earlier; the next connection tries the shell again",
                vessel.name
            ));
        }
        for finding in findings {
            match finding {
                Finding::Good(what) => say(format_args!("ok    vessel {}: {what}", vessel.name)),
                Finding::Note(what) => say(format_args!("note  vessel {}: {what}", vessel.name)),
                Finding::Bad(what) => {
                    fit = false;
                    say(format_args!("BAD   vessel {}: {what}", vessel.name));
                }
            }
        }
    }
    // Without waiting for threads, because a thread that waits for a disk may never end.
    runtime.shutdown_background();
    if fit { Exit::Good } else { Exit::Unfit }
}
