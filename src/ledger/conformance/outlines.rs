//! Outlines: found for the vessel that received their version last, and dropped after that.

use super::*;
use crate::outline::{Outline, Outliner};

fn outline(content: &str) -> Outline {
    let mut outliner = Outliner::new(0);
    outliner.update(content.as_bytes());
    outliner.finish()
}

/// Admits a version with its outline.
async fn admit_outlined(store: &dyn Store, content: &str, inode: u64) -> Version {
    admit(store, file("a", content, inode), ["tern", "gull"]).await;
    let version = due(store, "tern").await.remove(0).version;
    store.outlined(&version, &outline(content)).await.unwrap();
    version
}

async fn last_of(store: &dyn Store, name: &str, version: &Version) -> Option<Outline> {
    store.last_delivered(&vessel(name), version).await.unwrap().map(|last| last.outline)
}

pub(in crate::ledger) async fn an_outline_is_found_for_who_was_given_its_version_last(
    store: &dyn Store,
    hands: &Hands,
) {
    let first = admit_outlined(store, "first", 1).await;
    assert_eq!(store.outline(&first).await.unwrap(), Some(outline("first")));
    assert_eq!(last_of(store, "tern", &first).await, None, "nobody was given anything");
    deliver(store, "tern").await;
    deliver(store, "gull").await;
    hands.forward(5);
    let second = admit_outlined(store, "second", 2).await;
    deliver(store, "tern").await;
    let third = admit_outlined(store, "third", 3).await;
    let given = store.last_delivered(&vessel("tern"), &third).await.unwrap().unwrap();
    assert_eq!((given.stamp, given.outline), (second.stamp, outline("second")));
    assert_eq!(last_of(store, "gull", &third).await, Some(outline("first")));
    assert_eq!(last_of(store, "nobody", &third).await, None);
}

pub(in crate::ledger) async fn outlines_that_no_vessel_needs_are_dropped(store: &dyn Store, hands: &Hands) {
    let first = admit_outlined(store, "first", 1).await;
    deliver(store, "tern").await;
    deliver(store, "gull").await;
    hands.forward(5);
    let second = admit_outlined(store, "second", 2).await;
    let third = admit_outlined(store, "third", 3).await;
    assert_eq!(store.outline(&first).await.unwrap(), Some(outline("first")), "the vessels hold it");
    assert_eq!(store.outline(&second).await.unwrap(), None, "nobody was ever given it");
    deliver(store, "tern").await;
    deliver(store, "gull").await;
    hands.forward(5);
    let fourth = admit_outlined(store, "fourth", 4).await;
    assert_eq!(store.outline(&first).await.unwrap(), None);
    assert_eq!(store.outline(&third).await.unwrap(), Some(outline("third")));
    store.outlined(&fourth, &outline("fourth, otherwise")).await.unwrap();
    assert_eq!(store.outline(&fourth).await.unwrap(), Some(outline("fourth, otherwise")));
}
