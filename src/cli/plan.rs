//! `plan`: prints the windows and queues of the next 24 hours.

use std::path::Path;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::shore::{Refusal, on_shore};
use super::{Exit, say, say_json, sizes};
use crate::names::VesselName;
use crate::status::{self, QueuePlan, VesselPlan};
use crate::text::counted;

/// Prints the plan of all vessels, or of one.
pub(super) fn plan(settings: &Path, vessel: Option<&str>, json: bool) -> Exit {
    on_shore(settings, async |shore| {
        let document = shore.document().await?;
        let only = vessel.map(VesselName::new);
        let plan = status::plan(&shore.settings, &document, only.as_ref());
        if let (Some(vessel), true) = (vessel, plan.vessels.is_empty()) {
            return Err(Refusal::usage(format!("there is no [Vessel {vessel}] in the settings")));
        }
        if json {
            say_json(&serde_json::to_string_pretty(&plan)?);
        } else {
            plan.vessels.iter().for_each(|vessel| show(vessel, plan.at));
        }
        Ok(Exit::Good)
    })
}

fn show(vessel: &VesselPlan, now: Timestamp) {
    let rate = match vessel.rate {
        Some(rate) => format!("about {}/s", sizes::bytes(rate)),
        None => "rate not known yet".to_owned(),
    };
    say(format_args!("{} ({}, {rate})", vessel.vessel, vessel.link));
    if let Some(why) = &vessel.eta_unknown {
        say(format_args!("  some times are unknown: {why}"));
    }
    for (number, queue) in (1..).zip(&vessel.queues) {
        let QueuePlan { directory, priority, order, waiting, .. } = queue;
        let files = counted(waiting.files, "file");
        say(format_args!(
            "  {number}. {directory}  {priority}, {order} first: {files}, {}",
            sizes::bytes(waiting.bytes)
        ));
        say(format_args!("     {}", windows(queue, now)));
        if let Some(held) = &queue.held {
            say(format_args!("     waits: {}", held.phrase(local)));
        }
        if let Some(begins) = queue.begins {
            let ends = queue.ends.map_or("an unknown time, or more than 24 hours from now".to_owned(), local);
            say(format_args!("     expected: from {} until {ends}", local(begins)));
        }
    }
}

fn windows(queue: &QueuePlan, now: Timestamp) -> String {
    let day = jiff::SignedDuration::from_hours(24);
    match &queue.windows[..] {
        [] => "closed for the next 24 hours".to_owned(),
        [one] if one.from == now && one.until.duration_since(now) >= day => "always open".to_owned(),
        windows => {
            let shown = |window: &status::Window| format!("{} to {}", local(window.from), local(window.until));
            format!("open {}", windows.iter().map(shown).collect::<Vec<_>>().join(", "))
        }
    }
}

/// Formats a time in the local time zone.
fn local(moment: Timestamp) -> String {
    moment.to_zoned(TimeZone::system()).strftime("%a %H:%M").to_string()
}
