//! Cases of the counts of bytes on the link: sums, ceilings, costs.

use super::*;
use crate::records::{DeliveryCost, LinkBytes, UtcDay, WayOf};

fn to(name: &str) -> WayOf {
    (vessel(name), None)
}

fn over(name: &str, way: &str) -> WayOf {
    (vessel(name), Some(way.to_owned()))
}

fn bytes(sent: u64, received: u64, resent: u64) -> LinkBytes {
    LinkBytes { sent, received, resent }
}

pub(in crate::ledger) async fn bytes_on_the_link_are_summed_by_vessel_and_day(store: &dyn Store, hands: &Hands) {
    let today = UtcDay::at(hands.now());
    let (yesterday, tomorrow) = (UtcDay(today.0 - 1), UtcDay(today.0 + 1));
    assert_eq!(store.link_bytes(yesterday..=tomorrow).await.unwrap(), []);
    store.add_link_bytes(yesterday, &[(to("tern"), bytes(5, 3, 1))]).await.unwrap();
    let both = [(to("tern"), bytes(100, 20, 0)), (to("gull"), bytes(7, 8, 2))];
    store.add_link_bytes(today, &both).await.unwrap();
    store.add_link_bytes(today, &both[..1]).await.unwrap();
    let of_today = [(vessel("gull"), bytes(7, 8, 2)), (vessel("tern"), bytes(200, 40, 0))];
    assert_eq!(store.link_bytes(today..=today).await.unwrap(), of_today);
    assert_eq!(store.reports().link_bytes(today..=tomorrow).await.unwrap(), of_today);
    let of_both = [of_today[0].clone(), (vessel("tern"), bytes(205, 43, 1))];
    assert_eq!(store.link_bytes(yesterday..=today).await.unwrap(), of_both);
    assert_eq!(store.link_bytes(tomorrow..=tomorrow).await.unwrap(), []);
}

pub(in crate::ledger) async fn bytes_are_also_summed_by_way(store: &dyn Store, hands: &Hands) {
    let today = UtcDay::at(hands.now());
    let (yesterday, tomorrow) = (UtcDay(today.0 - 1), UtcDay(today.0 + 1));
    let all = [
        (over("tern", "lte"), bytes(100, 20, 0)),
        (over("tern", "vsat"), bytes(7, 8, 2)),
        (to("gull"), bytes(1, 1, 0)),
    ];
    store.add_link_bytes(yesterday, &all[..1]).await.unwrap();
    store.add_link_bytes(today, &all).await.unwrap();
    store.add_link_bytes(today, &all[..2]).await.unwrap();
    let ways = store.reports().way_bytes(yesterday..=today).await.unwrap();
    assert_eq!(ways, [(over("tern", "lte"), bytes(300, 60, 0)), (over("tern", "vsat"), bytes(14, 16, 4))]);
    let sums = store.link_bytes(today..=today).await.unwrap();
    assert_eq!(sums, [(vessel("gull"), bytes(1, 1, 0)), (vessel("tern"), bytes(214, 56, 4))]);
    let mut days = store.link_days(today, 1).await.unwrap();
    days.sort_by(|one, other| one.1.cmp(&other.1));
    assert_eq!(days[0], (today, to("gull"), bytes(1, 1, 0)));
    assert_eq!(days[1], (today, to("tern"), bytes(214, 56, 4)));
    assert_eq!(
        days[2..],
        [(today, over("tern", "lte"), bytes(200, 40, 0)), (today, over("tern", "vsat"), bytes(14, 16, 4))]
    );
    // The days nearest to the given day are returned.
    let days_near = async |day, most| {
        let days = store.link_days(day, most).await.unwrap();
        days.into_iter().map(|(day, _, _)| day).collect::<std::collections::BTreeSet<_>>()
    };
    assert_eq!(days_near(UtcDay(0), 1).await, [yesterday].into());
    assert_eq!(days_near(tomorrow, 1).await, [today].into());
    assert_eq!(days_near(tomorrow, 2).await, [yesterday, today].into());
}

pub(in crate::ledger) async fn a_share_of_a_budget_is_told_once_in_a_period(store: &dyn Store, hands: &Hands) {
    let today = UtcDay::at(hands.now());
    let told = async |payer: &str, period: &str, day| store.budget_told(payer, period, day).await.unwrap();
    assert_eq!(told("link vsat", "day", today).await, 0);
    store.tell_budget("link vsat", "day", today, 80).await.unwrap();
    assert_eq!(told("link vsat", "day", today).await, 80);
    assert_eq!((told("link vsat", "month", today).await, told("vessel vsat", "day", today).await), (0, 0));
    store.tell_budget("link vsat", "day", today, 100).await.unwrap();
    assert_eq!((told("link vsat", "day", today).await, told("link vsat", "day", UtcDay(today.0 + 1)).await), (100, 0));
}

