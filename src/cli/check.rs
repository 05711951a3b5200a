//! `check`: tests the settings, this host and the vessels, and prints remedies.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::check_shore::{self, take_back_refusal};
use super::{Exit, load, runtime, say, ssh_environment};
use crate::local;
use crate::logging;
use crate::transport::SshEnvironment;
use crate::vessel::{self, Finding};

/// Timeout for a query to a disk.
const MOMENT: Duration = Duration::from_secs(2);

/// Prints a finding about `whom`, which may be empty; returns whether nothing is wrong.
fn report(whom: &str, finding: &Finding) -> bool {
    match finding {
        Finding::Good(what) => say(format_args!("ok    {whom}{what}")),
        Finding::Note(what) => say(format_args!("note  {whom}{what}")),
        Finding::Bad(what) => say(format_args!("BAD   {whom}{what}")),
    }
    !matches!(finding, Finding::Bad(_))
}

/// Checks the settings, this host and every vessel.
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
    for finding in runtime.block_on(check_shore::check(&settings)) {
        fit &= report("", &finding);
    }
    // A new host key is accepted as the settings say, but recorded only when files are delivered.
    let environment = Arc::new(SshEnvironment { records_host_keys: false, ..ssh_environment(&settings) });
    let directories: Vec<_> = settings.directories.iter().cloned().map(Arc::new).collect();
    for vessel in settings.vessels.iter().cloned().map(Arc::new) {
        let (findings, has_shell) = runtime.block_on(vessel::check(&vessel, &directories, &environment));
        let whom = format!("vessel {}: ", vessel.name);
        if has_shell && runtime.block_on(take_back_refusal(&settings, &vessel.name)) {
            let note = "its shell did not work earlier; the next connection tries the shell again";
            report(&whom, &Finding::Note(note.to_owned()));
        }
        for finding in findings {
            fit &= report(&whom, &finding);
        }
    }
    // Without waiting for threads, because a thread that waits for a disk may never end.
    runtime.shutdown_background();
    if fit { Exit::Good } else { Exit::Unfit }
}
