//! Cases of destinations: another place or host causes new deliveries, a lost file is sent again, and the state of a
//! vessel's copy is recorded.

use super::*;
use crate::names::RemotePath;
use crate::records::{Host, PlaceNumber, Seen};

pub(super) async fn locate(store: &dyn Store, vessel_name: &str, location: &str) {
    store.locate(&docs(), &[(vessel(vessel_name), RemotePath::new(location))]).await.unwrap();
}

pub(super) async fn reconcile<const N: usize>(store: &dyn Store, names: [&str; N]) {
    store.reconcile(&docs(), &vessels(names)).await.unwrap();
}

fn host(address: &str, account: &str, key: Option<(&str, &str)>) -> Host {
    let key = key.map(|(algorithm, fingerprint)| (algorithm.to_owned(), fingerprint.to_owned()));
    Host { address: address.to_owned(), account: account.to_owned(), key }
}

async fn meet(store: &dyn Store, host: Host) -> u64 {
    store.meet(&vessel("tern"), &host).await.unwrap()
}

/// Delivers two files to tern and gull at the place `/old`.
async fn delivered(store: &dyn Store) {
    locate(store, "tern", "/old").await;
    locate(store, "gull", "/old").await;
    for name in ["a", "b"] {
        admit(store, file(name, name, 1), ["tern", "gull"]).await;
    }
    deliver(store, "tern").await;
    deliver(store, "gull").await;
}

pub(in crate::ledger) async fn a_place_that_is_entered_first_is_the_one_everything_went_to(
    store: &dyn Store,
    _: &Hands,
) {
    admit(store, file("a", "a", 1), ["tern"]).await;
    deliver(store, "tern").await;
    locate(store, "tern", "/srv").await;
    reconcile(store, ["tern"]).await;
    assert_eq!(meet(store, host("tern:22", "mate", Some(("ed", "1")))).await, 0);
    assert_eq!(due_paths(store, "tern").await, [""; 0]);
    assert_eq!(retirable(store).await.len(), 1);
}

pub(in crate::ledger) async fn another_place_makes_all_that_is_held_there_due(store: &dyn Store, hands: &Hands) {
    delivered(store).await;
    hands.forward(5);
    locate(store, "tern", "/new").await;
    for _ in 0..2 {
        reconcile(store, ["tern", "gull"]).await;
        assert_eq!(due_paths(store, "tern").await, ["a", "b"]);
        assert_eq!(due_paths(store, "gull").await, [""; 0]);
    }
    assert_eq!(retirable(store).await, []);
    assert_eq!(backlog_of(store, "tern").await.unwrap().acknowledged, 0);
    deliver(store, "tern").await;
    locate(store, "tern", "/new").await;
    reconcile(store, ["tern", "gull"]).await;
    assert_eq!(due_paths(store, "tern").await, [""; 0]);
    assert_eq!(retirable(store).await.len(), 2);
}

pub(in crate::ledger) async fn what_retired_is_not_delivered_to_another_place(store: &dyn Store, _: &Hands) {
    delivered(store).await;
    store.retired(&[retirable(store).await[0].id]).await.unwrap();
    locate(store, "tern", "/new").await;
    reconcile(store, ["tern", "gull"]).await;
    assert_eq!(due_paths(store, "tern").await, ["b"]);
}

pub(in crate::ledger) async fn what_is_acknowledged_for_an_earlier_place_does_not_count(store: &dyn Store, _: &Hands) {
    delivered(store).await;
    admit(store, file("c", "c", 1), ["tern"]).await;
    let before = only_due(store, "tern").await;
    locate(store, "tern", "/new").await;
    reconcile(store, ["tern", "gull"]).await;
    assert!(!store.acknowledge_there(&before, Verified::ByVessel, None, None).await.unwrap());
    let now = due(store, "tern").await.into_iter().find(|delivery| delivery.id == before.id).unwrap();
    assert!(now.place > before.place && before.place == PlaceNumber(0));
    assert!(store.acknowledge_there(&now, Verified::ByVessel, None, None).await.unwrap());
}

