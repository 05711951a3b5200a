//! The benchmark against peers: this program and every file mover that is installed, in turn, on the same link, with the
//! same files, in the same run.
//!
//! `cargo bench --bench peers -- --help` lists what can be chosen. It starts its own SSH server, believes no program that
//! it has delivered ([`freight`] hashes every file), and leaves nothing behind, whether it ends, fails or is interrupted:
//! whatever it starts and makes belongs to a value that takes it down again.
//!
//! - What is measured: [`case`] (the table of cases), [`freight`] (the files)
//! - With what: [`program`] and [`ours`] (command lines and settings), [`vessel`] (the server), [`link`]
//! - How: [`rounds`] (in turn), [`watch`] (processes and what they use), and [`backlog`], [`connected`], [`idle`],
//!   [`latency`], [`urgent`] for what has no peer
//! - What comes out: [`figures`] (medians), [`report`] (tables), [`results`] (Markdown), [`svg`], [`machine`]

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "it is a command-line program")]

mod args;
mod backlog;
mod case;
mod connected;
mod figures;
mod freight;
mod idle;
mod latency;
mod link;
mod machine;
mod ours;
mod program;
mod report;
mod results;
mod rounds;
mod stop;
mod svg;
mod task;
mod urgent;
mod vessel;
mod watch;

use std::process::ExitCode;

use clap::Parser;

use args::Args;
use case::{Case, Work};
use report::Section;
use rounds::Bench;
use stop::Stop;

/// What can't be gone on with, in words for the person who started it.
type Result<T> = std::result::Result<T, String>;

fn main() -> ExitCode {
    let args = Args::parse();
    let outcome = match &args.link.script {
        Some(script) if !args.inside_link => link::reenter(script, &args.link, &Stop::on_signals()),
        _ => bench(&args),
    };
    outcome.unwrap_or_else(|problem| {
        eprintln!("peers: {problem}");
        ExitCode::FAILURE
    })
}

/// Runs the cases; one that breaks down keeps no other from its turn.
fn bench(args: &Args) -> Result<ExitCode> {
    let stop = if args.inside_link { Stop::on_signals_or_end_of_input() } else { Stop::on_signals() };
    let bench = Bench::prepare(args, stop)?;
    let mut sections = Vec::new();
    let mut exit = ExitCode::SUCCESS;
    for case in case::chosen(&args.cases) {
        match section(&bench, case) {
            Ok(None) => {}
            Ok(Some(section)) => {
                // At once: whoever interrupts a long run keeps what is done.
                println!("\n{}", section.as_text());
                sections.push(section);
                write_down(args, &bench, &sections)?;
            }
            Err(problem) => {
                bench.stop.check()?;
                eprintln!("peers: {}: {problem}", case.name);
                exit = ExitCode::FAILURE;
            }
        }
    }
    Ok(exit)
}

/// Runs one case; `None`, said aloud, where this machine can't.
fn section(bench: &Bench, case: &Case) -> Result<Option<Section>> {
    if let Some(reason) = bench.cannot(case) {
        eprintln!("peers: {} is left out: {reason}", case.name);
        return Ok(None);
    }
    let section = match case.work {
        Work::Compare => rounds::compare(bench, case),
        Work::Backlog => backlog::measure(bench, case),
        Work::Idle => idle::measure(bench, case),
        Work::Latency => latency::measure(bench, case),
        Work::Urgent => urgent::measure(bench, case),
        Work::Connected => connected::measure(bench, case),
    };
    section.map(Some)
}

fn write_down(args: &Args, bench: &Bench, sections: &[Section]) -> Result<()> {
    if let Some(file) = &args.results {
        results::update(file, &bench.machine, sections)?;
    }
    if let Some(file) = &args.svg {
        let text = svg::draw(&bench.machine, sections);
        std::fs::write(file, text).map_err(|e| format!("{}: {e}", file.display()))?;
    }
    Ok(())
}
