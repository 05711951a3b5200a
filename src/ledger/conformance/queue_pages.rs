//! Listings of the queue with every kind of filter, in pages of every size.

use super::*;
use crate::ledger::{
    LanePlace, QueueCursor, QueueFilter, QueueLane, QueuePage, QueuePosition, QueueSettings, QueueStage, QueueState,
    Queued,
};
use crate::records::DeliveryId;
use crate::settings::Order;

fn name(name: &str) -> DirectoryName {
    DirectoryName::new(name)
}

/// Admits small and large files to directories with their own queues (of all orders but `smallest`) and to directories
/// that use the shared queue, and lets some deliveries fail. The only file of the directory `rare` is admitted last,
/// and the directory `none` has no files.
async fn fill(store: &dyn Store, hands: &Hands) {
    for (directory, order) in [("docs", Order::Name), ("maps", Order::Oldest), ("old", Order::Newest)] {
        store.set_queue(&name(directory), Some(QueueSettings { order, expire: None })).await.unwrap();
        store.reconcile(&name(directory), &vessels(["tern"])).await.unwrap();
    }
    for number in 0_u64..48 {
        let directory = name(["docs", "maps", "news", "old", "docs", "news"][number as usize % 6]);
        let what = if number % 11 == 0 { "odd" } else { "file" };
        let content = "x".repeat(if number % 5 == 0 { 150 } else { 10 });
        let mut file = file(format!("{what} {}", number * 29 % 48), &content, number);
        file.entry.stamp.mtime = i64::try_from(number * 7 % 48).unwrap();
        store.admit(&directory, &[file], &vessels(["tern", "gull"])).await.unwrap();
        // Some deliveries become due at the same time.
        hands.forward(i64::from(number % 3 != 0));
    }
    store.admit(&name("rare"), &[file("the last", "1", 99)], &vessels(["tern"])).await.unwrap();
    let all = listed(store, &QueueFilter::default(), 1000).await;
    for (number, queued) in all.iter().enumerate() {
        let next = hands.now() + [40, 20, 20, 60][number % 4];
        match number % 7 {
            _ if queued.directory == name("rare") => {}
            1 | 4 => store.put_off(queued.position.delivery, "full", next, false).await.unwrap(),
            5 => store.put_off(queued.position.delivery, "closed", next, true).await.unwrap(),
            _ => {}
        }
    }
}

/// Returns two stages: one with two lanes that take turns, and one for deliveries that are not due yet. No stage names
/// the queue `old`.
fn stages() -> Vec<QueueStage> {
    let lane = |shared, queues: &[&str], ranked| QueueLane {
        shared,
        queues: queues.iter().map(|queue| name(queue)).collect(),
        ranked,
    };
    let now = START + 32;
    vec![
        QueueStage {
            lanes: vec![lane(false, &["docs"], true), lane(true, &["maps"], false)],
            due_after: i64::MIN,
            due_until: now,
        },
        QueueStage { lanes: vec![lane(true, &["docs", "maps"], false)], due_after: now, due_until: i64::MAX },
    ]
}

async fn page(store: &dyn Store, filter: &QueueFilter, after: Option<&QueueCursor>, limit: u32) -> QueuePage {
    store.reports().queue(&vessel("tern"), &stages(), filter, after, limit).await.unwrap()
}

async fn listed(store: &dyn Store, filter: &QueueFilter, limit: u32) -> Vec<Queued> {
    let (mut listed, mut after) = (Vec::new(), None);
    loop {
        let page = page(store, filter, after.as_ref(), limit).await;
        assert!(page.entries.len() <= limit as usize);
        assert!(page.next.is_none() || page.next != after, "{filter:?}: each page gets further");
        listed.extend(page.entries);
        after = page.next;
        if after.is_none() {
            return listed;
        }
    }
}

