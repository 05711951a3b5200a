//! New settings while it runs: what they leave as it was goes on undisturbed, the rest ends at a safe point and starts
//! anew, as it would after a restart.
//!
//! The order keeps the promise that nothing is retired that a vessel lacks: the tasks of what changes have ended, then the
//! ledger is fitted to the new settings, then the new tasks start. No task ever sees a ledger that fits other settings
//! than its own.

use std::collections::HashSet;
use std::fmt;

use futures_util::future::join_all;
use tokio::sync::mpsc;

use super::Plan;
use super::sections::{DirectoryAtWork, Running, Tasks};
use crate::fault::Fault;
use crate::names::{DirectoryName, VesselName};
use crate::settings::{Settings, SettingsError};
use crate::shore;
use crate::status::Reload;

/// Brings settings that were read anew, or what is wrong with them.
pub type Reloads = mpsc::Receiver<Read>;

/// Settings, or what is wrong with them.
pub(super) type Read = Result<Settings, SettingsError>;

impl Plan {
    /// Takes over new settings, or says why not.
    ///
    /// # Errors
    /// A [`Fault`] of the daemon's when the ledger can't be used.
    pub(super) async fn reload(&mut self, read: Read, tasks: &mut Tasks) -> Result<(), Fault> {
        let at = self.surroundings.clock.now_ms();
        let (problems, needs_restart) = match read {
            Ok(new) => (Vec::new(), self.follow(new, tasks).await?),
            Err(error) => {
                for problem in &error.problems {
                    tracing::error!("{problem}");
                }
                tracing::error!(
                    "the settings were not reloaded, and those of before stay: {} wrong",
                    error.problems.len()
                );
                (error.problems.iter().map(ToString::to_string).collect(), self.needs_restart())
            }
        };
        self.reloaded = Some(Reload::new(at, problems, needs_restart));
        self.show();
        Ok(())
    }

    fn needs_restart(&self) -> Vec<String> {
        self.reloaded.as_ref().map(|reload| reload.needs_restart.clone()).unwrap_or_default()
    }

    /// Takes over new settings; gives the keys that wait for a restart.
    async fn follow(&mut self, mut new: Settings, tasks: &mut Tasks) -> Result<Vec<String>, Fault> {
        for warning in new.warnings.iter().filter(|warning| !self.settings.warnings.contains(warning)) {
            tracing::warn!("{warning}");
        }
        let mut monster = self.settings.monster.clone();
        let fixed: Vec<String> = monster.follow(&new.monster).into_iter().map(str::to_owned).collect();
        if !fixed.is_empty() {
            tracing::warn!("[MONSTER] {}: a change takes effect with a restart only", fixed.join(", "));
        }
        new.monster = monster;
        let changes = Changes::between(&self.settings, &new);
        let goes_on_beside = changes.are_none() && new.monster.is_kept_and_told_like(&self.settings.monster);
        self.end_tasks(&changes).await;
        self.settings = new;
        self.replace_sections(&changes).await?;
        self.publish();
        if !goes_on_beside {
            self.start_beside().await?;
        }
        for name in changes.directories.to_start() {
            self.directory(name).prepare().await?;
        }
        self.go_on(&changes, tasks).await?;
        tracing::info!("settings reloaded: {changes}");
        Ok(fixed)
    }

    async fn end_tasks(&self, changes: &Changes) {
        let directories = changes.directories.to_end().map(|name| &self.directories[name].running);
        let vessels = changes.vessels.to_end().map(|name| &self.vessels[name].running);
        join_all(directories.chain(vessels).map(Running::end)).await;
    }

