//! The keys of `[Link z]`, with a table row for each, and the checks of a link's budget and use.

use super::budget::{self, Budget};
use super::cost;
use super::key::Preset::{Otherwise, Value};
use super::key::SectionKind;
use super::network_link::Link;
use super::priority_keys;
use super::problems::Diagnostic;
use super::rate;
use super::reserve;
use super::schedule::{self, Schedule};
use super::section_view::View;
use super::table::{self, Key, field, key};
use crate::names::LinkName;

impl table::Section for Link {
    const KIND: SectionKind = SectionKind::Link;
}

#[rustfmt::skip]
pub(super) static KEYS: &[Key<Link>] = &[
    key("Interface", Otherwise("the system's routes decide"), field!(Link.interface, |it| it.accept(interface).map(Some)))
        .value("the name of a network interface").example("wwan0")
        .doc("Network interface of this host that connections over the link use, whatever the routes say."),
    key("BindAddress", Otherwise("the system's routes decide"), field!(Link.bind_address, |it| it.accept(|text| text.parse().ok()).map(Some)))
        .value("an IP address of this host").example("192.0.2.1")
        .doc("Address of this host from which connections over the link come, for routes that depend on the sender's \
              address."),
    key("Preference", Value("0"), field!(Link.preference, |it| it.accept(preference)))
        .value("a number from 0 to 1000")
        .doc("Of the ways to a vessel that are up, the one with the highest Preference is used; among equal ones the \
              one with the lowest Cost, then the one that the vessel's section names first. An Address without a link \
              has Preference 0 and costs nothing."),
    key("Cost", Value("0"), field!(Link.cost, |it| cost::cost(it.text)))
        .value("a price per amount of data, such as 0.25 EUR/MB, or 0")
        .doc("Price of the bytes on the link, for the choice of the way, and for the sums in `status` and the metrics."),
    key("RateLimit", Value("none"), field!(Link.rate_limit, |it| rate::schedule(it.text)))
        .value("rates from 1 KiB/s to 1 TiB/s, or none")
        .doc("Maximum rate of file data over the link to all vessels together, in addition to the RateLimit of each \
              vessel, whose description explains the syntax."),
    key("Schedule", Value("always"), field!(Link.schedule.windows, |it| schedule::windows(it.text)))
        .value("always, or windows separated by commas, such as 22:00-06:00, Sat, Mon-Fri 12:00-13:00")
        .doc("When the link may be used. When it closes, the data in flight is acknowledged, and another way is used, \
              or the vessels wait until it opens."),
    key("Schedule.tz", Value("local"), field!(Link.schedule.zone, |it| schedule::zone(it.text)))
        .value("local, or the name of a time zone")
        .doc("Time zone of Schedule, such as Europe/Berlin or UTC."),
    key("Budget", Value("none"), field!(Link.budget, |it| budget::budget(it.text)))
        .value("amounts for each day or month, such as 50 MB/day, 1 GB/month, or none")
        .doc("Maximum number of bytes on the link, in both directions and with headers, to all vessels together. Days \
              and months are those of UTC. When the budget is spent, another way is used, or the vessels wait until \
              the next day or month."),
    key("BudgetReserve", Value("none"), field!(Link.reserve, |it| reserve::reserve(it.text)))
        .value("a part from 1% to 99% and a priority, such as 20% high, or none")
        .doc("Part of each limit of the Budget that is reserved for files of this priority and higher ones. When only \
              the reserve is left, files of lower priorities use another way, or wait until the next day or month."),
    key("Priorities", Value("all"), field!(Link.priorities, priority_keys::of_link))
        .value("all, or priorities separated by commas, such as high, urgent")
        .doc("Priorities of the files that may go over the link. Of the ways to a vessel that are up, one that accepts \
              more priorities is used before one that accepts fewer, whatever their Preference. While only links are \
              up that do not accept the priority of a file, the file waits; a link that accepts none of the waiting \
              files is not connected."),
];

/// Reads `[Link z]`; returns `None` after reporting an error.
pub(super) fn read(view: &View<'_>) -> Option<Link> {
    let mut link = Link { name: LinkName::new(view.name), ..Link::default() };
    if !table::read(KEYS, view, &mut link) {
        return None;
    }
    if Schedule::never_open(&[&link.schedule]) {
        let remedy = "add a window in which the link may be used, or remove the line";
        let diagnostic = Diagnostic::new("the schedule never opens", remedy);
        view.problems.report(view.place_of("Schedule"), diagnostic);
    }
    Some(link)
}

/// Parses the name of a network interface. The interface may be missing now.
fn interface(text: &str) -> Option<String> {
    // IFNAMSIZ is 16, including the terminating zero.
    let is_name = (1..16).contains(&text.len()) && !matches!(text, "." | "..");
    let plain = |c: char| !c.is_whitespace() && !c.is_control() && !matches!(c, '/' | ':' | ',');
    (is_name && text.chars().all(plain)).then(|| text.to_owned())
}

fn preference(text: &str) -> Option<u32> {
    let is_number = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    is_number.then(|| text.parse().ok()).flatten().filter(|number| *number <= 1000)
}

/// Reports a budget that is smaller than one chunk.
pub(super) fn check_budget(view: &View<'_>, budget: &Budget, chunk_size: u64) {
    if let Some(limit) = budget.limits().iter().find(|limit| limit.bytes < chunk_size) {
        let message = format!("the budget of {limit} is less than one chunk of {chunk_size} bytes (ChunkSize)");
        let remedy = "raise the budget, or make ChunkSize in [MONSTER] smaller";
        view.problems.report(view.place_of("Budget"), Diagnostic::new(message, remedy));
    }
}

/// Warns of a link that no vessel uses.
pub(super) fn check_use(view: &View<'_>, is_used: bool) {
    let is_empty = view.own.is_none_or(|own| own.entries.is_empty());
    if !is_used && !is_empty {
        let remedy = format!("write `Address.{} = …` in the section of a vessel, or remove this section", view.name);
        let place = view.own.map(super::lines::Section::place).unwrap_or_default();
        view.problems.warn(place, Diagnostic::new("no vessel uses this link", remedy));
    }
}
