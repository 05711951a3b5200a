//! Reports budgets that are nearly or completely used: logs a line, runs `OnBudget`, and posts to the webhooks. Each
//! share (80 % and 100 %) is reported once in a period, even if the program restarts. If the program crashes during a
//! report, the report may be repeated.

use std::collections::HashSet;
use std::ffi::OsString;
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;

use super::http::Client;
use super::log_once::LogOnce;
use super::webhook::post_once;
use super::{Desk, process};
use crate::link::{LinkUsage, Part, Payer};
use crate::names::{LinkName, VesselName};
use crate::records::UtcDay;
use crate::settings::{Limit, Settings};

/// The share of a budget that is reported before the budget is spent, in percent.
const EARLY: u32 = 80;
/// How often the budgets are checked.
const LOOK: Duration = Duration::from_secs(1);
/// Pause after a report failed, for example because a webhook did not accept it.
const AGAIN: Duration = Duration::from_secs(30);

/// A budget and its used part.
#[derive(Serialize)]
struct BudgetEvent {
    event: &'static str,
    time: Timestamp,
    budget: String,
    period: &'static str,
    percent: u32,
    used: u64,
    bytes: u64,
}

/// Returns the limits of all budgets, each with the budget's name and owner.
fn limits(settings: &Settings) -> Vec<(String, Payer, Limit)> {
    let vessels = settings.vessels.iter().map(|vessel| {
        let payer = Payer::Vessel(VesselName::new(vessel.name.as_str()));
        (format!("vessel {}", vessel.name), payer, &vessel.budget)
    });
    let links = settings
        .links
        .iter()
        .map(|link| (format!("link {}", link.name), Payer::Link(LinkName::new(link.name.as_str())), &link.budget));
    let all = vessels.chain(links);
    all.flat_map(|(name, payer, budget)| budget.limits().iter().map(move |it| (name.clone(), payer.clone(), *it)))
        .collect()
}

/// Reports the use of budgets until the program stops. Returns at once if there is no budget.
pub(super) async fn watch(desk: Desk, client: Client, usage: LinkUsage) {
    let (limits, mut logged) = (limits(&desk.settings), LogOnce::default());
    if limits.is_empty() {
        return;
    }
    let mut reporter = Reporter { desk, client, told: HashSet::new() };
    let (finish, stop) = (reporter.desk.finish.clone(), reporter.desk.stop.clone());
    loop {
        let mut wait = LOOK;
        for (name, payer, limit) in &limits {
            let used = usage.used(payer, limit.period.first_day(reporter.desk.clock.now_ms()));
            let is_spent = usage.is_spent(payer, limit, Part::Whole);
            if let Err(why) = reporter.report(name, *limit, (used, is_spent)).await {
                logged.about("Cannot report the use of budgets", &why);
                wait = AGAIN;
            }
        }
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = finish.cancelled() => return,
            () = stop.cancelled() => return,
        }
    }
}

struct Reporter {
    desk: Desk,
    client: Client,
    /// Recipients that have been notified of a share, while other recipients have not been notified yet.
    told: HashSet<(String, &'static str, UtcDay, u32, String)>,
}

impl Reporter {
    /// Reports each share that has been reached and was not reported yet. Both shares may be reached between two
    /// checks.
    async fn report(&mut self, name: &str, limit: Limit, (used, is_spent): (u64, bool)) -> Result<(), String> {
        let is_early = is_spent || used >= limit.bytes / 100 * u64::from(EARLY);
        let mut outcome = Ok(());
        for (percent, is_reached) in [(EARLY, is_early), (100, is_spent)] {
            if is_reached {
                outcome = outcome.and(self.report_share(name, limit, percent, used).await);
            }
        }
        outcome
    }

    async fn report_share(&mut self, name: &str, limit: Limit, percent: u32, used: u64) -> Result<(), String> {
        let desk = &self.desk;
        let now = desk.clock.now_ms();
        let (first, period) = (limit.period.first_day(now), limit.period.word());
        if desk.ledger.budget_told(name, period, first).await.map_err(|e| e.to_string())? >= percent {
            return Ok(());
        }
        let time = Timestamp::from_millisecond(now).unwrap_or(Timestamp::UNIX_EPOCH);
        let event =
            BudgetEvent { event: "budget", time, budget: name.to_owned(), period, percent, used, bytes: limit.bytes };
        let recipients = &desk.settings.monster.notifications;
        let of = |recipient: String| (name.to_owned(), period, first, percent, recipient);
        // A webhook that failed until the end of a period must not suppress the reports of the next period.
        self.told.retain(|(whose, when, day, ..)| whose != name || *when != period || *day == first);
        if self.told.insert(of("log and command".into())) {
            tracing::warn!(budget = name, used, "{percent} % of the budget of {limit} are used");
            let ran = process::run(&recipients.on_budget, variables(&event), recipients.hook_timeout).await;
            if let Some(program) = recipients.on_budget.first() {
                let result = ran.as_ref().copied().map_err(String::as_str);
                desk.hooks.note(&format!("command {program}"), now, result);
            }
            if let Err(why) = ran {
                tracing::warn!("The OnBudget command failed: {why}");
            }
        }
        let mut failed = Vec::new();
        for address in &recipients.webhooks {
            let recipient = of(address.url().to_string());
            if !self.told.contains(&recipient) {
                match post_once(desk, &self.client, address, &event).await {
                    Ok(()) => drop(self.told.insert(recipient)),
                    Err(why) => failed.push(format!("webhook at {address}: {why}")),
                }
            }
        }
        if !failed.is_empty() {
            return Err(failed.join("; "));
        }
        desk.ledger.tell_budget(name, period, first, percent).await.map_err(|e| e.to_string())?;
        self.told.retain(|(whose, when, ..)| whose != name || *when != period);
        Ok(())
    }
}

fn variables(event: &BudgetEvent) -> Vec<(&'static str, OsString)> {
    vec![
        ("CONTENTMONSTER_EVENT", event.event.into()),
        ("CONTENTMONSTER_TIME", event.time.to_string().into()),
        ("CONTENTMONSTER_BUDGET", event.budget.clone().into()),
        ("CONTENTMONSTER_PERIOD", event.period.into()),
        ("CONTENTMONSTER_PERCENT", event.percent.to_string().into()),
        ("CONTENTMONSTER_USED", event.used.to_string().into()),
        ("CONTENTMONSTER_BYTES", event.bytes.to_string().into()),
    ]
}
