//! `resend`: sends files again that a vessel received and has lost.

use std::path::Path;

use super::Exit;
use super::results::{Outcome, Results};
use super::shore::{Refusal, Shore, on_shore};
use crate::ledger::Ending;
use crate::orders::Order;
use crate::settings::{Directory, nearest};
use crate::status::Meant;
use crate::text::counted;

/// Makes acknowledged deliveries of a directory or of a file due again.
pub(super) fn resend(settings: &Path, what: &Path, vessel: Option<&str>, json: bool) -> Exit {
    on_shore(settings, async |shore| {
        if let Some(vessel) = vessel {
            shore.vessel(vessel)?;
        }
        let directory = shore.settings.directories.iter().find(|directory| Path::new(directory.name.as_str()) == what);
        match directory {
            Some(directory) => resend_directory(&shore, directory, vessel, Results::new(json)).await,
            None => resend_file(&shore, what, vessel, Results::new(json)).await,
        }
    })
}

/// Returns the names of the vessels that take a directory; with `only`, this vessel alone, or an error if it doesn't
/// take the directory.
fn takers(shore: &Shore, directory: &Directory, only: Option<&str>) -> Result<Vec<String>, Refusal> {
    let takers = shore.settings.vessels_of(&directory.name).into_iter().map(|vessel| vessel.to_string());
    let takers: Vec<String> = takers.filter(|vessel| only.is_none_or(|only| only == vessel)).collect();
    match only {
        Some(only) if takers.is_empty() => Err(Refusal::usage(format!(
            "[Vessel {only}] does not receive the directory {}; remove this directory from IgnoreDirs, or \
             add it to Dirs",
            directory.name
        ))),
        _ => Ok(takers),
    }
}

async fn resend_directory(
    shore: &Shore,
    directory: &Directory,
    only: Option<&str>,
    mut results: Results,
) -> Result<Exit, Refusal> {
    let name = &directory.name;
    let mut all = 0;
    for vessel in takers(shore, directory, only)? {
        let order = Order::Resend { vessel: vessel.clone(), directory: name.to_string(), version: None };
        let count = shore.carry_out_and_count(&order).await?;
        let paths = counted(count, "path");
        let outcome = Outcome::of_directory(name.as_str(), count).vessel(&vessel);
        let text =
            format_args!("sending {paths} of {name} to {vessel} again; files that {vessel} still has are skipped");
        results.add(outcome, text);
        all += count;
    }
    if !directory.is_mirror() {
        results.hint(format_args!(
            "retired files are not included; to send them again, copy them from {} back into {}",
            directory.location.join(crate::local::PROCESSED).display(),
            directory.location.display()
        ));
    }
    results.end(if all > 0 { Exit::Good } else { Exit::Undelivered })
}

async fn resend_file(shore: &Shore, file: &Path, only: Option<&str>, mut results: Results) -> Result<Exit, Refusal> {
    let ledger = shore.ledger().await?;
    let found = shore.find(&ledger, file).await;
    let Meant { name, directory, path, versions } = found.map_err(|refusal| did_you_mean(shore, file, refusal))?;
    let Some(directory) = directory else {
        return Err(Refusal::usage(format!(
            "[Directory {name}] is no longer in the settings, so none of its files can be sent; add it again"
        )));
    };
    let takers = takers(shore, directory, only)?;
    let of_file = |count| Outcome::of_directory(name.as_str(), count).file(&path);
    let current = versions.last().filter(|version| version.ended.is_none());
    let Some(current) = current else {
        let retired = versions.last().is_some_and(|version| matches!(version.ended, Some((_, Ending::Retired))));
        if retired && !directory.is_mirror() {
            let text = format_args!(
                "{name}/{path} was delivered everywhere and retired, and cannot be sent from processed/; to deliver it \
                 as a new file, copy it from processed/ back into {}",
                directory.location.display()
            );
            results.add(of_file(0), text);
        } else {
            results.add(of_file(0), format_args!("{name}/{path} no longer exists; `why` shows its history"));
        }
        return results.end(Exit::Undelivered);
    };
    let mut all = 0;
    for vessel in takers {
        let version = Some(current.version.id.0);
        let order = Order::Resend { vessel: vessel.clone(), directory: name.to_string(), version };
        let count = shore.carry_out_and_count(&order).await?;
        let outcome = of_file(count).vessel(&vessel);
        if count == 0 {
            let why =
                format_args!("{name}/{path} was not delivered to {vessel} yet, or is forgotten; `why` shows more");
            results.add(outcome, why);
        } else {
            let text = format_args!("sending {name}/{path} to {vessel} again, unless {vessel} still has the file");
            results.add(outcome, text);
        }
        all += count;
    }
    results.end(if all > 0 { Exit::Good } else { Exit::Undelivered })
}

/// If the first part of `what` is similar to the name of a directory, returns a refusal that suggests this directory;
/// otherwise returns `refusal`.
fn did_you_mean(shore: &Shore, what: &Path, refusal: Refusal) -> Refusal {
    let first = what.iter().next().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let names = shore.settings.directories.iter().map(|directory| directory.name.as_str());
    match nearest(&first, names) {
        Some(near) => Refusal::usage(format!("there is no [Directory {first}]; did you mean {near}?")),
        None => refusal,
    }
}
