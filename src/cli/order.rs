//! The commands `retry`, `pause`, `resume` and `forget`.

use std::path::Path;

use jiff::{Zoned, civil};

use super::selection::Selection;
use super::shore::{Refusal, Shore, on_reach, on_shore};
use super::{Exit, say, say_error};
use crate::orders::Order;
use crate::records::DeliveryState;
use crate::settings::parse_duration;
use crate::status::Meant;
use crate::text::counted;

/// Pauses vessels, until a time or until they are resumed.
pub(super) fn pause(settings: &Path, selection: &Selection, until: Option<&str>, note: Option<String>) -> Exit {
    let until = match until.map(|until| parse_time(until, &Zoned::now())).transpose() {
        Ok(until) => until,
        Err(why) => {
            say_error(format_args!("{why}"));
            return Exit::Usage;
        }
    };
    on_reach(settings, async |reach| {
        for vessel in reach.pick(selection).await? {
            let (until_ms, note) = (until.as_ref().map(|until| until.timestamp().as_millisecond()), note.clone());
            reach.carry_out(&Order::Pause { vessel: vessel.clone(), until: until_ms, note }).await?;
            match &until {
                Some(until) => {
                    let until = until.strftime("%Y-%m-%d %H:%M:%S");
                    say(format_args!(
                        "{vessel} is paused; files for {vessel} wait until {until}, or `resume {vessel}`"
                    ));
                }
                None => say(format_args!("{vessel} is paused; files for {vessel} wait until `resume {vessel}`")),
            }
        }
        Ok(Exit::Good)
    })
}

/// Resumes vessels.
pub(super) fn resume(settings: &Path, selection: &Selection) -> Exit {
    on_reach(settings, async |reach| {
        for vessel in reach.pick(selection).await? {
            reach.carry_out(&Order::Resume { vessel: vessel.clone() }).await?;
            say(format_args!("{vessel} is resumed"));
        }
        Ok(Exit::Good)
    })
}

/// Parses a time in the future: `2026-05-01 08:00`, `2026-05-01`, `08:00` for the next one, or a duration such as `2h`.
fn parse_time(text: &str, now: &Zoned) -> Result<Zoned, String> {
    let invalid = || {
        format!(
            "invalid time `{text}`; expected one such as `2026-05-01 08:00`, `08:00`, or a duration such as 2h or 3d"
        )
    };
    let zone = now.time_zone().clone();
    let found = if let Some(wait) = parse_duration(text) {
        now.checked_add(wait).map_err(|_| invalid())?
    } else if let Ok(date) = text.parse::<civil::DateTime>() {
        date.to_zoned(zone).map_err(|_| invalid())?
    } else if let Ok(time) = text.parse::<civil::Time>() {
        let today = now.date().to_datetime(time).to_zoned(zone.clone()).map_err(|_| invalid())?;
        match today > *now {
            true => today,
            false => {
                let tomorrow = now.date().tomorrow().map_err(|_| invalid())?;
                tomorrow.to_datetime(time).to_zoned(zone).map_err(|_| invalid())?
            }
        }
    } else {
        return Err(invalid());
    };
    if found <= *now {
        return Err(format!("the time `{text}` has passed; name one in the future"));
    }
    Ok(found)
}

/// Makes deliveries due now: those of a file, those to the selected vessels, or all.
pub(super) fn retry(settings: &Path, file: Option<&Path>, selection: &Selection) -> Exit {
    match file {
        Some(file) => on_shore(settings, async |shore| {
            let vessels = shore.pick(selection)?;
            retry_file(&shore, file, &vessels).await
        }),
        None => on_reach(settings, async |reach| {
            for vessel in reach.pick(selection).await? {
                reach.carry_out(&Order::Retry { vessel: vessel.clone(), deliveries: Vec::new() }).await?;
                say(format_args!("retrying all deliveries to {vessel} now"));
            }
            Ok(Exit::Good)
        }),
    }
}

async fn retry_file(shore: &Shore, file: &Path, vessels: &[String]) -> Result<Exit, Refusal> {
    let ledger = shore.ledger().await?;
    let Meant { name: directory, path, versions, .. } = shore.find(&ledger, file).await?;
    let open = versions.iter().filter(|version| version.ended.is_none()).flat_map(|version| &version.deliveries);
    let open = open.filter(|one| {
        !matches!(one.state, DeliveryState::Acknowledged | DeliveryState::Superseded | DeliveryState::Expired)
    });
    let mut retried = false;
    for delivery in open.filter(|one| vessels.iter().any(|vessel| vessel == one.vessel.as_str())) {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str, now: &str) -> Result<String, String> {
        parse_time(text, &now.parse().unwrap()).map(|time| time.strftime("%Y-%m-%d %H:%M %z").to_string())
    }

    #[test]
    fn a_time_is_a_date_a_time_of_day_or_a_duration_and_lies_in_the_future() {
        let now = "2026-03-28T20:00:00+01:00[Europe/Berlin]";
        for (text, expected) in [
            ("2h", "2026-03-28 22:00 +0100"),
            ("90", "2026-03-28 20:01 +0100"),
            ("21:30", "2026-03-28 21:30 +0100"),
            ("08:00", "2026-03-29 08:00 +0200"),
            ("2026-05-01 08:00", "2026-05-01 08:00 +0200"),
            ("2026-05-01", "2026-05-01 00:00 +0200"),
            // This time does not exist: the clock is put forward from 2 to 3.
            ("02:30", "2026-03-29 03:30 +0200"),
        ] {
            assert_eq!(parsed(text, now).as_deref(), Ok(expected), "{text}");
        }
        for bad in ["", "soon", "25:00", "2026-03-28 19:00", "0s", "2026-13-01", "99999999999d"] {
            assert!(parsed(bad, now).is_err(), "{bad}");
        }
    }
}
