//! Cases of notices for listeners, and of pruning.

use super::places::{locate, reconcile};
use super::*;
use crate::bell::Bell;
use crate::ledger::{Listener, Notice, NoticeId};
use crate::records::EventKind;

async fn listen(store: &dyn Store, channels: &[(&str, &[EventKind])]) -> u64 {
    let listener = |(channel, kinds): &(&str, &[EventKind])| Listener {
        channel: (*channel).to_owned(),
        wants: kinds.iter().map(|kind| (docs(), *kind)).collect(),
        bell: Bell::new(),
    };
    store.listen(&channels.iter().map(listener).collect::<Vec<_>>()).await.unwrap()
}

async fn notices(store: &dyn Store, channel: &str) -> Vec<Notice> {
    store.notices(channel, NoticeId(0), 100).await.unwrap()
}

/// Returns all notices of a channel as text.
async fn words(store: &dyn Store, channel: &str) -> Vec<String> {
    let words = |notice: &Notice| {
        let vessel = notice.vessel.as_ref().map_or("-", VesselName::as_str);
        format!("{} {} {vessel}", notice.kind.as_str(), notice.version.path)
    };
    notices(store, channel).await.iter().map(words).collect()
}

async fn stories(store: &dyn Store, name: &str) -> usize {
    store.reports().history(&docs(), &path(name)).await.unwrap().len()
}

pub(in crate::ledger) async fn nothing_is_noted_where_nobody_listens(store: &dyn Store, _: &Hands) {
    admit(store, file("a", "1", 1), ["tern"]).await;
    listen(store, &[("other", &[EventKind::Retired])]).await;
    deliver(store, "tern").await;
    listen(store, &[("late", &EventKind::ALL)]).await;
    assert_eq!(notices(store, "late").await.len() + notices(store, "other").await.len(), 0);
}

pub(in crate::ledger) async fn who_listens_is_told_of_all_once(store: &dyn Store, hands: &Hands) {
    let retired = [EventKind::Retired];
    listen(store, &[("all", &EventKind::ALL), ("some", &retired)]).await;
    let maps = DirectoryName::new("maps");
    store.admit(&maps, &[file("m", "4444", 1)], &vessels(["tern"])).await.unwrap();
    admit(store, file(b"a\xff\n", "1", 1), ["tern", "gull"]).await;
    hands.forward(5);
    let first = due(store, "tern").await;
    deliver(store, "tern").await;
    for delivery in first {
        assert!(store.acknowledge(delivery.id, Verified::ByVessel).await.unwrap());
    }
    deliver(store, "gull").await;
    let version = retirable(store).await[0].id;
    store.moved_to(&[(version, path("a.1"))]).await.unwrap();
    store.retired(&[version]).await.unwrap();
    store.retired(&[version]).await.unwrap();
    let told = notices(store, "all").await;
    let name = path(b"a\xff\n").to_string();
    let expected = [format!("delivered {name} tern"), format!("delivered {name} gull"), format!("retired {name} -")];
    assert_eq!(words(store, "all").await, expected);
    assert_eq!(words(store, "some").await, expected[2..]);
    assert_eq!((told[2].at, &told[2].processed), (hands.now(), &Some(path("a.1"))));
    assert_eq!(told[0].version.digest, Some(Digest::of(b"1")));

    store.told(&[told[0].id]).await.unwrap();
    assert_eq!(words(store, "all").await, expected[1..]);
    assert_eq!(store.notices("all", told[1].id, 100).await.unwrap().len(), 1);
    // A listener whose channel is not in the new list loses its pending notices.
    assert_eq!(listen(store, &[("some", &retired)]).await, 2);
    assert_eq!(words(store, "some").await, expected[2..]);
}

pub(in crate::ledger) async fn a_parked_delivery_is_told_once_for_each_reason(store: &dyn Store, hands: &Hands) {
    listen(store, &[("all", &EventKind::ALL)]).await;
    admit(store, file("a", "1", 1), ["tern"]).await;
    let delivery = only_due(store, "tern").await.id;
    for (reason, parked) in [("slow", false), ("full", true), ("full", true), ("closed", true)] {
        store.put_off(delivery, reason, hands.now(), parked).await.unwrap();
        store.enter(delivery, DeliveryState::Uploading).await.unwrap();
    }
    let reasons: Vec<_> = notices(store, "all").await.into_iter().map(|notice| notice.reason).collect();
    assert_eq!(reasons, [Some("full".to_owned()), Some("closed".to_owned())]);
}

