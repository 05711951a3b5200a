//! Cases of directories with their own queues: the order, and the expiry of deliveries.

use std::time::Duration;

use super::*;
use crate::ledger::{Ending, QueueCursor, QueueEnd, QueueFilter, QueueLane, QueueSettings, QueueStage};
use crate::names::RemotePath;
use crate::records::DeliveryId;
use crate::settings::Order;

async fn set(store: &dyn Store, order: Order, expire: Option<u64>) {
    let expire = expire.map(Duration::from_millis);
    store.set_queue(&docs(), Some(QueueSettings { order, expire })).await.unwrap();
    store.reconcile(&docs(), &vessels(["tern"])).await.unwrap();
}

async fn queued(store: &dyn Store, limit: u32, end: QueueEnd) -> Vec<Delivery> {
    store.next_due_in(&vessel("tern"), &docs(), false, limit, end).await.unwrap()
}

async fn queued_paths(store: &dyn Store) -> Vec<String> {
    paths_of(&queued(store, 100, QueueEnd::Front).await)
}

fn changed_at(name: &str, size: u64, mtime: i64) -> NewVersion {
    let mut file = file(name, "one", 1);
    (file.entry.stamp.size, file.entry.stamp.mtime) = (size, mtime);
    file
}

pub(in crate::ledger) async fn a_queue_gives_its_files_in_its_order(store: &dyn Store, hands: &Hands) {
    set(store, Order::Newest, None).await;
    for (name, size, mtime) in [("b", 30, 50), ("d", 10, -7), ("a", 40, 20), ("c", 20, i64::MAX)] {
        admit(store, changed_at(name, size, mtime), ["tern"]).await;
        hands.forward(10);
    }
    assert!(due(store, "tern").await.is_empty(), "they are not in the shared queue");
    for (order, names) in [
        (Order::Newest, ["c", "b", "a", "d"]),
        (Order::Smallest, ["d", "c", "b", "a"]),
        (Order::Name, ["a", "b", "c", "d"]),
        (Order::Oldest, ["b", "d", "a", "c"]),
    ] {
        set(store, order, None).await;
        assert_eq!(queued_paths(store).await, names, "{order:?}");
        assert_eq!(paths_of(&queued(store, 2, QueueEnd::Front).await), names[..2], "{order:?}");
        let back = if order == Order::Oldest { names[0] } else { names[3] };
        assert_eq!(paths_of(&queued(store, 1, QueueEnd::Back).await), [back], "{order:?}");
    }
    assert_eq!(store.next_due_at_in(&vessel("tern"), &docs()).await.unwrap(), Some(START));
    store.set_queue(&docs(), None).await.unwrap();
    store.reconcile(&docs(), &vessels(["tern"])).await.unwrap();
    assert_eq!(due_paths(store, "tern").await, ["b", "d", "a", "c"], "back in the shared queue");
    assert!(queued_paths(store).await.is_empty());
}

/// Admits a, b and c to a queue that is ordered by name. Returns the delivery of a.
async fn first_of_three_by_name(store: &dyn Store) -> Delivery {
    set(store, Order::Name, None).await;
    for name in ["a", "b", "c"] {
        admit(store, file(name, "one", 1), ["tern"]).await;
    }
    queued(store, 1, QueueEnd::Front).await.remove(0)
}

pub(in crate::ledger) async fn what_failed_in_a_queue_comes_after_all_others_once_it_is_due(
    store: &dyn Store,
    hands: &Hands,
) {
    let first = first_of_three_by_name(store).await;
    store.put_off(first.id, "full", hands.now() + 1000, true).await.unwrap();
    assert_eq!(queued_paths(store).await, ["b", "c"]);
    hands.forward(1000);
    assert_eq!(queued_paths(store).await, ["b", "c", "a"]);
    store.put_off(first.id, "full", hands.now() + 5000, true).await.unwrap();
    store.hurry(&vessel("tern")).await.unwrap();
    assert_eq!(queued_paths(store).await, ["b", "c", "a"]);
    store.put_off(first.id, "full", hands.now() + 5000, true).await.unwrap();
    hands.forward(-3_600_000);
    assert_eq!(queued_paths(store).await, ["b", "c"], "the clock was put back");
    hands.forward(5000);
    assert_eq!(queued_paths(store).await, ["b", "c", "a"]);
}

