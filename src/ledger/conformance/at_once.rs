//! Cases of concurrent calls. They may share a transaction, but each call must have the same effect and answer as if it
//! came alone.

use futures_util::future::join_all;
use futures_util::{FutureExt, poll};

use super::*;
use crate::records::{DeliveryId, Entry};

/// Admits `count` files for one vessel and returns their deliveries.
async fn deliveries(store: &dyn Store, count: u64) -> Vec<Delivery> {
    let batch: Vec<_> = (0..count).map(|n| file(format!("{n:03}"), "one", n)).collect();
    store.admit(&docs(), &batch, &vessels(["tern"])).await.unwrap();
    due(store, "tern").await
}

async fn supersede(store: &dyn Store, delivery: &Delivery) {
    store.vanished(&docs(), std::slice::from_ref(&delivery.version.path)).await.unwrap();
}

pub(in crate::ledger) async fn of_calls_at_once_each_gets_its_own_answer(store: &dyn Store, _: &Hands) {
    let all = deliveries(store, 90).await;
    for superseded in all.iter().step_by(3) {
        supersede(store, superseded).await;
    }
    let expected: Vec<bool> = (0..90).map(|n| n % 3 != 0).collect();
    let states = DeliveryState::ALL[..4].iter().cycle();
    let entered = join_all(all.iter().zip(states).map(|(one, state)| store.enter(one.id, *state))).await;
    assert_eq!(entered.into_iter().map(Result::unwrap).collect::<Vec<_>>(), expected);
    let ways = [Verified::ByVessel, Verified::ByReadBack].into_iter().cycle();
    let acknowledged = join_all(all.iter().zip(ways).map(|(one, way)| store.acknowledge(one.id, way))).await;
    assert_eq!(acknowledged.into_iter().map(Result::unwrap).collect::<Vec<_>>(), expected);
    let complete: Vec<_> = retirable(store).await.iter().map(|version| version.id).collect();
    let wanted = all.iter().zip(&expected).filter(|(_, wanted)| **wanted).map(|(one, _)| one.version.id);
    assert_eq!(complete, wanted.collect::<Vec<_>>());
    assert!(!store.acknowledge(DeliveryId(i64::MAX), Verified::ByVessel).await.unwrap());
}

pub(in crate::ledger) async fn the_same_delivery_in_several_calls_at_once_is_entered_once(
    store: &dyn Store,
    hands: &Hands,
) {
    let [one, other] = deliveries(store, 2).await.try_into().unwrap();
    let entered = join_all((0..5).map(|_| store.enter(one.id, DeliveryState::Uploading))).await;
    assert!(entered.into_iter().all(Result::unwrap));
    join_all((0..5).map(|_| store.put_off(other.id, "later", hands.now() + 10, true))).await;
    assert_eq!(store.parked(10).await.unwrap().len(), 1);
    let ways = [Verified::ByVessel, Verified::ByReadBack, Verified::ByVessel];
    let acknowledged = join_all(ways.map(|way| store.acknowledge(one.id, way))).await;
    assert!(acknowledged.into_iter().all(Result::unwrap));
    assert_eq!(retirable(store).await.len(), 1);
    assert_eq!(backlog_of(store, "tern").await.unwrap().acknowledged, 1);
}

pub(in crate::ledger) async fn different_entries_at_once_do_not_mix(store: &dyn Store, hands: &Hands) {
    let all = deliveries(store, 4).await;
    let unread = Entry { digest: None, ..file("unread", "one", 1).entry }.into();
    admit(store, unread, ["gull"]).await;
    let unread = only_due(store, "gull").await.version.id;
    store.enter(all[0].id, DeliveryState::Uploading).await.unwrap();
    supersede(store, &all[0]).await;
    let digest = Digest::of(b"one");
    let (swept, late, hashed, entered, acknowledged) = tokio::join!(
        store.swept(all[0].id),
        store.put_off(all[1].id, "no space", hands.now() + 1000, true),
        store.hashed(unread, &digest),
        store.enter(all[2].id, DeliveryState::Verifying),
        store.acknowledge(all[3].id, Verified::ByVessel),
    );
    swept.and(late).and(hashed).unwrap();
    assert!(entered.unwrap() && acknowledged.unwrap());
    assert_eq!(store.remains(&vessel("tern"), DeliveryId(0), 10).await.unwrap(), []);
    assert_eq!(store.parked(10).await.unwrap()[0].path, all[1].version.path);
    assert_eq!(only_due(store, "gull").await.version.digest, Some(digest));
    let left = only_due(store, "tern").await;
    assert_eq!((left.id, left.state), (all[2].id, DeliveryState::Verifying));
    assert_eq!(retirable(store).await[0].id, all[3].version.id);
}

pub(in crate::ledger) async fn callers_that_go_away_take_nobody_along(store: &dyn Store, _: &Hands) {
    let all = deliveries(store, 100).await;
    for turns in 0..10 {
        let mut calls: Vec<_> =
            all[turns * 10..][..10].iter().map(|one| store.acknowledge(one.id, Verified::ByVessel)).collect();
        for call in &mut calls {
            assert!(poll!(call).is_pending());
        }
        for _ in 0..turns {
            tokio::task::yield_now().await;
        }
        let staying: Vec<_> = calls.into_iter().step_by(2).collect();
        assert!(join_all(staying).await.into_iter().all(Result::unwrap));
    }
    // A cancelled call may have been applied or not, but a delivery and its version must agree.
    let acknowledged = backlog_of(store, "tern").await.unwrap().acknowledged;
    assert!((50..=100).contains(&acknowledged), "{acknowledged}");
    assert_eq!(retirable(store).await.len() as u64, acknowledged);
    deliver(store, "tern").await;
    assert_eq!(retirable(store).await.len(), 100);
}

pub(in crate::ledger) async fn what_a_caller_gave_up_does_not_undo_what_came_after(store: &dyn Store, _: &Hands) {
    for one in deliveries(store, 50).await {
        store.enter(one.id, DeliveryState::Verifying).now_or_never();
        assert!(store.enter(one.id, DeliveryState::Uploading).await.unwrap());
    }
    assert!(due(store, "tern").await.iter().all(|delivery| delivery.state == DeliveryState::Uploading));
}
