//! Cases of the life cycle of a version: admitted, complete, reconciled, retired, vanished.

use super::*;

// Cases of admission.

pub(in crate::ledger) async fn admitting_twice_is_one_version(store: &dyn Store, _: &Hands) {
    admit(store, file("a", "one", 1), ["tern", "gull"]).await;
    let first = only_due(store, "tern").await;
    admit(store, file("a", "one", 1), ["tern", "gull"]).await;
    let second = only_due(store, "tern").await;
    assert_eq!((second.id, &second.version), (first.id, &first.version));
    let current = [CurrentVersion { path: path("a"), traits: traits_of(&file("a", "one", 1)) }];
    assert_eq!(store.current(&docs()).await.unwrap(), current);
    assert_eq!(store.current_at(&docs(), &[path("b"), path("a")]).await.unwrap(), current);
    assert_eq!(store.current_at(&docs(), &[path("b")]).await.unwrap(), []);
    // Admitting an equal version doesn't undo acknowledgements either.
    deliver(store, "tern").await;
    admit(store, file("a", "one", 1), ["tern", "gull"]).await;
    assert!(due(store, "tern").await.is_empty());
}

pub(in crate::ledger) async fn one_file_among_many_that_can_not_be_new_does_not_hide_the_others(
    store: &dyn Store,
    _: &Hands,
) {
    admit(store, file("b", "one", 2), ["tern"]).await;
    let batch = [file("a", "one", 1), file("b", "one", 2), file("c", "one", 3)];
    store.admit(&docs(), &batch, &vessels(["tern"])).await.unwrap();
    assert_eq!(due_paths(store, "tern").await, ["b", "a", "c"]);
    store.admit(&docs(), &[], &vessels(["tern"])).await.unwrap();
    assert_eq!(due(store, "tern").await.len(), 3);
}

pub(in crate::ledger) async fn the_last_of_two_versions_of_a_path_in_one_batch_stays(store: &dyn Store, _: &Hands) {
    let batch = [file("a", "one", 1), file("a", "two", 1)];
    store.admit(&docs(), &batch, &vessels(["tern"])).await.unwrap();
    assert_eq!(only_due(store, "tern").await.version.digest, Some(Digest::of(b"two")));
}

pub(in crate::ledger) async fn a_changed_file_supersedes_what_is_open_and_keeps_what_is_acknowledged(
    store: &dyn Store,
    _: &Hands,
) {
    admit(store, file("a", "one", 1), ["tern", "gull"]).await;
    let open = only_due(store, "gull").await;
    deliver(store, "tern").await;
    admit(store, file("a", "two!", 1), ["tern", "gull"]).await;

    assert!(!store.is_open(open.id).await.unwrap());
    for name in ["tern", "gull"] {
        assert_eq!(only_due(store, name).await.version.digest, Some(Digest::of(b"two!")));
    }
    assert_eq!(current_paths(store).await, ["a"]);
    assert_eq!(backlog_of(store, "tern").await.unwrap().acknowledged, 1);
    // The last acknowledgement of the superseded version comes too late to make the version complete.
    assert!(!store.acknowledge(open.id, Verified::ByVessel).await.unwrap());
    assert!(retirable(store).await.is_empty());
}

pub(in crate::ledger) async fn a_file_changed_back_is_a_new_version(store: &dyn Store, _: &Hands) {
    let mut seen = Vec::new();
    for (content, inode) in [("A", 1), ("B", 2), ("A", 3), ("A", 1), ("A", 4)] {
        admit(store, file("a", content, inode), ["tern"]).await;
        let delivery = only_due(store, "tern").await;
        assert_eq!(delivery.version.digest, Some(Digest::of(content.as_bytes())));
        assert_eq!(delivery.version.stamp.inode, inode);
        assert!(!seen.contains(&delivery.version.id));
        seen.push(delivery.version.id);
    }
    deliver(store, "tern").await;
    assert_eq!(retirable(store).await.len(), 1);
}

