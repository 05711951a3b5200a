//! Writes the settings file as text.

use std::fmt::Write;

use super::plan::{Directory, Place, Plan, Vessel};

/// Comments for every imported settings file: differences that apply to all configurations of Poni.
const QUIRKS: &str = "\
# Poni copies a source only when it notices a change, and never retries a failed copy. Here everything is copied at the
# start, and failed copies are retried.
# Poni accepts any host key on the first connection; here the key must be known: `contentmonster trust NAME`.
# If several syncs have the same source, Poni uses the interval of the first; here each has its own.
";

/// The comment for syncs without `simulate`.
const SIMULATED: &str = "\
# Some syncs do not set `simulate`. Poni documents `simulate: true` as its default, so nothing is sent for them. If your
# Poni copies files without that key, set `simulate: false` there and import again.
";

/// Returns the text of the whole settings file.
pub(super) fn write(plan: &Plan, origin: &str) -> String {
    let mut text = format!("# Imported from Poni's {}.\n#\n{QUIRKS}\n", origin.escape_default());
    if plan.simulated_by_default {
        text.push_str(SIMULATED);
    }
    let mut monster = String::new();
    if plan.simulate {
        monster.push_str("Simulate = yes\n");
    }
    if let Some(log) = &plan.log {
        monster.push_str(&line("LogFile", log));
    }
    if let Some(level) = plan.level {
        monster.push_str(&line("LogLevel", level));
    }
    if !monster.is_empty() {
        let _ = writeln!(text, "[MONSTER]\n{monster}");
    }
    let names: Vec<&str> = plan.directories.iter().map(|directory| directory.name.as_str()).collect();
    for one in &plan.directories {
        text.push_str(&directory(one));
    }
    for one in &plan.vessels {
        text.push_str(&vessel(one, &names));
    }
    text
}

fn directory(directory: &Directory) -> String {
    let treatment = &directory.treatment;
    let mut text = comments(&directory.notes);
    let _ = writeln!(text, "[Directory {}]", directory.name);
    text.push_str(&line("Location", &treatment.source));
    text.push_str("Mode = mirror\n");
    let yes = |text: &mut String, key: &str, so: bool| {
        if so {
            let _ = writeln!(text, "{key} = yes");
        }
    };
    yes(&mut text, "Recursive", treatment.recursive);
    if treatment.links != "skip" {
        let _ = writeln!(text, "Links = {}", treatment.links);
    }
    yes(&mut text, "Owner", treatment.owner);
    yes(&mut text, "Delete", treatment.delete);
    let _ = writeln!(text, "Interval = {}s", treatment.interval);
    if treatment.whole_files {
        text.push_str("Delta = no\n");
    }
    // Without this line, contentmonster would ignore some names, but `rsync` ignores none.
    text.push_str("IgnoreNames = none\n\n");
    text
}

fn vessel(vessel: &Vessel, directories: &[&str]) -> String {
    let account = &vessel.account;
    let mut text = comments(&vessel.notes);
    let _ = writeln!(text, "[Vessel {}]", vessel.name);
    text.push_str(&line("Address", &account.host));
    if account.port != 22 {
        let _ = writeln!(text, "Port = {}", account.port);
    }
    if let Some(user) = &account.user {
        text.push_str(&line("Username", user));
        if vessel.shares_host {
            text.push_str(&line("TempDir", &format!("/tmp/.ContentMonster-{user}")));
        }
    }
    if let Some(key) = &account.key {
        text.push_str(&line("IdentityFile", key));
    }
    if account.compresses {
        text.push_str("Compression = yes\n");
    }
    let (simulated, taken): (Vec<_>, Vec<_>) = vessel.locations.iter().partition(|place| place.simulated);
    let list = |places: &[&Place]| places.iter().map(|place| place.name.as_str()).collect::<Vec<_>>().join(", ");
    if !simulated.is_empty() {
        let _ = writeln!(
            text,
            "# Poni simulated (simulate: true) copying these directories to this vessel: {}; to copy them, \
             add them to Dirs",
            list(&simulated)
        );
    }
    if taken.is_empty() {
        let _ = writeln!(text, "IgnoreDirs = {}", directories.join(", "));
    } else {
        let _ = writeln!(text, "Dirs = {}", list(&taken));
    }
    for Place { name, location, sync, .. } in &vessel.locations {
        let _ = writeln!(text, "# {}", sync.escape_default());
        text.push_str(&line(&format!("RemoteLocation.{name}"), location));
    }
    text.push('\n');
    text
}

fn comments(notes: &[String]) -> String {
    notes.iter().map(|note| format!("# {note}\n")).collect()
}

/// Formats a line of a key and its value, quoting the value where it would be misread otherwise.
fn line(key: &str, value: &str) -> String {
    let plain = value.trim() == value && !value.contains(['#', ';', '"', '\'', '\\']);
    let value = if plain { value.to_owned() } else { format!("\"{}\"", value.replace('"', "\"\"")) };
    format!("{key} = {value}\n")
}
