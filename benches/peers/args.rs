//! The arguments.

use std::path::PathBuf;

use clap::Parser;

use crate::case;
use crate::link::LinkArgs;
use crate::program;

/// Measures contentmonster and the file movers installed here, in turn, with the same files over the same link.
///
/// Every run ends with a comparison of all hashes. A table goes to standard output after each case, progress to standard
/// error. Ratios are this program's time over the peer's: below 1, this program is faster.
#[derive(Debug, Parser)]
#[command(name = "cargo bench --bench peers --")]
pub(crate) struct Args {
    /// Measure this case; several allowed. Default: all.
    #[arg(long = "case", value_name = "NAME", value_parser = case::names(), hide_possible_values = true,
          long_help = case::help())]
    pub(crate) cases: Vec<String>,

    /// Compare with these peers only, separated by commas; `none` for none. Default: all that are installed, or what the
    /// case names.
    #[arg(long, value_name = "NAMES", value_delimiter = ',', value_parser = program::peer_names())]
    pub(crate) peers: Vec<String>,

    /// How often each program runs, in an order that moves on by one each time.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) rounds: u32,

    /// End a run after this many seconds, and show it as `> limit`; that program is then left out of the rest of the case.
    /// Default: 300, and 1800 for `backlog`.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) limit: Option<u64>,

    /// Where sources and destinations lie, in a directory of their own that is removed at the end. `/dev/shm` leaves the
    /// disk out of it.
    #[arg(long, value_name = "DIR", default_value = "/var/tmp")]
    pub(crate) dir: PathBuf,

    /// Add a line to the [Vessel] sections of this program's settings; several allowed.
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = key_and_value)]
    pub(crate) set: Vec<(String, String)>,

    /// Measure another build of this program beside, as a row of its own.
    #[arg(long, value_name = "PATH")]
    pub(crate) ours: Option<PathBuf>,

    /// Where the `mscp` program is, if it is to take part.
    #[arg(long, value_name = "PATH")]
    pub(crate) mscp: Option<PathBuf>,

    /// Where the Python ContentMonster is (the directory that holds worker.py), if it is to take part. It can deliver to
    /// no other path than the source's, so it runs in a mount namespace of its own, as root. Python is taken from venv/ in
    /// that directory, if there is one.
    #[arg(long, value_name = "DIR")]
    pub(crate) original: Option<PathBuf>,

    /// Bring the tables of this run up to date in a Markdown file, and leave those of other cases and links.
    #[arg(long, value_name = "FILE")]
    pub(crate) results: Option<PathBuf>,

    /// Draw this run as bars.
    #[arg(long, value_name = "FILE")]
    pub(crate) svg: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) link: LinkArgs,

    /// Set where the benchmark was started again on the shore of a link.
    #[arg(long, hide = true)]
    pub(crate) inside_link: bool,

    /// Cargo says it to every benchmark.
    #[arg(long = "bench", hide = true)]
    _bench: bool,
}

fn key_and_value(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("write KEY=VALUE")?;
    Ok((key.trim().to_owned(), value.trim().to_owned()))
}
