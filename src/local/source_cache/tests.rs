use std::fs::{self, File};
use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use futures_util::future::join_all;

use super::*;
use crate::local::Rules;
use crate::local::{Intake, TakeIn, Writers, stamp_of};

const MIB: u64 = 1 << 20;

/// A directory with one file, and a source cache.
struct Shore {
    dir: tempfile::TempDir,
    source_cache: SourceCache,
    bytes: Vec<u8>,
}

impl Shore {
    fn new(size: u64, cache: u64) -> Self {
        let shore =
            Self { dir: tempfile::tempdir().unwrap(), source_cache: SourceCache::new(cache), bytes: content(size) };
        fs::write(shore.file(), &shore.bytes).unwrap();
        shore
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("f")
    }

    fn path(&self) -> RelPath {
        RelPath::new("f").unwrap()
    }

    fn stamp(&self) -> FileStamp {
        stamp_of(&fs::metadata(self.file()).unwrap())
    }

    async fn open(&self) -> Source {
        self.source_cache.open(self.dir.path(), &self.path(), self.stamp(), false).await.unwrap()
    }

    fn digest(&self) -> Digest {
        Digest::of(&self.bytes)
    }

    /// Returns how many bytes were read from the disk, as a multiple of the file's size.
    fn times_read(&self) -> f64 {
        self.source_cache.bytes_read() as f64 / self.bytes.len() as f64
    }

    fn cached(&self) -> u64 {
        self.source_cache.table().cache.size()
    }

    fn hashed(&self, source: &Source) -> u64 {
        self.source_cache.table().entry(source.id()).unwrap().hashing.done()
    }
}

fn content(size: u64) -> Vec<u8> {
    (0..size).map(|at| ((at / 7) ^ (at >> 13)) as u8).collect()
}

/// Reads a range and compares it with the expected bytes; pauses after each piece.
async fn read(source: &Source, expected: &[u8], range: std::ops::Range<u64>, pause: Duration) {
    let mut at = range.start;
    while at < range.end {
        let bytes = source.read(at, range.end - at).await.unwrap();
        assert!(bytes == expected[at as usize..][..bytes.len()]);
        at += bytes.len() as u64;
        tokio::time::sleep(pause).await;
    }
}

