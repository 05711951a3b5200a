//! The life cycle of a delivery: due, postponed, parked, entered, acknowledged, superseded, swept.

use super::*;
use crate::records::DeliveryId;

pub(in crate::ledger) async fn what_is_longest_due_comes_first(store: &dyn Store, hands: &Hands) {
    for name in ["a", "b"] {
        admit(store, file(name, "one", 1), ["tern", "gull"]).await;
        hands.forward(10);
    }
    admit(store, file("c", "one", 1), ["tern"]).await;
    admit(store, file("d", "one", 1), ["tern"]).await;
    assert_eq!(due_paths(store, "tern").await, ["a", "b", "c", "d"]);
    let first = store.next_due(&vessel("tern"), false, 1).await.unwrap().remove(0);
    store.put_off(first.id, "later", hands.now(), false).await.unwrap();
    // `b` is due at the same moment as `c` and `d`, and was recorded before them.
    assert_eq!(due_paths(store, "tern").await, ["b", "a", "c", "d"]);
    assert_eq!(paths_of(&store.next_due(&vessel("tern"), false, 3).await.unwrap()), ["b", "a", "c"]);
    assert_eq!(due_paths(store, "gull").await, ["a", "b"]);
    assert!(due(store, "nobody").await.is_empty());
}

pub(in crate::ledger) async fn large_and_small_files_are_asked_for_apart(store: &dyn Store, _: &Hands) {
    let sized = |name: &str, size| {
        let mut file = file(name, "one", 1);
        file.entry.stamp.size = size;
        file
    };
    let batch = [sized("empty", 0), sized("chunk", 100), sized("more", 101), sized("huge", 1 << 40)];
    store.admit(&docs(), &batch, &vessels(["tern"])).await.unwrap();
    store.reconcile(&docs(), &vessels(["tern", "gull"])).await.unwrap();
    for name in ["tern", "gull"] {
        assert_eq!(paths_of(&store.next_due(&vessel(name), false, 10).await.unwrap()), ["empty", "chunk"]);
        assert_eq!(paths_of(&store.next_due(&vessel(name), true, 10).await.unwrap()), ["more", "huge"]);
    }
}

pub(in crate::ledger) async fn a_delivery_put_off_hides_until_it_is_due(store: &dyn Store, hands: &Hands) {
    assert_eq!(store.next_due_at(&vessel("tern")).await.unwrap(), None);
    admit(store, file("a", "one", 1), ["tern"]).await;
    assert_eq!(store.next_due_at(&vessel("tern")).await.unwrap(), Some(hands.now()));
    let delivery = only_due(store, "tern").await;
    let later = hands.now() + 5000;
    store.put_off(delivery.id, "no space", later, false).await.unwrap();
    assert!(due(store, "tern").await.is_empty());
    assert_eq!(store.next_due_at(&vessel("tern")).await.unwrap(), Some(later));
    assert_eq!(backlog_of(store, "tern").await.unwrap().waiting, 1);
    hands.forward(4999);
    assert!(due(store, "tern").await.is_empty());
    let mut large = file("large", "one", 1);
    large.entry.stamp.size = 1000;
    admit(store, large, ["tern"]).await;
    assert_eq!(store.next_due_at(&vessel("tern")).await.unwrap(), Some(later - 1));
    hands.forward(1);
    assert_eq!(due_paths(store, "tern").await, ["a", "large"]);
    deliver(store, "tern").await;
    assert_eq!(store.next_due_at(&vessel("tern")).await.unwrap(), None);
}

pub(in crate::ledger) async fn failures_in_a_row_are_counted(store: &dyn Store, hands: &Hands) {
    admit(store, file("a", "one", 1), ["tern"]).await;
    for failures in 0..3 {
        let delivery = only_due(store, "tern").await;
        assert_eq!(delivery.failures, failures);
        store.put_off(delivery.id, "again", hands.now(), false).await.unwrap();
    }
}

pub(in crate::ledger) async fn parked_deliveries_are_counted_and_listed_with_their_reason(
    store: &dyn Store,
    hands: &Hands,
) {
    for name in ["a", "b", "c"] {
        admit(store, file(name, "one", 1), ["tern"]).await;
    }
    let all = due(store, "tern").await;
    for delivery in &all[..2] {
        store.put_off(delivery.id, "read-only \"disk\"\n", hands.now() + 100, true).await.unwrap();
    }
    store.put_off(all[2].id, "just late", hands.now() + 100, false).await.unwrap();

    let parked = store.parked(10).await.unwrap();
    let listed: Vec<_> = parked.iter().map(|p| (p.vessel.as_str(), p.path.to_string(), p.reason.as_str())).collect();
    let reason = "read-only \"disk\"\n";
    assert_eq!(listed, [("tern", "a".to_owned(), reason), ("tern", "b".to_owned(), reason)]);
    assert_eq!(parked[0].directory, docs());
    assert_eq!(store.parked(1).await.unwrap().len(), 1);
    assert_eq!(backlog_of(store, "tern").await.unwrap().parked, 2);

    // An attempt, an ordinary failure and the end of a delivery each clear the parked state.
    hands.forward(100);
    store.enter(all[0].id, DeliveryState::Uploading).await.unwrap();
    assert_eq!(store.parked(10).await.unwrap().len(), 1);
    store.put_off(all[1].id, "link lost", hands.now(), false).await.unwrap();
    assert_eq!(store.parked(10).await.unwrap(), []);
    store.put_off(all[1].id, "parked", hands.now(), true).await.unwrap();
    store.put_off(all[2].id, "parked", hands.now(), true).await.unwrap();
    store.vanished(&docs(), &[path("b")]).await.unwrap();
    store.acknowledge(all[2].id, Verified::ByVessel).await.unwrap();
    assert_eq!(store.parked(10).await.unwrap(), []);
    assert_eq!(backlog_of(store, "tern").await.unwrap().parked, 0);
}