pub(in crate::ledger) async fn what_begins_anew_in_a_queue_has_its_place_in_the_order_again(
    store: &dyn Store,
    hands: &Hands,
) {
    let first = first_of_three_by_name(store).await;
    let fail = async || {
        store.put_off(first.id, "full", hands.now(), false).await.unwrap();
        assert_eq!(queued_paths(store).await, ["b", "c", "a"]);
    };
    fail().await;
    store.retry(&[first.id]).await.unwrap();
    assert_eq!(queued_paths(store).await, ["a", "b", "c"], "retried");
    fail().await;
    store.acknowledge(first.id, Verified::ByVessel).await.unwrap();
    store.resend(&docs(), Some(first.version.id), &vessels(["tern"])).await.unwrap();
    assert_eq!(queued_paths(store).await, ["a", "b", "c"], "sent again");
    fail().await;
    for location in ["/old", "/new"] {
        store.locate(&docs(), &[(vessel("tern"), RemotePath::new(location))]).await.unwrap();
    }
    store.reconcile(&docs(), &vessels(["tern"])).await.unwrap();
    assert_eq!(queued_paths(store).await, ["a", "b", "c"], "sent to another place");
}

pub(in crate::ledger) async fn queues_are_listed_in_the_order_in_which_they_are_sent(store: &dyn Store, hands: &Hands) {
    let (maps, news) = (DirectoryName::new("maps"), DirectoryName::new("news"));
    for (directory, order) in [(docs(), Order::Name), (maps.clone(), Order::Newest)] {
        store.set_queue(&directory, Some(QueueSettings { order, expire: None })).await.unwrap();
        store.reconcile(&directory, &vessels(["tern"])).await.unwrap();
    }
    for (directory, name, mtime, content) in [
        (&docs(), "b", 1, "1".to_owned()),
        (&docs(), "c", 2, "x".repeat(150)),
        (&maps, "old", 3, "1".to_owned()),
        (&news, "first", 4, "1".to_owned()),
        (&docs(), "a", 5, "1".to_owned()),
        (&maps, "new", 6, "1".to_owned()),
        (&news, "second", 7, "x".repeat(150)),
        (&docs(), "d", 8, "1".to_owned()),
    ] {
        let mut file = file(name, &content, 1);
        file.entry.stamp.mtime = mtime;
        store.admit(directory, &[file], &vessels(["tern"])).await.unwrap();
        hands.forward(1);
    }
    let first = queued(store, 1, QueueEnd::Front).await.remove(0);
    store.put_off(first.id, "full", hands.now() + 1000, false).await.unwrap();
    let lane = |shared, queues: &[DirectoryName], ranked| QueueLane { shared, queues: queues.to_vec(), ranked };
    let now = hands.now();
    let stages = [
        QueueStage {
            lanes: vec![lane(false, &[docs()], true), lane(true, &[], false)],
            due_after: i64::MIN,
            due_until: now,
        },
        QueueStage { lanes: vec![lane(true, &[docs()], false)], due_after: now, due_until: i64::MAX },
    ];
    let filter = QueueFilter::default();
    let listed = async |limit: u32, filter: &QueueFilter| {
        let (mut cursor, mut listed) = (None::<QueueCursor>, Vec::new());
        loop {
            let page = store.reports().queue(&vessel("tern"), &stages, filter, cursor.as_ref(), limit).await.unwrap();
            assert!(page.entries.len() <= limit as usize);
            listed.extend(page.entries.iter().map(|entry| entry.path.to_string()));
            cursor = page.next;
            if cursor.is_none() {
                return listed;
            }
        }
    };
    // First one delivery of each lane in turn, then the failed delivery, then the deliveries of the queue that no stage
    // names, by rank.
    let expected = ["b", "first", "c", "second", "d", "a", "new", "old"];
    for limit in [1, 2, 3, 5, 8, 100] {
        assert_eq!(listed(limit, &filter).await, expected, "{limit} at a time");
    }
    let only = QueueFilter { directory: Some(docs()), ..QueueFilter::default() };
    assert_eq!(listed(2, &only).await, ["b", "c", "d", "a"]);
    let news = QueueFilter { directory: Some(news), ..QueueFilter::default() };
    assert_eq!(listed(2, &news).await, ["first", "second"]);
    // A delivery that is acknowledged between two pages does not shift the next page.
    let page = store.reports().queue(&vessel("tern"), &stages, &filter, None, 3).await.unwrap();
    store.acknowledge(page.entries[2].position.delivery, Verified::ByVessel).await.unwrap();
    let rest = store.reports().queue(&vessel("tern"), &stages, &filter, page.next.as_ref(), 9).await.unwrap();
    let rest: Vec<String> = rest.entries.iter().map(|entry| entry.path.to_string()).collect();
    assert_eq!(rest, expected[3..]);
}

