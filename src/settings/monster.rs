//! `[MONSTER]`: the program as a whole. Its fields, and a table row for each of its keys.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::key::Preset::{Otherwise, Value};
use super::key::Reload::{AtOnce, Background, Restart};
use super::key::{Secrecy, SectionKind};
use super::logging::{self, LogFormat, LogLevel, LogTarget, Logging};
use super::problems::Diagnostic;
use super::rate::{self, RateSchedule};
use super::retention::{self, KeepProcessed};
use super::secrets::{self, Secret};
use super::table::{self, Field, Key, field, key};
use super::telling::{self, Hooks, Telling};
use super::values;
use super::view::{View, Written};

/// `[MONSTER]`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Monster {
    /// `ChunkSize`: size of the chunks of a file, in bytes.
    pub chunk_size: u64,
    /// `Cache`: most memory for the content of sources, in bytes.
    pub cache: u64,
    /// `Database`: the ledger's file, absolute.
    pub database: PathBuf,
    /// `Listen`: the address of the status page; `None`: it isn't served.
    pub listen: Option<SocketAddr>,
    /// `ListenToken` or `ListenTokenFile`: the token for orders on the page; `None`: no orders are allowed.
    pub listen_token: Option<Secret>,
    /// `RateLimit`: the rate limit of all vessels together, in bytes of files.
    pub rate_limit: RateSchedule,
    /// `LogLevel`, `LogFormat` and `LogFile`.
    pub logging: Logging,
    /// `Simulate`: whether actions are only logged.
    pub simulate: bool,
    /// `MinFree`: free space on the ledger's disk that is required to admit new files, in bytes.
    pub min_free: u64,
    /// `KeepHistory`: how long the ledger keeps ended versions; `None`: for ever.
    pub keep_history: Option<Duration>,
    /// `KeepProcessed`: default for directories.
    pub keep_processed: KeepProcessed,
    /// `OnDelivered`, `OnRetired`, `OnParked`: defaults for directories.
    pub hooks: Hooks,
    /// `Webhook`, `Heartbeat`, and related keys.
    pub telling: Telling,
}

impl table::Section for Monster {
    const KIND: SectionKind = SectionKind::Monster;
}