    async fn replace_sections(&mut self, changes: &Changes) -> Result<(), Fault> {
        let paused = self.ledger.paused().await.map_err(|e| e.fault())?;
        self.shore_limit.follow(&self.settings.monster.rate_limit);
        for name in &changes.vessels.removed {
            self.vessels.remove(name);
            self.live.forget(name);
        }
        for settings in &self.settings.vessels {
            if changes.vessels.added.contains(&settings.name) {
                let vessel = self.new_vessel(settings, paused.contains(&settings.name));
                self.vessels.insert(settings.name.clone(), vessel);
            } else if let Some(vessel) = self.vessels.get_mut(&settings.name) {
                vessel.limit.follow(&settings.rate_limit);
                if changes.vessels.restarted.contains(&settings.name) {
                    vessel.running = Running::within(&self.surroundings.stop);
                    self.live.connecting(&settings.name);
                }
            }
        }
        for name in &changes.directories.removed {
            self.directories.remove(name);
        }
        let single = shore::single_files(self.settings.directories.iter().map(|d| d.location.clone())).await;
        for (settings, one_file) in self.settings.directories.iter().zip(single) {
            let (name, stop) = (&settings.name, &self.surroundings.stop);
            match self.directories.get_mut(name) {
                // A file that is its own `Location` may have retired: what the section meant before, it means still.
                Some(directory) if !changes.directories.changed.contains(name) => {
                    if changes.directories.restarted.contains(name) {
                        directory.running = Running::within(stop);
                    }
                }
                before => {
                    let taken_in = before.map(|directory| directory.taken_in.clone());
                    let mut directory = DirectoryAtWork::new(settings, one_file, stop);
                    directory.taken_in = taken_in.unwrap_or(directory.taken_in);
                    self.directories.insert(name.clone(), directory);
                }
            }
        }
        Ok(())
    }

    /// Starts the tasks of what is new or changed, and has the others look again.
    async fn go_on(&self, changes: &Changes, tasks: &mut Tasks) -> Result<(), Fault> {
        for settings in &self.settings.vessels {
            if changes.vessels.to_start().any(|name| *name == settings.name) {
                self.start_vessel(settings, tasks);
                continue;
            }
            // What was parked because its directory was not configured any more has its next chance.
            if changes.directories.added.iter().any(|directory| settings.takes(directory)) {
                self.ledger.hurry(&settings.name).await.map_err(|e| e.fault())?;
            }
            self.vessels[&settings.name].reins.bell.ring();
        }
        for name in changes.directories.to_start() {
            self.start_directory(name, tasks);
        }
        Ok(())
    }
}

/// What new settings change, section by section.
#[derive(Debug)]
struct Changes {
    directories: Sections<DirectoryName>,
    vessels: Sections<VesselName>,
}

/// The sections of a kind, by what becomes of them. Those that stand in none of the lists stay as they were.
#[derive(Debug)]
struct Sections<N> {
    added: Vec<N>,
    removed: Vec<N>,
    /// Those that say something else than before.
    changed: Vec<N>,
    /// Those that were there before and whose tasks must start anew.
    restarted: HashSet<N>,
}

impl<N: Clone + Eq + std::hash::Hash> Sections<N> {
    fn between<S: PartialEq>(old: &[S], new: &[S], name: impl Fn(&S) -> &N, goes_on: impl Fn(&S, &S) -> bool) -> Self {
        let find = |sections: &'_ [S], wanted: &N| sections.iter().position(|section| name(section) == wanted);
        let missing_in = |sections: &[S], section: &&S| find(sections, name(section)).is_none();
        let both = old.iter().filter_map(|before| Some((before, &new[find(new, name(before))?])));
        let names = |sections: Vec<&S>| sections.into_iter().map(|section| name(section).clone()).collect();
        Self {
            added: names(new.iter().filter(|section| missing_in(old, section)).collect()),
            removed: names(old.iter().filter(|section| missing_in(new, section)).collect()),
            changed: both.clone().filter(|(before, now)| before != now).map(|(_, now)| name(now).clone()).collect(),
            restarted: both.filter(|(before, now)| !goes_on(before, now)).map(|(_, now)| name(now).clone()).collect(),
        }
    }

    fn are_none(&self) -> bool {
        self.added.is_empty() && self.removed.is_empty() && self.changed.is_empty() && self.restarted.is_empty()
    }

    fn to_end(&self) -> impl Iterator<Item = &N> {
        self.removed.iter().chain(&self.restarted)
    }

    fn to_start(&self) -> impl Iterator<Item = &N> {
        self.added.iter().chain(&self.restarted)
    }
}

impl Changes {
    fn are_none(&self) -> bool {
        self.directories.are_none() && self.vessels.are_none()
    }