pub(in crate::ledger) async fn a_directory_that_is_not_configured_any_more_has_no_queue(store: &dyn Store, _: &Hands) {
    set(store, Order::Name, Some(1000)).await;
    admit(store, file("a", "one", 1), ["tern"]).await;
    store.release_queues(&[docs()]).await.unwrap();
    assert_eq!(queued_paths(store).await, ["a"]);
    store.release_queues(&[]).await.unwrap();
    assert_eq!((queued_paths(store).await.len(), due_paths(store, "tern").await), (0, vec!["a".to_owned()]));
    assert_eq!(store.next_expiry(&docs()).await.unwrap(), None);
}

pub(in crate::ledger) async fn what_a_vessel_has_not_received_in_time_expires(store: &dyn Store, hands: &Hands) {
    set(store, Order::Oldest, Some(1000)).await;
    for name in ["both", "one", "none"] {
        store.admit(&docs(), &[file(name, "one", 1)], &vessels(["tern", "gull"])).await.unwrap();
    }
    for (name, to) in [("both", "tern"), ("both", "gull"), ("one", "tern")] {
        let due = store.next_due_in(&vessel(to), &docs(), false, 9, QueueEnd::Front).await.unwrap();
        let delivery = due.iter().find(|delivery| delivery.version.path == path(name)).unwrap();
        assert!(store.acknowledge(delivery.id, Verified::ByVessel).await.unwrap());
    }
    hands.forward(999);
    assert_eq!(store.expire(&docs(), hands.now(), 9).await.unwrap(), []);
    assert_eq!(store.next_expiry(&docs()).await.unwrap(), Some(hands.now() + 1));
    assert_eq!(retirable(store).await.len(), 1);
    hands.forward(1);
    let mut expired = Vec::new();
    while let Some(delivery) = store.expire(&docs(), hands.now(), 1).await.unwrap().pop() {
        expired.push((delivery.vessel.to_string(), delivery.path.to_string()));
    }
    expired.sort();
    let said = |vessel: &str, path: &str| (vessel.to_owned(), path.to_owned());
    assert!(queued_paths(store).await.is_empty(), "what has expired is not sent");
    assert_eq!(store.next_due_at_in(&vessel("tern"), &docs()).await.unwrap(), None);
    assert_eq!(expired, [said("gull", "none"), said("gull", "one"), said("tern", "none")]);
    let complete = retirable(store).await;
    assert_eq!(complete.iter().map(|version| version.path.to_string()).collect::<Vec<_>>(), ["both", "one", "none"]);
    let ids: Vec<_> = complete.iter().map(|version| version.id).collect();
    assert_eq!(store.unreceived(&ids).await.unwrap(), [ids[2]]);
    assert!(store.has_expired(&docs()).await.unwrap());
    store.retired(&ids).await.unwrap();
    let history = async |name| store.reports().history(&docs(), &path(name)).await.unwrap().remove(0);
    assert_eq!(history("one").await.ended.map(|(_, ending)| ending), Some(Ending::Retired));
    let none = history("none").await;
    assert_eq!(none.ended.map(|(_, ending)| ending), Some(Ending::Expired));
    assert!(none.deliveries.iter().all(|delivery| delivery.state == DeliveryState::Expired));
    let summary = store.reports().summary(0).await.unwrap();
    let sums: Vec<_> =
        summary.tallies.iter().map(|t| (t.vessel.as_str(), t.acknowledged, t.expired, t.waiting)).collect();
    assert_eq!(sums, [("gull", 1, 2, 0), ("tern", 2, 1, 0)]);
}

