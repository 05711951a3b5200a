//! `[MONSTER]`: the program as a whole. Its fields, and a table row for each of its keys.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::database::{Database, with_suffix};
use super::key::Preset::{Otherwise, Value};
use super::key::Reload::{AtOnce, Background, Restart};
use super::key::{Secrecy, SectionKind};
use super::logging::{self, LogFormat, LogLevel, LogTarget, Logging};
use super::notifications::{self, Hooks, Notifications};
use super::problems::Diagnostic;
use super::rate::{self, RateSchedule};
use super::retention::{self, KeepProcessed};
use super::secrets::{self, Secret};
use super::section_view::View;
use super::table::{self, Field, Key, field, key};
use super::values;
use super::written_value::Written;

/// `[MONSTER]`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Monster {
    /// `ChunkSize`: size of the chunks of a file, in bytes.
    pub chunk_size: u64,
    /// `Cache`: the maximum memory for the contents of sources, in bytes.
    pub cache: u64,
    /// `Database`. For PostgreSQL, it also contains `DatabasePassword`, `LeaseTime`, `ShoreName` and the lock file.
    pub database: Database,
    /// `DatabasePassword` or `DatabasePasswordFile`: the password of a PostgreSQL database.
    database_password: Option<Secret>,
    /// `LeaseTime`: how long the right to use a ledger in PostgreSQL lasts without being renewed.
    lease_time: Duration,
    /// `ShoreName`: the name of this shore.
    pub shore_name: String,
    /// `Socket`, or its default: the path of the socket through which commands reach the running program.
    pub socket: PathBuf,
    /// `Listen`: the address of the status page; `None`: there is no page.
    pub listen: Option<SocketAddr>,
    /// `ListenToken` or `ListenTokenFile`: the token for orders on the page; `None`: no orders are allowed.
    pub listen_token: Option<Secret>,
    /// `RateLimit`: the maximum rate of file data to all vessels together.
    pub rate_limit: RateSchedule,
    /// `LogLevel`, `LogFormat` and `LogFile`.
    pub logging: Logging,
    /// `Simulate`: whether actions are only logged.
    pub simulate: bool,
    /// `MinFree`: the free space on the ledger's disk, in bytes, below which no new files are admitted.
    pub min_free: u64,
    /// `KeepHistory`: how long the ledger keeps ended versions; `None`: for ever.
    pub keep_history: Option<Duration>,
    /// `KeepProcessed`: the default for directories.
    pub keep_processed: KeepProcessed,
    /// `OnDelivered`, `OnRetired`, `OnParked`: defaults for directories.
    pub hooks: Hooks,
    /// `Webhook`, `Heartbeat`, and related keys.
    pub notifications: Notifications,
}

impl table::Section for Monster {
    const KIND: SectionKind = SectionKind::Monster;
}

