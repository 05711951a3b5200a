//! The ways to the vessels and the budgets, for the status document: what went over them, and what it cost.

use std::collections::HashMap;

use jiff::Timestamp;

use super::document::{BudgetStatus, WayStatus};
use crate::ledger::{LedgerError, LedgerView};
use crate::names::VesselName;
use crate::records::{LinkBytes, UtcDay, WayOf};
use crate::settings::{Budget, Cost, Limit, Period, Settings};

/// The ways and the budgets of the settings.
#[derive(Clone, Debug, Default)]
pub struct Routes {
    /// The ways to each vessel that has several, or a link, with the cost of each.
    ways: HashMap<VesselName, Vec<(String, Cost)>>,
    /// `vessel` or `link`, its name, and its budget.
    budgets: Vec<(&'static str, String, Budget)>,
}

/// The bytes of this day and of this month.
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
        let vessels = settings.vessels.iter().map(|it| ("vessel", it.name.to_string(), it.budget.clone()));
        let links = settings.links.iter().map(|it| ("link", it.name.to_string(), it.budget.clone()));
        let budgets = vessels.chain(links).filter(|(_, _, budget)| !budget.is_unlimited());
        Self { ways: ways.collect(), budgets: budgets.collect() }
    }

    /// Reads the bytes of this day and of this month.
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

    /// Returns the ways to a vessel. `carries` is the way that carries, and why that one.
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

    /// Returns the budgets.
    pub(super) fn budgets(&self, spent: &Spent, now: i64) -> Vec<BudgetStatus> {
        let status = |(of, name, limit): (&'static str, &String, &Limit)| BudgetStatus {
            of: of.to_owned(),
            name: name.clone(),
            period: limit.period.word().to_owned(),
            bytes: limit.bytes,
            used: spent.used(of, name, limit.period),
            ends: Timestamp::from_millisecond(limit.period.ends(now)).unwrap_or(Timestamp::MAX),
        };
        let limits =
            self.budgets.iter().flat_map(|(of, name, budget)| budget.limits().iter().map(move |it| (*of, name, it)));
        limits.map(status).collect()
    }
}
