//! The vessels with their links and limits, and the values of the settings that a reload changes.

use std::fs;

use super::account::{LINKS, Limit};
use super::calendar::{FILMS, NIGHTS};
use crate::fleet::Fleet;
use crate::fleet::proxy::Proxy;

/// What a reload changes: each has two values.
const TERN: [(u64, u64); 2] = [(1_000_000, 4_000_000), (1_600_000, 5_000_000)];
const LTE: [u64; 2] = [900_000, 1_500_000];
const VSAT: (u64, u64) = (1_600_000, 6_000_000);
pub(super) const EXPIRE: [(&str, i64); 2] = [("90s", 90), ("10m", 600)];

/// Which of the two values is in force.
#[derive(Clone, Copy, Default)]
pub(super) struct Terms {
    tern: usize,
    lte: usize,
    pub(super) films: usize,
    expire: usize,
}

impl Terms {
    pub(super) fn change(&mut self, dice: &mut fastrand::Rng) {
        let of_one = [&mut self.tern, &mut self.lte, &mut self.films, &mut self.expire];
        let value = of_one.into_iter().nth(dice.usize(..4)).expect("there are four");
        *value = 1 - *value;
    }

    pub(super) fn limits(self) -> [Limit; 5] {
        let limit = |(of, name), links, is_monthly, bytes| Limit { of, name, links, is_monthly, bytes };
        let (tern, vsat) = (("vessel", "tern"), ("link", "vsat"));
        [
            limit(tern, &[0], false, TERN[self.tern].0),
            limit(tern, &[0], true, TERN[self.tern].1),
            limit(("link", "lte"), &[1], false, LTE[self.lte]),
            limit(vsat, &[0, 2], false, VSAT.0),
            limit(vsat, &[0, 2], true, VSAT.1),
        ]
    }

    /// Puts the values into the settings.
    pub(super) fn fill(self, text: &str) -> String {
        let tern = format!("{} B/day, {} B/month", TERN[self.tern].0, TERN[self.tern].1);
        let text = text.replace("@tern@", &tern).replace("@lte@", &format!("{} B/day", LTE[self.lte]));
        let text = text.replace("@films@", FILMS[self.films].text).replace("@zone@", FILMS[self.films].zone);
        text.replace("@expire@", EXPIRE[self.expire].0)
    }
}

/// The vessels with their links, and the settings with places for the values that change.
pub(super) struct Waters {
    pub(super) fleet: Fleet,
    lte: Proxy,
    vsat: Proxy,
    pub(super) text: String,
}

impl Waters {
    pub(super) fn start() -> Option<Self> {
        let plan = Fleet::new().monster("ChunkSize", "256 KiB").monster("Listen", "127.0.0.1:0");
        let plan = plan.directory("in").directory("news").key("Expire", "@expire@");
        let plan = plan.directory("storms").key("Priority", "urgent").directory("films").key("Priority", "bulk");
        let plan = plan.key("Schedule", "@films@").key("Schedule.tz", "@zone@");
        let plan = plan.openssh("tern").key("Budget", "@tern@").key("BudgetReserve", "30% high");
        let plan = plan.key("IgnoreDirs", "films").proxied().openssh("gull").key("IgnoreDirs", "films");
        let plan = plan.openssh("skua").key("IgnoreDirs", "in, news").key("Schedule", NIGHTS.text);
        let plan = plan.key("Schedule.tz", NIGHTS.zone).key("ScheduleExempt", "urgent").proxied();
        let fleet = plan.start()?;
        let (tern, gull) = (fleet.vessel("tern"), fleet.vessel("gull"));
        let (lte, vsat) = (Proxy::start(gull.port()), Proxy::start(gull.port()));
        let own = |port: u16| format!("Address = 127.0.0.1\nPort = {port}\n");
        let over = |link: &str, port: u16| format!("Address.{link} = 127.0.0.1:{port}\n");
        let text = fs::read_to_string(fleet.settings()).unwrap();
        let text = text.replace(&own(tern.port()), &over("vsat", tern.port()));
        let both = format!("{}{}", over("lte", lte.port()), over("vsat", vsat.port()));
        let text = text.replace(&own(gull.port()), &both);
        let links = format!(
            "[Link lte]\nPreference = 9\nBudget = @lte@\n\
             [Link vsat]\nBudget = {} B/day, {} B/month\nBudgetReserve = 20% urgent\n",
            VSAT.0, VSAT.1
        );
        let known = fs::read_to_string(fleet.known_hosts()).unwrap();
        let known = known.replace(&format!(":{} ", gull.port()), &format!(":{} ", lte.port()));
        fs::write(fleet.known_hosts(), known).unwrap();
        Some(Self { text: format!("{text}{links}"), fleet, lte, vsat })
    }

    pub(super) fn proxies(&self) -> [&Proxy; LINKS.len()] {
        [self.fleet.vessel("tern").link(), &self.lte, &self.vsat, self.fleet.vessel("skua").link()]
    }
}
