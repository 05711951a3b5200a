//! The commands `retry`, `pause`, `resume` and `forget`.

use std::path::Path;

use jiff::Zoned;

use super::results::{Outcome, Results};
use super::selection::Selection;
use super::shore::{Refusal, Shore, on_reach, on_shore};
use super::times::in_future;
use super::{Exit, say_error};
use crate::orders::Order;
use crate::records::DeliveryState;
use crate::status::Meant;
use crate::text::counted;

/// The options of `pause`.
#[derive(Clone, Debug)]
pub(super) struct PauseOptions {
    pub(super) selection: Selection,
    pub(super) directory: Option<String>,
    pub(super) until: Option<String>,
    pub(super) note: Option<String>,
    pub(super) json: bool,
}

/// Pauses vessels or a directory, until a time or until they are resumed.
pub(super) fn pause(settings: &Path, options: PauseOptions) -> Exit {
    let PauseOptions { selection, directory, until, note, json } = options;
    let until = match until.map(|until| in_future(&until, &Zoned::now())).transpose() {
        Ok(until) => until,
        Err(why) => {
            say_error(format_args!("{why}"));
            return Exit::Usage;
        }
    };
    on_reach(settings, async |reach| {
        let mut results = Results::new(json);
        let until_ms = until.as_ref().map(|until| until.timestamp().as_millisecond());
        let time_or =
            until.as_ref().map(|until| format!("{}, or ", until.strftime("%Y-%m-%d %H:%M:%S"))).unwrap_or_default();
        if let Some(directory) = directory {
            reach.known_directory(&directory).await?;
            reach.carry_out(&Order::PauseDirectory { directory: directory.clone(), until: until_ms, note }).await?;
            let outcome = Outcome::of_directory(&directory, 1);
            let text = format_args!(
                "the directory {directory} is paused; new files are recorded, and wait until {time_or}`resume \
                 --directory {directory}`"
            );
            results.add(outcome, text);
            return results.end(Exit::Good);
        }
        for vessel in reach.pick(&selection).await? {
            let order = Order::Pause { vessel: vessel.clone(), until: until_ms, note: note.clone() };
            reach.carry_out(&order).await?;
            let outcome = Outcome::of_vessel(&vessel, 1);
            results.add(
                outcome,
                format_args!("{vessel} is paused; files for {vessel} wait until {time_or}`resume {vessel}`"),
            );
        }
        results.end(Exit::Good)
    })
}

/// Resumes vessels, or a directory.
pub(super) fn resume(settings: &Path, selection: &Selection, directory: Option<String>, json: bool) -> Exit {
    on_reach(settings, async |reach| {
        let mut results = Results::new(json);
        if let Some(directory) = directory {
            reach.known_directory(&directory).await?;
            reach.carry_out(&Order::ResumeDirectory { directory: directory.clone() }).await?;
            let outcome = Outcome::of_directory(&directory, 1);
            results.add(outcome, format_args!("the directory {directory} is resumed"));
            return results.end(Exit::Good);
        }
        for vessel in reach.pick(selection).await? {
            reach.carry_out(&Order::Resume { vessel: vessel.clone() }).await?;
            results.add(Outcome::of_vessel(&vessel, 1), format_args!("{vessel} is resumed"));
        }
        results.end(Exit::Good)
    })
}

/// Makes deliveries due now: those of a file, those to the selected vessels, or all.
pub(super) fn retry(settings: &Path, file: Option<&Path>, selection: &Selection, json: bool) -> Exit {
    match file {
        Some(file) => on_shore(settings, async |shore| {
            let vessels = shore.pick(selection)?;
            retry_file(&shore, file, &vessels, Results::new(json)).await
        }),
        None => on_reach(settings, async |reach| {
            let mut results = Results::new(json);
            for vessel in reach.pick(selection).await? {
                reach.carry_out(&Order::Retry { vessel: vessel.clone(), deliveries: Vec::new() }).await?;
                let outcome = Outcome::of_vessel(&vessel, 1);
                results.add(outcome, format_args!("retrying all deliveries to {vessel} now"));
            }
            results.end(Exit::Good)
        }),
    }
}

async fn retry_file(shore: &Shore, file: &Path, vessels: &[String], mut results: Results) -> Result<Exit, Refusal> {
    let ledger = shore.ledger().await?;
    let Meant { name: directory, path, versions, .. } = shore.find(&ledger, file).await?;
    let open = versions.iter().filter(|version| version.ended.is_none()).flat_map(|version| &version.deliveries);
    let open = open.filter(|one| {
        !matches!(one.state, DeliveryState::Acknowledged | DeliveryState::Superseded | DeliveryState::Expired)
    });
    let of_file = |count| Outcome::of_directory(directory.as_str(), count).file(&path);
    let mut retried = false;
    for delivery in open.filter(|one| vessels.iter().any(|vessel| vessel == one.vessel.as_str())) {
        let order = Order::Retry { vessel: delivery.vessel.to_string(), deliveries: vec![delivery.id.0] };
        shore.carry_out(&order).await?;
        let outcome = of_file(1).vessel(&delivery.vessel);
        results.add(outcome, format_args!("retrying {directory}/{path} for {} now", delivery.vessel));
        retried = true;
    }
    if retried {
        return results.end(Exit::Good);
    }
    results.add(of_file(0), format_args!("no delivery of {directory}/{path} is waiting; `why` shows its history"));
    results.end(Exit::Undelivered)
}

/// Marks all waiting files of a directory as forgotten, even if the directory is not configured.
pub(super) fn forget_all(settings: &Path, directory: &str, json: bool) -> Exit {
    on_shore(settings, async |shore| {
        let (ledger, mut results) = (shore.ledger().await?, Results::new(json));
        let waiting = shore.known_directory(&ledger, directory).await?;
        let outcome = Outcome::of_directory(directory, waiting);
        if waiting == 0 {
            results.add(outcome, format_args!("no file of {directory} is waiting"));
            return results.end(Exit::Undelivered);
        }
        shore.carry_out(&Order::ForgetAll { directory: directory.to_owned() }).await?;
        let files = counted(waiting, "file");
        let text = format_args!("forgot {files} of {directory}; a forgotten file is not sent until it changes");
        results.add(outcome, text);
        results.end(Exit::Good)
    })
}

/// Marks a file as forgotten; the file itself stays where it is.
pub(super) fn forget(settings: &Path, file: &Path, json: bool) -> Exit {
    on_shore(settings, async |shore| {
        let (ledger, mut results) = (shore.ledger().await?, Results::new(json));
        let Meant { name: directory, path, versions, .. } = shore.find(&ledger, file).await?;
        let current = versions.last().filter(|version| version.ended.is_none());
        let forgotten = match current {
            Some(current) => shore.carry_out(&Order::Forget { version: current.version.id.0 }).await?,
            None => false,
        };
        let outcome = Outcome::of_directory(directory.as_str(), u64::from(forgotten)).file(&path);
        if forgotten {
            let text =
                format_args!("{directory}/{path} is forgotten: the file stays here, and is not sent until it changes");
            results.add(outcome, text);
            return results.end(Exit::Good);
        }
        results.add(outcome, format_args!("no delivery of {directory}/{path} is waiting; `why` shows its history"));
        results.end(Exit::Undelivered)
    })
}