pub(in crate::ledger) async fn hurry_brings_back_what_was_put_off_for_one_vessel(store: &dyn Store, hands: &Hands) {
    admit(store, file("a", "one", 1), ["tern", "gull"]).await;
    admit(store, file("b", "one", 1), ["tern", "gull"]).await;
    for name in ["tern", "gull"] {
        for (delivery, parked) in due(store, name).await.iter().zip([false, true]) {
            store.put_off(delivery.id, "later", i64::MAX, parked).await.unwrap();
        }
    }
    hands.forward(1);
    store.hurry(&vessel("tern")).await.unwrap();
    assert_eq!(due_paths(store, "tern").await, ["a", "b"]);
    assert_eq!(store.next_due_at(&vessel("tern")).await.unwrap(), Some(hands.now()));
    assert!(due(store, "gull").await.is_empty());
}

// Cases of the states of a delivery.

pub(in crate::ledger) async fn a_state_that_was_entered_is_found_again(store: &dyn Store, _: &Hands) {
    admit(store, file("a", "one", 1), ["tern"]).await;
    for state in &DeliveryState::ALL[..4] {
        let delivery = only_due(store, "tern").await;
        assert!(store.enter(delivery.id, *state).await.unwrap());
        assert!(store.enter(delivery.id, *state).await.unwrap());
        assert_eq!(only_due(store, "tern").await.state, *state);
    }
}

pub(in crate::ledger) async fn a_superseded_delivery_is_neither_entered_nor_acknowledged_nor_put_off(
    store: &dyn Store,
    hands: &Hands,
) {
    admit(store, file("a", "one", 1), ["tern"]).await;
    let old = only_due(store, "tern").await;
    admit(store, file("a", "two", 1), ["tern"]).await;
    assert!(!store.enter(old.id, DeliveryState::Publishing).await.unwrap());
    store.put_off(old.id, "late", hands.now() - 1, true).await.unwrap();
    assert_eq!(store.parked(10).await.unwrap(), []);
    assert!(!store.acknowledge(old.id, Verified::ByVessel).await.unwrap());
    assert_eq!(only_due(store, "tern").await.version.digest, Some(Digest::of(b"two")));
    assert_eq!(backlog_of(store, "tern").await.unwrap().acknowledged, 0);
}

pub(in crate::ledger) async fn acknowledging_twice_is_acknowledging_once(store: &dyn Store, _: &Hands) {
    admit(store, file("a", "one", 1), ["tern", "gull"]).await;
    let delivery = only_due(store, "tern").await;
    assert!(store.acknowledge(delivery.id, Verified::ByVessel).await.unwrap());
    assert!(store.acknowledge(delivery.id, Verified::ByReadBack).await.unwrap());
    assert!(retirable(store).await.is_empty());
    assert_eq!(backlog_of(store, "tern").await.unwrap().acknowledged, 1);
}

pub(in crate::ledger) async fn an_acknowledged_delivery_goes_back_to_no_other_state(store: &dyn Store, hands: &Hands) {
    admit(store, file("a", "one", 1), ["tern"]).await;
    let delivery = only_due(store, "tern").await;
    store.acknowledge(delivery.id, Verified::ByVessel).await.unwrap();
    assert!(!store.enter(delivery.id, DeliveryState::Uploading).await.unwrap());
    store.put_off(delivery.id, "late", hands.now(), true).await.unwrap();
    store.hurry(&vessel("tern")).await.unwrap();
    assert!(due(store, "tern").await.is_empty());
    assert_eq!(store.parked(10).await.unwrap(), []);
    assert_eq!(retirable(store).await.len(), 1);
}

// Cases of temporary files that remain on a vessel.

