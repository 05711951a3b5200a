//! Runs the commands `OnDelivered`, `OnRetired` and `OnParked`: one for each event, and at most 4 at the same time.
//! After a crash, the command of an event may run again.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use tokio::task::{JoinError, JoinSet};

use super::facts::Facts;
use super::log_once::LogOnce;
use super::{Desk, process};
use crate::bell::Bell;
use crate::ledger::{Notice, NoticeId};
use crate::names::DirectoryName;
use crate::records::EventKind;
use crate::settings::{Placeholders, Settings};
use crate::text::duration;

/// The name of the commands' channel in the ledger.
pub(super) const CHANNEL: &str = "command";

/// Maximum number of commands that run at the same time.
const AT_ONCE: usize = 4;
/// Maximum number of events that one query to the ledger returns.
const FETCH: u32 = 256;
/// Delay before a failed query to the ledger is repeated, and longest time between two queries.
const AGAIN: Duration = Duration::from_secs(30);
/// How long commands may take to end when the program stops. After that they are killed, and run again at the next
/// start.
const GRACE: Duration = Duration::from_secs(3);

/// Returns the directories and kinds of event for which the settings name a command.
pub(super) fn wants(settings: &Settings) -> Vec<(DirectoryName, EventKind)> {
    let mut all = super::everything(settings);
    all.retain(|(directory, kind)| command(settings, directory, *kind).is_some());
    all
}

fn command<'a>(settings: &'a Settings, directory: &DirectoryName, kind: EventKind) -> Option<&'a [String]> {
    let directory = settings.directories.iter().find(|one| one.name == *directory)?;
    Some(directory.hooks.on(kind)).filter(|words| !words.is_empty())
}

/// Runs commands until `desk.stop` is cancelled. Once `desk.finish` is cancelled, ends as soon as no events are left.
pub(super) async fn run(desk: Desk, bell: Bell) {
    let mut runner = Runner {
        desk,
        after: NoticeId(0),
        waiting: VecDeque::new(),
        running: JoinSet::new(),
        logged: HashMap::new(),
        trouble: LogOnce::default(),
    };
    loop {
        runner.fill().await;
        let finishing = runner.desk.finish.is_cancelled();
        if finishing && runner.running.is_empty() {
            return;
        }
        tokio::select! {
            Some(ended) = runner.running.join_next() => runner.end(ended).await,
            () = bell.rung() => {}
            () = tokio::time::sleep(AGAIN) => {}
            () = runner.desk.finish.cancelled(), if !finishing => {}
            () = runner.desk.stop.cancelled() => break,
        }
    }
    let ending = async {
        while let Some(ended) = runner.running.join_next().await {
            runner.end(ended).await;
        }
    };
    if tokio::time::timeout(GRACE, ending).await.is_err() {
        tracing::debug!("Killing the event commands that did not end within {} after the stop", duration(GRACE));
    }
}

/// An event, the command that was run for it, and the result.
type Ended = (Notice, Vec<String>, Result<(), String>);

struct Runner {
    desk: Desk,
    /// The number of the last event that was started.
    after: NoticeId,
    /// Events that were fetched from the ledger and not started yet.
    waiting: VecDeque<Notice>,
    running: JoinSet<Ended>,
    /// The last logged error of each command.
    logged: HashMap<Vec<String>, LogOnce>,
    /// The last logged error of the ledger.
    trouble: LogOnce,
}

impl Runner {
    /// Starts commands for pending events, up to [`AT_ONCE`] at the same time.
    async fn fill(&mut self) {
        while self.running.len() < AT_ONCE {
            if self.waiting.is_empty() {
                match self.desk.ledger.notices(CHANNEL, self.after, FETCH).await {
                    Ok(notices) => self.waiting.extend(notices),
                    Err(e) => self.trouble.about("Commands for events are delayed", &e.to_string()),
                }
            }
            let Some(notice) = self.waiting.pop_front() else { return };
            self.after = notice.id;
            self.start(notice).await;
        }
    }

    async fn start(&mut self, notice: Notice) {
        let settings = &self.desk.settings;
        let Some(words) = command(settings, &notice.version.directory, notice.kind).map(<[String]>::to_vec) else {
            return self.told(notice.id).await;
        };
        let filled = filled(settings, &notice, &words);
        let (variables, limit) =
            (Facts::of(&notice, settings).variables(), settings.monster.notifications.hook_timeout);
        self.running.spawn(async move {
            let outcome = process::run(&filled, variables, limit).await;
            (notice, words, outcome)
        });
    }

    /// Records that an event was reported, whatever the command's result, so a failed command is not run again.
    async fn end(&mut self, ended: Result<Ended, JoinError>) {
        let Ok((notice, words, outcome)) = ended else { return };
        let program = words.first().cloned().unwrap_or_default();
        let logged = self.logged.entry(words).or_default();
        let desk = &self.desk;
        let result = outcome.as_ref().copied().map_err(String::as_str);
        desk.hooks.note(&format!("command {program}"), desk.clock.now_ms(), result);
        match outcome {
            Ok(()) => logged.is_over(&format!("Command {program}")),
            Err(why) => {
                let (directory, path) = (&notice.version.directory, &notice.version.path);
                let kind = notice.kind.as_str();
                logged.about(&format!("Command {program} failed after {directory}/{path} was {kind}"), &why);
            }
        }
        self.told(notice.id).await;
    }

    async fn told(&mut self, notice: NoticeId) {
        match self.desk.ledger.told(&[notice]).await {
            Ok(()) => self.trouble.is_over("The ledger"),
            Err(e) => {
                let what = "Cannot record that the command for an event has run; the command may run again";
                self.trouble.about(what, &e.to_string());
            }
        }
    }
}

/// Returns the words of a command with their placeholders filled for an event.
fn filled(settings: &Settings, notice: &Notice, words: &[String]) -> Vec<String> {
    let vessel = notice.vessel.as_ref().map(|vessel| vessel.as_str());
    let group = settings.vessels.iter().find(|one| Some(one.name.as_str()) == vessel);
    let names = Placeholders {
        vessel,
        directory: Some(notice.version.directory.as_str()),
        group: group.and_then(|one| one.groups.last()).map(String::as_str),
        hostname: settings.hostname.as_deref(),
    };
    words.iter().map(|word| names.fill_known(word).into_owned()).collect()
}
