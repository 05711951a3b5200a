//! The command line: arguments, subcommands, and their output. No other module prints.

mod args;
mod backup;
mod bars;
mod check;
mod check_shore;
mod completions;
#[cfg(feature = "demo")]
mod demo;
mod exit;
mod import;
mod init;
mod ledger_command;
mod order;
mod output;
mod plan;
mod queue;
mod receipts;
mod refusal;
mod resend;
mod results;
mod run;
mod selection;
mod settings_command;
mod shore;
mod shores;
mod signals;
mod simulate;
mod sizes;
mod status;
mod status_check;
mod status_speed;
mod status_tables;
mod times;
mod trust;
mod why;

use std::path::Path;

use clap::{CommandFactory, Parser};

use args::{Args, Command, LedgerAction, Origin, SettingsAction};
pub use exit::Exit;
#[cfg(any(test, fuzzing))]
pub use import::poni_import;
use output::{clear_screen, say, say_error, say_json};
use selection::Selection;

use crate::settings::Settings;
use crate::status::QueueQuestion;
use crate::transport::SshEnvironment;

/// Runs the command that the command line names, and returns the exit code.
pub fn main() -> Exit {
    output::outcome(run_command(Args::parse()))
}

fn run_command(args: Args) -> Exit {
    match args.command {
        None if args.simulate => simulate::simulate(&args.settings, args.allow_deletes, args.json),
        None => run::run(&args.settings, args.once, args.allow_deletes, args.json),
        Some(Command::Check { json }) => check::check(&args.settings, json),
        Some(Command::Trust { vessel, all: _, group, new, yes }) => {
            trust::trust(&args.settings, &Selection { vessel, group }, new, yes)
        }
        Some(Command::Status { json, watch, vessel, group, only_trouble, check }) => {
            let selection = Selection { vessel, group };
            status::status(&args.settings, &status::Shown { json, watch, only_trouble, check, selection })
        }
        Some(Command::Queue { what, vessel, directory, state, search, limit, after, json }) => {
            let question = QueueQuestion { vessel, directory, state, search, limit: Some(limit), after };
            queue::queue(&args.settings, what.as_deref(), question, json)
        }
        Some(Command::Why { file, vessel, json }) => why::why(&args.settings, &file, vessel.as_deref(), json),
        Some(Command::Retry { file, vessel, group, json }) => {
            order::retry(&args.settings, file.as_deref(), &Selection { vessel, group }, json)
        }
        Some(Command::Resend { what, vessel, json }) => resend::resend(&args.settings, &what, vessel.as_deref(), json),
        Some(Command::Pause { vessel, group, directory, until, note, json }) => {
            let selection = Selection { vessel, group };
            order::pause(&args.settings, order::PauseOptions { selection, directory, until, note, json })
        }
        Some(Command::Resume { vessel, group, directory, json }) => {
            order::resume(&args.settings, &Selection { vessel, group }, directory, json)
        }
        Some(Command::Settings { action }) => match action {
            SettingsAction::Show { vessel, json } => settings_command::show(&args.settings, vessel.as_deref(), json),
            SettingsAction::Check => settings_command::check(&args.settings),
            SettingsAction::Fmt { check } => settings_command::format(&args.settings, check),
            SettingsAction::Schema => settings_command::schema(),
        },
        Some(Command::Forget { file: Some(file), json, .. }) => order::forget(&args.settings, &file, json),
        Some(Command::Forget { file: None, all, json }) => {
            order::forget_all(&args.settings, &all.unwrap_or_default(), json)
        }
        Some(Command::Shores { json }) => shores::shores(&args.settings, json),
        Some(Command::Drain { end, json }) => shores::drain(&args.settings, end, json),
        Some(Command::Backup { file }) => backup::backup(&args.settings, &file),
        Some(Command::Ledger { action: LedgerAction::Copy { from, to } }) => {
            ledger_command::copy(&args.settings, &from, &to)
        }
        Some(Command::Plan { vessel, json }) => plan::plan(&args.settings, vessel.as_deref(), json),
        Some(Command::Receipts { file, vessel, expired, since, until, limit, json, csv }) => {
            let wanted = receipts::Wanted { file, vessel, only_expired: expired, since, until, limit };
            receipts::receipts(&args.settings, &wanted, receipts::Form::of(json, csv))
        }
        Some(Command::Init { file }) => init::init(&file.unwrap_or(args.settings)),
        Some(Command::Import { origin: Origin::Poni { file, output } }) => import::poni(&file, output.as_deref()),
        #[cfg(feature = "demo")]
        Some(Command::Demo { keep }) => demo::demo(keep),
        Some(Command::Completions { shell }) => completions::completions(shell),
        Some(Command::Names { named }) => completions::names(&args.settings, named),
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

/// Maximum number of threads for blocking calls. It is high, because each call to a disk that hangs occupies a thread
/// for as long as the disk hangs.
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
