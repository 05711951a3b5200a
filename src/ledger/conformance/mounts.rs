//! Cases of recorded mounts.

use super::*;
use crate::records::Mount;

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
