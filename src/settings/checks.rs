//! Checks whether sections fit together. Each of them is already known to be valid by itself.

use super::directory::Directory;
use super::network_link::Link;
use super::priorities::Priorities;
use super::problems::{Diagnostic, Place, Problems};
use super::schedule::Schedule;
use super::section_view::View;
use super::vessel::Vessel;

/// Warns of directories without a vessel, which are allowed but probably a mistake.
pub(super) fn destinations(directories: &[(Directory, Place)], vessels: &[(Vessel, Place)], problems: &Problems) {
    for (directory, place) in directories {
        if !vessels.iter().any(|(vessel, _)| vessel.takes(&directory.name)) {
            let diagnostic = Diagnostic::new(
                "no vessel receives this directory, so its files stay where they are",
                "add the directory to a vessel's Dirs, remove it from a vessel's IgnoreDirs, or remove this section",
            );
            problems.warn(place.clone(), diagnostic);
        }
    }
}

/// Reports directories whose schedule is never open at the same time as the schedule of a vessel that takes them.
pub(super) fn windows(directories: &[(Directory, Place)], vessels: &[(Vessel, Place)], problems: &Problems) {
    for (vessel, place) in vessels {
        for (directory, _) in directories.iter().filter(|(directory, _)| vessel.takes(&directory.name)) {
            let schedules = vessel.schedules(directory);
            if !schedules.is_empty() && Schedule::never_open(&schedules) {
                let name = &directory.name;
                let message = match schedules.len() {
                    1 => format!("the Schedule for [Directory {name}] is never open"),
                    _ => format!("this Schedule and that of [Directory {name}] are never open at the same time"),
                };
                let remedy = format!("let their windows overlap, or add {name} to IgnoreDirs of this vessel");
                problems.report(place.clone().at_key("Schedule"), Diagnostic::new(message, remedy));
            }
        }
    }
}

/// Reports vessels that take directories of several shores: a vessel is served by one shore at a time.
pub(super) fn shores(directories: &[(Directory, Place)], vessels: &[(Vessel, Place)], problems: &Problems) {
    for (vessel, place) in vessels {
        let taken = directories.iter().map(|(directory, _)| directory).filter(|one| vessel.takes(&one.name));
        let mut bound = taken.filter(|directory| !directory.shore.is_empty());
        let Some(first) = bound.next() else { continue };
        if let Some(other) = bound.find(|other| other.shore != first.shore) {
            let message = format!(
                "receives [Directory {}] of the shore {} and [Directory {}] of the shore {}, but only one shore can \
                 serve a vessel",
                first.name, first.shore, other.name, other.shore
            );
            let remedy =
                "add one of the directories to IgnoreDirs, and write a second section for this vessel that takes it";
            problems.report(place.clone(), Diagnostic::new(message, remedy));
        }
    }
}

/// Reports directories whose priority is not allowed on any way to a vessel.
pub(super) fn ways(directories: &[(Directory, Place)], vessels: &[(Vessel, Place)], problems: &Problems) {
    for (vessel, place) in vessels {
        let mut any = Priorities::NONE;
        let links = || vessel.ways.iter().filter_map(|way| way.link.as_ref());
        vessel.ways.iter().for_each(|way| any = any.or(way.priorities()));
        let stays = |directory: &&Directory| vessel.takes(&directory.name) && !any.contains(directory.priority);
        let stay = directories.iter().map(|(directory, _)| directory);
        for directory in stay.filter(|_| !vessel.ways.is_empty()).filter(stays) {
            let (name, priority) = (&directory.name, directory.priority.as_str());
            let names = links().map(|link| format!("[Link {}]", link.name)).collect::<Vec<_>>().join(" or ");
            let message =
                format!("no link to this vessel accepts files of [Directory {name}], which have priority {priority}");
            let remedy = format!("add {priority} to Priorities of {names}, or {name} to IgnoreDirs of this vessel");
            problems.report(place.clone(), Diagnostic::new(message, remedy));
        }
    }
}

