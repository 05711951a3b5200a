//! The ways to the vessels, with their bytes and costs, and the budgets, with their unused parts, for the status
//! document.

use std::collections::HashMap;

use jiff::Timestamp;

use super::document::{BudgetStatus, WayStatus};
use super::forecast::BudgetLeft;
use crate::ledger::{LedgerError, LedgerView};
use crate::link::{LinkUsage, Part, Payer};
use crate::names::{LinkName, VesselName};
use crate::records::{LinkBytes, UtcDay, WayOf};
use crate::settings::{Budget, Cost, Limit, Period, Priority, Reserve, Settings};

/// If the program does not run, a part of a limit counts as spent when it has fewer bytes left than this.
const LEAST_ROOM: u64 = 48 << 10;

/// The configured ways and budgets.
#[derive(Clone, Debug, Default)]
pub struct Routes {
    /// The ways to each vessel that has several ways or a link, with the cost of each way.
    ways: HashMap<VesselName, Vec<(String, Cost)>>,
    budgets: Vec<(Payer, Budget, Option<Reserve>)>,
}

/// The limits of all budgets, and how much of each is used.
#[derive(Default)]
pub(super) struct Budgets(Vec<BudgetState>);

struct BudgetState {
    payer: Payer,
    limit: Limit,
    reserve: Option<Reserve>,
    used: u64,
    ends: i64,
    is_spent: bool,
    is_down_to_reserve: bool,
}

impl BudgetState {
    /// Returns the spent part of the limit that stops files of this priority: the whole limit, or the part before the
    /// reserve. `None` if files of this priority may still be sent.
    fn spent_part(&self, priority: Priority) -> Option<Part> {
        let reserve = self.reserve.filter(|reserve| !reserve.priorities().contains(priority));
        let reserve = reserve.filter(|_| self.is_down_to_reserve && !self.is_spent).map(Part::BeforeReserve);
        reserve.or(self.is_spent.then_some(Part::Whole))
    }
}

impl Budgets {
    fn of<'a>(
        &'a self,
        vessel: &'a VesselName,
        link: Option<&'a LinkName>,
    ) -> impl Iterator<Item = (usize, &'a BudgetState)> {
        self.0.iter().enumerate().filter(move |(_, state)| match &state.payer {
            Payer::Vessel(name) => name == vessel,
            Payer::Link(name) => Some(name) == link,
        })
    }

    /// Returns why the budgets allow no files of a priority on a way, and until when. Among several spent limits,
    /// chooses the one whose period ends last.
    pub(super) fn spent_for(
        &self,
        vessel: &VesselName,
        link: Option<&LinkName>,
        priority: Priority,
    ) -> Option<(String, i64)> {
        let spent = self.of(vessel, link).filter_map(|(_, state)| Some((state, state.spent_part(priority)?)));
        let (state, part) = spent.max_by_key(|(state, _)| state.ends)?;
        Some((state.payer.why_spent(&state.limit, part, state.used), state.ends))
    }

    /// Returns the positions, in [`Budgets`], of the limits that apply to a way.
    pub(super) fn positions(&self, vessel: &VesselName, link: Option<&LinkName>) -> Vec<usize> {
        self.of(vessel, link).map(|(at, _)| at).collect()
    }

    /// Returns the unused part of each limit.
    pub(super) fn left(&self) -> Vec<BudgetLeft> {
        let left = |state: &BudgetState| {
            let used = if state.is_spent { state.limit.bytes } else { state.used };
            let before = state.reserve.filter(|_| state.is_down_to_reserve).map(|reserve| reserve.leaves(&state.limit));
            BudgetLeft { limit: state.limit, reserve: state.reserve, used: used.max(before.unwrap_or(0)) }
        };
        self.0.iter().map(left).collect()
    }
}

fn name_of(payer: &Payer) -> (&'static str, &str) {
    match payer {
        Payer::Vessel(name) => ("vessel", name.as_str()),
        Payer::Link(name) => ("link", name.as_str()),
    }
}

/// The bytes on the links today and this month, in UTC.
#[derive(Default)]
pub(super) struct Spent {
    day: HashMap<WayOf, LinkBytes>,
    month: HashMap<WayOf, LinkBytes>,
}

impl Spent {
    /// Returns the bytes to a vessel this month.
    pub(super) fn vessel(&self, name: &VesselName) -> Option<LinkBytes> {
        self.month.get(&(name.clone(), None)).copied()
    }

    fn of(&self, period: Period) -> &HashMap<WayOf, LinkBytes> {
        match period {
            Period::Day => &self.day,
            Period::Month => &self.month,
        }
    }

    fn used(&self, of: &str, name: &str, period: Period) -> u64 {
        let counts = |(vessel, way): &WayOf| match of {
            "link" => way.as_deref() == Some(name),
            _ => way.is_none() && vessel.as_str() == name,
        };
        self.of(period).iter().filter(|(way, _)| counts(way)).map(|(_, bytes)| bytes.total()).sum()
    }
}