pub(in crate::ledger) async fn directories_do_not_meet(store: &dyn Store, _: &Hands) {
    let other = DirectoryName::new("other");
    admit(store, file("a", "one", 1), ["tern"]).await;
    store.admit(&other, &[file("a", "two", 1)], &vessels(["tern"])).await.unwrap();
    assert_eq!(due(store, "tern").await.len(), 2);
    assert_eq!(store.vanished(&other, &[path("a")]).await.unwrap().len(), 1);
    let left = only_due(store, "tern").await;
    assert_eq!((&left.version.directory, left.version.digest), (&docs(), Some(Digest::of(b"one"))));
    assert!(store.current(&other).await.unwrap().is_empty());
}

// Cases of completion and retirement.

pub(in crate::ledger) async fn only_what_every_vessel_acknowledged_is_retirable(store: &dyn Store, _: &Hands) {
    admit(store, file("a", "one", 1), ["tern", "gull", "auk"]).await;
    for name in ["tern", "gull", "auk"] {
        assert!(retirable(store).await.is_empty());
        deliver(store, name).await;
    }
    assert_eq!(retirable(store).await[0].path, path("a"));
    assert_eq!(current_paths(store).await, ["a"]);
}

pub(in crate::ledger) async fn retirable_versions_come_in_batches(store: &dyn Store, _: &Hands) {
    let batch: Vec<_> = (0..5).map(|n| file(format!("{n}"), "one", n)).collect();
    store.admit(&docs(), &batch, &vessels(["tern"])).await.unwrap();
    deliver(store, "tern").await;
    let (mut after, mut paths) = (VersionId(0), Vec::new());
    loop {
        let versions = store.retirable(&docs(), after, 2).await.unwrap();
        assert!(versions.len() <= 2);
        let Some(last) = versions.last() else { break };
        after = last.id;
        paths.extend(versions.iter().map(|version| version.path.to_string()));
    }
    assert_eq!(paths, ["0", "1", "2", "3", "4"]);
}

pub(in crate::ledger) async fn retiring_ends_a_version_once(store: &dyn Store, _: &Hands) {
    admit(store, file("a", "one", 1), ["tern"]).await;
    deliver(store, "tern").await;
    let version = retirable(store).await.remove(0);
    store.retired(&[version.id]).await.unwrap();
    assert!(current_paths(store).await.is_empty());
    assert!(retirable(store).await.is_empty());
    // When the same file appears again, it is delivered again, even if the old version is retired once more.
    admit(store, file("a", "one", 1), ["tern"]).await;
    store.retired(&[version.id]).await.unwrap();
    assert_eq!(current_paths(store).await, ["a"]);
    assert!(only_due(store, "tern").await.version.id > version.id);
}

pub(in crate::ledger) async fn what_is_not_complete_any_more_is_not_retired(store: &dyn Store, _: &Hands) {
    admit(store, file("a", "one", 1), ["tern"]).await;
    deliver(store, "tern").await;
    let version = retirable(store).await.remove(0);
    store.reconcile(&docs(), &vessels(["tern", "gull"])).await.unwrap();
    store.retired(&[version.id]).await.unwrap();
    assert_eq!(due_paths(store, "gull").await, ["a"]);
    // The source was moved anyway: the loss is reported, and no delivery stays open for ever.
    assert_eq!(store.vanished(&docs(), &[path("a")]).await.unwrap().len(), 1);
    assert!(due(store, "gull").await.is_empty());
}

pub(in crate::ledger) async fn a_version_that_nobody_takes_is_never_complete(store: &dyn Store, _: &Hands) {
    admit(store, file("a", "one", 1), []).await;
    assert!(retirable(store).await.is_empty());
    store.reconcile(&docs(), &[]).await.unwrap();
    assert!(retirable(store).await.is_empty());
    store.reconcile(&docs(), &vessels(["tern"])).await.unwrap();
    assert_eq!(due_paths(store, "tern").await, ["a"]);
}

