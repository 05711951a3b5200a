//! `queue`: prints the open deliveries in the order in which they are sent.

use std::path::Path;

use jiff::Timestamp;

use super::shore::{Reach, Refusal, on_reach};
use super::status_tables::table;
use super::{Exit, output, say, say_json, sizes};
use crate::settings::nearest;
use crate::status::{QueueAnswer, QueueEntry, QueueQuestion};

/// Prints the requested part of the queue. `what` is the name of a vessel or of a directory.
pub(super) fn queue(settings: &Path, what: Option<&str>, question: QueueQuestion, json: bool) -> Exit {
    on_reach(settings, async |reach| {
        let mut question = question;
        if let Some(what) = what {
            name_vessel_or_directory(&reach, what, &mut question).await?;
        }
        let limit = question.limit.unwrap_or(100);
        let (mut deliveries, mut at) = (Vec::new(), None);
        // An answer before the end of the queue may have fewer deliveries than requested, so further requests may be
        // needed.
        let next = loop {
            let missing = limit - u32::try_from(deliveries.len()).unwrap_or(limit);
            if missing == 0 {
                break question.after;
            }
            let answer = reach.queue(&QueueQuestion { limit: Some(missing), ..question.clone() }).await?;
            at.get_or_insert(answer.at);
            deliveries.extend(answer.deliveries);
            match answer.next {
                Some(next) => question.after = Some(next),
                None => break None,
            }
        };
        let answer = QueueAnswer { at: at.unwrap_or(Timestamp::UNIX_EPOCH), deliveries, next };
        if json {
            say_json(&serde_json::to_string_pretty(&answer)?);
        } else {
            show(&answer);
        }
        Ok(Exit::Good)
    })
}

/// Limits a request to the vessel or the directory that is named `what`.
async fn name_vessel_or_directory(reach: &Reach, what: &str, question: &mut QueueQuestion) -> Result<(), Refusal> {
    let document = reach.document().await?;
    let vessels: Vec<&str> = document.vessels.iter().map(|vessel| vessel.name.as_str()).collect();
    let directories: Vec<&str> = document.directories.iter().map(|directory| directory.name.as_str()).collect();
    match (vessels.contains(&what), directories.contains(&what)) {
        (true, false) => question.vessel = Some(what.to_owned()),
        (false, true) => question.directory = Some(what.to_owned()),
        (true, true) => {
            let why =
                format!("both a vessel and a directory are named {what}; write --vessel {what} or --directory {what}");
            return Err(Refusal::usage(why));
        }
        (false, false) => {
            let known: Vec<&str> = vessels.into_iter().chain(directories).collect();
            let hint = match nearest(what, known.iter().copied()) {
                Some(near) => format!("did you mean {near}?"),
                None => format!("known vessels and directories: {}", known.join(", ")),
            };
            return Err(Refusal::usage(format!("there is no vessel or directory named {what}; {hint}")));
        }
    }
    Ok(())
}

fn show(answer: &QueueAnswer) {
    if answer.deliveries.is_empty() {
        return say(format_args!("nothing is waiting"));
    }
    let header = ["VESSEL", "STATE", "SIZE", "AGE", "ATTEMPTS", "ETA", "FILE"];
    let lines = table(header, answer.deliveries.iter().map(|entry| row(entry, answer.at)));
    let mut lines = lines.lines();
    lines.next().iter().for_each(|header| say(format_args!("{header}")));
    let mut above = None;
    for (line, entry) in lines.zip(&answer.deliveries) {
        say(format_args!("{line}"));
        let reason = entry.reason.as_ref().or(entry.hold.as_ref());
        if let Some(reason) = reason {
            let next = entry.next_try.map(|next| format!(" (next try {})", sizes::until(next, answer.at)));
            // If the same long reason stood below each file of a vessel that is away, the files would be hard to find.
            let text = if above == Some((&entry.vessel, reason)) { "as above" } else { reason };
            say(format_args!("    {text}{}", next.unwrap_or_default()));
        }
        above = reason.map(|reason| (&entry.vessel, reason));
        if output::is_over() {
            return;
        }
    }
    if let Some(next) = &answer.next {
        say(format_args!("more deliveries wait; --limit shows more, --after '{next}' continues from here"));
    }
}

fn row(entry: &QueueEntry, now: Timestamp) -> [String; 7] {
    let size = match entry.kind.as_str() {
        "file" => sizes::bytes(entry.bytes),
        "gone" => "deletion".to_owned(),
        kind => kind.to_owned(),
    };
    let state = match entry.taken {
        Some(taken) if entry.bytes > 0 => format!("{} {} %", entry.state, taken * 100 / entry.bytes),
        _ => entry.state.clone(),
    };
    let eta =
        entry.eta_seconds.map_or("-".to_owned(), |seconds| sizes::duration(std::time::Duration::from_secs(seconds)));
    [
        entry.vessel.clone(),
        state,
        size,
        sizes::span(entry.since, now),
        entry.attempts.to_string(),
        eta,
        format!("{}/{}", entry.directory, entry.path),
    ]
}
