//! Determines which schedules apply to the files of a directory on a vessel.

use super::directory::Directory;
use super::priority::{Order, Priority};
use super::schedule::Schedule;
use super::vessel::Vessel;

impl Directory {
    /// Returns whether the directory's files have their own queue in the ledger, because they are not simply sent in
    /// the order of their age.
    pub fn has_own_queue(&self) -> bool {
        self.priority != Priority::default()
            || self.order != Order::default()
            || self.expire.is_some()
            || !self.schedule.is_always_open()
    }

    /// Returns the directory's own schedule, unless the directory's priority is exempt from it.
    pub fn own_schedule(&self) -> Option<&Schedule> {
        let applies = !self.schedule.is_always_open() && !self.schedule_exempt.contains(&self.priority);
        applies.then_some(&self.schedule)
    }
}

impl Vessel {
    /// Returns the schedules that must all be open before files of a directory may be sent to the vessel; empty if
    /// files may be sent at any time.
    pub fn schedules<'a>(&'a self, directory: &'a Directory) -> Vec<&'a Schedule> {
        self.own_schedule(directory.priority).into_iter().chain(directory.own_schedule()).collect()
    }

    /// Returns the vessel's own schedule, unless files of `priority` are exempt from it.
    pub fn own_schedule(&self, priority: Priority) -> Option<&Schedule> {
        (!self.schedule.is_always_open() && !self.schedule_exempt.contains(&priority)).then_some(&self.schedule)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::settings::{Environment, Settings, SettingsError};

    fn parse(defaults: &str, directory: &str, vessel: &str) -> Result<Settings, SettingsError> {
        let text = format!(
            "[DEFAULT]\n{defaults}\n[Directory d]\nLocation = /srv/d\n{directory}\n\
             [Vessel v]\nAddress = v\nUsername = u\n{vessel}\n"
        );
        Settings::parse(&text, Path::new("/settings.ini"), &Environment::default())
    }

    fn problem(directory: &str, vessel: &str) -> String {
        parse("", directory, vessel).unwrap_err().to_string()
    }

    #[test]
    fn schedules_that_are_never_open_together_are_an_error_with_the_remedy() {
        let said = problem("Schedule = Mon-Fri\nSchedule.tz = UTC", "Schedule = Sat\nSchedule.tz = UTC");
        assert!(said.contains("[Vessel v] Schedule") && said.contains("never open at the same time"), "{said}");
        assert!(said.contains("add d to IgnoreDirs"), "{said}");
        for (directory, vessel) in [
            ("Schedule = Mon-Fri\nSchedule.tz = UTC", "Schedule = Sat\nSchedule.tz = UTC\nIgnoreDirs = d"),
            (
                "Schedule = Mon-Fri\nPriority = urgent\nSchedule.tz = UTC",
                "Schedule = Sat\nSchedule.tz = UTC\nScheduleExempt = high, urgent",
            ),
            ("Schedule = Fri 22:00-06:00\nSchedule.tz = UTC", "Schedule = Sat\nSchedule.tz = UTC"),
            ("Schedule = Mon-Fri\nSchedule.tz = UTC", "Schedule = Sat 00:00-01:00\nSchedule.tz = Asia/Tokyo"),
            ("Schedule = 22:00-06:00", "Schedule = always"),
        ] {
            assert!(parse("", directory, vessel).is_ok(), "{directory} {vessel}");
        }
    }

    #[test]
    fn defaults_hold_for_directories_and_vessels_and_can_be_taken_back() {
        let settings = parse("Schedule = 22:00-06:00\nScheduleExempt = urgent", "Priority = urgent", "").unwrap();
        assert!(settings.vessels[0].schedules(&settings.directories[0]).is_empty());
        let settings = parse("Schedule = 22:00-06:00", "Schedule = always", "").unwrap();
        assert_eq!(settings.vessels[0].schedules(&settings.directories[0]), [&settings.vessels[0].schedule]);
        assert!(settings.warnings.is_empty(), "{:?}", settings.warnings);
        assert!(!parse("", "", "").unwrap().directories[0].has_own_queue());
    }

    #[test]
    fn values_that_mean_nothing_are_errors_that_name_the_key() {
        for (directory, key) in [
            ("Priority = 5", "Priority"),
            ("Order = random", "Order"),
            ("Expire = 0", "Expire"),
            ("Expire = soon", "Expire"),
            ("Schedule = never", "Schedule"),
            ("Schedule = 06:00-06:00", "Schedule"),
            ("Schedule = Sat\nSchedule.tz = Atlantis/City", "Schedule.tz"),
            ("Schedule = Sat\nScheduleExempt = all", "ScheduleExempt"),
        ] {
            let said = problem(directory, "");
            assert!(said.contains(&format!("[Directory d] {key}: ")), "{said}");
        }
        let settings = parse("", "", "ScheduleExempt = urgent\nSchedule.tz = UTC").unwrap();
        assert_eq!(settings.warnings.len(), 2, "{:?}", settings.warnings);
    }
}