// Cases of reconciliation.

pub(in crate::ledger) async fn an_added_vessel_makes_a_version_incomplete_again(store: &dyn Store, _: &Hands) {
    admit(store, file("a", "one", 1), ["tern"]).await;
    deliver(store, "tern").await;
    assert_eq!(retirable(store).await.len(), 1);
    store.reconcile(&docs(), &vessels(["tern", "gull"])).await.unwrap();
    assert!(retirable(store).await.is_empty());
    assert!(due(store, "tern").await.is_empty());
    deliver(store, "gull").await;
    assert_eq!(retirable(store).await.len(), 1);
}

pub(in crate::ledger) async fn a_removed_vessel_completes_what_another_acknowledged(store: &dyn Store, _: &Hands) {
    admit(store, file("a", "one", 1), ["tern", "gull", "auk"]).await;
    deliver(store, "tern").await;
    store.reconcile(&docs(), &vessels(["tern", "auk"])).await.unwrap();
    assert!(due(store, "gull").await.is_empty());
    assert!(retirable(store).await.is_empty());
    store.reconcile(&docs(), &vessels(["tern"])).await.unwrap();
    assert_eq!(retirable(store).await.len(), 1);
}

pub(in crate::ledger) async fn a_removed_vessel_retires_nothing_that_nobody_acknowledged(store: &dyn Store, _: &Hands) {
    admit(store, file("a", "one", 1), ["tern", "gull"]).await;
    store.reconcile(&docs(), &[]).await.unwrap();
    assert!(due(store, "tern").await.is_empty());
    assert!(retirable(store).await.is_empty());
    assert_eq!(current_paths(store).await, ["a"]);
}

pub(in crate::ledger) async fn a_vessel_that_returns_is_served_at_once(store: &dyn Store, hands: &Hands) {
    admit(store, file("a", "one", 1), ["tern", "gull"]).await;
    deliver(store, "tern").await;
    let delivery = only_due(store, "gull").await;
    assert!(store.enter(delivery.id, DeliveryState::Uploading).await.unwrap());
    store.put_off(delivery.id, "disk full", hands.now() + 3_600_000, true).await.unwrap();
    store.reconcile(&docs(), &vessels(["tern"])).await.unwrap();
    assert_eq!(store.parked(10).await.unwrap(), []);
    hands.forward(1000);
    store.reconcile(&docs(), &vessels(["tern", "gull"])).await.unwrap();
    assert!(retirable(store).await.is_empty());
    let again = only_due(store, "gull").await;
    // The delivery resumes with the bytes sent before.
    assert_eq!((again.state, again.failures), (DeliveryState::Uploading, 0));
    // The vessel `tern` still has the files that it acknowledged before, so they are not due again.
    store.reconcile(&docs(), &vessels(["gull"])).await.unwrap();
    store.reconcile(&docs(), &vessels(["tern", "gull"])).await.unwrap();
    assert!(due(store, "tern").await.is_empty());
}

pub(in crate::ledger) async fn reconciling_takes_any_vessel_name_and_leaves_other_directories(
    store: &dyn Store,
    _: &Hands,
) {
    let odd = ["quote\"d", "back\\slash", "mö we", "[x],\"y\"", "'; --"];
    let other = DirectoryName::new("other");
    admit(store, file("a", "one", 1), ["gone"]).await;
    store.admit(&other, &[file("a", "one", 1)], &vessels(["gone"])).await.unwrap();
    store.reconcile(&docs(), &vessels(odd)).await.unwrap();
    store.reconcile(&docs(), &vessels(odd)).await.unwrap();
    for name in odd {
        assert_eq!(due_paths(store, name).await, ["a"], "{name}");
    }
    assert_eq!(only_due(store, "gone").await.version.directory, other);
}

