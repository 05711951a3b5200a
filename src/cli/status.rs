//! `status`: prints the status as tables or JSON, or for a monitoring system.

use std::io::IsTerminal;
use std::path::Path;
use std::time::Duration;

use super::selection::Selection;
use super::shore::{Reach, Refusal, on_reach};
use super::status_check::{self, State};
use super::status_speed::speed;
use super::status_tables::{Screen, tables};
use super::{Exit, clear_screen, output, say, say_json};
use crate::status::{Document, VesselStatus};

/// Time between two updates with `--watch`.
const BEAT: Duration = Duration::from_secs(1);

/// The options of `status`.
#[derive(Clone, Debug)]
pub(super) struct Shown {
    pub(super) json: bool,
    pub(super) watch: bool,
    pub(super) only_trouble: bool,
    pub(super) check: bool,
    pub(super) selection: Selection,
}

/// Prints the status once or repeatedly.
pub(super) fn status(settings: &Path, shown: &Shown) -> Exit {
    if shown.check {
        let mut state = State::Unknown;
        let exit = on_reach(settings, async |reach| {
            state = match reach.is_running().await? {
                true => status_check::check(&document(&reach, shown).await?, shown.json)?,
                false => status_check::not_running(shown.json)?,
            };
            Ok(Exit::Good)
        });
        if exit != Exit::Good {
            say(format_args!("UNKNOWN: the status cannot be determined; standard error has the reason"));
        }
        return Exit::Monitored(state as u8);
    }
    on_reach(settings, async |reach| {
        loop {
            tokio::select! {
                printed = show(&reach, shown) => printed?,
                _ = tokio::signal::ctrl_c() => return Ok(Exit::Good),
            }
            if !shown.watch || output::is_over() {
                return Ok(Exit::Good);
            }
            tokio::select! {
                () = tokio::time::sleep(BEAT) => {}
                _ = tokio::signal::ctrl_c() => return Ok(Exit::Good),
            }
        }
    })
}

/// Returns the status of the vessels and directories that the options select.
async fn document(reach: &Reach, shown: &Shown) -> Result<Document, Refusal> {
    let mut document = reach.document().await?;
    if !shown.selection.is_everything() {
        let known = document.vessels.iter().map(|vessel| (vessel.name.clone(), vessel.groups.clone()));
        let wanted = shown.selection.pick(known)?;
        document.vessels.retain(|vessel| wanted.contains(&vessel.name));
        document.parked.retain(|parked| wanted.contains(&parked.vessel));
        document.deliveries.retain(|delivery| wanted.contains(&delivery.vessel));
        document.errors.retain(|error| error.vessel.as_ref().is_none_or(|vessel| wanted.contains(vessel)));
    }
    if shown.only_trouble {
        document.vessels.retain(VesselStatus::is_in_trouble);
        document.directories.retain(|directory| directory.trouble.is_some() || directory.parked > 0);
        document.deliveries.clear();
        document.disks.retain(|disk| disk.low);
    }
    Ok(document)
}

async fn show(reach: &Reach, shown: &Shown) -> Result<(), Refusal> {
    let document = document(reach, shown).await?;
    match (shown.json, shown.watch) {
        (true, true) => say_json(&serde_json::to_string(&document)?),
        (true, false) => say_json(&serde_json::to_string_pretty(&document)?),
        (false, watch) => {
            let screen = if watch { screen() } else { None };
            if screen.is_some() {
                clear_screen();
            }
            say(format_args!("{}", tables(&document, screen).trim_end()));
            if shown.selection.vessel.is_some() {
                document.vessels.iter().for_each(|vessel| say(format_args!("{}", speed(vessel).trim_end())));
            }
        }
    }
    Ok(())
}

/// Returns the size of the terminal; `None` if the output does not go to a terminal.
fn screen() -> Option<Screen> {
    if !std::io::stdout().is_terminal() {
        return None;
    }
    let size = rustix::termios::tcgetwinsize(std::io::stdout()).ok();
    let size = size.filter(|size| size.ws_row > 0 && size.ws_col > 0);
    Some(size.map_or(Screen { columns: 80, rows: 24 }, |size| Screen {
        columns: size.ws_col.into(),
        rows: size.ws_row.into(),
    }))
}
