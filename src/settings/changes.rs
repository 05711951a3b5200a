//! Determines what must restart to apply a change of the settings: nothing, some tasks, or the whole program. The
//! `reload` of each key in the tables decides.

use super::directory::{self, Directory};
use super::key::Reload;
use super::monster::{self, Monster};
use super::table::Key;
use super::vessel::{self, Vessel};

impl Monster {
    /// Applies the changes in `new` that need no restart; returns the names of the changed keys that need one.
    pub fn follow(&mut self, new: &Self) -> Vec<&'static str> {
        let mut waiting = Vec::new();
        let mut later = self.clone();
        for key in monster::KEYS {
            if key.known.reload == Reload::Restart {
                let before = later.clone();
                (key.field.copy)(&mut later, new);
                waiting.extend((later != before).then_some(key.known.name));
            } else {
                (key.field.copy)(self, new);
            }
        }
        waiting
    }

    /// Returns whether a change from this section to `other` leaves the background tasks unaffected.
    pub fn is_kept_and_told_like(&self, other: &Self) -> bool {
        let background = |key: &Key<Self>| key.known.reload == Reload::Background;
        with_those_of(self, other, monster::KEYS, background) == *self
    }
}

impl Directory {
    /// Returns whether a change from this section to `other` leaves transfers in progress unaffected. Keys that select
    /// files or say when files are sent affect only the shore's tasks, not the transfers.
    pub fn is_delivered_like(&self, other: &Self) -> bool {
        let shores = with_those_of(self, other, directory::KEYS, |key| key.known.reload != Reload::Transfers);
        Self { own_files: other.own_files.clone(), ..shores } == *other
    }
}

impl Vessel {
    /// Returns whether a change from this section to `other` leaves a connected vessel unaffected.
    pub fn is_served_like(&self, other: &Self) -> bool {
        with_those_of(self, other, vessel::KEYS, |key| key.known.reload != Reload::Transfers) == *other
    }
}

/// Returns a copy of `section` in which the fields of the `wanted` keys are those of `other`.
fn with_those_of<S: Clone>(section: &S, other: &S, keys: &[Key<S>], wanted: impl Fn(&Key<S>) -> bool) -> S {
    let mut mixed = section.clone();
    keys.iter().filter(|key| wanted(key)).for_each(|key| (key.field.copy)(&mut mixed, other));
    mixed
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::settings::key::SectionKind;
    use crate::settings::{Environment, Settings, all_keys};

    fn read(monster: &str, directory: &str, vessel: &str) -> Settings {
        let text = format!(
            "[MONSTER]\n{monster}\n[Directory d]\nLocation = /srv/d\nMode = mirror\n{directory}\n\
             [Vessel v]\nAddress = v.example\nUsername = u\n{vessel}\n"
        );
        Settings::parse(&text, Path::new("/settings.ini"), &Environment::default()).unwrap()
    }

    #[test]
    fn a_changed_key_of_a_directory_disturbs_what_its_row_says() {
        let before = read("", "", "").directories.remove(0);
        for line in [
            "RemoteLocation = /elsewhere",
            "SettleTime = 7s",
            "RescanInterval = 7s",
            "IgnoreNames = *.x",
            "Delta = no",
            "Recursive = yes",
            "Delete = yes",
            "MaxDelete = 7",
            "Consumed = no",
            "Links = copy",
            "Owner = yes",
            "Interval = 7s",
            "Include = *.x",
            "Exclude = *.x",
            "MinSize = 7",
            "MaxSize = 7",
            "MinAge = 7s",
            "KeepProcessed = 7d",
            "OnDelivered = true",
            "OnRetired = true",
            "OnParked = true",
        ] {
            let after = read("", line, "").directories.remove(0);
            let known = all_keys::known(SectionKind::Directory, line.split(' ').next().unwrap()).unwrap();
            assert!(before != after, "{line}");
            assert_eq!(before.is_delivered_like(&after), known.reload != Reload::Transfers, "{line}");
        }
    }

    #[test]
    fn only_a_rate_limit_of_a_vessel_changes_under_its_transfers() {
        let before = read("", "", "").vessels.remove(0);
        for line in
            ["RateLimit = 1 MiB/s", "Port = 23", "Timeout = 7s", "Connections = 3", "Shell = no", "Password = x"]
        {
            let after = read("", "", line).vessels.remove(0);
            assert!(before != after, "{line}");
            assert_eq!(before.is_served_like(&after), line.starts_with("RateLimit"), "{line}");
        }
    }

    #[test]
    fn what_waits_for_a_restart_is_named_and_the_rest_is_taken_over() {
        let mut before = read("", "", "").monster;
        let limited = read("RateLimit = 1 MiB/s", "", "").monster;
        assert!(before.is_kept_and_told_like(&limited) && before != limited);
        let text =
            "Cache = 16 MiB\nListen = 127.0.0.1:8022\nListenToken = x\nLogLevel = debug\nMinFree = 7\nHookTimeout = 7s";
        let after = read(text, "", "").monster;
        assert!(!before.is_kept_and_told_like(&after));
        assert_eq!(before.follow(&after), ["Cache", "Listen", "ListenToken", "LogLevel"]);
        assert_eq!((before.min_free, before.notifications.hook_timeout.as_secs()), (7, 7));
        assert_eq!((before.cache, before.listen, &before.logging.level), (64 << 20, None, &None));
    }
}