pub(in crate::ledger) async fn reconciling_twice_changes_nothing(store: &dyn Store, hands: &Hands) {
    admit(store, file("a", "one", 1), ["tern"]).await;
    let delivery = only_due(store, "tern").await;
    store.enter(delivery.id, DeliveryState::Verifying).await.unwrap();
    store.put_off(delivery.id, "later", hands.now() + 500, false).await.unwrap();
    store.reconcile(&docs(), &vessels(["tern"])).await.unwrap();
    store.reconcile(&docs(), &vessels(["tern"])).await.unwrap();
    assert!(due(store, "tern").await.is_empty());
    hands.forward(500);
    let same = only_due(store, "tern").await;
    assert_eq!((same.id, same.state, same.failures), (delivery.id, DeliveryState::Verifying, 1));
}

pub(in crate::ledger) async fn what_was_admitted_for_other_vessels_is_fitted_again(store: &dyn Store, _: &Hands) {
    store.reconcile(&docs(), &vessels(["tern", "gull"])).await.unwrap();
    admit(store, file("a", "one", 1), ["tern"]).await;
    admit(store, file("b", "one", 2), ["gull", "auk"]).await;
    store.reconcile(&docs(), &vessels(["gull", "tern"])).await.unwrap();
    for name in ["tern", "gull"] {
        let mut due = due_paths(store, name).await;
        due.sort();
        assert_eq!(due, ["a", "b"], "{name}");
    }
    assert_eq!(due_paths(store, "auk").await, [""; 0]);
}

pub(in crate::ledger) async fn current_versions_are_read_part_by_part(store: &dyn Store, _: &Hands) {
    let names = ["d/b", "a", "d-c", "d", "d/a", "\u{e9}"];
    let files: Vec<_> = (1..).zip(names).map(|(inode, name)| file(name, "one", inode)).collect();
    store.admit(&docs(), &files, &vessels(["tern"])).await.unwrap();
    store.admit(&DirectoryName::new("other"), &[file("b", "one", 9)], &vessels(["tern"])).await.unwrap();
    let (mut read, mut after) = (Vec::new(), None);
    loop {
        let part = store.current_after(&docs(), after.as_ref(), 2).await.unwrap();
        after = part.last().map(|version| version.path.clone());
        read.extend(part);
        if after.is_none() {
            break;
        }
    }
    assert_eq!(read, store.current(&docs()).await.unwrap());
    assert_eq!(read.len(), names.len());
}

// Cases of vanished sources.

pub(in crate::ledger) async fn a_vanished_source_drops_what_is_open_and_is_counted(store: &dyn Store, _: &Hands) {
    let batch = [file("a", "one", 1), file("b", "one", 2), file("c", "one", 3)];
    store.admit(&docs(), &batch, &vessels(["tern", "gull"])).await.unwrap();
    let gone = [path("a"), path("b"), path("never there")];
    assert_eq!(store.vanished(&docs(), &gone).await.unwrap().len(), 2);
    assert_eq!(store.vanished(&docs(), &gone).await.unwrap().len(), 0);
    assert_eq!(due_paths(store, "tern").await, ["c"]);
    assert_eq!(current_paths(store).await, ["c"]);
    assert_eq!(backlog_of(store, "gull").await.unwrap().waiting, 1);
}

pub(in crate::ledger) async fn a_vanished_source_that_was_complete_counts_as_retired(store: &dyn Store, _: &Hands) {
    admit(store, file("a", "one", 1), ["tern"]).await;
    deliver(store, "tern").await;
    assert_eq!(store.vanished(&docs(), &[path("a")]).await.unwrap().len(), 0);
    assert!(retirable(store).await.is_empty());
    assert!(current_paths(store).await.is_empty());
}

