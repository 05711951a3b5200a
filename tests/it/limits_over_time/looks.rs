//! What the program says of the files and the budgets while it runs, compared with what the links carried.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use contentmonster::ledger::{LedgerError, LedgerView};
use contentmonster::records::DeliveryId;
use jiff::Timestamp;
use serde_json::Value;

use super::calendar::{self, FILMS, NIGHTS, later};
use super::{COST_OF_A_KILL, Key, MEANWHILE, Run, SPENT, STILL, UNSEEN, key};
use crate::fleet::wait::wait_until;
use crate::fleet::web::get;

/// Before all receipts.
const FIRST: (i64, DeliveryId) = (i64::MIN, DeliveryId(i64::MIN));

impl Run<'_> {
    pub(super) fn json(&self, path: &str) -> Option<Value> {
        let (_, page) = self.daemon.as_ref()?;
        let answer = get(page, path);
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
        Some(serde_json::from_str(&answer.body).unwrap())
    }

    /// The open deliveries.
    pub(super) fn queue(&self) -> Vec<Value> {
        let (mut all, mut after) = (Vec::new(), String::new());
        loop {
            let answer = self.json(&format!("/api/queue?limit=1000{after}")).expect("it runs");
            all.extend(answer["deliveries"].as_array().unwrap().iter().cloned());
            match answer["next"].as_str() {
                Some(next) => after = format!("&after={next}"),
                None => return all,
            }
        }
    }

    /// Asks the ledger directly, which takes less time than the program's command.
    pub(super) fn ledger<T>(&self, ask: impl AsyncFnOnce(LedgerView) -> Result<T, LedgerError>) -> T {
        let file = self.fleet.path("database.sqlite3");
        self.runtime.block_on(async { ask(LedgerView::open(&file).await?).await }).unwrap()
    }

    /// What was delivered, or has expired.
    fn ended(&self, expired: bool) -> BTreeSet<Key> {
        let all = self.ledger(async |ledger| match expired {
            false => ledger.receipts(FIRST, u32::MAX >> 1).await,
            true => ledger.expired(FIRST, u32::MAX >> 1).await,
        });
        all.iter().map(|it| (it.vessel.to_string(), it.directory.to_string(), it.path.to_string())).collect()
    }

    /// Looks at all that the program says of the files and the budgets.
    pub(super) fn look(&mut self) {
        if self.daemon.is_none() {
            return;
        }
        self.look_at_budgets();
        for delivery in self.wait_until_explained() {
            let what = match delivery["held"]["by"].as_str() {
                Some("budget") => "seen held by a budget",
                Some("schedule") => "seen held by a schedule",
                _ => "seen waiting for another reason",
            };
            *self.counts.entry(what).or_default() += 1;
        }
        self.look_at_files();
        self.count("looks");
    }

    /// The program counts no less than the links carried, and after kills no more than they may cost.
    pub(super) fn look_at_budgets(&self) {
        let limits = self.terms.limits();
        let before = limits.map(|limit| self.account.carried(&limit));
        // The status is made anew, and everything is behind the proxies.
        std::thread::sleep(Duration::from_millis(400));
        let status = self.json("/api/status").expect("it runs");
        let at: Timestamp = status["at"].as_str().unwrap().parse().unwrap();
        for (limit, (carried, blur)) in limits.into_iter().zip(before) {
            let of_limit = |shown: &&Value| {
                shown["of"] == limit.of
                    && shown["name"] == limit.name
                    && (shown["period"] == "month") == limit.is_monthly
            };
            let shown = status["budgets"].as_array().unwrap().iter().find(of_limit).unwrap();
            let ends: Timestamp = shown["ends"].as_str().unwrap().parse().unwrap();
            assert_eq!((ends, shown["bytes"].as_u64()), (limit.ends(at), Some(limit.bytes)), "{shown} at {at}");
            if limit.ends(self.account.now()) != ends || limit.ends(later(at, -2)) != ends {
                continue;
            }
            let used = shown["used"].as_u64().unwrap();
            assert!(
                used + blur + MEANWHILE >= carried.min(limit.bytes),
                "{at}: {carried} bytes went, ± {blur}, but counted are {shown}"
            );
            let (now, blur) = self.account.carried(&limit);
            let cost = u64::from(self.account.kills(&limit)) * COST_OF_A_KILL;
            let most = now + now / 10 + blur + cost + UNSEEN;
            if !self.account.knows_the_future() {
                assert!(used <= most, "{at}: {now} bytes went, ± {blur}, but counted are {shown}, not {most} at most");
                assert!(shown["state"] != "spent" || used + SPENT >= limit.bytes, "{at}: {shown}");
            }
        }
    }

    /// Every open delivery waits for a reason that is true, or goes on.
    pub(super) fn wait_until_explained(&self) -> Vec<Value> {
        let (mut before, mut since) = (0, Instant::now());
        loop {
            let queue = self.queue();
            let unexplained: Vec<_> = queue.iter().filter(|delivery| !self.is_explained(delivery)).collect();
            if unexplained.is_empty() {
                return queue;
            }
            let now = self.account.total();
            if now > before + 20_000 {
                (before, since) = (now, Instant::now());
            }
            if since.elapsed() > STILL {
                let of_one = format!("{}/{}", unexplained[0]["directory"], unexplained[0]["path"]).replace('"', "");
                let why = self.fleet.call(&["why", &of_one], "").stdout;
                let status = self.fleet.call(&["status"], "").stdout;
                panic!(
                    "{}: nothing goes on, and no reason is told for {unexplained:#?}\n{why}\n{status}",
                    self.account.now()
                );
            }
            self.assert_nothing_wrong();
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Whether a delivery says why it waits; what it says must be true.
    fn is_explained(&self, delivery: &Value) -> bool {
        let now = self.account.now();
        let held = &delivery["held"];
        if held.is_null() {
            // One that failed says why; one that waits because its vessel is away, too.
            return !delivery["reason"].is_null() || !delivery["hold"].is_null();
        }
        let until: Timestamp = held["until"].as_str().unwrap_or_else(|| panic!("{delivery}")).parse().unwrap();
        let may_be = match held["by"].as_str() {
            Some("budget") => vec![calendar::next_day(now), calendar::next_month(now)],
            Some("schedule") => vec![calendar::next(&[&NIGHTS, &FILMS[self.terms.films]], now, true)],
            _ => panic!("{delivery}"),
        };
        // A second ago, it may have been another time.
        assert!(may_be.contains(&until) || until <= later(now, 1), "{now}: {delivery}, but {may_be:?}");
        true
    }

    /// Every file has one state on each vessel: delivered, expired, or in the queue. Returns how many are in the queue.
    pub(super) fn look_at_files(&mut self) -> usize {
        let wanted: BTreeSet<Key> = self
            .files
            .iter()
            .flat_map(|put| {
                put.vessels().iter().map(|vessel| ((*vessel).to_owned(), put.directory.to_owned(), put.name.clone()))
            })
            .collect();
        wait_until("the program to know all files", || {
            let known: BTreeSet<Key> = self.states().into_iter().flatten().collect();
            wanted.is_subset(&known)
        });
        let [queued, delivered, expired] = self.states();
        for key @ (vessel, directory, file) in &wanted {
            // They were asked one after the other: a file may have moved on meanwhile.
            assert!(queued.contains(key) || delivered.contains(key) || expired.contains(key), "{key:?} vanished");
            assert!(!(delivered.contains(key) && expired.contains(key)), "{key:?} is delivered, and expired");
            let there = self.fleet.vessel(vessel).path(directory).join(file).exists();
            assert!(!(there && expired.contains(key)), "{key:?} expired, and is on the vessel");
            assert!(there || !delivered.contains(key), "{key:?} was delivered, but is not on the vessel");
        }
        let taken_back: Vec<_> = self.expired.difference(&expired).collect();
        assert!(taken_back.is_empty(), "{taken_back:?} had expired");
        self.expired = expired;
        queued.len()
    }

    fn states(&self) -> [BTreeSet<Key>; 3] {
        // In the order in which a delivery changes, so that none is missed.
        let queued = self.queue().iter().map(|one| key(one, "path")).collect();
        [queued, self.ended(false), self.ended(true)]
    }
}
