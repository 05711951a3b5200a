//! Reports troubles of the shore, of a vessel and of a directory: logs a line, runs `OnTrouble`, and posts to the
//! webhooks. Each trouble is reported once when it begins and once when it is over, also across restarts. After a crash
//! in between, it may be reported again.

use std::collections::{BTreeMap, HashSet};
use std::ffi::OsString;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use jiff::Timestamp;
use serde::Serialize;

use super::http::Client;
use super::log_once::LogOnce;
use super::webhook::post_once;
use super::{Desk, process};
use crate::ledger::ReportedIncident;

/// Interval between two checks for troubles.
const LOOK: Duration = Duration::from_secs(2);
/// Pause after a report failed, for example because a webhook did not accept it.
const AGAIN: Duration = Duration::from_secs(30);

/// A trouble that lasts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Incident {
    /// The kind of trouble.
    pub kind: IncidentKind,
    /// The vessel, the directory, or the path of the full disk; empty for a failed reload.
    pub subject: String,
    /// When it began, in milliseconds since 1970.
    pub since: i64,
    /// What happened, and the remedy.
    pub reason: String,
    /// Whether the trouble has lasted long enough to be reported. Otherwise it is listed only because it has not ended
    /// yet.
    pub is_long: bool,
}

/// The kinds of trouble.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum IncidentKind {
    /// A vessel is away for longer than `AwayAfter`.
    VesselAway,
    /// Deletions in a directory are held back.
    DeletionsHeld,
    /// A directory, or a file in it, can't be used.
    DirectoryTrouble,
    /// The last reload of the settings failed.
    ReloadFailed,
    /// A disk of the shore has less than `MinFree`.
    DiskFull,
}

impl IncidentKind {
    /// Returns the kind as a word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::VesselAway => "vessel-away",
            Self::DeletionsHeld => "deletions-held",
            Self::DirectoryTrouble => "directory-trouble",
            Self::ReloadFailed => "reload-failed",
            Self::DiskFull => "disk-full",
        }
    }

    /// Returns the field of an event, and the environment variable, that name the subject of this kind of trouble.
    fn subject(kind: &str) -> Option<(&'static str, &'static str)> {
        match kind {
            "vessel-away" => Some(("vessel", "CONTENTMONSTER_VESSEL")),
            "deletions-held" | "directory-trouble" => Some(("directory", "CONTENTMONSTER_DIRECTORY")),
            _ => None,
        }
    }
}

/// A function that returns the current troubles; `None` while too little is known, shortly after the start.
pub type Incidents = Arc<dyn Fn() -> BoxFuture<'static, Result<Option<Vec<Incident>>, String>> + Send + Sync>;

/// The beginning or the end of a trouble.
#[derive(Serialize)]
struct TroubleEvent<'a> {
    event: &'static str,
    time: Timestamp,
    /// `begun` or `over`.
    state: &'static str,
    kind: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    vessel: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    directory: Option<&'a str>,
    since: Timestamp,
    reason: &'a str,
}