#[rustfmt::skip]
pub(super) static KEYS: &[Key<Monster>] = &[
    key("ChunkSize", Value("10485760"), field!(Monster.chunk_size, Written::size))
        .value("a size from 64 KiB to 1 GiB").reload(Background)
        .doc("Size of the chunks that files are split into."),
    key("Cache", Value("64 MiB"), field!(Monster.cache, Written::size))
        .value("a size from 8 MiB to 64 GiB").reload(Restart)
        .doc("Maximum memory for cached file contents. Vessels that receive the same file at about the same time share \
              one read of it."),
    key("Database", Value("database.sqlite3"), field!(Monster.database, |it| Database::parse(it.text, it.view.start)))
        .value("a path, or an address such as postgresql://user@host/name?sslmode=verify-full").reload(Restart)
        .doc("The ledger, which records the files that were seen, delivered and acknowledged. Keep this file. The chapter \
              about PostgreSQL explains the address of a database in place of a file."),
    key("DatabasePassword", Otherwise("none; ~/.pgpass is used"), field!(Monster.database_password, |it| Ok(secrets::read(it, "database-password"))))
        .value("text").example("a-long-random-word").reload(Restart).secrecy(Secrecy::Secret)
        .doc("Password for the PostgreSQL database of Database."),
    key("DatabasePasswordFile", Otherwise("none"), Field::NONE)
        .value("a path").example("contentmonster.database-password").reload(Restart)
        .doc("File whose first line is the password, instead of DatabasePassword."),
    key("LeaseTime", Value("15s"), field!(Monster.lease_time, Written::duration))
        .value("a duration from 3s to 10m").reload(Restart)
        .doc("For a Database in PostgreSQL: how long the right to use the ledger lasts without being renewed. The program \
              renews it at intervals of a third of this time. After a host fails, another one can take over after this \
              time."),
    key("ShoreName", Otherwise("the name of this host"), field!(Monster.shore_name, |it| values::not_empty(it.text).map(str::to_owned)))
        .value("a name").example("north").reload(Restart)
        .doc("For a Database in PostgreSQL that several shores use: the name of this one, for Shore in [Directory] and for \
              the command `shores`. Each shore needs a name of its own."),
    key("Socket", Otherwise("Database with .sock added; for PostgreSQL, contentmonster.sock beside the settings file"), field!(Monster.socket, Written::path))
        .value("a path").example("/run/contentmonster/contentmonster.sock").reload(Restart)
        .doc("Path of the socket through which commands such as `status` reach the running program. For a Database in \
              PostgreSQL, a lock file is beside it. The user that contentmonster runs as must be allowed to create both."),
    key("Include", Otherwise("none"), Field::NONE)
        .value("paths or patterns, separated by commas").example("settings.d/*.ini").reload(Background)
        .doc("Files that are read as if their sections were in this file, so that each vessel may have a file of its own. \
              Patterns match as in a shell, and the files are read in the order of their names. A relative path starts \
              at the directory of the file that contains this line; all other relative paths start at the directory of \
              the settings file. The line may also precede the first section."),
    key("Listen", Otherwise("none, no status page"), field!(Monster.listen, |it| it.accept(values::socket_address).map(Some)))
        .value("an address with a port, such as 127.0.0.1:8022 or [::1]:8022").example("127.0.0.1:8022").reload(Restart)
        .doc("Address of the status page and the metrics (/metrics, /api/status, /healthz, /readyz). Everyone who can \
              connect to it sees the status, including the names of files."),
    key("ListenToken", Otherwise("none, the page is read-only"), field!(Monster.listen_token, |it| Ok(secrets::read(it, "token"))))
        .value("text").example("a-long-random-word").reload(Restart).secrecy(Secrecy::Secret)
        .doc("Token for the status page. Everyone who enters it may pause and resume vessels and retry files."),
    key("ListenTokenFile", Otherwise("none"), Field::NONE)
        .value("a path").example("contentmonster.token").reload(Restart)
        .doc("File whose first line is the token, instead of ListenToken."),
    key("RateLimit", Value("none"), field!(Monster.rate_limit, |it| rate::schedule(it.text)))
        .value("rates from 1 KiB/s to 1 TiB/s, or none").reload(AtOnce)
        .doc("Maximum rate of file data to all vessels together. The RateLimit of each vessel applies in addition; its \
              description explains the syntax."),
    key("LogLevel", Otherwise("info, or warn while progress bars are shown"), field!(Monster.logging.level, |it| it.choice(&LogLevel::ALL.map(|level| (level.word(), Some(level))))))
        .value("error, warn, info, debug or trace").example("info").reload(Restart)
        .doc("Minimum level of log lines. The environment variable CONTENTMONSTER_LOG overrides it."),
    key("LogFormat", Otherwise("text, without timestamps if journald reads it"), field!(Monster.logging.format, |it| it.choice(&LogFormat::ALL)))
        .value("text, json or journald").example("text").reload(Restart)
        .doc("Format of log lines: text, json (one object per line), or journald (short messages with fields that can \
              be queried: `journalctl F_VESSEL=aurora`)."),
    key("LogFile", Otherwise("standard error"), field!(Monster.logging.target, logging::target))
        .value("a path, or syslog").example("/var/log/contentmonster.log").reload(Restart)
        .doc("Where log lines go: a file, or `syslog`. The file is created with mode 0600 and reopened on SIGHUP, so \
              that logrotate can rename it."),
    key("MinFree", Value("64 MiB"), field!(Monster.min_free, Written::size))
        .value("a size such as 64 MiB").reload(Background)
        .doc("Minimum free space on the ledger's disk. With less, no new files are taken in until there is enough \
              again; the log and `status` report it. Files that were already taken in are still delivered. 0 disables \
              the check."),
    key("KeepHistory", Value("forever"), field!(Monster.keep_history, retention::keep_history))
        .value("forever, or a duration from 1s to 36500d").reload(Background)
        .doc("How long the ledger keeps a version of a file, with its receipts, after the version was replaced, \
              deleted or retired. The current version of each path is always kept, and a replaced version is kept \
              until every vessel that holds it has the current one."),
    key("KeepProcessed", Value("forever"), field!(Monster.keep_processed, retention::keep_processed))
        .value("forever, no, or a duration from 1s to 36500d").reload(Background)
        .doc("How long delivered files stay in processed/: `forever`; a duration such as 30d, after which files that \
              were not changed there are deleted, and directories that become empty; or `no`: delivered files are \
              deleted at once instead of moved to processed/."),
    key("OnDelivered", Value("none"), field!(Monster.hooks.on_delivered, notifications::command))
        .value("a command, or none").reload(Background)
        .doc("Command that runs when a vessel has received a file; `none` runs nothing. Arguments may be quoted as for \
              a shell, but no shell is involved. A program path that contains a `/` may be relative to the settings \
              file. The command finds the facts in its environment: CONTENTMONSTER_EVENT (delivered, retired, parked), \
              _ID, _TIME, _DIRECTORY, _PATH, _LOCAL_PATH, _REMOTE_PATH, _VESSEL, _KIND, _SIZE, _SHA256, _REASON, each \
              prefixed with CONTENTMONSTER. `{vessel}`, `{group}` (its last), `{directory}` and `{hostname}` in the \
              command stand for the names. Every event is reported at least once; in rare cases twice, with the same \
              ID."),
    key("OnRetired", Value("none"), field!(Monster.hooks.on_retired, notifications::command))
        .value("a command, or none").reload(Background)
        .doc("Command that runs when all vessels have received a file and its source was moved to processed/ or \
              deleted. OnDelivered explains the syntax and the environment."),
    key("OnParked", Value("none"), field!(Monster.hooks.on_parked, notifications::command))
        .value("a command, or none").reload(Background)
        .doc("Command that runs when a file is parked: it could not be delivered, and is retried less often from now \
              on. OnDelivered explains the syntax and the environment."),
    key("OnBudget", Value("none"), field!(Monster.notifications.on_budget, notifications::command))
        .value("a command, or none").reload(Background)
        .doc("Command that runs when 80 % of a Budget are used, and again when it is spent. Its environment contains \
              CONTENTMONSTER_EVENT (budget), _TIME, _BUDGET (such as `link vsat` or `vessel aurora`), _PERIOD (day or \
              month), _PERCENT (80 or 100), _USED and _BYTES. OnDelivered explains the syntax. Webhook addresses \
              receive the same facts."),
    key("OnTrouble", Value("none"), field!(Monster.notifications.on_trouble, notifications::command))
        .value("a command, or none").reload(Background)
        .doc("Command that runs when a lasting trouble begins, and again when it is over: a vessel is away for longer \
              than AwayAfter, deletions are held back, a directory can't be used, a reload of the settings failed, or \
              a disk has less than MinFree. Its environment contains CONTENTMONSTER_EVENT (trouble), _TIME, _STATE \
              (begun or over), _TROUBLE (vessel-away, deletions-held, directory-trouble, reload-failed or disk-full), \
              _VESSEL or _DIRECTORY, _SINCE and _REASON. Webhook addresses receive the same facts. OnDelivered \
              explains the syntax."),
    key("HookTimeout", Value("60s"), field!(Monster.notifications.hook_timeout, Written::duration))
        .value("a duration from 1s to 1d").reload(Background)
        .doc("Maximum run time of the commands of OnDelivered, OnRetired, OnParked, OnBudget and OnTrouble. After it, the \
              command and all processes that it started are killed."),
    key("Webhook", Otherwise("none"), field!(Monster.notifications.webhooks, notifications::web_addresses))
        .value("web addresses, separated by commas").example("https://example.com/contentmonster").reload(Background)
        .secrecy(Secrecy::Address)
        .doc("Addresses that receive every delivered, retired and parked event as JSON, by POST. A failed request is \
              repeated for up to 1 day."),
    key("WebhookSecret", Otherwise("none"), field!(Monster.notifications.webhook_secret, |it| Ok(secrets::read(it, "webhook-secret"))))
        .value("text").example("a-long-random-word").reload(Background).secrecy(Secrecy::Secret)
        .doc("Key that signs the requests to the Webhook addresses (X-Contentmonster-Signature)."),
    key("WebhookSecretFile", Otherwise("none"), Field::NONE)
        .value("a path").example("contentmonster.webhook-secret").reload(Background)
        .doc("File whose first line is the key, instead of WebhookSecret."),
    key("Heartbeat", Otherwise("none"), field!(Monster.notifications.heartbeat, |it| notifications::web_address(it.text).map(Some)))
        .value("a web address").example("https://example.com/ping/contentmonster").reload(Background).secrecy(Secrecy::Address)
        .doc("Address that is requested (GET) at regular intervals while the program works: the ledger is writable, at \
              least one Location is accessible, and at least one vessel is reachable. For monitoring services that \
              raise an alarm when the requests stop."),
    key("HeartbeatInterval", Value("60s"), field!(Monster.notifications.heartbeat_interval, Written::duration))
        .value("a duration from 1s to 1d").reload(Background)
        .doc("Interval between the requests to the Heartbeat address."),
    key("Simulate", Value("no"), field!(Monster.simulate, Written::yes_or_no))
        .value("yes or no").reload(Restart)
        .doc("yes: nothing is sent, moved, deleted or recorded in the ledger. Instead, the log lists what would be \
              done, and lists it again whenever the list changes. `contentmonster --simulate` prints the list once."),
];

