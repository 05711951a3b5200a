//! `settings show`, `check`, `fmt` and `schema`: they use no network, and only `fmt` writes.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::status_tables::table;
use super::{Exit, load, say, say_error, say_json};
use crate::settings::{self, Effective, Settings, Source};
use crate::text::counted;

/// Prints the effective settings, and where each value comes from.
pub(super) fn show(file: &Path, vessel: Option<&str>, json: bool) -> Exit {
    let (settings, mut all) = match Settings::explain(file) {
        Ok(explained) => explained,
        Err(e) => {
            say_error(format_args!("{e}"));
            return Exit::Settings;
        }
    };
    if let Some(vessel) = vessel {
        if !settings.vessels.iter().any(|one| one.name.as_str() == vessel) {
            let known: Vec<_> = settings.vessels.iter().map(|one| one.name.as_str()).collect();
            say_error(format_args!("there is no [Vessel {vessel}]; known vessels: {}", known.join(", ")));
            return Exit::Usage;
        }
        all.retain(|one| one.section == format!("Vessel {vessel}"));
    }
    if json {
        return match serde_json::to_string_pretty(&all) {
            Ok(text) => {
                say_json(&text);
                Exit::Good
            }
            Err(e) => {
                say_error(format_args!("cannot write the settings as JSON: {e}"));
                Exit::Broken
            }
        };
    }
    for section in all.chunk_by(|a, b| a.section == b.section) {
        say(format_args!("[{}]", section[0].section));
        let rows = section.iter().map(|one| {
            let value = match (&one.value, &one.otherwise) {
                (Some(value), _) => format!("{} = {value}", one.key),
                (None, Some(otherwise)) => format!("# {}: {otherwise}", one.key),
                (None, None) => format!("# {}: not set", one.key),
            };
            [value, origin(one)]
        });
        // Skips the header line, which is empty.
        table(["", ""], rows).lines().skip(1).for_each(|line| say(format_args!("{line}")));
        say(format_args!(""));
    }
    Exit::Good
}

/// Describes where a value comes from, as a comment.
fn origin(one: &Effective) -> String {
    match &one.source {
        Source::Line { file, line, from } if *from == one.section => format!("# {}:{line}", file.display()),
        Source::Line { file, line, from } => format!("# {}:{line} [{from}]", file.display()),
        Source::SshConfig { place } => format!("# ssh config, {place}"),
        Source::Default => "# default".to_owned(),
    }
}

/// Checks the settings alone.
pub(super) fn check(file: &Path) -> Exit {
    let settings = match load(file) {
        Ok(settings) => settings,
        Err(exit) => return exit,
    };
    settings.warnings.iter().for_each(|warning| say(format_args!("note  {warning}")));
    say(format_args!(
        "ok    {} is valid: {}, {}, {}",
        file.display(),
        counted(settings.files.len() as u64, "file"),
        counted(settings.directories.len() as u64, "directory"),
        counted(settings.vessels.len() as u64, "vessel")
    ));
    Exit::Good
}

/// Prints the JSON schema of the settings.
pub(super) fn schema() -> Exit {
    say_json(&format!("{:#}", settings::schema()));
    Exit::Good
}

/// Writes the settings file and the files that it includes in the usual form; with `check_only`, names the files that
/// are not in that form.
pub(super) fn format(file: &Path, check_only: bool) -> Exit {
    // Files with errors are not formatted, so that the lines with the errors stay where the messages say.
    let settings = match load(file) {
        Ok(settings) => settings,
        Err(exit) => return exit,
    };
    let mut changed = 0_u64;
    for file in &settings.files {
        match format_file(file, check_only) {
            Ok(false) => {}
            Ok(true) if check_only => {
                changed += 1;
                say(format_args!("{} is not formatted", file.display()));
            }
            Ok(true) => {
                changed += 1;
                say(format_args!("formatted {}", file.display()));
            }
            Err(e) => {
                say_error(format_args!("cannot format {}: {e}", file.display()));
                return Exit::Broken;
            }
        }
    }
    if changed == 0 {
        say(format_args!("{} formatted already", counted(settings.files.len() as u64, "file")));
    }
    if check_only && changed > 0 { Exit::Undelivered } else { Exit::Good }
}

/// Formats a file; returns whether the formatted text differs. The new file replaces the old one atomically, and gets
/// the old one's owner and mode.
fn format_file(file: &Path, check_only: bool) -> std::io::Result<bool> {
    // If the path is a symbolic link, formats its target, so that the link stays.
    let file: PathBuf = file.canonicalize()?;
    let before = fs::read_to_string(&file)?;
    let after = settings::formatted(&before);
    if before == after || check_only {
        return Ok(before != after);
    }
    let meta = file.metadata()?;
    let directory = file.parent().unwrap_or(Path::new("/"));
    let mut fresh = tempfile::NamedTempFile::new_in(directory)?;
    fresh.write_all(after.as_bytes())?;
    let now = fresh.as_file().metadata()?;
    if (now.uid(), now.gid()) != (meta.uid(), meta.gid()) {
        std::os::unix::fs::fchown(fresh.as_file(), Some(meta.uid()), Some(meta.gid()))?;
    }
    fresh.as_file().set_permissions(fs::Permissions::from_mode(meta.mode() & 0o7777))?;
    fresh.as_file().sync_all()?;
    fresh.persist(&file).map_err(|e| e.error)?;
    Ok(true)
}
