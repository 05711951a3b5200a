//! Parsers and checks of the keys that concern priorities, and of `Expire`.

use std::time::Duration;

use super::budget::Budget;
use super::priorities::Priorities;
use super::priority::Priority;
use super::problems::Diagnostic;
use super::reserve::Reserve;
use super::section_view::View;
use super::values;
use super::written_value::Written;

/// Parses a priority.
pub(super) fn priority(written: &Written<'_>) -> Result<Priority, Diagnostic> {
    written.accept(Priority::named)
}

/// Parses priorities, separated by commas.
pub(super) fn list(written: &Written<'_>) -> Result<Vec<Priority>, Diagnostic> {
    written.accept(|text| values::list(text).map(Priority::named).collect())
}

/// Parses the priorities of a link: `all`, or a list separated by commas.
pub(super) fn of_link(written: &Written<'_>) -> Result<Priorities, Diagnostic> {
    if written.text == "all" {
        return Ok(Priorities::default());
    }
    let named: Priorities = list(written)?.into_iter().collect();
    if named.is_empty() { Err(written.invalid()) } else { Ok(named) }
}

/// Parses a duration, or `none`.
pub(super) fn expire(written: &Written<'_>) -> Result<Option<Duration>, Diagnostic> {
    if written.text == "none" { Ok(None) } else { written.duration().map(Some) }
}

/// Warns of keys that have no effect without `Schedule`.
pub(super) fn check_schedule(view: &View<'_>) {
    if view.sets("Schedule") {
        return;
    }
    for key in ["Schedule.tz", "ScheduleExempt"] {
        if view.own.is_some_and(|own| own.entry(key).is_some()) {
            let diagnostic = Diagnostic::new("has no effect without Schedule", "add a Schedule, or remove the line");
            view.problems.warn(view.place_of(key), diagnostic);
        }
    }
}

/// Reports a reserve if the rest of a limit, which all files may use, is smaller than one chunk. Warns of a reserve
/// without a budget.
pub(super) fn check_reserve(view: &View<'_>, budget: &Budget, reserve: Option<Reserve>, chunk_size: u64) {
    let Some(reserve) = reserve else { return };
    if budget.is_unlimited() {
        let diagnostic = Diagnostic::new("has no effect without Budget", "add a Budget, or remove the line");
        view.problems.warn(view.place_of("BudgetReserve"), diagnostic);
    }
    let small = budget.limits().iter().find(|limit| limit.bytes >= chunk_size && reserve.leaves(limit) < chunk_size);
    if let Some(limit) = small {
        let left = reserve.leaves(limit);
        let message = format!("the reserve leaves {left} bytes of {limit}: less than one chunk of {chunk_size} bytes");
        let remedy = "raise the budget, reserve a smaller part, or make ChunkSize in [MONSTER] smaller";
        view.problems.report(view.place_of("BudgetReserve"), Diagnostic::new(message, remedy));
    }
}
