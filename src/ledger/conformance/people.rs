//! Cases of people's queries and commands: sums, histories, receipts; retry, forget, pause.

use super::*;
use crate::ledger::{
    Ending, Oldest, Pause, QueueFilter, QueueLane, QueuePage, QueueStage, QueueState, Receipt, Summary,
};
use crate::records::DeliveryId;

async fn summary(store: &dyn Store) -> Summary {
    store.reports().summary(START).await.unwrap()
}

async fn forget(store: &dyn Store, name: &str) -> bool {
    let history = store.reports().history(&docs(), &path(name)).await.unwrap();
    store.forget(history.last().unwrap().version.id).await.unwrap()
}

async fn receipts_after(store: &dyn Store, after: (i64, DeliveryId), limit: u32) -> Vec<Receipt> {
    store.reports().receipts(after, limit).await.unwrap()
}

pub(in crate::ledger) async fn the_summary_counts_by_vessel_and_by_directory(store: &dyn Store, hands: &Hands) {
    assert_eq!(summary(store).await.tallies, []);
    let maps = DirectoryName::new("maps");
    for (name, content) in [("a", "1"), ("b", "22"), ("c", "333")] {
        admit(store, file(name, content, 1), ["tern", "gull"]).await;
    }
    store.admit(&maps, &[file("m", "4444", 1)], &vessels(["tern"])).await.unwrap();
    let all = due(store, "tern").await;
    hands.forward(7);
    store.acknowledge(all[0].id, Verified::ByVessel).await.unwrap();
    store.put_off(all[1].id, "no space", hands.now() + 9, true).await.unwrap();
    let summary = summary(store).await;
    let sums: Vec<_> = summary
        .tallies
        .iter()
        .map(|t| (t.vessel.as_str(), t.directory.as_str(), t.waiting, t.waiting_bytes, t.parked, t.acknowledged_bytes))
        .collect();
    assert_eq!(sums, [("gull", "docs", 3, 6, 0, 0), ("tern", "docs", 2, 5, 1, 1), ("tern", "maps", 1, 4, 0, 0)]);
    assert_eq!((summary.tallies[1].acknowledged, summary.tallies[1].acknowledged_at), (1, Some(hands.now())));
    let directories: Vec<_> =
        summary.directories.iter().map(|d| (d.directory.as_str(), d.waiting, d.waiting_bytes)).collect();
    assert_eq!(directories, [("docs", 3, 6), ("maps", 1, 4)]);
    assert!(summary.ledger_bytes > 0);
}

pub(in crate::ledger) async fn the_oldest_waiting_file_is_named_for_each_vessel(store: &dyn Store, hands: &Hands) {
    admit(store, file("a", "1", 1), ["tern", "gull"]).await;
    hands.forward(5);
    admit(store, file("b", "1", 1), ["tern", "gull"]).await;
    store.acknowledge(due(store, "tern").await[0].id, Verified::ByVessel).await.unwrap();
    let oldest =
        |name, at, admitted_at| Oldest { vessel: vessel(name), directory: docs(), path: path(at), admitted_at };
    let expected = [oldest("gull", "a", START), oldest("tern", "b", START + 5)];
    assert_eq!(summary(store).await.oldest, expected);
    deliver(store, "tern").await;
    assert_eq!(summary(store).await.oldest, expected[..1]);
}

pub(in crate::ledger) async fn what_was_retired_today_is_counted(store: &dyn Store, hands: &Hands) {
    const DAY: i64 = 86_400_000;
    for (name, content) in [("a", "1"), ("b", "22"), ("c", "333")] {
        admit(store, file(name, content, 1), ["tern"]).await;
        deliver(store, "tern").await;
        store.retired(&[retirable(store).await[0].id]).await.unwrap();
        hands.forward(DAY / 2);
    }
    let retired = |since| async move {
        let summary = store.reports().summary(since).await.unwrap();
        (summary.directories[0].retired, summary.directories[0].retired_bytes)
    };
    assert_eq!(retired(START).await, (3, 6));
    assert_eq!(retired(START + DAY / 2).await, (2, 5));
    assert_eq!(retired(START + 2 * DAY).await, (0, 0));
    assert_eq!(summary(store).await.directories[0].waiting, 0);
}

