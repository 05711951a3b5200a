//! Cases of the bytes on the link.

use super::*;
use crate::records::{DeliveryCost, LinkBytes, UtcDay};

fn bytes(sent: u64, received: u64, resent: u64) -> LinkBytes {
    LinkBytes { sent, received, resent }
}

pub(in crate::ledger) async fn bytes_on_the_link_are_summed_by_vessel_and_day(store: &dyn Store, hands: &Hands) {
    let today = UtcDay::at(hands.now());
    let (yesterday, tomorrow) = (UtcDay(today.0 - 1), UtcDay(today.0 + 1));
    assert_eq!(store.link_bytes(yesterday..=tomorrow).await.unwrap(), []);
    store.add_link_bytes(yesterday, &[(vessel("tern"), bytes(5, 3, 1))]).await.unwrap();
    let both = [(vessel("tern"), bytes(100, 20, 0)), (vessel("gull"), bytes(7, 8, 2))];
    store.add_link_bytes(today, &both).await.unwrap();
    store.add_link_bytes(today, &both[..1]).await.unwrap();
    let of_today = [(vessel("gull"), bytes(7, 8, 2)), (vessel("tern"), bytes(200, 40, 0))];
    assert_eq!(store.link_bytes(today..=today).await.unwrap(), of_today);
    assert_eq!(store.reports().link_bytes(today..=tomorrow).await.unwrap(), of_today);
    let of_both = [of_today[0].clone(), (vessel("tern"), bytes(205, 43, 1))];
    assert_eq!(store.link_bytes(yesterday..=today).await.unwrap(), of_both);
    assert_eq!(store.link_bytes(tomorrow..=tomorrow).await.unwrap(), []);
}

pub(in crate::ledger) async fn sums_of_long_ago_are_forgotten(store: &dyn Store, hands: &Hands) {
    let today = UtcDay::at(hands.now()).0;
    for day in [today - 401, today - 400, today] {
        store.add_link_bytes(UtcDay(day), &[(vessel("tern"), bytes(1, 0, 0))]).await.unwrap();
    }
    let all = store.link_bytes(UtcDay(0)..=UtcDay(today)).await.unwrap();
    assert_eq!(all, [(vessel("tern"), bytes(2, 0, 0))]);
}

pub(in crate::ledger) async fn the_cost_of_a_delivery_is_the_sum_of_its_attempts(store: &dyn Store, _hands: &Hands) {
    for (at, inode) in [("a", 1), ("b", 2), ("c", 3)] {
        admit(store, file(at, at, inode), ["tern"]).await;
    }
    let all = due(store, "tern").await;
    let cost = |written, link| DeliveryCost { written, link };
    store.add_costs(&[(all[0].id, cost(10, Some(30))), (all[1].id, cost(1, None))]).await.unwrap();
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
    // What is sent once more costs once more.
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
