//! Cases of signatures: found for the vessel that received their version last, and dropped after that.

use super::*;
use crate::signature::{Signature, SignatureBuilder};

fn signature(content: &str) -> Signature {
    let mut signature_builder = SignatureBuilder::new(0);
    signature_builder.update(content.as_bytes());
    signature_builder.finish()
}

/// Admits a version and records its signature.
async fn admit_with_signature(store: &dyn Store, content: &str, inode: u64) -> Version {
    admit(store, file("a", content, inode), ["tern", "gull"]).await;
    let version = due(store, "tern").await.remove(0).version;
    store.keep_signature_of(&version, &signature(content)).await.unwrap();
    version
}

async fn last_of(store: &dyn Store, name: &str, version: &Version) -> Option<Signature> {
    store.last_delivered(&vessel(name), version).await.unwrap().map(|last| last.signature)
}

pub(in crate::ledger) async fn a_signature_is_found_for_the_vessel_that_got_its_version_last(
    store: &dyn Store,
    hands: &Hands,
) {
    let first = admit_with_signature(store, "first", 1).await;
    assert_eq!(store.signature(&first).await.unwrap(), Some(signature("first")));
    assert_eq!(last_of(store, "tern", &first).await, None, "nobody was given anything");
    deliver(store, "tern").await;
    deliver(store, "gull").await;
    hands.forward(5);
    let second = admit_with_signature(store, "second", 2).await;
    deliver(store, "tern").await;
    let third = admit_with_signature(store, "third", 3).await;
    let given = store.last_delivered(&vessel("tern"), &third).await.unwrap().unwrap();
    assert_eq!((given.stamp, given.signature), (second.stamp, signature("second")));
    assert_eq!(last_of(store, "gull", &third).await, Some(signature("first")));
    assert_eq!(last_of(store, "nobody", &third).await, None);
}

pub(in crate::ledger) async fn signatures_that_no_vessel_needs_are_dropped(store: &dyn Store, hands: &Hands) {
    let first = admit_with_signature(store, "first", 1).await;
    deliver(store, "tern").await;
    deliver(store, "gull").await;
    hands.forward(5);
    let second = admit_with_signature(store, "second", 2).await;
    let third = admit_with_signature(store, "third", 3).await;
    assert_eq!(store.signature(&first).await.unwrap(), Some(signature("first")), "the vessels hold it");
    assert_eq!(store.signature(&second).await.unwrap(), None, "nobody was ever given it");
    deliver(store, "tern").await;
    deliver(store, "gull").await;
    hands.forward(5);
    let fourth = admit_with_signature(store, "fourth", 4).await;
    assert_eq!(store.signature(&first).await.unwrap(), None);
    assert_eq!(store.signature(&third).await.unwrap(), Some(signature("third")));
    store.keep_signature_of(&fourth, &signature("fourth, otherwise")).await.unwrap();
    assert_eq!(store.signature(&fourth).await.unwrap(), Some(signature("fourth, otherwise")));
}
