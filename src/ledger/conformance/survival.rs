//! Cases of recorded values, which must be read back unchanged, and of cancelled and concurrent calls, which must not
//! affect other calls.

use super::*;
use crate::records::{DeliveryId, Entry};

pub(in crate::ledger) async fn any_path_survives(store: &dyn Store, hands: &Hands) {
    let mut names: Vec<Vec<u8>> =
        [&b"two\nlines"[..], b"caf\xe9", b"\xff\xfe", b"-rf", b"q'u\"o`te $(x) %_?*", b"a/b/c", b" ", b"A", b"a"]
            .map(<[u8]>::to_vec)
            .to_vec();
    names.push(vec![b'n'; 255]);
    names.push((1..=255).filter(|byte| *byte != b'/').collect());
    let batch: Vec<_> = names.iter().map(|name| file(name, "one", 1)).collect();
    store.admit(&docs(), &batch, &vessels(["tern"])).await.unwrap();
    let all = due(store, "tern").await;
    let came_back: Vec<_> = all.iter().map(|delivery| delivery.version.path.as_bytes().to_vec()).collect();
    assert_eq!(came_back, names);
    for (delivery, name) in all.iter().zip(&names) {
        assert_eq!(store.current_at(&docs(), &[path(name)]).await.unwrap()[0].path, path(name));
        store.enter(delivery.id, DeliveryState::Uploading).await.unwrap();
        store.put_off(delivery.id, "parked", hands.now(), true).await.unwrap();
    }
    assert_eq!(
        store.parked(20).await.unwrap().iter().filter(|p| names.contains(&p.path.as_bytes().to_vec())).count(),
        11
    );
    let gone: Vec<_> = names.iter().map(path).collect();
    assert_eq!(store.vanished(&docs(), &gone).await.unwrap().len(), 11);
    let remains = store.remains(&vessel("tern"), DeliveryId(0), 20).await.unwrap();
    assert_eq!(remains.iter().filter(|r| gone.contains(&r.path)).count(), 11);
}

pub(in crate::ledger) async fn any_number_survives(store: &dyn Store, _: &Hands) {
    for (n, number) in [u64::MAX, 1 << 63, (1 << 63) - 1, 0].into_iter().enumerate() {
        let mut new = file("a", "one", number);
        new.entry.stamp = FileStamp { size: number, mtime: -1 - n as i64, mtime_nanos: 999_999_999, inode: number };
        (new.entry.mode, new.entry.chunk_size) = (0o7777, 10 << 20);
        admit(store, new.clone(), ["tern"]).await;
        admit(store, new.clone(), ["tern"]).await;
        let version = only_due(store, "tern").await.version;
        assert_eq!((version.stamp, version.mode, version.chunk_size), (new.stamp, new.mode, new.chunk_size));
        assert_eq!(
            store.current(&docs()).await.unwrap(),
            [CurrentVersion { path: path("a"), traits: traits_of(&new) }]
        );
        // The file must also count as large for a vessel that is added later, or as small if the file is empty.
        let name = format!("added {n}");
        store.reconcile(&docs(), &vessels(["tern", &name])).await.unwrap();
        assert_eq!(store.next_due(&vessel(&name), number > 0, 10).await.unwrap().len(), 1);
    }
}

pub(in crate::ledger) async fn a_version_may_be_hashed_after_it_was_admitted(store: &dyn Store, _: &Hands) {
    let hashed = file("a", "one", 1);
    let with = |digest| NewVersion::from(Entry { digest, ..hashed.entry.clone() });
    let unread = with(None);
    admit(store, unread.clone(), ["tern"]).await;
    let version = only_due(store, "tern").await.version;
    assert_eq!(version.digest, None);
    // The two versions are equal whether or not their digests are known, so no version is admitted again.
    admit(store, unread.clone(), ["tern"]).await;
    admit(store, hashed.clone(), ["tern"]).await;
    assert_eq!(only_due(store, "tern").await.version.id, version.id);
    for digest in [Digest::of(b"one"), Digest::of(b"another")] {
        store.hashed(version.id, &digest).await.unwrap();
        assert_eq!(only_due(store, "tern").await.version.digest, hashed.digest, "the first one stays");
    }
    admit(store, unread, ["tern"]).await;
    assert_eq!(only_due(store, "tern").await.version.id, version.id);
    admit(store, with(Some(Digest::of(b"two"))), ["tern"]).await;
    assert_ne!(only_due(store, "tern").await.version.id, version.id);
}

pub(in crate::ledger) async fn version_numbers_are_never_used_twice(store: &dyn Store, _: &Hands) {
    let mut last = VersionId(0);
    for n in 0..20 {
        admit(store, file("a", "one", n), ["tern"]).await;
        let id = only_due(store, "tern").await.version.id;
        assert!(id > last);
        last = id;
        match n % 3 {
            0 => drop(store.vanished(&docs(), &[path("a")]).await.unwrap()),
            1 => {
                deliver(store, "tern").await;
                store.retired(&[id]).await.unwrap();
            }
            _ => {}
        }
    }
}

pub(in crate::ledger) async fn many_calls_at_once_lose_nothing(store: &dyn Store, _: &Hands) {
    let names: Vec<_> = (0..40).map(|n| VesselName::new(&format!("vessel {n}"))).collect();
    store.admit(&docs(), &[file("a", "one", 1)], &names).await.unwrap();
    let acknowledge = |name: VesselName| async move {
        let delivery = store.next_due(&name, false, 1).await.unwrap().remove(0);
        store.enter(delivery.id, DeliveryState::Uploading).await.unwrap();
        assert!(store.acknowledge(delivery.id, Verified::ByVessel).await.unwrap());
    };
    futures_util::future::join_all(names.into_iter().map(acknowledge)).await;
    assert_eq!(retirable(store).await.len(), 1);
    assert_eq!(store.backlog().await.unwrap().iter().map(|backlog| backlog.acknowledged).sum::<u64>(), 40);
}

/// A stopping daemon or a lost connection may cancel a call at any point.
pub(in crate::ledger) async fn a_call_that_is_cut_off_leaves_the_store_usable(store: &dyn Store, _: &Hands) {
    let yields = |times: u64| async move {
        for _ in 0..times {
            tokio::task::yield_now().await;
        }
    };
    let (docs, tern) = (docs(), vessels(["tern"]));
    for n in 0..150 {
        let batch: Vec<_> = (0..5).map(|k| file(format!("{n} {k}"), "one", n)).collect();
        tokio::select! {
            biased;
            () = yields(n * 3) => {}
            admitted = store.admit(&docs, &batch, &tern) => admitted.unwrap(),
        }
        tokio::select! {
            biased;
            () = yields(n) => {}
            due = store.next_due(&tern[0], false, 5) => drop(due.unwrap()),
        }
        // The cancelled call recorded either all of its versions or none.
        store.reconcile(&docs, &tern).await.unwrap();
        assert_eq!(due(store, "tern").await.len() % 5, 0);
    }
    for (n, delivery) in (0..).zip(due(store, "tern").await) {
        tokio::select! {
            biased;
            () = yields(n) => {}
            acknowledged = store.acknowledge(delivery.id, Verified::ByVessel) => assert!(acknowledged.unwrap()),
        }
    }
    deliver(store, "tern").await;
    assert_eq!(retirable(store).await.len(), current_paths(store).await.len());
}