pub(in crate::ledger) async fn a_retried_delivery_is_due_at_once_and_has_all_its_attempts_again(
    store: &dyn Store,
    hands: &Hands,
) {
    admit(store, file("a", "1", 1), ["tern"]).await;
    let delivery = only_due(store, "tern").await;
    store.put_off(delivery.id, "no space", hands.now() + 1000, true).await.unwrap();
    assert!(due(store, "tern").await.is_empty());
    store.retry(&[delivery.id]).await.unwrap();
    assert_eq!(only_due(store, "tern").await.failures, 0);
    store.acknowledge(delivery.id, Verified::ByVessel).await.unwrap();
    store.retry(&[delivery.id]).await.unwrap();
    assert!(due(store, "tern").await.is_empty());
}

pub(in crate::ledger) async fn a_forgotten_file_is_sent_to_nobody_until_it_changes(store: &dyn Store, _: &Hands) {
    admit(store, file("a", "1", 1), ["tern", "gull"]).await;
    assert!(forget(store, "a").await);
    assert!(!forget(store, "a").await);
    // After another scan and after a restart, the forgotten file is still not due.
    admit(store, file("a", "1", 1), ["tern", "gull"]).await;
    store.reconcile(&docs(), &vessels(["tern", "gull"])).await.unwrap();
    assert!(due(store, "tern").await.is_empty() && retirable(store).await.is_empty());
    assert_eq!(current_paths(store).await, ["a"]);
    let sums = summary(store).await;
    assert_eq!((sums.directories[0].waiting, sums.directories[0].waiting_bytes), (0, 0));
    assert!(sums.tallies.iter().all(|tally| tally.waiting == 0));
    admit(store, file("a", "2", 2), ["tern", "gull"]).await;
    assert_eq!(due_paths(store, "tern").await, ["a"]);
}

pub(in crate::ledger) async fn a_forgotten_file_that_some_vessels_have_never_retires(store: &dyn Store, _: &Hands) {
    admit(store, file("a", "1", 1), ["tern", "gull"]).await;
    deliver(store, "tern").await;
    assert!(forget(store, "a").await);
    for _ in 0..2 {
        assert!(retirable(store).await.is_empty());
        store.reconcile(&docs(), &vessels(["tern"])).await.unwrap();
    }
    assert_eq!(store.vanished(&docs(), &[path("a")]).await.unwrap(), [path("a")]);
}

pub(in crate::ledger) async fn only_what_is_still_to_be_delivered_can_be_forgotten(store: &dyn Store, _: &Hands) {
    admit(store, file("a", "1", 1), ["tern"]).await;
    assert!(!store.forget(VersionId(99)).await.unwrap());
    deliver(store, "tern").await;
    assert!(!forget(store, "a").await);
    assert_eq!(retirable(store).await.len(), 1);
}

pub(in crate::ledger) async fn a_paused_vessel_stays_paused(store: &dyn Store, hands: &Hands) {
    assert_eq!(store.paused().await.unwrap(), []);
    store.pause(&vessel("tern"), Some(&Pause::default())).await.unwrap();
    store.pause(&vessel("gull"), None).await.unwrap();
    hands.forward(5);
    store.pause(&vessel("tern"), Some(&Pause::default())).await.unwrap();
    assert_eq!(store.paused().await.unwrap(), [vessel("tern")]);
    let paused_at = |summary: Summary| summary.notes.iter().map(|note| note.paused_at).collect::<Vec<_>>();
    assert_eq!(paused_at(summary(store).await), [None, Some(START)]);
    store.pause(&vessel("tern"), None).await.unwrap();
    assert_eq!(store.paused().await.unwrap(), []);
    assert_eq!(paused_at(summary(store).await), [None, None]);
}

