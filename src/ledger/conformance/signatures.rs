//! Cases of signatures: the signature of the last version that a vessel received is found, and signatures that no
//! vessel needs are deleted.

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

fn noise(seed: u64, length: usize) -> Signature {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut signature_builder = SignatureBuilder::new(0);
    signature_builder.update(&(0..length).map(|_| random.u8(..)).collect::<Vec<_>>());
    signature_builder.finish()
}

pub(in crate::ledger) async fn other_files_are_found_by_their_blocks(store: &dyn Store, hands: &Hands) {
    let similar = async |name: &str, version: &Version, blocks: &[i64]| -> Vec<String> {
        let found = store.similar(&vessel(name), version, blocks).await.unwrap();
        found.iter().map(|found| found.held.version.path.to_string()).collect()
    };
    let (one, two) = (noise(1, 1 << 20), noise(2, 1 << 20));
    admit(store, file("a", "one", 1), ["tern", "gull"]).await;
    let first = due(store, "tern").await.remove(0).version;
    store.keep_signature_of(&first, &one).await.unwrap();
    admit(store, file("new", "two", 2), ["tern"]).await;
    let new = due(store, "tern").await.into_iter().find(|it| it.version.path == path("new")).unwrap().version;
    let blocks = [one.samples()[3], two.samples()[5]];
    assert_eq!(similar("tern", &new, &blocks).await, [""; 0], "the vessel does not have it yet");
    assert_eq!(store.averages_beside(&new).await.unwrap(), [16 << 10]);
    assert_eq!(store.averages_beside(&first).await.unwrap(), [0; 0], "its own signature does not count");
    deliver(store, "tern").await;
    assert_eq!(similar("tern", &new, &blocks).await, ["a"]);
    assert_eq!(store.similar(&vessel("tern"), &new, &blocks).await.unwrap()[0].signature, one);
    assert_eq!(similar("gull", &new, &blocks).await, [""; 0]);
    assert_eq!(similar("tern", &first, &blocks).await, [""; 0]);
    assert_eq!(similar("tern", &new, &[]).await, [""; 0]);
    // Of two files, the one with more of the blocks comes first.
    admit(store, file("b", "three", 3), ["tern"]).await;
    let third = due(store, "tern").await.remove(0).version;
    store.keep_signature_of(&third, &two).await.unwrap();
    deliver(store, "tern").await;
    assert_eq!(similar("tern", &new, &[blocks[0], blocks[1], two.samples()[7]]).await, ["b", "a"]);
    // The vessel has received another version meanwhile.
    hands.forward(5);
    admit(store, file("a", "other", 4), ["tern"]).await;
    deliver(store, "tern").await;
    assert_eq!(similar("tern", &new, &blocks).await, ["b"]);
    // A signature that is recorded once more is found by its new blocks only.
    store.keep_signature_of(&third, &one).await.unwrap();
    assert_eq!(similar("tern", &new, &two.samples()).await, [""; 0]);
    assert_eq!(similar("tern", &new, &blocks).await, ["b"]);
}