    fn between(old: &Settings, new: &Settings) -> Self {
        let same_chunks = old.monster.chunk_size == new.monster.chunk_size;
        let same_vessels = |name: &DirectoryName| old.vessels_of(name) == new.vessels_of(name);
        Self {
            directories: Sections::between(
                &old.directories,
                &new.directories,
                |d| &d.name,
                |before, now| before == now && same_chunks && same_vessels(&now.name),
            ),
            vessels: Sections::between(
                &old.vessels,
                &new.vessels,
                |v| &v.name,
                |before, now| before.is_served_like(now),
            ),
        }
    }
}

impl fmt::Display for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [
            said("added vessel", &self.vessels.added),
            said("changed vessel", &self.vessels.changed),
            said("removed vessel", &self.vessels.removed),
            said("added directory", &self.directories.added),
            said("changed directory", &self.directories.changed),
            said("removed directory", &self.directories.removed),
        ];
        let parts: Vec<String> = parts.into_iter().flatten().collect();
        f.write_str(if parts.is_empty() { "the same directories and vessels" } else { "" })?;
        f.write_str(&parts.join("; "))
    }
}

fn said<N: fmt::Display>(what: &str, names: &[N]) -> Option<String> {
    let names: Vec<String> = names.iter().map(ToString::to_string).collect();
    (!names.is_empty()).then(|| format!("{what} {}", names.join(", ")))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::settings::Environment;

    const BEFORE: &str = "[Directory in]\nLocation = /in\n[Directory out]\nLocation = /out\n\
                          [Vessel tern]\nAddress = tern\nUsername = u\n[Vessel gull]\nAddress = gull\nUsername = u\n";

    /// What this text changes: what is said of it, and which directories and vessels start anew.
    fn changes(text: &str) -> (String, Vec<String>, Vec<String>) {
        let read = |text| Settings::parse(text, Path::new("/settings.ini"), &Environment::default()).unwrap();
        let changes = Changes::between(&read(BEFORE), &read(text));
        let mut directories: Vec<_> = changes.directories.to_start().map(ToString::to_string).collect();
        let mut vessels: Vec<_> = changes.vessels.to_start().map(ToString::to_string).collect();
        directories.sort();
        vessels.sort();
        (changes.to_string(), directories, vessels)
    }

    #[track_caller]
    fn assert_changes(text: &str, said: &str, directories: &[&str], vessels: &[&str]) {
        let found = changes(text);
        assert_eq!(found.0, said);
        assert_eq!(
            (found.1, found.2),
            (directories.iter().map(ToString::to_string).collect(), vessels.iter().map(ToString::to_string).collect())
        );
    }

    #[test]
    fn what_says_the_same_stays_as_it_is_wherever_it_stands() {
        let (directories, vessels) = BEFORE.split_at(BEFORE.find("[Vessel").unwrap());
        let turned = format!("{vessels}# a comment\n{directories}");
        assert_changes(&turned, "the same directories and vessels", &[], &[]);
    }

    #[test]
    fn a_rate_limit_is_followed_without_a_new_start() {
        assert_changes(&BEFORE.replace("tern\n", "tern\nRateLimit = 1 MiB/s\n"), "changed vessel tern", &[], &[]);
    }

    #[test]
    fn a_directory_whose_vessels_change_starts_anew() {
        let text = BEFORE.replace("= gull\n", "= gull\nIgnoreDirs = out\n");
        assert_changes(&text, "changed vessel gull", &["out"], &["gull"]);
        let text = BEFORE.replace("[Vessel gull]", "[Vessel auk]");
        assert_changes(&text, "added vessel auk; removed vessel gull", &["in", "out"], &["auk"]);
    }

    #[test]
    fn a_directory_that_changes_leaves_the_vessels_alone() {
        let text = BEFORE.replace("/in\n", "/in\nExclude = *.bak\n");
        assert_changes(&text, "changed directory in", &["in"], &[]);
        let text = format!("[MONSTER]\nChunkSize = 1 MiB\n{BEFORE}");
        assert_changes(&text, "the same directories and vessels", &["in", "out"], &[]);
    }
}