pub(in crate::ledger) async fn a_pause_ends_at_its_time_and_keeps_its_note(store: &dyn Store, hands: &Hands) {
    let pause = |until| Pause { until, note: Some("in the dock".to_owned()) };
    store.pause(&vessel("tern"), Some(&pause(Some(START + 10)))).await.unwrap();
    store.pause(&vessel("gull"), Some(&pause(None))).await.unwrap();
    assert_eq!(store.ended_pauses().await.unwrap(), (vec![], Some(START + 10)));
    let notes = summary(store).await.notes;
    let told: Vec<_> = notes.iter().map(|note| (note.paused_until, note.pause_note.as_deref())).collect();
    assert_eq!(told, [(None, Some("in the dock")), (Some(START + 10), Some("in the dock"))]);
    hands.forward(10);
    assert_eq!(store.paused().await.unwrap(), [vessel("gull")]);
    assert_eq!(store.ended_pauses().await.unwrap(), (vec![vessel("tern")], None));
    store.pause(&vessel("tern"), None).await.unwrap();
    assert_eq!(store.ended_pauses().await.unwrap(), (vec![], None));
    assert_eq!(summary(store).await.notes[1].pause_note, None);
}

pub(in crate::ledger) async fn a_paused_directory_is_recorded_with_its_note(store: &dyn Store, hands: &Hands) {
    let pause = |until| Pause { until, note: Some("wrong charts".to_owned()) };
    store.pause_directory(&docs(), Some(&pause(Some(START + 10)))).await.unwrap();
    let paused = store.paused_directories().await.unwrap();
    let [one] = &paused[..] else { panic!("{paused:?}") };
    assert_eq!(
        (&one.directory, one.since, &one.pause, one.has_ended),
        (&docs(), START, &pause(Some(START + 10)), false)
    );
    hands.forward(10);
    assert!(store.paused_directories().await.unwrap()[0].has_ended);
    store.pause_directory(&docs(), Some(&pause(None))).await.unwrap();
    let summary = summary(store).await.paused_directories;
    assert_eq!((summary.len(), summary[0].since, summary[0].pause.until), (1, START, None));
    store.pause_directory(&docs(), None).await.unwrap();
    assert_eq!(store.paused_directories().await.unwrap(), []);
}

pub(in crate::ledger) async fn the_latest_receipts_are_found_by_vessel_and_by_text(store: &dyn Store, hands: &Hands) {
    for name in ["a", "b", "c", "d"] {
        admit(store, file(name, name, 1), ["tern", "gull"]).await;
    }
    for vessel in ["tern", "gull"] {
        for delivery in due(store, vessel).await {
            hands.forward(1);
            store.acknowledge(delivery.id, Verified::ByVessel).await.unwrap();
        }
    }
    let latest = async |only: Option<&str>, search, before, limit| {
        let only = only.map(vessel);
        store.reports().latest_receipts(only.as_ref(), search, before, limit).await.unwrap()
    };
    let names = |receipts: &[Receipt]| receipts.iter().map(|one| one.path.to_string()).collect::<Vec<_>>();
    let (first, next) = latest(Some("tern"), None, None, 3).await;
    assert_eq!(names(&first), ["d", "c", "b"]);
    let (rest, next) = latest(Some("tern"), None, next, 3).await;
    assert_eq!((names(&rest), next), (vec!["a".to_owned()], None));
    assert_eq!(names(&latest(None, Some("c"), None, 9).await.0), ["c", "c"]);
    assert_eq!(latest(None, None, None, 5).await.0.len(), 5);
}

async fn queue(store: &dyn Store, filter: &QueueFilter, after: &QueuePage, limit: u32) -> QueuePage {
    let lanes = vec![QueueLane { shared: true, queues: Vec::new(), ranked: false }];
    let stages = [QueueStage { lanes, due_after: i64::MIN, due_until: i64::MAX }];
    store.reports().queue(&vessel("tern"), &stages, filter, after.next.as_ref(), limit).await.unwrap()
}

fn names(page: &QueuePage) -> Vec<String> {
    page.entries.iter().map(|entry| entry.path.to_string()).collect()
}

