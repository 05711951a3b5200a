//! The command line's arguments.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use super::Exit;

/// Replicates files from this host to many others over unreliable SSH links, and loses none.
///
/// Without a command it runs until it is stopped: it watches the directories of the settings file and delivers new
/// files to every vessel.
#[derive(Debug, Parser)]
#[command(version, after_help = Exit::HELP, args_conflicts_with_subcommands = false)]
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

    /// Allow deletions in mirrors that would be held back: more than MaxDelete, or all because a directory is empty.
    #[arg(long)]
    pub(super) allow_deletes: bool,

    #[command(subcommand)]
    pub(super) command: Option<Command>,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Check the settings, connect to every vessel, and report what works and how to fix what does not.
    Check,
    /// Show a vessel's host key, ask, and record it in ~/.ssh/known_hosts.
    Trust {
        /// The vessel's name, as in [Vessel NAME].
        vessel: String,
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
    },
    /// Send files again that a vessel received and has lost. Files that the vessel still has are not sent.
    Resend {
        /// DIRECTORY, DIRECTORY/PATH, or a file's path.
        what: PathBuf,
        /// Send only to this vessel.
        #[arg(long)]
        vessel: Option<String>,
    },
    /// Pause all deliveries to a vessel until `resume`, also across restarts.
    Pause {
        /// The vessel's name.
        vessel: String,
    },
    /// Resume the deliveries to a paused vessel.
    Resume {
        /// The vessel's name.
        vessel: String,
    },
    /// Forget a file: it stays where it is, and is neither sent to any vessel nor retired until it changes.
    Forget {
        /// The file's path, or DIRECTORY/PATH.
        #[arg(required_unless_present = "all")]
        file: Option<PathBuf>,
        /// Forget all waiting files of this directory, even if it is no longer in the settings.
        #[arg(long, value_name = "DIRECTORY", conflicts_with = "file")]
        all: Option<String>,
    },
    /// Copy the ledger, also while contentmonster runs. The copy is one complete file and never overwrites another.
    Backup {
        /// Path of the copy, which is created with mode 0600.
        file: PathBuf,
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
}

#[derive(Debug, Subcommand)]
pub(super) enum Origin {
    /// Poni, an inotify daemon around rsync: its config.yml.
    Poni {
        /// The configuration.
        file: PathBuf,
        /// Where to write the settings; default: standard output.
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
}
