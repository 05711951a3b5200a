//! The arguments.

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
    /// Write a commented settings file to start from.
    Init {
        /// Where to; default: the file that --settings names.
        file: Option<PathBuf>,
    },
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