pub(in crate::ledger) async fn a_filter_changes_neither_the_order_of_the_queue_nor_what_its_pages_hold(
    store: &dyn Store,
    hands: &Hands,
) {
    fill(store, hands).await;
    let whole = listed(store, &QueueFilter::default(), 1000).await;
    assert_eq!(whole.len(), 49);
    let filter = QueueFilter::default;
    let among = |names: &[&str]| Some(names.iter().map(|one| name(one)).collect::<Vec<_>>());
    let versions = whole.iter().step_by(5).map(|queued| queued.version).collect();
    let filters = [
        filter(),
        QueueFilter { directory: Some(name("docs")), ..filter() },
        QueueFilter { directory: Some(name("maps")), ..filter() },
        QueueFilter { directory: Some(name("news")), ..filter() },
        QueueFilter { directory: Some(name("old")), ..filter() },
        QueueFilter { directory: Some(name("rare")), ..filter() },
        QueueFilter { directory: Some(name("none")), ..filter() },
        QueueFilter { among: among(&["docs", "maps"]), ..filter() },
        QueueFilter { among: among(&["maps", "rare"]), ..filter() },
        QueueFilter { among: among(&["news", "old", "none"]), ..filter() },
        QueueFilter { among: among(&[]), ..filter() },
        QueueFilter { among: among(&["docs", "news"]), directory: Some(name("news")), ..filter() },
        QueueFilter { search: Some("odd".into()), ..filter() },
        QueueFilter { search: Some("the last".into()), ..filter() },
        QueueFilter { search: Some("nowhere".into()), ..filter() },
        QueueFilter { search: Some("2".into()), directory: Some(name("docs")), ..filter() },
        QueueFilter { state: Some(QueueState::Waiting), ..filter() },
        QueueFilter { state: Some(QueueState::Waiting), search: Some("odd".into()), ..filter() },
        QueueFilter { state: Some(QueueState::PutOff), ..filter() },
        QueueFilter { state: Some(QueueState::PutOff), directory: Some(name("docs")), ..filter() },
        QueueFilter { state: Some(QueueState::Parked), ..filter() },
        QueueFilter { state: Some(QueueState::Parked), search: Some("file 1".into()), ..filter() },
        QueueFilter { versions: Some(versions), ..filter() },
    ];
    for filter in &filters {
        let is_wanted = |queued: &&Queued| {
            filter.directory.as_ref().is_none_or(|name| queued.directory == *name)
                && filter.among.as_ref().is_none_or(|names| names.contains(&queued.directory))
                && filter.search.as_ref().is_none_or(|text| queued.path.to_string().contains(text))
                && filter.state.is_none_or(|state| queued.state() == state)
                && filter.versions.as_ref().is_none_or(|versions| versions.contains(&queued.version))
        };
        let mut expected: Vec<Queued> = whole.iter().filter(is_wanted).cloned().collect();
        if filter.versions.is_some() || matches!(filter.state, Some(QueueState::PutOff | QueueState::Parked)) {
            expected.sort_by_key(|queued| queued.position);
        }
        for limit in [1, 2, 3, 7, 1000] {
            assert_eq!(listed(store, filter, limit).await, expected, "{filter:?}, {limit} at a time");
        }
    }
}

/// The page after an answer that reached its time limit may begin at a position between two deliveries.
pub(in crate::ledger) async fn a_list_goes_on_between_deliveries(store: &dyn Store, hands: &Hands) {
    fill(store, hands).await;
    let filter = QueueFilter { directory: Some(name("rare")), ..QueueFilter::default() };
    let all = listed(store, &QueueFilter { directory: Some(name("news")), ..QueueFilter::default() }, 1000).await;
    for due_at in START - 1..START + 32 {
        let place = LanePlace::ByTime(QueuePosition { due_at, delivery: DeliveryId(i64::MAX) });
        let after = QueueCursor { stage: 0, turn: 1, lanes: vec![None, Some(place)] };
        assert_eq!(page(store, &filter, Some(&after), 5).await.entries.len(), 1);
        let news = QueueFilter { directory: Some(name("news")), ..QueueFilter::default() };
        let rest = page(store, &news, Some(&after), 100).await.entries;
        let expected: Vec<Queued> = all.iter().filter(|queued| queued.position.due_at > due_at).cloned().collect();
        assert_eq!(rest, expected, "after {due_at}");
    }
}