impl Routes {
    /// Takes the ways and the budgets from the settings.
    pub(super) fn of(settings: &Settings) -> Self {
        let with_ways = settings.vessels.iter().filter(|vessel| vessel.has_ways());
        let cost = |way: &crate::settings::Way| way.link.as_ref().map(|link| link.cost.clone()).unwrap_or_default();
        let ways = with_ways.map(|vessel| {
            (vessel.name.clone(), vessel.ways.iter().map(|way| (way.name(), cost(way))).collect::<Vec<_>>())
        });
        let vessels = settings.vessels.iter().map(|it| (Payer::Vessel(it.name.clone()), it.budget.clone(), it.reserve));
        let links = settings.links.iter().map(|it| (Payer::Link(it.name.clone()), it.budget.clone(), it.reserve));
        let budgets = vessels.chain(links).filter(|(_, budget, _)| !budget.is_unlimited());
        Self { ways: ways.collect(), budgets: budgets.collect() }
    }

    /// Reads the bytes on the links today and this month.
    pub(super) async fn spent(&self, ledger: &LedgerView, now: i64) -> Result<Spent, LedgerError> {
        let today = UtcDay::at(now);
        let mut sums = Vec::new();
        for period in [Period::Day, Period::Month] {
            let days = period.first_day(now)..=today;
            let mut all: HashMap<WayOf, LinkBytes> = HashMap::new();
            all.extend(
                ledger.link_bytes(days.clone()).await?.into_iter().map(|(vessel, bytes)| ((vessel, None), bytes)),
            );
            if !self.ways.is_empty() {
                all.extend(ledger.way_bytes(days).await?);
            }
            sums.push(all);
        }
        let month = sums.pop().unwrap_or_default();
        Ok(Spent { day: sums.pop().unwrap_or_default(), month })
    }

    /// Returns the ways to a vessel. `carries` is the way in use, and why it was chosen.
    pub(super) fn ways(&self, vessel: &VesselName, spent: &Spent, carries: Option<(&str, &str)>) -> Vec<WayStatus> {
        let way = |(name, cost): &(String, Cost)| {
            let key = (vessel.clone(), Some(name.clone()));
            let bytes = |period| spent.of(period).get(&key).map_or(0, LinkBytes::total);
            let (today, month) = (bytes(Period::Day), bytes(Period::Month));
            let why = carries.filter(|(way, _)| way == name).map(|(_, why)| why.to_owned());
            WayStatus {
                name: name.clone(),
                carries: why.is_some(),
                why,
                bytes_today: today,
                bytes_month: month,
                cost_today: cost.of(today).units(),
                cost_month: cost.of(month).units(),
                currency: cost.currency().to_owned(),
            }
        };
        self.ways.get(vessel).into_iter().flatten().map(way).collect()
    }

    /// Returns how much of each budget is used. `usage` has the exact numbers of the running program.
    pub(super) fn budgets(&self, spent: &Spent, usage: Option<&LinkUsage>, now: i64) -> Budgets {
        let state = |(payer, limit, reserve): (&Payer, &Limit, Option<Reserve>)| {
            let (of, name) = name_of(payer);
            // After a crash, `usage` counts more bytes as used than the ledger's sums contain.
            let recorded = spent.used(of, name, limit.period);
            let counted = usage.map_or(0, |usage| usage.used(payer, limit.period.first_day(now)));
            let used = recorded.max(counted.min(limit.bytes));
            let is_spent = |part: Part| match usage {
                Some(usage) => usage.is_spent(payer, limit, part),
                None => used.saturating_add(LEAST_ROOM) > part.of(limit),
            };
            BudgetState {
                payer: payer.clone(),
                limit: *limit,
                reserve,
                used,
                ends: limit.period.ends(now),
                is_spent: is_spent(Part::Whole),
                is_down_to_reserve: reserve.is_some_and(|reserve| is_spent(Part::BeforeReserve(reserve))),
            }
        };
        let limits = self
            .budgets
            .iter()
            .flat_map(|(payer, budget, reserve)| budget.limits().iter().map(move |it| (payer, it, *reserve)));
        Budgets(limits.map(state).collect())
    }

    /// Returns whether any budget is configured.
    pub(super) fn have_budgets(&self) -> bool {
        !self.budgets.is_empty()
    }
}

impl Budgets {
    /// Converts the budgets to their form in the document.
    pub(super) fn shown(&self) -> Vec<BudgetStatus> {
        let status = |state: &BudgetState| {
            let (of, name) = name_of(&state.payer);
            let state_word = match (state.is_spent, state.is_down_to_reserve) {
                (true, _) => "spent",
                (false, true) => "reserve",
                (false, false) => "open",
            };
            BudgetStatus {
                of: of.to_owned(),
                name: name.to_owned(),
                period: state.limit.period.word().to_owned(),
                bytes: state.limit.bytes,
                used: state.used,
                ends: Timestamp::from_millisecond(state.ends).unwrap_or(Timestamp::MAX),
                reserve_bytes: state.reserve.map_or(0, |reserve| state.limit.bytes - reserve.leaves(&state.limit)),
                reserve_for: state.reserve.map(|reserve| reserve.priorities().to_string()),
                state: state_word.to_owned(),
            }
        };
        self.0.iter().map(status).collect()
    }
}