pub(in crate::ledger) async fn a_path_that_vanished_can_come_back(store: &dyn Store, _: &Hands) {
    admit(store, file("a", "one", 1), ["tern"]).await;
    let old = only_due(store, "tern").await;
    store.vanished(&docs(), &[path("a")]).await.unwrap();
    admit(store, file("a", "one", 1), ["tern"]).await;
    let new = only_due(store, "tern").await;
    assert!(new.version.id > old.version.id);
    assert_eq!(current_paths(store).await, ["a"]);
    assert!(!store.acknowledge(old.id, Verified::ByVessel).await.unwrap());
    assert!(store.acknowledge(new.id, Verified::ByReadBack).await.unwrap());
    assert_eq!(retirable(store).await[0].id, new.version.id);
}

// Cases of mirrors: directories, links and deletions.

fn thing(at: &str, kind: VersionKind, inode: u64) -> NewVersion {
    let stamp = FileStamp { size: 0, mtime: 0, mtime_nanos: 0, inode };
    let target = if kind == VersionKind::Link { b"where \xff it leads".to_vec() } else { Vec::new() };
    NewVersion::without_content(
        path(at),
        Traits { kind, stamp, mode: 0o750, owner: Some((1000, 4_000_000_000)) },
        target,
    )
}

fn gone(at: &str) -> NewVersion {
    NewVersion::without_content(path(at), Traits::GONE, Vec::new())
}

pub(in crate::ledger) async fn directories_and_links_survive_and_never_retire(store: &dyn Store, _: &Hands) {
    let batch = [thing("d", VersionKind::Directory, 1), thing("l", VersionKind::Link, 2)];
    store.admit(&docs(), &batch, &vessels(["tern"])).await.unwrap();
    store.admit(&docs(), &batch, &vessels(["tern"])).await.unwrap();
    let due = due(store, "tern").await;
    assert_eq!(due.iter().map(|one| one.version.kind).collect::<Vec<_>>(), [VersionKind::Directory, VersionKind::Link]);
    assert_eq!((&due[1].version.target, due[1].version.owner), (&batch[1].target, batch[1].owner));
    let known: Vec<_> = store.current(&docs()).await.unwrap().iter().map(|known| known.traits).collect();
    assert_eq!(known, batch.iter().map(traits_of).collect::<Vec<_>>());
    deliver(store, "tern").await;
    assert_eq!(retirable(store).await, []);
    assert_eq!(store.count_current(&docs()).await.unwrap(), 2);
}

pub(in crate::ledger) async fn another_mode_owner_or_kind_is_another_version(store: &dyn Store, _: &Hands) {
    let first = thing("a", VersionKind::Directory, 1);
    let others = [
        Entry { mode: 0o700, ..first.entry.clone() },
        Entry { owner: None, ..first.entry.clone() },
        Entry { owner: Some((1000, 7)), ..first.entry.clone() },
        Entry { kind: VersionKind::Link, ..first.entry.clone() },
    ];
    for other in others {
        admit(store, first.clone(), ["tern"]).await;
        let before = only_due(store, "tern").await.version.id;
        admit(store, other.into(), ["tern"]).await;
        assert!(only_due(store, "tern").await.version.id > before);
    }
}

pub(in crate::ledger) async fn what_is_gone_is_delivered_and_then_no_concern_any_more(store: &dyn Store, _: &Hands) {
    admit(store, gone("never there"), ["tern"]).await;
    assert!(due(store, "tern").await.is_empty());
    admit(store, file("a", "one", 1), ["tern", "gull"]).await;
    deliver(store, "tern").await;
    admit(store, gone("a"), ["tern", "gull"]).await;
    admit(store, gone("a"), ["tern", "gull"]).await;
    assert_eq!(only_due(store, "gull").await.version.kind, VersionKind::Gone);
    assert_eq!(store.current(&docs()).await.unwrap()[0].traits, Traits::GONE);
    deliver(store, "tern").await;
    assert_eq!(store.count_current(&docs()).await.unwrap(), 1);
    deliver(store, "gull").await;
    assert_eq!(store.count_current(&docs()).await.unwrap(), 0);
    admit(store, file("a", "one", 1), ["tern"]).await;
    assert_eq!(only_due(store, "tern").await.version.kind, VersionKind::File);
}

