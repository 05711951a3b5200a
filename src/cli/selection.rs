//! The vessels that a command applies to: one, those of a group, or all.

use super::refusal::Refusal;
use crate::settings::nearest;

/// The vessels that the options select.
#[derive(Clone, Debug, Default)]
pub(super) struct Selection {
    pub(super) vessel: Option<String>,
    pub(super) group: Option<String>,
}

impl Selection {
    /// Returns whether no option limits the vessels.
    pub(super) fn is_everything(&self) -> bool {
        self.vessel.is_none() && self.group.is_none()
    }

    /// Returns the names of the selected vessels. `known` has the names of all vessels, each with its groups. Refuses
    /// an unknown vessel or group.
    pub(super) fn pick(&self, known: impl Iterator<Item = (String, Vec<String>)>) -> Result<Vec<String>, Refusal> {
        let known: Vec<_> = known.collect();
        if let Some(vessel) = &self.vessel
            && !known.iter().any(|(name, _)| name == vessel)
        {
            let names: Vec<&str> = known.iter().map(|(name, _)| name.as_str()).collect();
            return Err(unknown("Vessel", vessel, &names));
        }
        if let Some(group) = &self.group
            && !known.iter().any(|(_, groups)| groups.contains(group))
        {
            let mut names: Vec<&str> = known.iter().flat_map(|(_, groups)| groups).map(String::as_str).collect();
            names.sort_unstable();
            names.dedup();
            return Err(unknown("Group", group, &names));
        }
        let wanted = |(name, groups): &(String, Vec<String>)| {
            self.vessel.as_ref().is_none_or(|vessel| vessel == name)
                && self.group.as_ref().is_none_or(|group| groups.contains(group))
        };
        Ok(known.iter().filter(|one| wanted(one)).map(|(name, _)| name.clone()).collect())
    }
}

/// Creates the refusal of an unknown name, with a similar name as a suggestion.
fn unknown(kind: &str, name: &str, known: &[&str]) -> Refusal {
    let hint = match nearest(name, known.iter().copied()) {
        Some(near) => format!("did you mean {near}?"),
        None if known.is_empty() => format!("no [{kind} …] has a vessel"),
        None => format!("known names: {}", known.join(", ")),
    };
    Refusal::usage(format!("there is no [{kind} {name}]; {hint}"))
}
