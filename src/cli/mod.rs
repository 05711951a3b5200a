//! The command line: arguments, subcommands, and what a person reads. Alone prints.

mod args;
mod bars;
mod check;
mod demo;
mod exit;
mod init;
mod run;
mod sizes;
mod trust;

use std::path::Path;

use clap::{CommandFactory, Parser};

use args::{Args, Command};
pub use exit::Exit;

use crate::settings::Settings;
use crate::transport::SshEnvironment;

/// Runs what the command line asks for.
pub fn main() -> Exit {
    let args = Args::parse();
    match args.command {
        None => run::run(&args.settings, args.once),
        Some(Command::Check) => check::check(&args.settings),
        Some(Command::Trust { vessel, yes }) => trust::trust(&args.settings, &vessel, yes),
        Some(Command::Init { file }) => init::init(&file.unwrap_or(args.settings)),
        Some(Command::Demo { keep }) => demo::demo(keep),
        Some(Command::Completions { shell }) => {
            clap_complete::generate(shell, &mut Args::command(), "contentmonster", &mut std::io::stdout());
            Exit::Good
        }
    }
}

/// Reads the settings, or says everything that is wrong with them.
fn load(file: &Path) -> Result<Settings, Exit> {
    Settings::load(file).map_err(|e| {
        say_error(format_args!("{e}"));
        Exit::Settings
    })
}

fn ssh_environment(settings: &Settings) -> SshEnvironment {
    let file = settings.file.display().to_string();
    let plain = file.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_./".contains(&b));
    let word = if plain { file } else { format!("'{}'", file.replace('\'', r"'\''")) };
    SshEnvironment::from_process(format!("contentmonster --settings {word}"))
}

/// Builds the runtime that everything runs in.
fn runtime() -> Result<tokio::runtime::Runtime, Exit> {
    tokio::runtime::Builder::new_multi_thread().enable_all().thread_name("contentmonster").build().map_err(|e| {
        say_error(format_args!("can't start: {e}"));
        Exit::Broken
    })
}

#[allow(clippy::print_stdout, reason = "what was asked for")]
fn say(line: std::fmt::Arguments<'_>) {
    println!("{line}");
}

#[allow(clippy::print_stderr, reason = "the answer to a command that failed")]
fn say_error(line: std::fmt::Arguments<'_>) {
    eprintln!("{line}");
}