pub(in crate::ledger) async fn what_went_to_an_earlier_place_is_not_held_at_the_new_one(store: &dyn Store, _: &Hands) {
    delivered(store).await;
    let held = async |path: &str| {
        let delivery = due(store, "tern").await.into_iter().find(|one| one.version.path.to_string() == path).unwrap();
        store.held_before(delivery.version.id, &vessel("tern")).await.unwrap().len()
    };
    let gone = |path| NewVersion::without_content(super::path(path), Traits::GONE, Vec::new());
    admit(store, gone("a"), ["tern", "gull"]).await;
    assert_eq!(held("a").await, 1);
    locate(store, "tern", "/new").await;
    reconcile(store, ["tern", "gull"]).await;
    assert_eq!(held("a").await, 0, "it was never there");
    deliver(store, "tern").await;
    admit(store, gone("b"), ["tern", "gull"]).await;
    assert_eq!(held("b").await, 1, "it was delivered there");
}

pub(in crate::ledger) async fn a_host_is_known_by_its_key_wherever_it_is(store: &dyn Store, _: &Hands) {
    delivered(store).await;
    for (address, key) in [("tern:22", "1"), ("192.0.2.7:22", "1"), ("vpn:2222", "1")] {
        assert_eq!(meet(store, host(address, "mate", Some(("ed", key)))).await, 0, "{address}");
    }
    // The host presents a second key, and then only the second key at another address: both times it is the same host.
    assert_eq!(meet(store, host("vpn:2222", "mate", Some(("rsa", "2")))).await, 0);
    assert_eq!(meet(store, host("tern:22", "mate", Some(("rsa", "2")))).await, 0);
    assert_eq!(due_paths(store, "tern").await, [""; 0]);
    assert_eq!(meet(store, host("tern:22", "mate", Some(("ed", "3")))).await, 2, "another key");
    assert_eq!(meet(store, host("tern:22", "mate", Some(("ed", "3")))).await, 0);
    assert_eq!(due_paths(store, "tern").await, ["a", "b"]);
    assert_eq!(due_paths(store, "gull").await, [""; 0]);
    deliver(store, "tern").await;
    assert_eq!(meet(store, host("tern:22", "bosun", Some(("ed", "3")))).await, 2, "another account");
    deliver(store, "tern").await;
    assert_eq!(meet(store, host("elsewhere:22", "bosun", Some(("ecdsa", "4")))).await, 2, "nothing known of it");
    deliver(store, "tern").await;
    assert_eq!(meet(store, host("this host", "", None)).await, 2);
    deliver(store, "tern").await;
    assert_eq!(meet(store, host("this host", "", None)).await, 0);
}

pub(in crate::ledger) async fn a_directory_of_many_files_is_fitted_in_steps_and_wholly(store: &dyn Store, _: &Hands) {
    let versions: Vec<_> = (0..2500).map(|n| file(format!("{n:05}"), "x", n)).collect();
    locate(store, "tern", "/old").await;
    store.admit(&docs(), &versions, &vessels(["tern"])).await.unwrap();
    deliver(store, "tern").await;
    reconcile(store, ["tern", "gull"]).await;
    assert_eq!(due(store, "gull").await.len(), 2500);
    assert_eq!(retirable(store).await.len(), 0);
    locate(store, "tern", "/new").await;
    reconcile(store, ["tern"]).await;
    assert_eq!((due(store, "tern").await.len(), due(store, "gull").await.len()), (2500, 0));
    deliver(store, "tern").await;
    meet(store, host("a", "", None)).await;
    assert_eq!(meet(store, host("b", "", None)).await, 2500);
}

pub(in crate::ledger) async fn what_waits_longest_goes_first_to_an_added_vessel(store: &dyn Store, hands: &Hands) {
    for name in ["z", "m", "a"] {
        admit(store, file(name, name, 1), ["tern"]).await;
        hands.forward(1);
    }
    reconcile(store, ["tern", "gull"]).await;
    assert_eq!(due_paths(store, "gull").await, ["z", "m", "a"]);
}