pub(in crate::ledger) async fn a_ceiling_is_lowered_only_by_whoever_knows_it(store: &dyn Store, hands: &Hands) {
    let today = UtcDay::at(hands.now());
    let tomorrow = UtcDay(today.0 + 1);
    for (payer, day, bytes) in
        [("link vsat", today, 5), ("link vsat", today, 9), ("link vsat", today, 8), ("vessel tern", tomorrow, 1)]
    {
        store.raise_ceiling(payer, day, bytes).await.unwrap();
    }
    let all = [("link vsat".to_owned(), today, 9), ("vessel tern".to_owned(), tomorrow, 1)];
    assert_eq!(store.ceilings(today, 2).await.unwrap(), all);
    assert_eq!(store.ceilings(tomorrow, 1).await.unwrap(), all[1..]);
    // The ceiling is 9, as if another shore had raised it, so a call that lowers it from 5 or 8 changes nothing.
    store.lower_ceiling("link vsat", today, 5, Some(2)).await.unwrap();
    store.lower_ceiling("link vsat", today, 8, None).await.unwrap();
    assert_eq!(store.ceilings(today, 2).await.unwrap(), all);
    store.lower_ceiling("link vsat", today, 9, Some(7)).await.unwrap();
    store.lower_ceiling("vessel tern", tomorrow, 1, None).await.unwrap();
    assert_eq!(store.ceilings(UtcDay(0), 9).await.unwrap(), [("link vsat".to_owned(), today, 7)]);
}

pub(in crate::ledger) async fn sums_of_long_ago_are_forgotten(store: &dyn Store, hands: &Hands) {
    let today = UtcDay::at(hands.now()).0;
    let one = [(to("tern"), bytes(1, 0, 0))];
    for day in 0..400 {
        store.add_link_bytes(UtcDay(today - 500 + day), &one).await.unwrap();
    }
    let sum = async || store.link_bytes(UtcDay(0)..=UtcDay(i64::MAX)).await.unwrap()[0].1.sent;
    // The clock is far ahead for a while: only as many days are removed as are added.
    store.add_link_bytes(UtcDay(today + 5000), &one).await.unwrap();
    assert_eq!(sum().await, 400);
    let first = store.link_bytes(UtcDay(today - 500)..=UtcDay(today - 500)).await.unwrap();
    assert_eq!(first, []);
    store.add_link_bytes(UtcDay(today), &one).await.unwrap();
    assert_eq!(sum().await, 400);
}

pub(in crate::ledger) async fn the_cost_of_a_delivery_is_the_sum_of_its_attempts(store: &dyn Store, _hands: &Hands) {
    for (at, inode) in [("a", 1), ("b", 2), ("c", 3)] {
        admit(store, file(at, at, inode), ["tern"]).await;
    }
    let all = due(store, "tern").await;
    let cost = |written, link| DeliveryCost { written, link };
    // A delivery that failed and began again meanwhile is in the list more than once.
    let attempts = [(0, cost(7, Some(20))), (1, cost(1, None)), (0, cost(0, None)), (0, cost(3, Some(10)))];
    store.add_costs(&attempts.map(|(at, cost)| (all[at].id, cost))).await.unwrap();
    let acknowledge = async |at: usize, cost| {
        assert!(store.acknowledge_there(&all[at], Verified::ByVessel, None, cost).await.unwrap());
    };
    acknowledge(0, Some(cost(5, Some(6)))).await;
    acknowledge(1, Some(cost(2, None))).await;
    acknowledge(2, None).await;
    let receipts = store.reports().last_receipts(10).await.unwrap();
    let costs = |at: usize| receipts.iter().find(|one| one.delivery == all[at].id).unwrap().cost;
    assert_eq!((costs(0), costs(1), costs(2)), (Some(cost(15, Some(36))), Some(cost(3, None)), None));
    let history = store.reports().history(&docs(), &path("a")).await.unwrap();
    assert_eq!(history[0].deliveries[0].cost, Some(cost(15, Some(36))));
    // A file that is sent once more adds to the cost.
    store.resend(&docs(), Some(all[0].version.id), &vessels(["tern"])).await.unwrap();
    let again = only_due(store, "tern").await;
    assert!(store.acknowledge_there(&again, Verified::ByVessel, None, Some(cost(1, Some(4)))).await.unwrap());
    let history = store.reports().history(&docs(), &path("a")).await.unwrap();
    assert_eq!(history[0].deliveries[0].cost, Some(cost(16, Some(40))));
}

pub(in crate::ledger) async fn costs_of_calls_at_once_do_not_mix(store: &dyn Store, _hands: &Hands) {
    for number in 0..40 {
        admit(store, file(format!("f{number}"), "x", number + 1), ["tern"]).await;
    }
    let all = due(store, "tern").await;
    let cost_of = |delivery: &Delivery| {
        let number = delivery.id.0.cast_unsigned();
        Some(DeliveryCost { written: number, link: (!number.is_multiple_of(3)).then_some(number * 2) })
    };
    let calls = all.iter().map(|one| store.acknowledge_there(one, Verified::ByVessel, None, cost_of(one)));
    assert!(futures_util::future::join_all(calls).await.into_iter().all(|made| made.unwrap()));
    let receipts = store.reports().last_receipts(100).await.unwrap();
    assert_eq!(receipts.len(), all.len());
    for delivery in &all {
        let receipt = receipts.iter().find(|one| one.delivery == delivery.id).unwrap();
        assert_eq!(receipt.cost, cost_of(delivery));
    }
}
