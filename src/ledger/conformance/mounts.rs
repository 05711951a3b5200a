//! Cases of recorded mounts, and of recorded rates of paths to vessels.

use super::*;
use crate::records::{Mount, PathRate};

pub(in crate::ledger) async fn mounts_are_remembered_for_each_directory(store: &dyn Store, _hands: &Hands) {
    let mount = |path: &str, fsid| Mount {
        path: path.into(),
        file_system: b"ext4".to_vec(),
        source: b"/dev/s\xff".to_vec(),
        within: b"/".to_vec(),
        fsid,
    };
    assert_eq!(store.mounts(&docs()).await.unwrap(), []);
    let mounts = [mount("", 1), mount("a/b", u64::MAX)];
    store.remember_mounts(&docs(), &mounts).await.unwrap();
    store.remember_mounts(&DirectoryName::new("maps"), &[mount("", 2)]).await.unwrap();
    assert_eq!(store.mounts(&docs()).await.unwrap(), mounts);
    store.remember_mounts(&docs(), &mounts[..1]).await.unwrap();
    assert_eq!(store.mounts(&docs()).await.unwrap(), mounts[..1]);
}

pub(in crate::ledger) async fn the_rate_of_a_path_is_remembered_with_its_time(store: &dyn Store, hands: &Hands) {
    let (tern, gull) = (vessel("tern"), vessel("gull"));
    assert_eq!(store.path(&tern).await.unwrap(), None);
    let first = PathRate { rate: 6_000_000, round_trip: Duration::from_micros(600_123) };
    store.path_carried(&tern, first).await.unwrap();
    hands.forward(5);
    let second = PathRate { rate: 7, ..first };
    store.path_carried(&gull, second).await.unwrap();
    assert_eq!(store.path(&tern).await.unwrap(), Some((START, first)));
    store.path_carried(&tern, second).await.unwrap();
    assert_eq!(store.path(&tern).await.unwrap(), Some((START + 5, second)));
    store.shell_refused(&tern, Some("no shell")).await.unwrap();
    assert_eq!(store.path(&tern).await.unwrap(), Some((START + 5, second)));
}
