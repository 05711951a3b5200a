//! The command line: arguments, subcommands, and their output. No other module prints.

mod args;
mod backup;
mod bars;
mod check;
#[cfg(feature = "demo")]
mod demo;
mod exit;
mod import;
mod init;
mod order;
mod plan;
mod receipts;
mod resend;
mod run;
mod shore;
mod signals;
mod simulate;
mod sizes;
mod status;
mod trust;
mod why;

use std::path::Path;

use clap::{CommandFactory, Parser};

use args::{Args, Command, Origin};
pub use exit::Exit;
#[cfg(any(test, fuzzing))]
pub use import::poni_import;

use crate::settings::Settings;
use crate::text;
use crate::transport::SshEnvironment;

/// Runs the command that the command line names, and returns the exit code.
pub fn main() -> Exit {
    let args = Args::parse();
    match args.command {
        None if args.simulate => simulate::simulate(&args.settings, args.allow_deletes),
        None => run::run(&args.settings, args.once, args.allow_deletes),
        Some(Command::Check) => check::check(&args.settings),
        Some(Command::Trust { vessel, yes }) => trust::trust(&args.settings, &vessel, yes),
        Some(Command::Status { json, watch }) => status::status(&args.settings, json, watch),
        Some(Command::Why { file, vessel, json }) => why::why(&args.settings, &file, vessel.as_deref(), json),
        Some(Command::Retry { file, vessel }) => order::retry(&args.settings, file.as_deref(), vessel.as_deref()),
        Some(Command::Resend { what, vessel }) => resend::resend(&args.settings, &what, vessel.as_deref()),
        Some(Command::Pause { vessel }) => order::pause(&args.settings, &vessel, true),
        Some(Command::Resume { vessel }) => order::pause(&args.settings, &vessel, false),
        Some(Command::Forget { file: Some(file), .. }) => order::forget(&args.settings, &file),
        Some(Command::Forget { file: None, all }) => order::forget_all(&args.settings, &all.unwrap_or_default()),
        Some(Command::Backup { file }) => backup::backup(&args.settings, &file),
        Some(Command::Plan { vessel, json }) => plan::plan(&args.settings, vessel.as_deref(), json),
        Some(Command::Receipts { file, vessel, expired, json, csv }) => {
            let form = receipts::Form::of(json, csv);
            receipts::receipts(&args.settings, file.as_deref(), vessel.as_deref(), expired, form)
        }
        Some(Command::Init { file }) => init::init(&file.unwrap_or(args.settings)),
        Some(Command::Import { origin: Origin::Poni { file, output } }) => import::poni(&file, output.as_deref()),
        #[cfg(feature = "demo")]
        Some(Command::Demo { keep }) => demo::demo(keep),
        Some(Command::Completions { shell }) => {
            clap_complete::generate(shell, &mut arguments(), "contentmonster", &mut std::io::stdout());
            Exit::Good
        }
    }
}

/// Returns the definition of the command line, for man pages and completions.
pub fn arguments() -> clap::Command {
    Args::command()
}

/// Reads the settings, or prints all their errors.
fn load(file: &Path) -> Result<Settings, Exit> {
    Settings::load(file).map_err(|e| {
        say_error(format_args!("{e}"));
        Exit::Settings
    })
}

fn ssh_environment(settings: &Settings) -> SshEnvironment {
    SshEnvironment::from_process(command(settings))
}

/// Returns the start of a command line with these settings, for commands that a person can type.
fn command(settings: &Settings) -> String {
    format!("contentmonster --settings {}", shell_word(&settings.file.display().to_string()))
}

fn shell_word(text: &str) -> String {
    let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_./".contains(&b));
    if plain { text.to_owned() } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

/// Maximum number of threads for blocking calls: a disk that hangs occupies some threads for as long as it hangs.
const BLOCKING_THREADS: usize = 4096;

/// Builds the async runtime of the program.
fn runtime() -> Result<tokio::runtime::Runtime, Exit> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("contentmonster")
        .max_blocking_threads(BLOCKING_THREADS)
        .build()
        .map_err(|e| {
            say_error(format_args!("cannot start the runtime: {e}"));
            Exit::Broken
        })
}

/// Prints text, with deceptive characters escaped.
#[allow(clippy::print_stdout, reason = "what was asked for")]
fn say(lines: std::fmt::Arguments<'_>) {
    println!("{}", text::visible_lines(&lines.to_string()));
}

/// Prints JSON, with deceptive characters escaped as JSON requires.
#[allow(clippy::print_stdout, reason = "what was asked for")]
fn say_json(json: &str) {
    println!("{}", text::visible_json(json));
}

/// Moves the cursor to the top left and clears the screen from there, which avoids flicker.
#[allow(clippy::print_stdout, reason = "what was asked for")]
fn clear_screen() {
    print!("\x1b[H\x1b[J");
}

#[allow(clippy::print_stderr, reason = "the answer to a command that failed")]
fn say_error(lines: std::fmt::Arguments<'_>) {
    eprintln!("{}", text::visible_lines(&lines.to_string()));
}
