//! The program's own files, which are never replicated, wherever they are: the settings and the files that they
//! include, files with secrets, the ledger, the log and the socket.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::all_keys;
use super::database::with_suffix;
use super::directory::{Directory, OwnFiles};
use super::files::Files;
use super::logging::LogTarget;
use super::monster::Monster;
use super::overlap::takes;
use super::problems::{Diagnostic, Place, Problems};
use super::reach::Reach;
use super::values::Start;
use super::vessel::Vessel;

/// Suffixes of the ledger's files: the empty suffix of `Database` itself, and those of the files beside it.
const BESIDE_DATABASE: [&str; 7] = ["", "-wal", "-shm", "-journal", ".lock", ".sock", ".sock.new"];

/// Suffixes of the socket's files: the empty suffix of the socket itself, and those of the files beside it.
const BESIDE_SOCKET: [&str; 3] = ["", ".new", ".lock"];

impl OwnFiles {
    /// Collects the program's own files from the settings. `file` is the settings file.
    pub(super) fn of(
        file: &Path,
        files: &Files,
        start: &Start,
        monster: Option<&Monster>,
        vessels: &[(Vessel, Place)],
    ) -> Self {
        let mut own = Self { fixed: BTreeSet::from([file.to_owned()]), ..Self::default() };
        own.fixed.extend(files.included.iter().filter_map(|(file, _)| std::path::absolute(file).ok()));
        let entries = files.sections.iter().flat_map(|section| &section.entries);
        let secrets = entries.filter(|entry| all_keys::names_secret_file(&entry.key));
        own.fixed.extend(secrets.filter_map(|entry| start.path(&entry.value).ok()));
        for (vessel, _) in vessels {
            for host in vessel.hops.iter().chain([&vessel.ssh]) {
                own.fixed.extend(host.identity_files.iter().chain(&host.certificate_files).cloned());
            }
        }
        if let Some(monster) = monster {
            if let Some(file) = monster.database.file() {
                own.ledger = Some(file.to_owned());
                own.changing.extend(BESIDE_DATABASE.iter().map(|suffix| with_suffix(file, suffix)));
            }
            own.changing.extend(BESIDE_SOCKET.iter().map(|suffix| with_suffix(&monster.socket, suffix)));
            if let LogTarget::File(log) = &monster.logging.target {
                own.changing.insert(log.clone());
            }
        }
        own
    }

    /// Reports a `Location` that is one of the program's own files. Warns of a `Location` that contains some of these
    /// files, because they are skipped.
    pub(super) fn check(&self, directories: &[(Directory, Place)], locations: &[Reach], problems: &Problems) {
        // The warning names the ledger and the socket, but not the files beside them.
        let beside = |path: &Path| {
            let path = path.as_os_str().as_encoded_bytes();
            BESIDE_DATABASE[1..].iter().chain(&BESIDE_SOCKET[1..]).any(|suffix| {
                path.strip_suffix(suffix.as_bytes())
                    .is_some_and(|base| self.changing.iter().any(|own| own.as_os_str().as_encoded_bytes() == base))
            })
        };
        let named: Vec<PathBuf> =
            self.fixed.iter().chain(&self.changing).filter(|path| !beside(path)).cloned().collect();
        let reaches = Reach::of(&named);
        for ((directory, place), location) in directories.iter().zip(locations) {
            let below = |reach: &Reach| {
                let below = location.holds(reach)?;
                let retired = !directory.is_mirror() && below.starts_with("processed");
                (!retired && takes(directory, &below, true)).then(|| below.display().to_string())
            };
            let held: Vec<String> = reaches.iter().filter_map(below).collect();
            let place = place.clone().at_key("Location");
            if held.iter().any(String::is_empty) {
                let message = "is one of contentmonster's own files, which are never sent";
                problems.report(place, Diagnostic::new(message, "name another file"));
            } else if !held.is_empty() {
                let message = format!("contains contentmonster's own files, which are never sent: {}", held.join(", "));
                problems.warn(place, Diagnostic::new(message, "move them elsewhere, or choose another Location"));
            }
        }
    }
}
