//! Cases of moves and copies: entries that had another path before, deliveries that wait for a move, and files with the
//! same content.

use super::*;
use crate::records::{Entry, Origin};

const LARGE: u64 = 1 << 20;

/// Returns a file of at least 1 MiB.
fn large(at: &str, content: &str, inode: u64) -> NewVersion {
    let mut large = file(at, content, inode);
    large.entry.stamp.size = LARGE;
    large
}

fn moved(version: NewVersion, origin: &Version) -> NewVersion {
    NewVersion { origin: Some(origin.id), ..version }
}

async fn version_at(store: &dyn Store, at: &str) -> Version {
    store.versions_in(&docs(), &path(at), 1).await.unwrap().remove(0)
}

pub(in crate::ledger) async fn what_had_another_path_is_found_by_its_stamp(store: &dyn Store, _: &Hands) {
    admit(store, file("a", "one", 1), ["tern"]).await;
    admit(store, file("b", "two", 2), ["tern"]).await;
    let wanted = [file("b", "two", 2), file("c", "one", 1), file("d", "new", 3)];
    let found = store.same_stamp(&docs(), &wanted).await.unwrap();
    assert_eq!(
        found.iter().map(|one| (one.at, one.path.to_string(), one.is_current)).collect::<Vec<_>>(),
        [(1, "a".to_owned(), true)]
    );
    admit(store, file("a", "other", 9), ["tern"]).await;
    let found = store.same_stamp(&docs(), &wanted).await.unwrap();
    assert_eq!((found.len(), found[0].is_current), (1, false));
    let elsewhere = store.same_stamp(&DirectoryName::new("other"), &wanted).await.unwrap();
    assert!(elsewhere.is_empty());
}

pub(in crate::ledger) async fn what_was_moved_and_changed_is_found_by_its_inode(store: &dyn Store, _: &Hands) {
    let named = async |wanted: &[NewVersion]| -> Vec<(usize, String)> {
        let found = store.same_inode(&docs(), wanted).await.unwrap();
        found.into_iter().map(|(at, version)| (at, version.path.to_string())).collect()
    };
    let wanted = [large("c", "other", 9), large("log.1", "one and more", 1)];
    assert_eq!(named(&wanted).await, []);
    admit(store, large("log", "one", 1), ["tern"]).await;
    admit(store, file("small", "two", 9), ["tern"]).await;
    assert_eq!(named(&wanted).await, [(1, "log".to_owned())]);
    assert_eq!(named(&[large("log", "one and more", 1)]).await, [], "it was changed in place");
    admit(store, large("log", "new", 5), ["tern"]).await;
    assert_eq!(named(&wanted).await, [(1, "log".to_owned())], "another file has the path by now");
    admit(store, large("log.1", "one and more", 1), ["tern"]).await;
    assert_eq!(named(&[large("log.1", "one and still more", 1)]).await, []);
}

pub(in crate::ledger) async fn a_path_is_moved_away_only_while_it_holds_what_moved(store: &dyn Store, _: &Hands) {
    admit(store, file("a", "one", 1), ["tern"]).await;
    let first = version_at(store, "a").await;
    admit(store, file("a", "two", 2), ["tern"]).await;
    admit(store, NewVersion::moved_away(path("a"), first.id), ["tern"]).await;
    assert_eq!(version_at(store, "a").await.digest, Some(Digest::of(b"two")), "it has another version since");
    let second = version_at(store, "a").await;
    admit(store, NewVersion::moved_away(path("a"), second.id), ["tern"]).await;
    assert!(store.versions_in(&docs(), &path("a"), 1).await.unwrap().is_empty());
}