pub(in crate::ledger) async fn what_was_lost_is_sent_once_more(store: &dyn Store, _: &Hands) {
    delivered(store).await;
    let ids: Vec<_> = retirable(store).await.iter().map(|version| version.id).collect();
    assert_eq!(store.resend(&docs(), Some(ids[0]), &vessels(["tern"])).await.unwrap(), 1);
    assert_eq!(store.resend(&docs(), Some(ids[0]), &vessels(["tern"])).await.unwrap(), 0, "it waits already");
    assert_eq!((due_paths(store, "tern").await, due_paths(store, "gull").await), (vec!["a".into()], vec![]));
    assert_eq!(retirable(store).await.len(), 1);
    assert_eq!(store.resend(&docs(), None, &vessels(["tern", "gull"])).await.unwrap(), 3);
    assert_eq!((due(store, "tern").await.len(), due(store, "gull").await.len()), (2, 2));
    deliver(store, "tern").await;
    deliver(store, "gull").await;
    store.retired(&ids).await.unwrap();
    assert_eq!(store.resend(&docs(), None, &vessels(["tern"])).await.unwrap(), 0, "retired");
    assert_eq!(store.resend(&docs(), Some(ids[0]), &vessels(["tern"])).await.unwrap(), 0, "retired");
    assert_eq!(store.resend(&DirectoryName::new("maps"), None, &vessels(["tern"])).await.unwrap(), 0);
}

pub(in crate::ledger) async fn what_a_file_looks_like_on_its_vessel_is_kept(store: &dyn Store, _: &Hands) {
    let seen = Seen { size: u64::MAX, mtime: -7 };
    admit(store, file("a", "a", 1), ["tern", "gull"]).await;
    let to_tern = only_due(store, "tern").await;
    store.acknowledge_there(&to_tern, Verified::ByVessel, Some(seen), None).await.unwrap();
    deliver(store, "gull").await;
    admit(store, file("a", "b", 2), ["tern", "gull"]).await;
    for (name, expected) in [("tern", Some(seen)), ("gull", None)] {
        let next = only_due(store, name).await;
        let held = store.held_before(next.version.id, &vessel(name)).await.unwrap();
        assert_eq!(held.iter().map(|held| held.seen).collect::<Vec<_>>(), [expected]);
        store.acknowledge_there(&next, Verified::ByVessel, expected, None).await.unwrap();
    }
    store.resend(&docs(), None, &vessels(["tern"])).await.unwrap();
    assert_eq!(only_due(store, "tern").await.seen, Some(seen));
}

pub(in crate::ledger) async fn a_clock_that_was_put_back_makes_nobody_wait_longer(store: &dyn Store, hands: &Hands) {
    const DAY: i64 = 86_400_000;
    hands.forward(DAY);
    for name in ["new", "failed", "parked"] {
        admit(store, file(name, name, 1), ["tern"]).await;
    }
    let all = due(store, "tern").await;
    store.put_off(all[1].id, "no answer", hands.now() + 10_000, false).await.unwrap();
    store.put_off(all[2].id, "no space", hands.now() + DAY / 4, true).await.unwrap();
    hands.forward(-DAY);
    assert_eq!(store.next_due_at(&vessel("tern")).await.unwrap(), Some(hands.now()));
    assert_eq!(due_paths(store, "tern").await, ["new"]);
    hands.forward(10_000);
    assert_eq!(due_paths(store, "tern").await, ["new", "failed"]);
    hands.forward(DAY / 4 - 10_000);
    assert_eq!(due(store, "tern").await.len(), 3);
    // All deliveries remain due when the clock is set back in several small steps.
    admit(store, file("another", "1", 1), ["tern"]).await;
    for _ in 0..5 {
        hands.forward(-900);
        due(store, "tern").await;
    }
    assert_eq!(due(store, "tern").await.len(), 4);
}
