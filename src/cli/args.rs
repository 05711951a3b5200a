//! The command line's arguments.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use super::Exit;

/// Gets files from this host to many others over SSH links that can't be trusted, and loses nothing.
///
/// Without a command it runs until it is stopped: it watches the directories of the settings file and delivers what
/// arrives in them to every vessel.
#[derive(Debug, Parser)]
#[command(version, after_help = Exit::HELP, args_conflicts_with_subcommands = false)]
pub(super) struct Args {
    /// The settings file.
    #[arg(short, long, value_name = "FILE", default_value = "settings.ini", global = true)]
    pub(super) settings: PathBuf,

    /// Deliver what is there, print a summary and end.
    #[arg(long)]
    pub(super) once: bool,

    /// Print what would be sent, made, deleted and moved, and do nothing.
    #[arg(long, conflicts_with = "once")]
    pub(super) simulate: bool,

    /// Repeat deletions in mirrors that are otherwise held back: more than MaxDelete, or from a directory that is empty.
    #[arg(long)]
    pub(super) allow_deletes: bool,

    #[command(subcommand)]
    pub(super) command: Option<Command>,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Check the settings, connect to every vessel, and say what works and how to mend what doesn't.
    Check,
    /// Show a vessel's host key, ask, and record it in ~/.ssh/known_hosts.
    Trust {
        /// The vessel's name, as in [Vessel NAME].
        vessel: String,
        /// Don't ask.
        #[arg(long)]
        yes: bool,
    },
    /// Show how things stand: every vessel and every directory.
    Status {
        /// As JSON, the same that /api/status gives.
        #[arg(long)]
        json: bool,
        /// Go on showing it, every second; with --json a line each.
        #[arg(long)]
        watch: bool,
    },
    /// Tell a file's story: what became of it, why it is not delivered, what happens next, what you can do.
    Why {
        /// Its path, or DIRECTORY/PATH.
        file: PathBuf,
        /// Only for this vessel.
        #[arg(long)]
        vessel: Option<String>,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Try again now what was put off: a file, a vessel with all that waits for it, or everything.
    Retry {
        /// The file's path, or DIRECTORY/PATH.
        file: Option<PathBuf>,
        /// Only for this vessel.
        #[arg(long)]
        vessel: Option<String>,
    },
    /// Send again what a vessel was given and has lost. What it still has is recognised there and not sent.
    Resend {
        /// DIRECTORY, DIRECTORY/PATH, or a file's path.
        what: PathBuf,
        /// Only to this vessel.
        #[arg(long)]
        vessel: Option<String>,
    },
    /// Leave a vessel alone until it is resumed; that outlives a restart.
    Pause {
        /// The vessel's name.
        vessel: String,
    },
    /// Serve a vessel again that was paused.
    Resume {
        /// The vessel's name.
        vessel: String,
    },
    /// Leave a file where it is: sent to nobody any more, and not retired, until it changes.
    Forget {
        /// Its path, or DIRECTORY/PATH.
        #[arg(required_unless_present = "all")]
        file: Option<PathBuf>,
        /// Everything that waits in this directory, also one that the settings don't name any more.
        #[arg(long, value_name = "DIRECTORY", conflicts_with = "file")]
        all: Option<String>,
    },
    /// Copy the ledger, also while contentmonster runs; the copy is whole by itself and never overwrites a file.
    Backup {
        /// The copy; it is made with mode 0600.
        file: PathBuf,
    },
    /// List what was delivered: file, SHA-256, vessel, when, how it was verified; oldest first.
    Receipts {
        /// Only this file: its path, or DIRECTORY/PATH.
        file: Option<PathBuf>,
        /// Only for this vessel.
        #[arg(long)]
        vessel: Option<String>,
        /// As JSON, a line each.
        #[arg(long, conflicts_with = "csv")]
        json: bool,
        /// As CSV with a heading.
        #[arg(long)]
        csv: bool,
    },
    /// Write a commented settings file to start from.
    Init {
        /// Where to; default: the file that --settings names.
        file: Option<PathBuf>,
    },
    /// Write a settings file that does what another program's configuration does.
    Import {
        #[command(subcommand)]
        origin: Origin,
    },
    #[cfg(feature = "demo")]
    /// Show it at work: two vessels inside this program, a temporary directory, a few files.
    Demo {
        /// Keep everything afterwards, to look at.
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
