//! The command line's arguments.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use super::Exit;
use super::completions::Named;
use crate::VERSION;

/// Replicates files from this host to many others over unreliable SSH links, and loses none.
///
/// Without a command it runs until it is stopped: it watches the directories of the settings file and delivers new
/// files to every vessel.
#[derive(Debug, Parser)]
#[command(version = VERSION, after_help = Exit::HELP, args_conflicts_with_subcommands = false)]
#[command(group = clap::ArgGroup::new("single").args(["once", "simulate"]))]
pub(super) struct Args {
    /// The settings file.
    #[arg(short, long, value_name = "FILE", default_value = "settings.ini", global = true)]
    pub(super) settings: PathBuf,

    /// Deliver the files that exist now, print a summary and exit.
    #[arg(long)]
    pub(super) once: bool,

    /// Print what would be sent, created, deleted and moved, but do nothing.
    #[arg(long, conflicts_with = "once")]
    pub(super) simulate: bool,

    /// With --once or --simulate: print the result as JSON.
    #[arg(long, requires = "single")]
    pub(super) json: bool,

    /// Allow deletions in mirrors that would otherwise be held back: more than MaxDelete, or all files of a directory
    /// that is suddenly empty.
    #[arg(long)]
    pub(super) allow_deletes: bool,

    #[command(subcommand)]
    pub(super) command: Option<Command>,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Check the settings, connect to every vessel, and report what works and how to fix what does not.
    Check {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Show a vessel's host key, ask for confirmation, and record it in ~/.ssh/known_hosts.
    Trust {
        /// The vessel's name, as in [Vessel NAME].
        #[arg(required_unless_present_any = ["all", "group", "new"])]
        vessel: Option<String>,
        /// Show and record the host keys of all vessels.
        #[arg(long, conflicts_with_all = ["vessel", "group"])]
        all: bool,
        /// Show and record the host keys of the vessels of this group.
        #[arg(long, value_name = "GROUP", conflicts_with = "vessel")]
        group: Option<String>,
        /// Skip host keys that are already known. Without --group, applies to all vessels.
        #[arg(long, conflicts_with = "vessel")]
        new: bool,
        /// Record the host key without asking.
        #[arg(long)]
        yes: bool,
    },
    /// Show the status of every vessel and every directory.
    Status {
        /// Print JSON, the same as /api/status.
        #[arg(long)]
        json: bool,
        /// Refresh the output every second; with --json, print one line each time.
        #[arg(long)]
        watch: bool,
        /// Show only this vessel.
        #[arg(long)]
        vessel: Option<String>,
        /// Show only the vessels of this group.
        #[arg(long)]
        group: Option<String>,
        /// Show only vessels and directories in trouble.
        #[arg(long)]
        only_trouble: bool,
        /// Print one line for a monitoring system, as plugins of Nagios do; exit code 0: fine, 1: warning, 2: critical,
        /// 3: unknown.
        #[arg(long, conflicts_with = "watch")]
        check: bool,
    },
    /// List the files that wait, in the order in which they are sent, with the reason why each waits.
    Queue {
        /// A vessel or a directory.
        #[arg(value_name = "VESSEL|DIRECTORY")]
        what: Option<String>,
        /// List only files for this vessel.
        #[arg(long)]
        vessel: Option<String>,
        /// List only files of this directory.
        #[arg(long)]
        directory: Option<String>,
        /// List only files in this state.
        #[arg(long, value_parser = ["waiting", "held", "sending", "parked", "put-off"])]
        state: Option<String>,
        /// List only files whose path contains this text.
        #[arg(long, value_name = "TEXT")]
        search: Option<String>,
        /// Maximum number of files.
        #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
        limit: u32,
        /// Continue an earlier list from the cursor that its last line shows.
        #[arg(long, value_name = "CURSOR")]
        after: Option<String>,
        /// Print JSON, as /api/queue does.
        #[arg(long)]
        json: bool,
    },
    /// Show a file's history: what happened to it, why it is not delivered, what happens next, what you can do.
    Why {
        /// The file's path, or DIRECTORY/PATH.
        file: PathBuf,
        /// Show only this vessel.
        #[arg(long)]
        vessel: Option<String>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Retry at once: the deliveries of a file, everything that waits for a vessel, or everything.
    Retry {
        /// The file's path, or DIRECTORY/PATH.
        file: Option<PathBuf>,
        /// Retry only the deliveries to this vessel.
        #[arg(long)]
        vessel: Option<String>,
        /// Retry only the deliveries to the vessels of this group.
        #[arg(long, conflicts_with = "vessel")]
        group: Option<String>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Send files again that a vessel received and has lost. Files that the vessel still has are not sent.
    Resend {
        /// DIRECTORY, DIRECTORY/PATH, or a file's path.
        what: PathBuf,
        /// Send only to this vessel.
        #[arg(long)]
        vessel: Option<String>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Pause all deliveries to a vessel, or of a directory, until `resume`, also across restarts.
    Pause {
        /// The vessel's name.
        #[arg(required_unless_present_any = ["group", "directory"])]
        vessel: Option<String>,
        /// Pause all vessels of this group.
        #[arg(long, conflicts_with = "vessel")]
        group: Option<String>,
        /// Pause this directory: new files are recorded, but sent to no vessel.
        #[arg(long, conflicts_with_all = ["vessel", "group"])]
        directory: Option<String>,
        /// Resume automatically at this time: `2026-05-01 08:00`, `08:00` (the next one), or after a duration such as `2h`.
        #[arg(long, value_name = "TIME")]
        until: Option<String>,
        /// A note that `status` shows, such as the reason.
        #[arg(long, value_name = "TEXT")]
        note: Option<String>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Resume the deliveries to a paused vessel, or of a paused directory.
    Resume {
        /// The vessel's name.
        #[arg(required_unless_present_any = ["group", "directory"])]
        vessel: Option<String>,
        /// Resume all vessels of this group.
        #[arg(long, conflicts_with = "vessel")]
        group: Option<String>,
        /// Resume this directory.
        #[arg(long, conflicts_with_all = ["vessel", "group"])]
        directory: Option<String>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Show, check and format the settings, without using the network.
    Settings {
        #[command(subcommand)]
        action: SettingsAction,
    },
    /// Forget a file: it stays where it is, and is neither sent to any vessel nor retired until it changes.
    Forget {
        /// The file's path, or DIRECTORY/PATH.
        #[arg(required_unless_present = "all")]
        file: Option<PathBuf>,
        /// Forget all waiting files of this directory, even if it is no longer in the settings.
        #[arg(long, value_name = "DIRECTORY", conflicts_with = "file")]
        all: Option<String>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Copy the ledger, also while contentmonster runs. The copy is one complete file and never overwrites another.
    Backup {
        /// Path of the copy, which is created with mode 0600.
        file: PathBuf,
    },
    /// Manage ledgers.
    Ledger {
        #[command(subcommand)]
        action: LedgerAction,
    },
    /// Show what is sent in the next 24 hours: queues in their order, windows, and when each queue is expected to be sent.
    Plan {
        /// Show only this vessel.
        #[arg(long)]
        vessel: Option<String>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Show the shores that use the ledger in PostgreSQL, and which vessels and directories each of them serves.
    Shores {
        /// Print JSON, as `shores` in /api/status.
        #[arg(long)]
        json: bool,
    },
    /// Hand all vessels and directories of this shore over to the other shores, for maintenance. Until a restart, or
    /// --end, this shore serves no vessel and no directory.
    Drain {
        /// Accept vessels and directories again.
        #[arg(long)]
        end: bool,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// List all deliveries, oldest first: file, SHA-256, vessel, time, how it was verified, or that it expired.
    Receipts {
        /// List only this file: its path, or DIRECTORY/PATH.
        file: Option<PathBuf>,
        /// List only the deliveries to this vessel.
        #[arg(long)]
        vessel: Option<String>,
        /// List only the deliveries that expired.
        #[arg(long)]
        expired: bool,
        /// List only deliveries at this time or later: `2026-05-01 08:00`, `2026-05-01`, `08:00` (the last one), or a
        /// duration before now such as `2h`.
        #[arg(long, value_name = "TIME")]
        since: Option<String>,
        /// List only deliveries before this time, in the same form as --since.
        #[arg(long, value_name = "TIME")]
        until: Option<String>,
        /// List only the newest N deliveries.
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
        limit: Option<u32>,
        /// Print JSON, one object per line.
        #[arg(long, conflicts_with = "csv")]
        json: bool,
        /// Print CSV with a header line.
        #[arg(long)]
        csv: bool,
    },
    /// Write a commented settings file to start from.
    Init {
        /// Path of the file; default: the file that --settings names.
        file: Option<PathBuf>,
    },
    /// Convert the configuration of another program to a settings file.
    Import {
        #[command(subcommand)]
        origin: Origin,
    },
    #[cfg(feature = "demo")]
    /// Run a demonstration: two vessels inside this program, a temporary directory, a few files.
    Demo {
        /// Keep all files afterwards.
        #[arg(long)]
        keep: bool,
    },
    /// Print completions for a shell.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Print names of the settings, for completions.
    #[command(hide = true)]
    Names {
        /// Which names.
        named: Named,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum SettingsAction {
    /// Print the effective value of every key, and where it comes from: a line of a file, a group, `[DEFAULT]`, the ssh
    /// config, or the default.
    Show {
        /// Show only this vessel.
        #[arg(long)]
        vessel: Option<String>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Check the settings files alone; exit code 0 if they are valid, else 3.
    Check,
    /// Write the settings file, and the files that it includes, in the usual form: only blanks and blank lines change.
    Fmt {
        /// Write nothing; list the files that are not in the usual form, and exit with code 1 if there are any.
        #[arg(long)]
        check: bool,
    },
    /// Print a JSON schema of the settings, for editors and tools.
    Schema,
}

#[derive(Debug, Subcommand)]
pub(super) enum Origin {
    /// Poni, an inotify daemon around rsync: its config.yml.
    Poni {
        /// Poni's config.yml.
        file: PathBuf,
        /// Where to write the settings; default: standard output.
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum LedgerAction {
    /// Copy a ledger to a new or empty one, such as from a file to PostgreSQL, and compare all rows. First stop every
    /// program that uses either ledger. A ledger is the path of a file or an address such as
    /// postgresql://user@host/name. Its password comes from the settings if Database names this ledger, otherwise from
    /// ~/.pgpass or PGPASSWORD.
    Copy {
        /// The ledger that is copied.
        from: String,
        /// The new ledger.
        to: String,
    },
}