/// Waits until another task makes a condition true.
async fn until(what: &str, holds: impl Fn() -> bool) {
    for _ in 0..2000 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("never {what}");
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_and_the_hasher_share_every_read() {
    let shore = Shore::new(24 * MIB + 12_345, 16 * MIB);
    let size = shore.bytes.len() as u64;
    let readers = join_all((0..8).map(|_| shore.open())).await;
    let reading = readers.iter().map(|source| async {
        source.hash_on_the_way();
        read(source, &shore.bytes, 0..size, Duration::from_micros(300)).await;
        assert_eq!(source.digest().await.unwrap(), shore.digest());
    });
    join_all(reading).await;
    assert!(shore.times_read() < 1.1, "read {} times", shore.times_read());
    drop(readers);
    assert_eq!(shore.cached(), 0, "nothing is kept for nobody");
    let again = shore.open().await;
    assert_eq!(again.digest().await.unwrap(), shore.digest());
    assert!(shore.times_read() < 1.1, "the digest was remembered");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_bound_holds_however_the_readers_go() {
    let shore = Shore::new(20 * MIB, 8 * MIB);
    let readers = join_all((0..6).map(|_| shore.open())).await;
    let shore = &shore;
    let reading = readers.iter().enumerate().map(|(number, source)| async move {
        source.hash_on_the_way();
        let start = number as u64 * 3 * MIB;
        read(source, &shore.bytes, start..20 * MIB, Duration::from_millis(number as u64)).await;
        read(source, &shore.bytes, 0..start, Duration::ZERO).await;
    });
    let watching = async {
        loop {
            assert!(shore.cached() <= 8 * MIB);
            tokio::time::sleep(Duration::from_micros(200)).await;
        }
    };
    tokio::select! { _ = join_all(reading) => {} () = watching => {} }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_stands_still_or_is_slow_hardly_delays_the_others() {
    let size = 96 * MIB;
    let shore = Arc::new(Shore::new(size, 32 * MIB));
    let mut tasks = tokio::task::JoinSet::new();
    for pause in [Duration::from_secs(600), Duration::from_millis(30)] {
        let (shore, source) = (shore.clone(), shore.open().await);
        tasks.spawn(async move { read(&source, &shore.bytes, 0..size, pause).await });
    }
    let source = shore.open().await;
    let began = Instant::now();
    read(&source, &shore.bytes, 0..size, Duration::from_millis(3)).await;
    let waited = shore.source_cache.table().entry(source.id()).unwrap().readers[&source.number()].waited();
    // The last wait may end late on a busy machine.
    assert!(waited < began.elapsed() / 15, "{waited:?} of {:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_late_at_the_start_finds_all_in_the_cache() {
    let shore = Arc::new(Shore::new(32 * MIB, 16 * MIB));
    let (early, arrival) = (shore.open().await, shore.source_cache.arrival());
    let first = tokio::spawn({
        let shore = shore.clone();
        async move { read(&early, &shore.bytes, 0..32 * MIB, Duration::ZERO).await }
    });
    until("was the cache full", || shore.cached() > 15 * MIB).await;
    let late = shore.open().await;
    read(&late, &shore.bytes, 0..MIB, Duration::ZERO).await;
    drop(arrival);
    read(&late, &shore.bytes, MIB..32 * MIB, Duration::ZERO).await;
    first.await.unwrap();
    assert!(shore.times_read() < 1.1, "read {} times", shore.times_read());
}

#[tokio::test]
async fn the_digest_is_right_whatever_the_size() {
    for size in [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 4711] {
        let shore = Shore::new(size, 8 * MIB);
        let source = shore.open().await;
        assert_eq!(source.digest().await.unwrap(), shore.digest(), "{size} bytes");
        assert_eq!(shore.source_cache.bytes_read(), size);
        assert!(source.read(0, 0).await.unwrap().is_empty());
        assert!(matches!(source.read(size, 1).await, Err(DiskError::Changed { .. })));
    }
}

#[tokio::test]
async fn a_source_that_changes_is_not_handed_out() {
    let shore = Shore::new(8 * MIB, 8 * MIB);
    let (source, stamp) = (shore.open().await, shore.stamp());
    assert_eq!(source.read(0, 10).await.unwrap(), shore.bytes[..10]);
    File::options().append(true).open(shore.file()).unwrap().write_all(b"x").unwrap();
    assert!(matches!(source.read(4 * MIB, 1).await, Err(DiskError::Changed { .. })));
    assert!(matches!(source.digest().await, Err(DiskError::Changed { .. })));
    let other = shore.source_cache.open(shore.dir.path(), &shore.path(), stamp, false).await;
    assert!(matches!(other.map(drop), Err(DiskError::Changed { .. })));
    fs::remove_file(shore.file()).unwrap();
    assert!(
        shore
            .source_cache
            .open(shore.dir.path(), &shore.path(), stamp, false)
            .await
            .is_err_and(|error| error.is_gone())
    );
}

#[tokio::test]
async fn a_source_that_changes_after_its_last_block_was_hashed_has_no_digest() {
    let shore = Shore::new(3 * BLOCK, 8 * MIB);
    let source = shore.open().await;
    read(&source, &shore.bytes, 0..3 * BLOCK, Duration::ZERO).await;
    File::options().write(true).open(shore.file()).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
    assert!(matches!(source.digest().await, Err(DiskError::Changed { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_hasher_stays_near_the_fastest_reader_until_somebody_waits_for_it() {
    let shore = Shore::new(24 * MIB, 16 * MIB);
    let (fast, slow) = (shore.open().await, shore.open().await);
    fast.hash_on_the_way();
    read(&slow, &shore.bytes, 0..BLOCK, Duration::ZERO).await;
    read(&fast, &shore.bytes, 0..8 * BLOCK, Duration::ZERO).await;
    let lead = 16 * MIB / BLOCK / 16;
    until("hashed so far", || shore.hashed(&fast) == 8 + lead).await;
    tokio::time::sleep(Duration::from_millis(30)).await;
    assert_eq!(shore.hashed(&fast), 8 + lead);
    assert_eq!(slow.digest().await.unwrap(), shore.digest());
}

#[tokio::test(flavor = "multi_thread")]
async fn hashing_stops_with_the_last_handle_and_goes_on_with_the_next() {
    let shore = Shore::new(24 * MIB, 8 * MIB);
    let source = shore.open().await;
    source.hash_on_the_way();
    read(&source, &shore.bytes, 0..12 * MIB, Duration::ZERO).await;
    until("hashed half", || shore.hashed(&source) >= 24).await;
    drop(source);
    // Reads that have started continue although their reader was dropped, so the test waits for them.
    until("ended all reads", || shore.source_cache.0.disks.are_idle()).await;
    let read_so_far = shore.source_cache.bytes_read();
    assert_eq!(shore.cached(), 0);
    let source = shore.open().await;
    tokio::time::sleep(Duration::from_millis(30)).await;
    assert_eq!(shore.source_cache.bytes_read(), read_so_far);
    assert_eq!(source.digest().await.unwrap(), shore.digest());
    assert!(shore.times_read() < 1.1, "what was hashed is not read again: {}", shore.times_read());
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_may_be_dropped_at_any_point() {
    let shore = Arc::new(Shore::new(12 * MIB, 8 * MIB));
    for round in 0..100 {
        let other = shore.clone();
        let task = tokio::spawn(async move {
            let source = other.open().await;
            source.hash_on_the_way();
            read(&source, &other.bytes, 0..12 * MIB, Duration::ZERO).await;
            source.digest().await.unwrap();
        });
        tokio::time::sleep(Duration::from_micros(50 * round)).await;
        task.abort();
    }
    let source = shore.open().await;
    assert_eq!(source.digest().await.unwrap(), shore.digest());
    assert_eq!(shore.source_cache.table().entry(source.id()).unwrap().readers.len(), 1);
}

fn intake(shore: &Shore, readers: usize) -> Intake {
    Intake {
        rules: Rules::of(shore.dir.path(), ""),
        chunk_size: 10 * MIB,
        source_cache: shore.source_cache.clone(),
        readers,
        writers: Writers::new(Duration::ZERO),
    }
}

#[tokio::test]
async fn what_intake_read_is_there_for_as_many_as_come_and_then_goes() {
    let shore = Shore::new(MIB + 1, 8 * MIB);
    let (intake, stamp) = (intake(&shore, 2), shore.stamp());
    assert!(matches!(intake.take_in(&shore.path(), &|| false), Ok(TakeIn::Version(_))));
    fs::remove_file(shore.file()).unwrap();
    for left in [shore.cached(), 0] {
        let source = shore.source_cache.open(shore.dir.path(), &shore.path(), stamp, false).await.unwrap();
        read(&source, &shore.bytes, 0..MIB + 1, Duration::ZERO).await;
        drop(source);
        assert_eq!(shore.cached(), left);
    }
    assert_eq!(shore.source_cache.bytes_read(), 0);
    assert!(
        shore
            .source_cache
            .open(shore.dir.path(), &shore.path(), stamp, false)
            .await
            .is_err_and(|error| error.is_gone())
    );
}

#[tokio::test]
async fn a_change_without_a_trace_is_read_anew_once_it_is_noticed() {
    for known in [false, true] {
        let mut shore = Shore::new(11 * MIB, 64 * MIB);
        let (source, stamp) = (shore.open().await, shore.stamp());
        read(&source, &shore.bytes, 0..11 * MIB, Duration::ZERO).await;
        if known {
            source.digest().await.unwrap();
        }
        let modified = fs::metadata(shore.file()).unwrap().modified().unwrap();
        shore.bytes.reverse();
        fs::write(shore.file(), &shore.bytes).unwrap();
        File::options().write(true).open(shore.file()).unwrap().set_modified(modified).unwrap();
        assert_eq!(shore.stamp(), stamp);
        assert!(matches!(intake(&shore, 1).take_in_again(&shore.path(), &|| false), Ok(TakeIn::Version(_))));
        let later = shore.open().await;
        read(&later, &shore.bytes, 0..11 * MIB, Duration::ZERO).await;
        assert_eq!(later.digest().await.unwrap(), shore.digest());
        assert_eq!(later.read_again(MIB).await.unwrap().file, shore.digest());
    }
}