#[rustfmt::skip]
pub(super) static KEYS: &[Key<Monster>] = &[
    key("ChunkSize", Value("10485760"), field!(Monster.chunk_size, Written::size))
        .value("a size from 64 KiB to 1 GiB").reload(Background)
        .doc("Size of the pieces that files are cut into."),
    key("Cache", Value("64 MiB"), field!(Monster.cache, Written::size))
        .value("a size from 8 MiB to 64 GiB").reload(Restart)
        .doc("How much of the files is kept in memory at the most, so that vessels that take a file at about the same pace \
              have it read once for all of them."),
    key("Database", Value("database.sqlite3"), field!(Monster.database, Written::path))
        .value("a path").reload(Restart)
        .doc("The ledger: what was seen, delivered and acknowledged. Keep this file."),
    key("Listen", Otherwise("none, there is no page"), field!(Monster.listen, |it| it.accept(values::socket_address).map(Some)))
        .value("an address with a port, such as 127.0.0.1:8022 or [::1]:8022").example("127.0.0.1:8022").reload(Restart)
        .doc("The status page and the metrics (/metrics, /api/status, /healthz, /readyz). Whoever reaches it can look, at the \
              names of files too."),
    key("ListenToken", Otherwise("none, the page can only be looked at"), field!(Monster.listen_token, |it| Ok(secrets::read(it, "token"))))
        .value("text").example("a-long-random-word").reload(Restart).secrecy(Secrecy::Secret)
        .doc("Who enters this on the page may pause and resume vessels, and have files tried again."),
    key("ListenTokenFile", Otherwise("none"), Field::NONE)
        .value("a path").example("contentmonster.token").reload(Restart)
        .doc("A file whose first line is the ListenToken, in place of ListenToken."),
    key("RateLimit", Value("none"), field!(Monster.rate_limit, |it| rate::schedule(it.text)))
        .value("rates from 1 KiB/s to 1 TiB/s, or none").reload(AtOnce)
        .doc("How many bytes of files may go out per second to all vessels together: see RateLimit of a vessel, which holds \
              besides."),
    key("LogLevel", Otherwise("info, and only warnings beside progress bars"), field!(Monster.logging.level, |it| it.choice(&LogLevel::ALL.map(|level| (level.word(), Some(level))))))
        .value("error, warn, info, debug or trace").example("info").reload(Restart)
        .doc("What is logged. CONTENTMONSTER_LOG in the environment holds before it."),
    key("LogFormat", Otherwise("text, which leaves the time to journald where that reads it"), field!(Monster.logging.format, |it| it.choice(&LogFormat::ALL)))
        .value("text, json or journald").example("text").reload(Restart)
        .doc("What log lines look like: text, json (an object for each line), or journald: fields to ask for (`journalctl \
              F_VESSEL=aurora`) beside short messages."),
    key("LogFile", Otherwise("standard error"), field!(Monster.logging.target, logging::target))
        .value("a path, or syslog").example("/var/log/contentmonster.log").reload(Restart)
        .doc("Where log lines go: a file, made with mode 0600, which is opened anew on SIGHUP, so that logrotate can move it \
              away; or `syslog`."),
    key("MinFree", Value("64 MiB"), field!(Monster.min_free, Written::size))
        .value("a size such as 64 MiB").reload(Background)
        .doc("How much room must be left on the ledger's disk: with less, no new files are taken in until there is more, which \
              the log and `status` say. Files already taken in are delivered all the same. 0: any."),
    key("KeepHistory", Value("forever"), field!(Monster.keep_history, retention::keep_history))
        .value("forever, or a duration from 1s to 36500d").reload(Background)
        .doc("How long the ledger remembers versions that have ended, and their receipts. What tells what the vessels hold is \
              kept in any case."),
    key("KeepProcessed", Value("forever"), field!(Monster.keep_processed, retention::keep_processed))
        .value("forever, no, or a duration from 1s to 36500d").reload(Background)
        .doc("How long delivered files stay in processed/: `forever`; a time such as 30d, after which those that lie there as \
              they were put there are deleted, and directories that this leaves empty; or `no`: they are deleted at once instead \
              of moved."),
    key("OnDelivered", Value("none"), field!(Monster.hooks.on_delivered, telling::command))
        .value("a command, or none").reload(Background)
        .doc("A command that is run when a vessel has a file; `none` runs nothing. Words are quoted as for a shell, but none \
              reads them. A program with a `/` in it may be relative to this file. The facts are in its environment: \
              CONTENTMONSTER_EVENT (delivered, retired, parked), _ID, _TIME, _DIRECTORY, _PATH, _LOCAL_PATH, _REMOTE_PATH, \
              _VESSEL, _KIND, _SIZE, _SHA256, _REASON, each beginning with CONTENTMONSTER. Every event is told at least once, \
              seldom twice, with the same ID."),
    key("OnRetired", Value("none"), field!(Monster.hooks.on_retired, telling::command))
        .value("a command, or none").reload(Background)
        .doc("The same, when all vessels have a file and its source is out of the way."),
    key("OnParked", Value("none"), field!(Monster.hooks.on_parked, telling::command))
        .value("a command, or none").reload(Background)
        .doc("The same, when a file is set aside for a reason."),
    key("HookTimeout", Value("60s"), field!(Monster.telling.hook_timeout, Written::duration))
        .value("a duration from 1s to 1d").reload(Background)
        .doc("How long such a command may take before it, and all that it started, is ended."),
    key("Webhook", Otherwise("none"), field!(Monster.telling.webhooks, telling::web_addresses))
        .value("web addresses, separated by commas").example("https://example.com/contentmonster").reload(Background)
        .secrecy(Secrecy::Address)
        .doc("Addresses that all these events are posted to as JSON. Repeated for up to a day."),
    key("WebhookSecret", Otherwise("none"), field!(Monster.telling.webhook_secret, |it| Ok(secrets::read(it, "webhook-secret"))))
        .value("text").example("a-long-random-word").reload(Background).secrecy(Secrecy::Secret)
        .doc("What posts are signed with (X-Contentmonster-Signature)."),
    key("WebhookSecretFile", Otherwise("none"), Field::NONE)
        .value("a path").example("contentmonster.webhook-secret").reload(Background)
        .doc("A file whose first line is the WebhookSecret, in place of WebhookSecret."),
    key("Heartbeat", Otherwise("none"), field!(Monster.telling.heartbeat, |it| telling::web_address(it.text).map(Some)))
        .value("a web address").example("https://example.com/ping/contentmonster").reload(Background).secrecy(Secrecy::Address)
        .doc("An address that is asked for (GET) as long as all is well: the ledger can be written to, a Location is there, and \
              a vessel can be reached. For services that raise an alarm when that stops."),
    key("HeartbeatInterval", Value("60s"), field!(Monster.telling.heartbeat_interval, Written::duration))
        .value("a duration from 1s to 1d").reload(Background)
        .doc("How often it is asked for."),
    key("Simulate", Value("no"), field!(Monster.simulate, Written::yes_or_no))
        .value("yes or no").reload(Restart)
        .doc("yes: nothing is sent, moved, deleted or entered in the ledger, but the log says what would be, now and whenever \
              that changes. `contentmonster --simulate` prints it once."),
];

/// Reads `[MONSTER]`; returns `None` after reporting an error.
pub(super) fn read(view: &View<'_>) -> Option<Monster> {
    let mut monster = Monster::default();
    let sound = table::read(KEYS, view, &mut monster);
    if monster.listen.is_some_and(|address| !address.ip().is_loopback()) {
        let message =
            "whoever reaches this address sees the names of all files, and a token is sent over it unencrypted";
        let remedy = "listen on 127.0.0.1 and go there through `ssh -L` or a proxy with TLS";
        view.problems.warn(view.place_of("Listen"), Diagnostic::new(message, remedy));
    }
    let Logging { format, target, .. } = &monster.logging;
    if *format == Some(LogFormat::Journald) && *target != LogTarget::StandardError {
        let diagnostic =
            Diagnostic::new("journald does not log to a file", "leave LogFile out, or write `LogFormat = text`");
        view.problems.report(view.place_of("LogFile"), diagnostic);
    }
    if monster.telling.webhooks.iter().any(|one| !one.is_private()) {
        let message = "the names of files go there unencrypted";
        view.problems.warn(view.place_of("Webhook"), Diagnostic::new(message, "use an https:// address"));
    }
    sound.then_some(monster)
}