pub(in crate::ledger) async fn only_what_was_touched_and_superseded_remains(store: &dyn Store, _: &Hands) {
    let batch = ["untouched", "touched", "acknowledged", "open"].map(|name| file(name, "one", 1));
    store.admit(&docs(), &batch, &vessels(["tern"])).await.unwrap();
    let all = due(store, "tern").await;
    for delivery in &all[1..] {
        store.enter(delivery.id, DeliveryState::Uploading).await.unwrap();
    }
    store.acknowledge(all[2].id, Verified::ByVessel).await.unwrap();
    assert_eq!(store.remains(&vessel("tern"), DeliveryId(0), 10).await.unwrap(), []);
    store.vanished(&docs(), &["untouched", "touched", "acknowledged"].map(path)).await.unwrap();

    let remains = store.remains(&vessel("tern"), DeliveryId(0), 10).await.unwrap();
    assert_eq!(remains.len(), 1, "{remains:?}");
    let (it, delivery) = (&remains[0], &all[1]);
    assert_eq!((it.delivery, it.version), (delivery.id, delivery.version.id));
    assert_eq!((&it.directory, &it.path), (&docs(), &path("touched")));
    assert_eq!(store.remains(&vessel("gull"), DeliveryId(0), 10).await.unwrap(), []);
}

pub(in crate::ledger) async fn remains_are_given_in_batches_until_they_are_swept(store: &dyn Store, _: &Hands) {
    let batch: Vec<_> = (0..5).map(|n| file(format!("{n}"), "one", n)).collect();
    store.admit(&docs(), &batch, &vessels(["tern"])).await.unwrap();
    for delivery in due(store, "tern").await {
        store.enter(delivery.id, DeliveryState::Uploading).await.unwrap();
    }
    store.reconcile(&docs(), &[]).await.unwrap();
    let mut swept = Vec::new();
    loop {
        let remains = store.remains(&vessel("tern"), DeliveryId(0), 2).await.unwrap();
        assert!(remains.len() <= 2);
        let Some(one) = remains.first() else { break };
        store.swept(one.delivery).await.unwrap();
        store.swept(one.delivery).await.unwrap();
        swept.push(one.path.to_string());
    }
    swept.sort();
    assert_eq!(swept, ["0", "1", "2", "3", "4"]);
}

pub(in crate::ledger) async fn sweeping_late_does_not_hide_what_was_sent_again(store: &dyn Store, _: &Hands) {
    admit(store, file("a", "one", 1), ["tern"]).await;
    let delivery = only_due(store, "tern").await;
    store.enter(delivery.id, DeliveryState::Uploading).await.unwrap();
    store.reconcile(&docs(), &[]).await.unwrap();
    assert_eq!(store.remains(&vessel("tern"), DeliveryId(0), 10).await.unwrap().len(), 1);
    // Before `swept` is called, the vessel takes the directory again and parts are being uploaded.
    store.reconcile(&docs(), &vessels(["tern"])).await.unwrap();
    store.enter(delivery.id, DeliveryState::Uploading).await.unwrap();
    store.swept(delivery.id).await.unwrap();
    store.vanished(&docs(), &[path("a")]).await.unwrap();
    assert_eq!(store.remains(&vessel("tern"), DeliveryId(0), 10).await.unwrap().len(), 1);
}

pub(in crate::ledger) async fn a_delivery_is_open_until_it_is_acknowledged_or_superseded(
    store: &dyn Store,
    hands: &Hands,
) {
    admit(store, file("a", "one", 1), ["tern", "gull"]).await;
    let (tern, gull) = (only_due(store, "tern").await, only_due(store, "gull").await);
    store.put_off(tern.id, "parked", hands.now() + 1000, true).await.unwrap();
    store.enter(gull.id, DeliveryState::Publishing).await.unwrap();
    assert!(store.is_open(tern.id).await.unwrap());
    assert!(store.is_open(gull.id).await.unwrap());
    assert!(!store.is_open(DeliveryId(tern.id.0.max(gull.id.0) + 1)).await.unwrap());
    store.acknowledge(tern.id, Verified::ByVessel).await.unwrap();
    assert!(!store.is_open(tern.id).await.unwrap());
    store.vanished(&docs(), &[path("a")]).await.unwrap();
    assert!(!store.is_open(gull.id).await.unwrap());
}

pub(in crate::ledger) async fn the_backlog_counts_for_each_vessel(store: &dyn Store, hands: &Hands) {
    assert_eq!(store.backlog().await.unwrap(), []);
    for (name, content) in [("a", "1"), ("b", "22"), ("c", "333"), ("d", "4444")] {
        admit(store, file(name, content, 1), ["tern", "gull"]).await;
    }
    let all = due(store, "tern").await;
    store.acknowledge(all[0].id, Verified::ByVessel).await.unwrap();
    store.put_off(all[1].id, "parked", hands.now() + 9, true).await.unwrap();
    store.vanished(&docs(), &[path("d")]).await.unwrap();
    let backlog = |name, waiting, waiting_bytes, parked, acknowledged| Backlog {
        vessel: vessel(name),
        waiting,
        waiting_bytes,
        parked,
        acknowledged,
    };
    assert_eq!(store.backlog().await.unwrap(), [backlog("gull", 3, 6, 0, 0), backlog("tern", 2, 5, 1, 1)]);
}