pub(in crate::ledger) async fn what_deletes_or_replaces_a_source_waits_for_the_move(store: &dyn Store, hands: &Hands) {
    admit(store, file("a", "one", 1), ["tern"]).await;
    deliver(store, "tern").await;
    let origin = version_at(store, "a").await;
    let batch = [moved(file("b", "one", 1), &origin), NewVersion::moved_away(path("a"), origin.id)];
    store.admit(&docs(), &batch, &vessels(["tern", "gull"])).await.unwrap();
    let delivery = only_due(store, "tern").await;
    assert_eq!(delivery.version.path, path("b"));
    assert_eq!(delivery.origin, Some(Origin { path: path("a"), is_free: true }));
    let there = store.origin_there(&vessel("tern"), &delivery).await.unwrap().unwrap();
    assert!(there.is_free && there.held.version == origin);
    let other = only_due(store, "gull").await;
    assert_eq!(store.origin_there(&vessel("gull"), &other).await.unwrap(), None, "it never had the file");
    // A new file at the earlier path also waits for the move.
    admit(store, file("a", "new", 5), ["tern"]).await;
    assert_eq!(due_paths(store, "tern").await, ["b"]);
    store.put_off(delivery.id, "it failed", hands.now(), false).await.unwrap();
    assert_eq!(due_paths(store, "tern").await, ["b", "a"], "nothing waits for what failed");
    deliver(store, "tern").await;
    assert!(due(store, "tern").await.is_empty());
}

pub(in crate::ledger) async fn files_that_swap_their_names_do_not_wait_for_each_other(store: &dyn Store, _: &Hands) {
    store.admit(&docs(), &[large("a", "one", 1), large("b", "two", 2)], &vessels(["tern"])).await.unwrap();
    deliver(store, "tern").await;
    let (a, b) = (version_at(store, "a").await, version_at(store, "b").await);
    let swapped = [moved(large("a", "two", 2), &b), moved(large("b", "one", 1), &a)];
    store.admit(&docs(), &swapped, &vessels(["tern"])).await.unwrap();
    let due = due(store, "tern").await;
    assert_eq!(paths_of(&due), ["a", "b"]);
    assert!(due.iter().all(|delivery| !delivery.origin.as_ref().unwrap().is_free));
    assert_eq!(store.wanting(&vessel("tern"), due[0].version.id).await.unwrap(), [due[1].id]);
    assert_eq!(store.wanting(&vessel("tern"), due[1].version.id).await.unwrap(), [due[0].id]);
    assert_eq!(store.wanting(&vessel("gull"), due[1].version.id).await.unwrap(), []);
}

pub(in crate::ledger) async fn a_moved_tree_is_delivered_first_and_acknowledged_whole(store: &dyn Store, _: &Hands) {
    let directory = |at: &str, inode| {
        let stamp = FileStamp { size: 0, mtime: 0, mtime_nanos: 0, inode };
        let traits = Traits { kind: VersionKind::Directory, stamp, mode: 0o755, owner: None };
        NewVersion::without_content(path(at), traits, Vec::new())
    };
    let batch = [directory("d", 1), directory("d/e", 2), file("d/e/f", "one", 3), file("d-g", "two", 4)];
    store.admit(&docs(), &batch, &vessels(["tern"])).await.unwrap();
    deliver(store, "tern").await;
    let before = store.versions_in(&docs(), &path("d"), 10).await.unwrap();
    assert_eq!(before.iter().map(|v| v.path.to_string()).collect::<Vec<_>>(), ["d", "d/e", "d/e/f"]);
    let with = |new: NewVersion, at: usize, above: &str| NewVersion {
        moved_with: Some(path(above)),
        ..moved(new, &before[at])
    };
    let mut batch = vec![moved(directory("n", 1), &before[0])];
    batch.push(with(directory("n/e", 2), 1, "n"));
    batch.push(with(file("n/e/f", "one", 3), 2, "n/e"));
    batch.extend(before.iter().rev().map(|v| NewVersion::moved_away(v.path.clone(), v.id)));
    store.admit(&docs(), &batch, &vessels(["tern", "gull"])).await.unwrap();
    let delivery = only_due(store, "tern").await;
    assert_eq!(delivery.version.path, path("n"));
    let moved = store.moved_tree(&vessel("tern"), &delivery).await.unwrap();
    assert_eq!(moved.iter().map(|one| one.path.to_string()).collect::<Vec<_>>(), ["n", "n/e", "n/e/f"]);
    assert!(moved.iter().all(|one| one.gone.is_some()));
    assert_eq!(moved[2].held.version, before[2]);
    let all: Vec<_> = moved.iter().flat_map(|one| [Some(one.delivery), one.gone]).flatten().collect();
    store.acknowledge_moved(&all).await.unwrap();
    assert!(due(store, "tern").await.is_empty());
    let receipts = store.reports().last_receipts(10).await.unwrap();
    let receipt = receipts.iter().find(|receipt| receipt.path == path("n/e/f")).unwrap();
    assert_eq!((receipt.verified.as_str(), receipt.made_from.as_deref()), ("moved on the vessel", Some("docs/d/e/f")));
    assert_eq!(receipt.saved_bytes, Some(receipt.size));
    // A vessel that never had the tree receives it from the top down.
    let mut order = Vec::new();
    while let [first, ..] = &due(store, "gull").await[..] {
        order.push(first.version.path.to_string());
        store.acknowledge(first.id, Verified::ByVessel).await.unwrap();
    }
    assert_eq!(order[..3], ["n", "n/e", "n/e/f"]);
}