/// Reads `[MONSTER]`; returns `None` after reporting an error.
pub(super) fn read(view: &View<'_>) -> Option<Monster> {
    let mut monster = Monster::default();
    let sound = table::read(KEYS, view, &mut monster);
    if monster.listen.is_some_and(|address| !address.ip().is_loopback()) {
        let message =
            "everyone who can connect to this address sees the names of all files, and tokens are sent unencrypted";
        let remedy = "listen on 127.0.0.1 and connect through `ssh -L` or a proxy with TLS";
        view.problems.warn(view.place_of("Listen"), Diagnostic::new(message, remedy));
    }
    let Logging { format, target, .. } = &monster.logging;
    if *format == Some(LogFormat::Journald) && *target != LogTarget::StandardError {
        let diagnostic = Diagnostic::new(
            "cannot be used with `LogFormat = journald`",
            "remove LogFile, or write `LogFormat = text`",
        );
        view.problems.report(view.place_of("LogFile"), diagnostic);
    }
    if monster.notifications.webhooks.iter().any(|one| !one.is_private()) {
        let message = "file names are sent to this address unencrypted";
        view.problems.warn(view.place_of("Webhook"), Diagnostic::new(message, "use an https:// address"));
    }
    if monster.socket.as_os_str().is_empty() {
        monster.socket = monster.database.socket(view.start);
    }
    if monster.shore_name.is_empty() {
        monster.shore_name = view.environment.hostname.clone().unwrap_or_else(|| "shore".to_owned());
    }
    match &mut monster.database {
        Database::Postgres(address) => {
            address.password.clone_from(&monster.database_password);
            address.lease_time = monster.lease_time;
            address.shore.clone_from(&monster.shore_name);
            address.lock = with_suffix(&monster.socket, ".lock");
        }
        Database::File(_) if monster.database_password.is_some() => {
            let diagnostic = Diagnostic::new("has no meaning, because Database is a file", "remove it");
            view.problems.warn(view.place_of("DatabasePassword"), diagnostic);
        }
        Database::File(_) => {}
    }
    sound.then_some(monster)
}