pub(in crate::ledger) async fn an_acknowledgement_for_an_earlier_place_is_not_told(store: &dyn Store, _: &Hands) {
    listen(store, &[("all", &[EventKind::Delivered])]).await;
    locate(store, "tern", "/old").await;
    admit(store, file("a", "1", 1), ["tern"]).await;
    let before = only_due(store, "tern").await;
    locate(store, "tern", "/new").await;
    reconcile(store, ["tern"]).await;
    assert!(!store.acknowledge_there(&before, Verified::ByVessel, None, None).await.unwrap());
    assert_eq!(words(store, "all").await, [""; 0]);
    let now = only_due(store, "tern").await;
    assert!(store.acknowledge_there(&now, Verified::ByVessel, None, None).await.unwrap());
    assert_eq!(words(store, "all").await, ["delivered a tern"]);
}

pub(in crate::ledger) async fn a_source_that_vanished_when_all_had_it_is_told_as_retired(store: &dyn Store, _: &Hands) {
    listen(store, &[("all", &[EventKind::Retired])]).await;
    admit(store, file("had", "1", 1), ["tern"]).await;
    deliver(store, "tern").await;
    admit(store, file("not had", "1", 2), ["tern"]).await;
    store.vanished(&docs(), &[path("had"), path("not had")]).await.unwrap();
    assert_eq!(words(store, "all").await, ["retired had -"]);
}

pub(in crate::ledger) async fn retired_files_are_found_by_what_they_are_called_now(store: &dyn Store, hands: &Hands) {
    for (name, inode) in [("a", 1), ("b", 2), ("c", 3)] {
        admit(store, file(name, "1", inode), ["tern"]).await;
    }
    store.vanished(&docs(), &[path("c")]).await.unwrap();
    deliver(store, "tern").await;
    let version = retirable(store).await[0].id;
    store.moved_to(&[(version, path("a.7"))]).await.unwrap();
    store.retired(&[version]).await.unwrap();
    let step = store.retirees(&docs(), VersionId(0)).await.unwrap();
    let found: Vec<_> = step.found.iter().map(|one| (one.processed.to_string(), one.retired_at)).collect();
    assert_eq!(found, [("a.7".to_owned(), Some(hands.now())), ("b".to_owned(), None)]);
    assert_eq!(step.next, None);
}

pub(in crate::ledger) async fn what_tells_what_a_vessel_holds_is_not_forgotten(store: &dyn Store, hands: &Hands) {
    // Both vessels hold the first version of `a`, one vessel also receives the second version, and no vessel receives
    // the third. Another file was admitted and vanished.
    admit(store, file("a", "1", 1), ["tern", "gull"]).await;
    deliver(store, "tern").await;
    deliver(store, "gull").await;
    admit(store, file("a", "2", 1), ["tern", "gull"]).await;
    deliver(store, "tern").await;
    admit(store, file("a", "3", 1), ["tern", "gull"]).await;
    admit(store, file("gone", "1", 9), ["tern"]).await;
    store.vanished(&docs(), &[path("gone")]).await.unwrap();
    let ended = hands.now();
    hands.forward(10);
    let prune = async |before| store.prune(before, VersionId(0)).await.unwrap().found;
    assert_eq!(prune(ended).await, 0, "nothing is old enough");
    assert_eq!(prune(ended + 1).await, 1);
    assert_eq!((stories(store, "a").await, stories(store, "gone").await), (3, 0));
    deliver(store, "tern").await;
    assert_eq!(prune(ended + 1).await, 1, "the second; the first is what gull has");
    assert_eq!(stories(store, "a").await, 2);
    let third = only_due(store, "gull").await.version.id;
    let held = store.held_before(third, &vessel("gull")).await.unwrap();
    assert_eq!(held.iter().map(|held| held.version.digest).collect::<Vec<_>>(), [Some(Digest::of(b"1"))]);
    deliver(store, "gull").await;
    assert_eq!((prune(ended + 1).await, stories(store, "a").await), (1, 1));
    assert_eq!(current_paths(store).await, ["a"]);
    // Pruning doesn't change the sums.
    let tallies = store.reports().summary(START).await.unwrap().tallies;
    assert_eq!(tallies.iter().map(|tally| tally.acknowledged).sum::<u64>(), 5);
    assert!(!store.compact().await.unwrap());
    store.probe().await.unwrap();
}
