//! The commands `retry`, `pause`, `resume` and `forget`.

use std::path::Path;

use super::shore::{Refusal, Shore, on_shore};
use super::{Exit, say};
use crate::orders::Order;
use crate::records::DeliveryState;
use crate::status::Meant;
use crate::text::counted;

/// Pauses a vessel, or resumes it.
pub(super) fn pause(settings: &Path, vessel: &str, paused: bool) -> Exit {
    on_shore(settings, async |shore| {
        let vessel = shore.vessel(vessel)?.name.to_string();
        let order = match paused {
            true => Order::Pause { vessel: vessel.clone() },
            false => Order::Resume { vessel: vessel.clone() },
        };
        shore.carry_out(&order).await?;
        match paused {
            true => say(format_args!("{vessel} is paused; files for {vessel} wait until `resume {vessel}`")),
            false => say(format_args!("{vessel} is resumed")),
        }
        Ok(Exit::Good)
    })
}

/// Makes deliveries due now: those of a file, those to a vessel, or all.
pub(super) fn retry(settings: &Path, file: Option<&Path>, vessel: Option<&str>) -> Exit {
    on_shore(settings, async |shore| {
        if let Some(vessel) = vessel {
            shore.vessel(vessel)?;
        }
        match file {
            Some(file) => retry_file(&shore, file, vessel).await,
            None => retry_all(&shore, vessel).await,
        }
    })
}

async fn retry_all(shore: &Shore, only: Option<&str>) -> Result<Exit, Refusal> {
    for vessel in &shore.settings.vessels {
        if only.is_none_or(|only| only == vessel.name.as_str()) {
            shore.carry_out(&Order::Retry { vessel: vessel.name.to_string(), deliveries: Vec::new() }).await?;
            say(format_args!("retrying all deliveries to {} now", vessel.name));
        }
    }
    Ok(Exit::Good)
}

async fn retry_file(shore: &Shore, file: &Path, only: Option<&str>) -> Result<Exit, Refusal> {
    let ledger = shore.ledger().await?;
    let Meant { name: directory, path, versions, .. } = shore.find(&ledger, file).await?;
    let open = versions.iter().filter(|version| version.ended.is_none()).flat_map(|version| &version.deliveries);
    let open = open.filter(|one| {
        !matches!(one.state, DeliveryState::Acknowledged | DeliveryState::Superseded | DeliveryState::Expired)
    });
    let mut retried = false;
    for delivery in open.filter(|one| only.is_none_or(|only| only == one.vessel.as_str())) {
        let order = Order::Retry { vessel: delivery.vessel.to_string(), deliveries: vec![delivery.id.0] };
        shore.carry_out(&order).await?;
        say(format_args!("retrying {}/{path} for {} now", directory, delivery.vessel));
        retried = true;
    }
    if retried {
        return Ok(Exit::Good);
    }
    say(format_args!("no delivery of {directory}/{path} is waiting; `why` shows its history"));
    Ok(Exit::Undelivered)
}

/// Marks all waiting files of a directory as forgotten, even if the directory is not configured.
pub(super) fn forget_all(settings: &Path, directory: &str) -> Exit {
    on_shore(settings, async |shore| {
        let ledger = shore.ledger().await?;
        let waiting = shore.known_directory(&ledger, directory).await?;
        if waiting == 0 {
            say(format_args!("no file of {directory} is waiting"));
            return Ok(Exit::Undelivered);
        }
        shore.carry_out(&Order::ForgetAll { directory: directory.to_owned() }).await?;
        let files = counted(waiting, "file");
        say(format_args!("{files} of {directory} forgotten; a forgotten file is not sent until it changes"));
        Ok(Exit::Good)
    })
}

/// Marks a file as forgotten; the file itself stays where it is.
pub(super) fn forget(settings: &Path, file: &Path) -> Exit {
    on_shore(settings, async |shore| {
        let ledger = shore.ledger().await?;
        let Meant { name: directory, path, versions, .. } = shore.find(&ledger, file).await?;
        let current = versions.last().filter(|version| version.ended.is_none());
        let forgotten = match current {
            Some(current) => shore.carry_out(&Order::Forget { version: current.version.id.0 }).await?,
            None => false,
        };
        if forgotten {
            say(format_args!("{directory}/{path} is forgotten: the file stays here, and is not sent until it changes"));
            return Ok(Exit::Good);
        }
        say(format_args!("no delivery of {directory}/{path} is waiting; `why` shows its history"));
        Ok(Exit::Undelivered)
    })
}
