//! Reports troubles of the shore, of a vessel and of a directory: logs a line, runs `OnTrouble`, and posts to the
//! webhooks. Each trouble is reported once when it begins and once when it is over, even if the program restarts. If
//! the program crashes during a report, the report may be repeated.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::OsString;
use std::sync::Arc;
use std::time::{Duration, Instant};

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
/// How long nothing is posted to a webhook after it did not accept a report.
const AGAIN: Duration = Duration::from_secs(30);

/// A trouble that lasts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Incident {
    /// The kind of trouble.
    pub kind: IncidentKind,
    /// The vessel, the directory, or the path of the full disk; empty for a failed reload.
    pub subject: String,
    /// When the trouble began, in milliseconds since 1970.
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
    let mut reporter = Reporter { desk, client, partly: BTreeMap::new(), failing: HashMap::new() };
    let (finish, stop) = (reporter.desk.finish.clone(), reporter.desk.stop.clone());
    let mut logged = LogOnce::default();
    loop {
        if let Err(why) = reporter.look(&incidents).await {
            logged.about("Cannot report troubles", &why);
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            () = finish.cancelled() => return,
            () = stop.cancelled() => return,
        }
    }
}

/// The kind and the subject of a trouble.
type Subject = (String, String);

/// The last report about a trouble that a recipient has received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    Begun,
    Over,
}

impl Told {
    fn as_str(self) -> &'static str {
        match self {
            Self::Begun => "begun",
            Self::Over => "over",
        }
    }
}

/// A trouble whose latest report was not received by all recipients, because a webhook did not accept the report. The
/// ledger records a report only after all recipients have received it.
struct Partly {
    incident: ReportedIncident,
    /// The last report that each recipient has received. A recipient without an entry has received only what the ledger
    /// has recorded.
    told: HashMap<String, Told>,
}

/// The recipient name of the log and the `OnTrouble` command together. No webhook has this address.
const LOG_AND_COMMAND: &str = "log and command";

struct Reporter {
    desk: Desk,
    client: Client,
    partly: BTreeMap<Subject, Partly>,
    /// The webhooks that failed, each with the time until which nothing is posted to it, and with the error.
    failing: HashMap<String, (Instant, String)>,
}

impl Reporter {
    /// Reports the troubles that began or ended. A recipient that has received the report of the beginning also
    /// receives the report of the end, even if another recipient has received neither.
    async fn look(&mut self, incidents: &Incidents) -> Result<(), String> {
        let Some(incidents) = incidents().await? else { return Ok(()) };
        let now: BTreeMap<Subject, Incident> = incidents
            .into_iter()
            .map(|incident| ((incident.kind.as_str().to_owned(), incident.subject.clone()), incident))
            .collect();
        let recorded = self.desk.ledger.told_incidents().await.map_err(|e| e.to_string())?;
        let recorded: BTreeMap<Subject, ReportedIncident> =
            recorded.into_iter().map(|told| ((told.kind.clone(), told.subject.clone()), told)).collect();
        let subjects: BTreeSet<Subject> =
            now.keys().chain(recorded.keys()).chain(self.partly.keys()).cloned().collect();
        let mut failed = None;
        for subject in subjects {
            let (is_recorded, is_partly) = (recorded.contains_key(&subject), self.partly.contains_key(&subject));
            let (state, incident) = match now.get(&subject) {
                // No report is due: the trouble has not lasted long enough, or all recipients have received the report
                // of its beginning.
                Some(incident) if !incident.is_long || is_recorded && !is_partly => continue,
                Some(Incident { since, reason, .. }) => {
                    let (kind, subject) = subject.clone();
                    (Told::Begun, ReportedIncident { kind, subject, since: *since, reason: reason.clone() })
                }
                None => {
                    let partly = self.partly.get(&subject).map(|partly| &partly.incident);
                    let Some(incident) = partly.or(recorded.get(&subject)) else { continue };
                    (Told::Over, incident.clone())
                }
            };
            if let Err(why) = self.report(state, &incident, is_recorded).await {
                // A webhook that does not answer must not delay the other events.
                failed = Some(why);
                continue;
            }
            let ledger = &self.desk.ledger;
            match state {
                Told::Begun => ledger.incident_told(&incident).await,
                Told::Over if is_recorded => ledger.incident_over(&incident.kind, &incident.subject).await,
                Told::Over => Ok(()),
            }
            .map_err(|e| e.to_string())?;
            self.partly.remove(&subject);
        }
        failed.map_or(Ok(()), Err)
    }

    /// Reports the beginning or the end of a trouble to all recipients that have not received this report yet. Fails if
    /// a webhook did not accept the report.
    async fn report(&mut self, state: Told, incident: &ReportedIncident, is_recorded: bool) -> Result<(), String> {
        let Self { desk, client, partly, failing } = self;
        let moment = |ms| Timestamp::from_millisecond(ms).unwrap_or(Timestamp::UNIX_EPOCH);
        let subject = IncidentKind::subject(&incident.kind);
        let named = |field: &str| subject.filter(|(name, _)| *name == field).map(|_| incident.subject.as_str());
        let event = TroubleEvent {
            event: "trouble",
            time: moment(desk.clock.now_ms()),
            state: state.as_str(),
            kind: &incident.kind,
            vessel: named("vessel"),
            directory: named("directory"),
            since: moment(incident.since),
            reason: &incident.reason,
        };
        let recipients = &desk.settings.monster.notifications;
        let partly = partly
            .entry((incident.kind.clone(), incident.subject.clone()))
            .or_insert_with(|| Partly { incident: incident.clone(), told: HashMap::new() });
        partly.incident = incident.clone();
        let before = if is_recorded { Told::Begun } else { Told::Over };
        let knows = |partly: &Partly, recipient: &str| *partly.told.get(recipient).unwrap_or(&before) == state;
        if !knows(partly, LOG_AND_COMMAND) {
            let (kind, subject) = (&incident.kind, &incident.subject);
            match state {
                Told::Begun => tracing::warn!(%kind, %subject, "Trouble: {}", incident.reason),
                Told::Over => tracing::info!(%kind, %subject, "Trouble resolved: {}", incident.reason),
            }
            let ran = process::run(&recipients.on_trouble, variables(&event), recipients.hook_timeout).await;
            if let Some(program) = recipients.on_trouble.first() {
                let result = ran.as_ref().copied().map_err(String::as_str);
                desk.hooks.note(&format!("command {program}"), desk.clock.now_ms(), result);
            }
            if let Err(why) = ran {
                tracing::warn!("The OnTrouble command failed: {why}");
            }
            partly.told.insert(LOG_AND_COMMAND.to_owned(), state);
        }
        let mut failed = None;
        for address in &recipients.webhooks {
            let recipient = address.url().to_string();
            if knows(partly, &recipient) {
                continue;
            }
            if let Some((until, why)) = failing.get(&recipient)
                && Instant::now() < *until
            {
                failed = Some(why.clone());
                continue;
            }
            match post_once(desk, client, address, &event).await {
                Ok(()) => {
                    failing.remove(&recipient);
                    partly.told.insert(recipient, state);
                }
                Err(why) => {
                    let why = format!("webhook at {address}: {why}");
                    failing.insert(recipient, (Instant::now() + AGAIN, why.clone()));
                    failed = Some(why);
                }
            }
        }
        failed.map_or(Ok(()), Err)
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