pub(in crate::ledger) async fn copies_are_found_by_digest_or_by_size(store: &dyn Store, _: &Hands) {
    admit(store, large("a", "one", 1), ["tern", "gull"]).await;
    admit(store, file("small", "one", 2), ["tern"]).await;
    let other = DirectoryName::new("other");
    store.admit(&other, &[large("x", "one", 3)], &vessels(["tern"])).await.unwrap();
    let wanted = due(store, "tern").await.into_iter().find(|one| one.version.directory == other).unwrap().version;
    assert!(store.copies_of(&vessel("tern"), &wanted).await.unwrap().is_empty(), "nobody has it yet");
    deliver(store, "tern").await;
    let paths = |found: Vec<crate::records::HeldVersion>| -> Vec<String> {
        found.iter().map(|held| held.version.path.to_string()).collect()
    };
    assert_eq!(paths(store.copies_of(&vessel("tern"), &wanted).await.unwrap()), ["a"]);
    assert!(store.copies_of(&vessel("gull"), &wanted).await.unwrap().is_empty());
    let with = |digest| Version { entry: Entry { digest, ..wanted.entry.clone() }, ..wanted.clone() };
    let unread = with(None);
    assert_eq!(paths(store.copies_of(&vessel("tern"), &unread).await.unwrap()), ["a"]);
    let different = with(Some(Digest::of(b"two")));
    assert!(store.copies_of(&vessel("tern"), &different).await.unwrap().is_empty());
    admit(store, large("a", "two", 4), ["tern"]).await;
    assert_eq!(paths(store.copies_of(&vessel("tern"), &wanted).await.unwrap()), ["a"], "still there");
    deliver(store, "tern").await;
    assert!(store.copies_of(&vessel("tern"), &wanted).await.unwrap().is_empty(), "it was replaced");
    assert_eq!(paths(store.copies_of(&vessel("tern"), &different).await.unwrap()), ["a"]);
}

pub(in crate::ledger) async fn what_a_failed_attempt_copied_is_not_in_the_receipt(store: &dyn Store, _: &Hands) {
    admit(store, file("a", "one", 1), ["tern"]).await;
    let due = only_due(store, "tern").await;
    let attempt = async |copies: bool| {
        assert!(store.enter(due.id, DeliveryState::Uploading).await.unwrap());
        if copies {
            store.made_from(due.id, b"docs/z", 3).await.unwrap();
        }
        assert!(store.enter(due.id, DeliveryState::Publishing).await.unwrap());
    };
    attempt(true).await;
    attempt(false).await;
    store.acknowledge(due.id, Verified::ByVessel).await.unwrap();
    let receipt = &store.reports().last_receipts(1).await.unwrap()[0];
    assert_eq!((receipt.made_from.as_deref(), receipt.saved_bytes), (None, None));
    store.resend(&docs(), Some(due.version.id), &vessels(["tern"])).await.unwrap();
    attempt(true).await;
    store.acknowledge(due.id, Verified::ByVessel).await.unwrap();
    let receipt = &store.reports().last_receipts(1).await.unwrap()[0];
    assert_eq!((receipt.made_from.as_deref(), receipt.saved_bytes), (Some("docs/z"), Some(3)));
}