/// Reports a link over which no file may go, and warns of a reserve that no file may use.
pub(super) fn priorities(
    view: &View<'_>,
    link: &Link,
    directories: &[(Directory, Place)],
    vessels: &[(Vessel, Place)],
) {
    let uses =
        |vessel: &&Vessel| vessel.ways.iter().any(|way| way.link.as_ref().is_some_and(|other| other.name == link.name));
    let users: Vec<&Vessel> = vessels.iter().map(|(vessel, _)| vessel).filter(uses).collect();
    if users.is_empty() {
        return;
    }
    let taken = directories.iter().map(|(directory, _)| directory);
    let taken = taken.filter(|directory| users.iter().any(|vessel| vessel.takes(&directory.name)));
    let taken: Priorities = taken.map(|directory| directory.priority).collect();
    if taken.and(link.priorities).is_empty() && !taken.is_empty() {
        let message = format!(
            "no file may use this link: the vessels on it receive no directory with priority {}",
            link.priorities.either()
        );
        let remedy = format!(
            "set Priority of a directory to {}, add {} to Priorities here, or remove this section",
            link.priorities.either(),
            taken.either()
        );
        view.problems.report(view.place_of("Priorities"), Diagnostic::new(message, remedy));
    } else if let Some(reserve) = link.reserve
        && taken.and(link.priorities).and(reserve.priorities()).is_empty()
    {
        let message =
            format!("no file may use the reserve: no file on this link has priority {}", reserve.priorities().either());
        let remedy = format!(
            "set Priority of a directory to {}, which Priorities must accept, or remove the line",
            reserve.priorities().either()
        );
        let diagnostic = Diagnostic::new(message, remedy);
        view.problems.warn(view.place_of("BudgetReserve"), diagnostic);
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::settings::{Environment, Settings, SettingsError};

    fn parse(directories: &str, links: &str, vessel: &str) -> Result<Settings, SettingsError> {
        let text = format!(
            "[MONSTER]\nChunkSize = 1 MiB\n{directories}\n{links}\n\
             [Vessel v]\nUsername = u\n{vessel}\n"
        );
        Settings::parse(&text, Path::new("/settings.ini"), &Environment::default())
    }

    const STORMS: &str = "[Directory storms]\nLocation = /srv/storms\nPriority = urgent";
    const FILMS: &str = "[Directory films]\nLocation = /srv/films\nPriority = bulk";

    #[test]
    fn a_link_that_no_file_may_use_is_an_error_with_the_remedy() {
        let one = "[Link sat]\nPriorities = high";
        let said = parse(FILMS, one, "Address = v\nAddress.sat = v").unwrap_err().to_string();
        assert!(said.contains("[Link sat] Priorities") && said.contains("no file may use this link"), "{said}");
        assert!(
            said.contains("set Priority of a directory to") && said.contains("add bulk to Priorities here"),
            "{said}"
        );
        let said = parse(FILMS, "[Link sat]\nPriorities = urgent, bulky", "Address.sat = v").unwrap_err().to_string();
        assert!(said.contains("[Link sat] Priorities: invalid value"), "{said}");
    }

    #[test]
    fn files_that_may_go_over_no_way_are_an_error_with_the_remedy() {
        let both = format!("{STORMS}\n{FILMS}");
        let sat = "[Link sat]\nPriorities = high, urgent";
        let said = parse(&both, sat, "Address.sat = v").unwrap_err().to_string();
        assert!(
            said.contains(
                "[Vessel v] no link to this vessel accepts files of [Directory films], which have priority bulk"
            ),
            "{said}"
        );
        assert!(said.contains("add bulk to Priorities of [Link sat], or films to IgnoreDirs"), "{said}");
        for vessel in ["Address = v\nAddress.sat = v", "Address.sat = v\nIgnoreDirs = films"] {
            assert!(parse(&both, sat, vessel).is_ok(), "{vessel}");
        }
    }

    #[test]
    fn a_reserve_needs_a_budget_and_leaves_a_chunk() {
        let problem = |keys: &str| parse(STORMS, "", &format!("Address = v\n{keys}"));
        let said = problem("Budget = 2 MB/day\nBudgetReserve = 60% high").unwrap_err().to_string();
        assert!(said.contains("[Vessel v] BudgetReserve: the reserve leaves 800000 bytes of 2 MB/day"), "{said}");
        assert_eq!(problem("BudgetReserve = 60% high").unwrap().warnings.len(), 1);
        assert!(problem("Budget = 20 MB/day\nBudgetReserve = 60% high").unwrap().warnings.is_empty());
        let unused = parse(FILMS, "[Link sat]\nBudget = 20 MB/day\nBudgetReserve = 20% high", "Address.sat = v");
        assert!(unused.unwrap().warnings[0].to_string().contains("no file may use the reserve"));
    }

    #[test]
    fn together_needs_two_ways() {
        assert_eq!(parse(STORMS, "", "Address = v\nTogether = yes").unwrap().warnings.len(), 1);
        let two = parse(STORMS, "", "Address = v, w\nTogether = yes").unwrap();
        assert!(two.warnings.is_empty() && two.vessels[0].together);
    }
}
