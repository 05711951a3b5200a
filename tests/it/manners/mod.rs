//! One matrix of servers and of what is sent to them: manner x cell, each delivered and verified, delivered and not
//! verified, or refused with a reason, and never a loop.
//!
//! `CONTENTMONSTER_MANNERS=all` sends 30 MiB to each of them, and `CONTENTMONSTER_MANNERS=write-only` tries the rows whose
//! names hold this text alone, whole.

mod cell;
mod closing;
mod manner;
mod odd;
mod packet;
mod trees;

use std::sync::Mutex;
use std::time::Instant;

use cell::{Cell, Outcome, Row};
use manner::Manner;

/// Rows at once: each waits most of the time.
const AT_ONCE: usize = 6;

/// A row that was tried.
struct Tried<'a> {
    manner: &'a Manner,
    outcomes: Vec<(Cell, Outcome)>,
}

#[test]
fn every_server_gets_each_kind_of_file_or_the_reason_is_told() {
    let asked = std::env::var("CONTENTMONSTER_MANNERS").unwrap_or_default();
    let wanted = |manner: &&Manner| asked.is_empty() || asked == "all" || manner.name.contains(&asked);
    let manners = manner::all();
    let manners: Vec<_> = manners.iter().filter(wanted).collect();
    assert!(!manners.is_empty(), "CONTENTMONSTER_MANNERS={asked} names no row");
    let (started, next, tried) = (Instant::now(), Mutex::new(manners.iter()), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let Some(manner) = next.lock().unwrap().next() else { return };
                    let Some(row) = Row::begin(manner) else { return };
                    let outcomes = row.run(manner.large || !asked.is_empty());
                    let row = Tried { manner, outcomes };
                    // At once: who waits for the table sees where it hangs.
                    print_row(&row);
                    tried.lock().unwrap().push(row);
                }
            });
        }
    });
    let mut tried = tried.into_inner().unwrap();
    if tried.is_empty() {
        return;
    }
    tried.sort_by_key(|row| manners.iter().position(|manner| manner.name == row.manner.name));
    print_table(&tried);
    println!("{} rows in {:.1?}", tried.len(), started.elapsed());
    let unmet = tried.iter().flat_map(unmet).collect::<Vec<_>>();
    assert!(unmet.is_empty(), "{}", unmet.join("\n"));
}

fn print_line(name: &str, cells: impl Iterator<Item = &'static str>) {
    let cells: String = cells.map(|cell| format!(" | {cell:<13}")).collect();
    println!("{name:<30}{cells}");
}

fn print_row(Tried { manner, outcomes }: &Tried<'_>) {
    print_line(manner.name, outcomes.iter().map(|(_, outcome)| outcome.short()));
    for (cell, outcome) in outcomes {
        if let Outcome::Wrong(why) = outcome {
            println!("    {}: {why}", cell.heading());
        }
    }
}

fn print_table(rows: &[Tried<'_>]) {
    println!();
    print_line("", Cell::ALL.iter().map(|cell| cell.heading()));
    rows.iter().for_each(print_row);
}

/// What is not as it must be.
fn unmet(row: &Tried<'_>) -> Vec<String> {
    let Tried { manner, outcomes } = row;
    let wrong = outcomes.iter().filter(|(cell, outcome)| !outcome.is(manner.wanted(*cell)));
    let told = |(cell, outcome): &(Cell, Outcome)| {
        format!("{}, {}: {} is not {:?}", manner.name, cell.heading(), outcome.short(), manner.wanted(*cell))
    };
    wrong.map(told).collect()
}