/// Reports troubles until the program stops. Returns at once if there are no recipients.
pub(super) async fn watch(desk: Desk, client: Client, incidents: Incidents) {
    let recipients = &desk.settings.monster.notifications;
    if recipients.on_trouble.is_empty() && recipients.webhooks.is_empty() {
        return;
    }
    let mut reporter = Reporter { desk, client, told: HashSet::new() };
    let (finish, stop) = (reporter.desk.finish.clone(), reporter.desk.stop.clone());
    let mut logged = LogOnce::default();
    loop {
        let mut wait = LOOK;
        if let Err(why) = reporter.look(&incidents).await {
            logged.about("Cannot report troubles", &why);
            wait = AGAIN;
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
    /// Recipients that have been notified of an event, while other recipients have not been notified yet.
    told: HashSet<(&'static str, String, String, String)>,
}

impl Reporter {
    /// Reports the troubles that began or ended.
    async fn look(&mut self, incidents: &Incidents) -> Result<(), String> {
        let Some(incidents) = incidents().await? else { return Ok(()) };
        let now: BTreeMap<(String, String), Incident> = incidents
            .into_iter()
            .map(|incident| ((incident.kind.as_str().to_owned(), incident.subject.clone()), incident))
            .collect();
        let told = self.desk.ledger.told_incidents().await.map_err(|e| e.to_string())?;
        let mut failed = None;
        for over in told.iter().filter(|told| !now.contains_key(&(told.kind.clone(), told.subject.clone()))) {
            match self.report("over", over).await {
                Ok(()) => {
                    self.desk.ledger.incident_over(&over.kind, &over.subject).await.map_err(|e| e.to_string())?;
                }
                // A webhook that does not answer must not delay the other events.
                Err(why) => failed = Some(why),
            }
        }
        let is_new = |incident: &&Incident| {
            let is_told =
                |one: &ReportedIncident| one.kind == incident.kind.as_str() && one.subject == incident.subject;
            incident.is_long && !told.iter().any(is_told)
        };
        for Incident { kind, subject, since, reason, .. } in now.values().filter(is_new) {
            let (kind, subject) = (kind.as_str().to_owned(), subject.clone());
            let begun = ReportedIncident { kind, subject, since: *since, reason: reason.clone() };
            match self.report("begun", &begun).await {
                Ok(()) => self.desk.ledger.incident_told(&begun).await.map_err(|e| e.to_string())?,
                Err(why) => failed = Some(why),
            }
        }
        failed.map_or(Ok(()), Err)
    }

    /// Notifies all recipients of the beginning or the end of a trouble.
    async fn report(&mut self, state: &'static str, incident: &ReportedIncident) -> Result<(), String> {
        let desk = &self.desk;
        let moment = |ms| Timestamp::from_millisecond(ms).unwrap_or(Timestamp::UNIX_EPOCH);
        let subject = IncidentKind::subject(&incident.kind);
        let named = |field: &str| subject.filter(|(name, _)| *name == field).map(|_| incident.subject.as_str());
        let event = TroubleEvent {
            event: "trouble",
            time: moment(desk.clock.now_ms()),
            state,
            kind: &incident.kind,
            vessel: named("vessel"),
            directory: named("directory"),
            since: moment(incident.since),
            reason: &incident.reason,
        };
        let recipients = &desk.settings.monster.notifications;
        let of = |recipient: String| (state, incident.kind.clone(), incident.subject.clone(), recipient);
        if self.told.insert(of("log and command".into())) {
            let (kind, subject) = (&incident.kind, &incident.subject);
            match state {
                "begun" => tracing::warn!(%kind, %subject, "Trouble: {}", incident.reason),
                _ => tracing::info!(%kind, %subject, "Trouble resolved: {}", incident.reason),
            }
            let ran = process::run(&recipients.on_trouble, variables(&event), recipients.hook_timeout).await;
            if let Some(program) = recipients.on_trouble.first() {
                let result = ran.as_ref().copied().map_err(String::as_str);
                desk.hooks.note(&format!("command {program}"), desk.clock.now_ms(), result);
            }
            if let Err(why) = ran {
                tracing::warn!("The OnTrouble command failed: {why}");
            }
        }
        for address in &recipients.webhooks {
            let recipient = of(address.url().to_string());
            if !self.told.contains(&recipient) {
                let posted = post_once(desk, &self.client, address, &event).await;
                posted.map_err(|why| format!("webhook at {address}: {why}"))?;
                self.told.insert(recipient);
            }
        }
        self.told.retain(|(_, kind, subject, _)| (kind, subject) != (&incident.kind, &incident.subject));
        Ok(())
    }
}

fn variables(event: &TroubleEvent<'_>) -> Vec<(&'static str, OsString)> {
    let subject = IncidentKind::subject(event.kind).zip(event.vessel.or(event.directory));
    let mut variables = vec![
        ("CONTENTMONSTER_EVENT", event.event.into()),
        ("CONTENTMONSTER_TIME", event.time.to_string().into()),
        ("CONTENTMONSTER_STATE", event.state.into()),
        ("CONTENTMONSTER_TROUBLE", event.kind.into()),
        ("CONTENTMONSTER_SINCE", event.since.to_string().into()),
        ("CONTENTMONSTER_REASON", event.reason.into()),
    ];
    variables.extend(subject.map(|((_, variable), name)| (variable, name.into())));
    variables
}