pub(in crate::ledger) async fn the_queue_is_listed_in_the_order_in_which_it_is_due(store: &dyn Store, hands: &Hands) {
    let content = "x".repeat(150);
    for (name, content) in [("a", "1"), ("large", content.as_str()), ("b", "22"), ("c", "333"), ("d", "1")] {
        admit(store, file(name, content, 1), ["tern", "gull"]).await;
        hands.forward(1);
    }
    let all = store.next_due(&vessel("tern"), false, 10).await.unwrap();
    store.put_off(all[0].id, "no space", hands.now() + 50, false).await.unwrap();
    store.put_off(all[1].id, "closed", hands.now() + 20, true).await.unwrap();
    let begin = QueuePage::default();
    let whole = queue(store, &QueueFilter::default(), &begin, 10).await;
    assert_eq!(
        (names(&whole), whole.next),
        (vec!["large".into(), "c".into(), "d".into(), "b".into(), "a".into()], None)
    );
    let first = &whole.entries[0];
    assert_eq!(
        (first.size, first.admitted_at, first.failures, first.state()),
        (150, START + 1, 0, QueueState::Waiting)
    );
    assert_eq!((whole.entries[4].failures, whole.entries[4].reason.as_deref()), (1, Some("no space")));
    let due = [due(store, "tern").await[0].version.path.to_string(), "c".into()];
    assert!(due.iter().all(|path| path == "c"), "the first small file of the list is the first that is due");

    // An acknowledgement between two pages must not make the list skip or repeat other deliveries.
    let (mut page, mut listed) = (queue(store, &QueueFilter::default(), &begin, 2).await, Vec::new());
    store.acknowledge(page.entries[0].position.delivery, Verified::ByVessel).await.unwrap();
    loop {
        listed.extend(names(&page));
        if page.next.is_none() {
            break;
        }
        page = queue(store, &QueueFilter::default(), &page, 2).await;
    }
    assert_eq!(listed, ["large", "c", "d", "b", "a"]);
    for (state, expected) in
        [(QueueState::Waiting, &["c", "d"][..]), (QueueState::PutOff, &["a"]), (QueueState::Parked, &["b"])]
    {
        let filter = QueueFilter { state: Some(state), ..QueueFilter::default() };
        assert_eq!(names(&queue(store, &filter, &begin, 10).await), expected, "{state:?}");
    }
    let searched = QueueFilter { search: Some("c".into()), ..QueueFilter::default() };
    assert_eq!(names(&queue(store, &searched, &begin, 10).await), ["c"]);
    let among = QueueFilter { among: Some(vec![DirectoryName::new("maps")]), ..QueueFilter::default() };
    assert_eq!(queue(store, &among, &begin, 10).await, QueuePage::default());
    let elsewhere = QueueFilter { directory: Some(DirectoryName::new("maps")), ..QueueFilter::default() };
    assert_eq!(queue(store, &elsewhere, &begin, 10).await, QueuePage::default());
    let some = whole.entries[1..3].iter().map(|entry| entry.version).collect();
    let chosen = QueueFilter { versions: Some(some), ..QueueFilter::default() };
    assert_eq!(names(&queue(store, &chosen, &begin, 10).await), ["c", "d"]);
}

pub(in crate::ledger) async fn what_was_put_off_is_counted_and_the_next_to_be_tried_is_named(
    store: &dyn Store,
    hands: &Hands,
) {
    for name in ["a", "b", "c"] {
        admit(store, file(name, "one", 1), ["tern"]).await;
    }
    let all = due(store, "tern").await;
    assert_eq!((summary(store).await.tallies[0].postponed, summary(store).await.postponed.len()), (0, 0));
    store.put_off(all[0].id, "late", hands.now() + 90, false).await.unwrap();
    store.put_off(all[1].id, "full", hands.now() + 60, false).await.unwrap();
    store.put_off(all[2].id, "closed", hands.now() + 30, true).await.unwrap();
    let now = summary(store).await;
    assert_eq!((now.tallies[0].postponed, now.tallies[0].parked), (2, 1));
    let [first] = &now.postponed[..] else { panic!("{:?}", now.postponed) };
    assert_eq!((first.path.to_string(), first.reason.as_str(), first.due_at), ("b".into(), "full", hands.now() + 60));
    store.retry(&[all[1].id]).await.unwrap();
    store.acknowledge(all[0].id, Verified::ByVessel).await.unwrap();
    let now = summary(store).await;
    assert_eq!((now.tallies[0].postponed, now.postponed.len()), (0, 0));
}