pub(in crate::ledger) async fn what_is_being_published_does_not_expire_and_what_arrives_late_counts(
    store: &dyn Store,
    hands: &Hands,
) {
    set(store, Order::Oldest, Some(1000)).await;
    for name in ["publishing", "sent"] {
        admit(store, file(name, "one", 1), ["tern"]).await;
    }
    let all = queued(store, 9, QueueEnd::Front).await;
    store.enter(all[0].id, DeliveryState::Publishing).await.unwrap();
    store.enter(all[1].id, DeliveryState::Uploading).await.unwrap();
    hands.forward(1000);
    assert_eq!(store.expire(&docs(), hands.now(), 9).await.unwrap().len(), 1);
    assert_eq!(queued_paths(store).await, ["publishing"], "its outcome is not known yet");
    assert!(!store.is_open(all[1].id).await.unwrap());
    assert!(!store.enter(all[1].id, DeliveryState::Publishing).await.unwrap());
    store.put_off(all[1].id, "late", 0, false).await.unwrap();
    assert_eq!(store.remains(&vessel("tern"), DeliveryId(0), 9).await.unwrap().len(), 1, "its parts are swept");
    // The vessel answers after the expiry that it has the file.
    for delivery in all {
        assert!(store.acknowledge_there(&delivery, Verified::ByVessel, None, None).await.unwrap());
    }
    let summary = store.reports().summary(0).await.unwrap();
    let tally = &summary.tallies[0];
    assert_eq!((tally.acknowledged, tally.expired, tally.waiting), (2, 0, 0));
    assert_eq!(store.expire(&docs(), hands.now(), 9).await.unwrap(), []);
}

pub(in crate::ledger) async fn an_expired_version_stays_expired_and_a_new_one_is_sent(
    store: &dyn Store,
    hands: &Hands,
) {
    set(store, Order::Oldest, Some(1000)).await;
    admit(store, file("a", "one", 1), ["tern"]).await;
    let gone = NewVersion::without_content(path("b"), Traits::GONE, Vec::new());
    admit(store, file("b", "one", 1), ["tern"]).await;
    admit(store, gone, ["tern"]).await;
    hands.forward(5000);
    assert_eq!(store.expire(&docs(), hands.now(), 9).await.unwrap().len(), 1, "the deletion does not expire");
    for expire in [Some(1000), Some(100_000), None] {
        set(store, Order::Oldest, expire).await;
        assert_eq!(queued_paths(store).await, ["b"], "{expire:?}");
    }
    admit(store, file("a", "two", 1), ["tern"]).await;
    assert_eq!(queued_paths(store).await, ["b", "a"]);
    // A vessel that is added later gets only versions that have not expired.
    set(store, Order::Oldest, Some(10_000)).await;
    hands.forward(6000);
    store.reconcile(&docs(), &vessels(["tern", "gull"])).await.unwrap();
    let due = store.next_due_in(&vessel("gull"), &docs(), false, 9, QueueEnd::Front).await.unwrap();
    assert_eq!(paths_of(&due), ["b", "a"]);
    hands.forward(5000);
    assert_eq!(store.expire(&docs(), hands.now(), 9).await.unwrap().len(), 2);
}