pub(in crate::ledger) async fn what_is_gone_from_all_that_stay_ends_with_the_vessel_that_goes(
    store: &dyn Store,
    _: &Hands,
) {
    admit(store, file("a", "one", 1), ["tern", "gull"]).await;
    admit(store, gone("a"), ["tern", "gull"]).await;
    deliver(store, "tern").await;
    store.reconcile(&docs(), &vessels(["tern"])).await.unwrap();
    assert_eq!(store.count_current(&docs()).await.unwrap(), 0);
}

pub(in crate::ledger) async fn what_is_skipped_goes_to_nobody_and_is_deleted_once_it_is_gone(
    store: &dyn Store,
    _: &Hands,
) {
    let skipped = |at| NewVersion::without_content(path(at), Traits::SKIPPED, Vec::new());
    admit(store, skipped("never there"), ["tern"]).await;
    assert!(store.current(&docs()).await.unwrap().is_empty());
    admit(store, file("a", "one", 1), ["tern", "gull"]).await;
    deliver(store, "tern").await;
    admit(store, skipped("a"), ["tern", "gull"]).await;
    admit(store, skipped("a"), ["tern", "gull"]).await;
    store.reconcile(&docs(), &vessels(["tern", "gull", "auk"])).await.unwrap();
    for vessel in ["tern", "gull", "auk"] {
        assert!(due(store, vessel).await.is_empty());
    }
    assert_eq!(store.current(&docs()).await.unwrap()[0].traits, Traits::SKIPPED);
    assert_eq!((store.count_current(&docs()).await.unwrap(), retirable(store).await), (1, vec![]));
    admit(store, gone("a"), ["tern"]).await;
    let gone = only_due(store, "tern").await;
    let held = store.held_before(gone.version.id, &vessel("tern")).await.unwrap();
    assert_eq!(held.iter().map(|held| held.version.stamp.inode).collect::<Vec<_>>(), [1]);
}

pub(in crate::ledger) async fn what_a_vessel_may_hold_is_told_last_first(store: &dyn Store, _: &Hands) {
    admit(store, file("a", "one", 1), ["tern", "gull"]).await;
    admit(store, file("a", "two", 2), ["tern"]).await;
    admit(store, file("b", "other", 3), ["tern", "gull"]).await;
    admit(store, gone("a"), ["tern", "gull"]).await;
    let [gone] = due(store, "gull")
        .await
        .into_iter()
        .filter(|one| one.version.kind == VersionKind::Gone)
        .collect::<Vec<_>>()
        .try_into()
        .unwrap();
    let held = async |vessel_name| {
        let held = store.held_before(gone.version.id, &vessel(vessel_name)).await.unwrap();
        held.iter().map(|held| held.version.stamp.inode).collect::<Vec<_>>()
    };
    assert_eq!((held("tern").await, held("gull").await, held("auk").await), (vec![2, 1], vec![1], vec![]));
}

pub(in crate::ledger) async fn what_lies_below_is_told_apart_from_what_only_begins_alike(store: &dyn Store, _: &Hands) {
    let names = ["d", "d-", "d/a", "d/b/c", "d/b", "d0", "d/\u{7f}"];
    let batch: Vec<_> = (1..).zip(names).map(|(inode, name)| file(name, "one", inode)).collect();
    store.admit(&docs(), &batch, &vessels(["tern"])).await.unwrap();
    let below = store.current_below(&docs(), &[path("d"), path("d/b"), path("e")]).await.unwrap();
    let below: Vec<_> = below.iter().map(|one| one.path.to_string()).collect();
    assert_eq!(below, ["d/a", "d/b", "d/b/c", "d/\\u{7f}"]);
    let open = async |at| store.is_open_below(&vessel("tern"), &docs(), &path(at)).await.unwrap();
    assert!(open("d").await && open("d/b").await && !open("d/a").await && !open("e").await);
    deliver(store, "tern").await;
    assert!(!open("d").await);
}
