//! The table of cases.

use std::fmt::Write;

use clap::builder::PossibleValuesParser;

use crate::vessel::Kind;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

/// What is done with the files.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Work {
    /// Every program delivers them.
    Compare,
    /// This program alone: how it begins and ends with a long queue.
    Backlog,
    /// This program alone: what it needs while nothing happens.
    Idle,
    /// This program alone: how soon a file is there.
    Latency,
    /// This program alone: how soon urgent files are there while a large file is sent.
    Urgent,
    /// This program alone: how long new files take over a connection that is there already.
    Connected,
}

/// One case.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) title: &'static str,
    pub(crate) work: Work,
    pub(crate) files: usize,
    /// Bytes of each file.
    pub(crate) size: u64,
    /// How many vessels get each file. They are one server with as many destinations.
    pub(crate) vessels: usize,
    pub(crate) server: Kind,
    /// The peers that it makes sense with; empty: all.
    pub(crate) peers: &'static [&'static str],
}

const fn compare(name: &'static str, title: &'static str, files: usize, size: u64) -> Case {
    Case { name, title, work: Work::Compare, files, size, vessels: 1, server: Kind::OpenSsh, peers: &[] }
}

const fn alone(name: &'static str, title: &'static str, work: Work, files: usize, size: u64, vessels: usize) -> Case {
    Case { work, vessels, ..compare(name, title, files, size) }
}

/// Peers that are known to stand eight of their kind at once.
const PARALLEL: &[&str] = &["scp", "rsync"];

#[rustfmt::skip]
const CASES: &[Case] = &[
    compare("one-gib", "1 file of 1 GiB", 1, 1024 * MIB),
    compare("small", "2,000 files of 4 KiB", 2_000, 4 * KIB),
    compare("twenty", "20 files of 50 MiB", 20, 50 * MIB),
    Case { vessels: 8, peers: PARALLEL, ..compare("twenty-to-8", "20 files of 50 MiB to 8 vessels", 20, 50 * MIB) },
    Case { vessels: 8, peers: PARALLEL, ..compare("gib-to-8", "1 file of 1 GiB to 8 vessels", 1, 1024 * MIB) },
    compare("mib16", "1 file of 16 MiB", 1, 16 * MIB),
    compare("mib64", "1 file of 64 MiB", 1, 64 * MIB),
    compare("mib256", "1 file of 256 MiB", 1, 256 * MIB),
    compare("small20k", "20,000 files of 4 KiB", 20_000, 4 * KIB),
    compare("kib1", "1 file of 1 KiB", 1, KIB),
    compare("small500", "500 files of 4 KiB", 500, 4 * KIB),
    Case { server: Kind::Dropbear, ..compare("dropbear16", "1 file of 16 MiB to a default Dropbear", 1, 16 * MIB) },
    alone("backlog", "100,000 files of 100 B waiting, 3 vessels", Work::Backlog, 100_000, 100, 3),
    alone("idle", "20 vessels connected, nothing to do for a minute", Work::Idle, 1, KIB, 20),
    alone("kib1-connected", "1 KiB, connected", Work::Connected, 1, KIB, 1),
    alone("kib20x200-connected", "200 files of 20 KiB, connected", Work::Connected, 200, 20 * KIB, 1),
    alone("mib1-connected", "1 MiB, connected", Work::Connected, 1, MIB, 1),
    alone("mib8-connected", "8 MiB, connected", Work::Connected, 1, 8 * MIB, 1),
    alone("mib64-connected", "64 MiB, connected", Work::Connected, 1, 64 * MIB, 1),
    alone("urgent", "1 KiB, urgent, every 5 s while a large file is sent, 200 times", Work::Urgent, 1, KIB, 1),
    alone("latency", "1 KiB closed on the shore until it is there", Work::Latency, 1, KIB, 1),
];

/// The cases of these names, in the table's order; all for none.
pub(crate) fn chosen(names: &[String]) -> impl Iterator<Item = &'static Case> {
    CASES.iter().filter(move |case| names.is_empty() || names.iter().any(|name| name == case.name))
}

pub(crate) fn names() -> PossibleValuesParser {
    PossibleValuesParser::new(CASES.iter().map(|case| case.name))
}

/// What `--help` says of the cases.
pub(crate) fn help() -> String {
    let mut text = "Measure this case; several allowed. Default: all.\n".to_owned();
    for case in CASES {
        let _ = write!(text, "\n  {:<20} {}", case.name, case.title);
    }
    text
}