pub(in crate::ledger) async fn why_a_vessel_is_away_is_kept_until_it_is_back(store: &dyn Store, hands: &Hands) {
    let away = |summary: Summary| summary.notes[0].away.clone();
    store.away(&vessel("tern"), Some("no route")).await.unwrap();
    hands.forward(5);
    store.away(&vessel("tern"), Some("login refused")).await.unwrap();
    assert_eq!(away(summary(store).await), Some((START, "login refused".to_owned())));
    store.away(&vessel("tern"), None).await.unwrap();
    assert_eq!(away(summary(store).await), None);
}

pub(in crate::ledger) async fn receipts_come_in_the_order_of_the_acknowledgements(store: &dyn Store, hands: &Hands) {
    for name in ["a", "b", "c", "d"] {
        admit(store, file(name, name, 1), ["tern"]).await;
    }
    let all = due(store, "tern").await;
    for (n, wait) in [(2, 1), (1, 1), (3, 0)] {
        hands.forward(wait);
        store.acknowledge(all[n].id, Verified::ByReadBack).await.unwrap();
    }
    let first = receipts_after(store, (0, DeliveryId(0)), 2).await;
    let rest = receipts_after(store, (first[1].acknowledged_at, first[1].delivery), 2).await;
    let names: Vec<_> = first.iter().chain(&rest).map(|receipt| receipt.path.to_string()).collect();
    assert_eq!(names, ["c", "b", "d"]);
    assert_eq!((first[0].digest, first[0].size), (Some(Digest::of(b"c")), 1));
    assert_eq!((first[0].acknowledged_at, first[0].verified.as_str()), (START + 1, "read back"));
    let last = store.reports().last_receipts(2).await.unwrap();
    assert_eq!(last.iter().map(|receipt| receipt.path.to_string()).collect::<Vec<_>>(), ["d", "b"]);
}

pub(in crate::ledger) async fn a_history_lists_all_versions_and_deliveries(store: &dyn Store, hands: &Hands) {
    admit(store, file("a", "1", 1), ["tern", "gull"]).await;
    deliver(store, "tern").await;
    hands.forward(5);
    admit(store, file("a", "2", 2), ["tern"]).await;
    store.put_off(only_due(store, "tern").await.id, "no space", hands.now() + 9, true).await.unwrap();
    let history = store.reports().history(&docs(), &path("a")).await.unwrap();
    assert_eq!(history.iter().map(|one| one.admitted_at).collect::<Vec<_>>(), [START, START + 5]);
    assert_eq!(history[0].ended, Some((START + 5, Ending::Superseded)));
    assert_eq!((history[1].ended, history[1].complete, history[1].forgotten_at), (None, false, None));
    let states =
        |n: usize| history[n].deliveries.iter().map(|one| (one.vessel.as_str(), one.state)).collect::<Vec<_>>();
    assert_eq!(states(0), [("gull", DeliveryState::Superseded), ("tern", DeliveryState::Acknowledged)]);
    assert_eq!(states(1), [("tern", DeliveryState::Pending)]);
    assert_eq!(history[0].deliveries[1].acknowledged, Some((START, "hashed on the vessel".to_owned())));
    let parked = &history[1].deliveries[0];
    assert_eq!((parked.reason.as_deref(), parked.parked, parked.due_at), (Some("no space"), true, hands.now() + 9));
    assert!(store.reports().history(&docs(), &path("b")).await.unwrap().is_empty());
}
