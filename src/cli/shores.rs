//! The commands `shores` and `drain`.

use std::path::Path;
use std::time::Duration;

use super::results::{Outcome, Results};
use super::shore::{Refusal, on_shore};
use super::sizes;
use super::{Exit, say, say_json};
use crate::orders::Order;
use crate::status::{Document, ShoreStatus};
use crate::text::counted;

/// Interval between checks whether a shore is drained.
const LOOK: Duration = Duration::from_millis(200);

/// Shows the shores that use the ledger, and what each of them serves.
pub(super) fn shores(settings: &Path, json: bool) -> Exit {
    on_shore(settings, async |shore| {
        let document = shore.document().await?;
        match json {
            true => say_json(&serde_json::to_string(&document.shores)?),
            false => say(format_args!("{}", text(&document))),
        }
        Ok(Exit::Good)
    })
}

/// Hands all work of this shore over to the other shores, and waits until this shore has none. With `end`, serves
/// again.
pub(super) fn drain(settings: &Path, end: bool, json: bool) -> Exit {
    on_shore(settings, async |shore| {
        let own = shore.settings.monster.shore_name.clone();
        let mut results = Results::new(json);
        let document = shore.document().await?;
        let is_shared = document.shores.iter().any(|one| one.name == own);
        if document.daemon.is_none() || !is_shared {
            return Err(Refusal::usage(
                "no contentmonster with a ledger in PostgreSQL runs here, so there is nothing to hand over",
            ));
        }
        let changed = shore.carry_out(&if end { Order::Serve } else { Order::Drain }).await?;
        if end {
            results.add(
                Outcome::of_shore(&own, u64::from(changed)),
                format_args!("the shore {own} accepts vessels and directories again"),
            );
            return results.end(Exit::Good);
        }
        while shore.document().await?.shores.iter().any(|one| one.name == own && (!one.drained || serves(one))) {
            tokio::time::sleep(LOOK).await;
        }
        let text = format_args!("the shore {own} serves no vessel and no directory until `drain --end` or a restart");
        results.add(Outcome::of_shore(&own, u64::from(changed)), text);
        results.end(Exit::Good)
    })
}

fn serves(shore: &ShoreStatus) -> bool {
    shore.housekeeping || !shore.vessels.is_empty() || !shore.directories.is_empty()
}

/// Describes the shores if there are several, or one that is drained; empty otherwise.
pub(super) fn lines(document: &Document) -> String {
    if document.has_one_shore() { String::new() } else { format!("\n{}\n", text(document)) }
}

fn text(document: &Document) -> String {
    if document.shores.is_empty() {
        return "no shore holds a lease; a ledger in a file has only one shore and needs no lease".to_owned();
    }
    let shores = document.shores.iter().map(|shore| {
        let name = if shore.name.is_empty() { "(alone)" } else { &shore.name };
        let lease = match shore.lease_ms {
            ..0 => "lease expired".to_owned(),
            left => format!("lease valid for {} s", left / 1000),
        };
        let latency = shore.latency_us.map(|us| format!(", database answers in {:.1} ms", us as f64 / 1000.0));
        let list = |served: &[crate::status::ServedStatus]| {
            let names = served.iter().map(|one| format!("{} ({})", one.name, sizes::span(one.since, document.at)));
            names.collect::<Vec<_>>().join(", ")
        };
        let mut text = format!(
            "shore {name} on {}, started {}, {lease}{}: {}, {}{}{}",
            shore.holder,
            sizes::ago(shore.since, document.at),
            latency.unwrap_or_default(),
            counted(shore.vessels.len() as u64, "vessel"),
            match shore.directories.len() {
                1 => "1 directory".to_owned(),
                count => format!("{count} directories"),
            },
            if shore.housekeeping { ", housekeeping" } else { "" },
            if shore.drained { ", drained" } else { "" },
        );
        for (what, served) in [("vessels", &shore.vessels), ("directories", &shore.directories)] {
            if !served.is_empty() {
                text.push_str(&format!("\n  {what}: {}", list(served)));
            }
        }
        text
    });
    shores.collect::<Vec<_>>().join("\n")
}
