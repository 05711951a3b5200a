//! Applies new settings at run time. Tasks of unchanged sections continue undisturbed; the tasks of all other sections
//! stop at a safe point and start with the new settings, like after a restart of the daemon.
//!
//! The order of the steps guarantees that no file is retired that a vessel lacks: first the tasks of changed sections
//! end, then the ledger is adjusted to the new settings, then the new tasks start. So every task runs with the settings
//! that the ledger was adjusted to.

use std::collections::HashSet;
use std::fmt;

use futures_util::future::join_all;
use tokio::sync::mpsc;

use super::Daemon;
use super::sections::{DirectoryAtWork, Running, Tasks, as_found};
use crate::fault::Fault;
use crate::ledger::Work;
use crate::names::{DirectoryName, VesselName};
use crate::settings::{Directory, Settings, SettingsError, Vessel};
use crate::shore::{self, AtLocation};
use crate::status::Reload;
use crate::text::counted;

/// The channel of reloaded settings, or of the errors in them.
pub type Reloads = mpsc::Receiver<Read>;

/// Reloaded settings, or the errors in them.
pub(super) type Read = Result<Settings, SettingsError>;

impl Daemon {
    /// Applies new settings, or logs their errors.
    ///
    /// # Errors
    /// A [`Fault`] of the daemon when the ledger can't be used.
    pub(super) async fn reload(&mut self, read: Read, tasks: &mut Tasks) -> Result<(), Fault> {
        let at = self.surroundings.clock.now_ms();
        let (problems, needs_restart) = match read {
            Ok(new) => (Vec::new(), self.follow(new, tasks).await?),
            Err(error) => {
                for problem in &error.problems {
                    tracing::error!("{problem}");
                }
                tracing::error!(
                    "Settings were not reloaded ({}); the previous settings stay in effect",
                    counted(error.problems.len(), "problem")
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

    /// Applies new settings; returns the changed keys of `[MONSTER]` that require a restart.
    async fn follow(&mut self, mut new: Settings, tasks: &mut Tasks) -> Result<Vec<String>, Fault> {
        for warning in new.warnings.iter().filter(|warning| !self.settings.warnings.contains(warning)) {
            tracing::warn!("{warning}");
        }
        let mut monster = self.settings.monster.clone();
        let fixed: Vec<String> = monster.follow(&new.monster).into_iter().map(str::to_owned).collect();
        if !fixed.is_empty() {
            tracing::warn!("[MONSTER] {}: a change takes effect after a restart", fixed.join(", "));
        }
        new.monster = monster;
        let changes = Changes::between(&self.settings, &new);
        let goes_on_beside = changes.are_none() && new.monster.is_kept_and_told_like(&self.settings.monster);
        self.end_tasks(&changes).await;
        self.settings = new;
        self.replace_sections(&changes).await?;
        self.publish();
        if !goes_on_beside {
            self.start_background().await?;
        }
        self.release_queues().await?;
        for name in changes.directories.to_start().filter(|name| self.holds(&Work::Directory((*name).clone()))) {
            self.directory(name).prepare().await?;
        }
        self.go_on(&changes, tasks).await?;
        tracing::info!("Settings reloaded: {changes}");
        Ok(fixed)
    }

    async fn end_tasks(&self, changes: &Changes) {
        let directories = changes.directories.to_end().map(|name| &self.directories[name].running);
        let vessels = changes.vessels.to_end().map(|name| &self.vessels[name].running);
        join_all(directories.chain(vessels).map(Running::end)).await;
    }

    async fn replace_sections(&mut self, changes: &Changes) -> Result<(), Fault> {
        let paused = self.ledger.paused().await.map_err(|e| e.fault())?;
        self.follow_links();
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
        let there = shore::at_locations(self.settings.directories.iter().map(|d| d.location.clone())).await;
        for (settings, at) in self.settings.directories.iter().zip(there) {
            let (name, stop) = (&settings.name, &self.surroundings.stop);
            match self.directories.get_mut(name) {
                // The `Location` of an unchanged section isn't examined again, so that a section whose single file has
                // retired meanwhile does not turn into the section of a directory.
                Some(directory) if !changes.directories.changed.contains(name) => {
                    if changes.directories.restarted.contains(name) {
                        directory.running = Running::within(stop);
                    }
                }
                before => {
                    let found = as_found(settings, at, &self.ledger).await?;
                    let mut directory = DirectoryAtWork::new(found, stop);
                    if let Some(before) = before {
                        directory.taken_in = before.taken_in.clone();
                        directory.relocated =
                            before.relocated || before.settings.location != directory.settings.location;
                    }
                    self.directories.insert(name.clone(), directory);
                }
            }
        }
        Ok(())
    }

    /// Restarts the tasks of directories whose `Location` changed from a file to a directory or back. If nothing is at
    /// the `Location`, the directory keeps its kind.
    ///
    /// # Errors
    /// A [`Fault`] of the daemon when the ledger can't be used.
    pub(super) async fn follow_locations(&mut self, tasks: &mut Tasks) -> Result<(), Fault> {
        let mut changed = Vec::new();
        let there = shore::at_locations(self.settings.directories.iter().map(|d| d.location.clone())).await;
        for (settings, at) in self.settings.directories.iter().zip(there) {
            if matches!(at, None | Some(AtLocation::Nothing)) {
                continue;
            }
            let found = as_found(settings, at, &self.ledger).await?;
            if found != *self.directories[&settings.name].settings {
                changed.push(found);
            }
        }
        // A vessel with `Transport = local` also restarts, because its destinations depend on which locations are
        // files.
        let knows = |vessel: &Vessel| vessel.local.is_some() && changed.iter().any(|one| vessel.takes(&one.name));
        let vessels: Vec<Vessel> = self.settings.vessels.iter().filter(|vessel| knows(vessel)).cloned().collect();
        let directories = changed.iter().map(|directory| &self.directories[&directory.name].running);
        let running = directories.chain(vessels.iter().map(|vessel| &self.vessels[&vessel.name].running));
        join_all(running.map(Running::end)).await;
        let stop = &self.surroundings.stop;
        for found in &changed {
            let mut directory = DirectoryAtWork::new(found.clone(), stop);
            directory.taken_in = self.directories[&found.name].taken_in.clone();
            self.directories.insert(found.name.clone(), directory);
        }
        for vessel in &vessels {
            self.vessels.entry(vessel.name.clone()).and_modify(|one| one.running = Running::within(stop));
        }
        self.publish();
        for found in &changed {
            let kind = if found.only.is_some() { "a single file" } else { "a directory" };
            tracing::info!(directory = %found.name, "Location is now {kind}");
            if self.holds(&Work::Directory(found.name.clone())) {
                self.directory(&found.name).prepare().await?;
                self.start_directory(&found.name, tasks);
            }
        }
        vessels.iter().for_each(|vessel| self.start_vessel(vessel, tasks));
        self.relay_bells();
        self.show();
        Ok(())
    }

    /// Starts the tasks of new and changed sections, and wakes the tasks of the other vessels.
    async fn go_on(&self, changes: &Changes, tasks: &mut Tasks) -> Result<(), Fault> {
        for settings in &self.settings.vessels {
            if changes.vessels.to_start().any(|name| *name == settings.name) {
                self.start_vessel(settings, tasks);
                continue;
            }
            // If a directory was added, retries the deliveries that were parked because this directory was missing in
            // the settings.
            if changes.directories.added.iter().any(|directory| settings.takes(directory)) {
                self.ledger.hurry(&settings.name).await.map_err(|e| e.fault())?;
            }
            self.vessels[&settings.name].controls.bell.ring();
        }
        for name in changes.directories.to_start() {
            self.start_directory(name, tasks);
        }
        Ok(())
    }
}

/// The differences between the sections of two settings.
#[derive(Debug)]
struct Changes {
    directories: Sections<DirectoryName>,
    vessels: Sections<VesselName>,
}

/// The differences between the sections of one kind. Unchanged sections whose tasks continue are in none of the lists.
#[derive(Debug)]
struct Sections<N> {
    added: Vec<N>,
    removed: Vec<N>,
    /// Sections in both the old and the new settings whose keys have changed.
    changed: Vec<N>,
    /// Sections in both the old and the new settings whose tasks must restart.
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
        let same_places = |before: &Directory, now: &Directory| old.places_of(before) == new.places_of(now);
        Self {
            directories: Sections::between(
                &old.directories,
                &new.directories,
                |d| &d.name,
                |before, now| before == now && same_chunks && same_places(before, now),
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
        f.write_str(if parts.is_empty() { "directories and vessels are unchanged" } else { "" })?;
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

    /// Returns the changes from `BEFORE` to `text` as a message, and the directories and vessels that restart.
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
        assert_changes(&turned, "directories and vessels are unchanged", &[], &[]);
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
        assert_changes(&text, "directories and vessels are unchanged", &["in", "out"], &[]);
    }
}
