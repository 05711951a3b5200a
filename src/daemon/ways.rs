//! The ways to the vessels at run time, with the rate limits and the budgets that vessels share.

use std::collections::HashMap;
use std::sync::Arc;

use super::Daemon;
use super::sections::VesselAtWork;
use crate::link::{Allowance, Payer, Purse};
use crate::names::LinkName;
use crate::rate_limit::RateLimiter;
use crate::settings::{self, Link};
use crate::vessel::Way;

/// A link at run time.
pub(super) struct LinkAtWork {
    settings: Arc<Link>,
    limit: RateLimiter,
    purse: Arc<Purse>,
}

/// All links at run time, by name.
pub(super) type Links = HashMap<LinkName, LinkAtWork>;

impl Daemon {
    /// Updates the links to the current settings. Links that did not change keep their limits and budgets.
    pub(super) fn follow_links(&mut self) {
        let of_links = self.settings.links.iter().map(|link| &link.budget);
        let mut budgets = of_links.chain(self.settings.vessels.iter().map(|vessel| &vessel.budget));
        if budgets.any(|budget| !budget.is_unlimited()) {
            self.usage.limit();
        }
        let mut before = std::mem::take(&mut self.links);
        for settings in &self.settings.links {
            let kept = before.remove(&settings.name).filter(|link| link.settings == *settings);
            let link = kept.unwrap_or_else(|| self.new_link(settings));
            self.links.insert(settings.name.clone(), link);
        }
    }

    fn new_link(&self, settings: &Arc<Link>) -> LinkAtWork {
        let (clock, usage) = (self.surroundings.clock.clone(), self.usage.clone());
        let payer = Payer::Link(settings.name.clone());
        LinkAtWork {
            settings: settings.clone(),
            limit: RateLimiter::new(settings.rate_limit.clone(), clock.clone()),
            purse: Arc::new(Purse::new(payer, settings.budget.clone(), settings.reserve, usage, clock)),
        }
    }

    /// Returns the ways to a vessel, the preferred one first. A vessel on this host (`Transport = local`) has a single
    /// way.
    pub(super) fn ways(&self, settings: &Arc<settings::Vessel>, at_work: &VesselAtWork) -> Vec<Way> {
        let own = (!settings.budget.is_unlimited()).then(|| {
            let payer = Payer::Vessel(settings.name.clone());
            let (usage, clock) = (self.usage.clone(), self.surroundings.clock.clone());
            Arc::new(Purse::new(payer, settings.budget.clone(), settings.reserve, usage, clock))
        });
        let way = |way: &settings::Way| {
            let link = way.link.as_ref().and_then(|link| self.links.get(&link.name));
            let limit = link.map_or_else(|| at_work.limit.clone(), |link| at_work.limit.clone().within(&link.limit));
            let purse = link.filter(|link| !link.settings.budget.is_unlimited()).map(|link| link.purse.clone());
            let allowance = Allowance::within(own.iter().cloned().chain(purse));
            Way::new(Arc::new(settings.over(way)), limit, allowance)
        };
        let ways: Vec<Way> = settings.ways.iter().map(way).collect();
        if ways.is_empty() {
            let limit = at_work.limit.clone();
            return vec![Way::new(settings.clone(), limit, Allowance::default())];
        }
        ways
    }
}
