//! `import poni`: writes a settings file equivalent to a configuration of Poni, an inotify daemon around `rsync`.
//!
//! [`config`] reads the configuration, [`flags`] translates the letters of `rsync`'s options, [`plan`] makes
//! directories and vessels from the syncs, [`text`] writes the settings. Options without an equivalent, and differences
//! that may surprise users of Poni, become comments in the settings.

mod config;
mod flags;
mod plan;
mod text;

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::{Exit, say, say_error};

/// Reads a configuration of Poni, and writes settings to standard output or to a new file.
pub(super) fn poni(file: &Path, output: Option<&Path>) -> Exit {
    let text = match std::fs::read_to_string(file) {
        Ok(text) => text,
        Err(e) => {
            say_error(format_args!("cannot read {}: {e}", file.display()));
            return Exit::Settings;
        }
    };
    let settings = match translate(&text, &file.display().to_string()) {
        Ok(settings) => settings,
        Err(diagnostics) => {
            diagnostics.iter().for_each(|diagnostic| say_error(format_args!("{}:{diagnostic}", file.display())));
            return Exit::Settings;
        }
    };
    let Some(output) = output else {
        say(format_args!("{}", settings.trim_end()));
        return Exit::Good;
    };
    let made = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(output);
    match made.and_then(|mut file| file.write_all(settings.as_bytes())) {
        Ok(()) => {
            let output = output.display();
            say(format_args!("wrote {output}; review it, then run: contentmonster --settings {output} check"));
            Exit::Good
        }
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {
            say_error(format_args!("{} already exists and was not changed; name another file", output.display()));
            Exit::Usage
        }
        Err(e) => {
            say_error(format_args!("cannot write {}: {e}", output.display()));
            Exit::Broken
        }
    }
}

/// Translates a configuration into settings, or returns all errors in the configuration.
fn translate(text: &str, origin: &str) -> Result<String, Vec<config::Diagnostic>> {
    let config = config::read(text)?;
    Ok(text::write(&plan::Plan::new(&config), origin))
}

/// Translates a text as if it were a configuration of Poni; see [`crate::strangers`].
#[cfg(any(test, fuzzing))]
pub fn poni_import(text: &str) {
    if let Err(diagnostics) = translate(text, "config.yml") {
        diagnostics.iter().for_each(|diagnostic| drop(diagnostic.to_string()));
    }
}

#[cfg(test)]
mod tests;
