//! Micro-benchmarks of what every byte or every file goes through on the shore: `cargo bench --bench micro`.
//!
//! Figures of whole deliveries depend on the vessel and the link; the benchmark `peers` measures those.

#![allow(missing_docs, clippy::unwrap_used, reason = "criterion's macro makes the functions; a benchmark may fail")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use contentmonster::chunk::ChunkPlan;
use contentmonster::clock::Clock;
use contentmonster::digest::{Digest, FileHasher};
use contentmonster::ledger::Ledger;
use contentmonster::names::{DirectoryName, RelPath, VesselName};
use contentmonster::records::{
    Delivery, DeliveryState, Entry, FileStamp, NewVersion, Verified, VersionId, VersionKind,
};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use futures_util::future::{join_all, try_join_all};
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// Files of one batch, and calls at once: what intake and a busy vessel have.
const BATCH: usize = 256;

fn hashing(c: &mut Criterion) {
    let bytes = vec![0x5a; 16 << 20];
    let mut group = c.benchmark_group("hash");
    group.throughput(Throughput::Bytes(bytes.len() as u64)).sample_size(20);
    group.bench_function("file and chunks, 16 MiB", |b| {
        b.iter(|| {
            let mut hasher = FileHasher::new(10 << 20);
            bytes.chunks(1 << 20).for_each(|piece| hasher.update(piece));
            black_box(hasher.finish())
        });
    });
    group.bench_function("file, 16 MiB", |b| b.iter(|| black_box(Digest::of(&bytes))));
    group.throughput(Throughput::Bytes(4096 * BATCH as u64));
    group.bench_function("256 files of 4 KiB", |b| {
        b.iter(|| {
            black_box(&bytes).chunks(4096).take(BATCH).map(Digest::of).fold(0, |sum, digest| sum ^ digest.as_bytes()[0])
        });
    });
    group.finish();
}

fn chunk_plan(c: &mut Criterion) {
    c.bench_function("chunk plan of 100 GB", |b| {
        b.iter(|| {
            let plan = ChunkPlan::new(black_box(100_000_000_000), 10 << 20);
            (0..plan.count()).map(|chunk| plan.range(chunk).end).max()
        });
    });
}

/// A ledger of its own, with a runtime of two threads to use it on.
struct Bench {
    runtime: Runtime,
    ledger: Ledger,
    directory: DirectoryName,
    vessels: [VesselName; 3],
    admitted: u64,
    _place: TempDir,
}

impl Bench {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let place = TempDir::new().unwrap();
        let ledger = runtime.block_on(Ledger::open(&place.path().join("ledger"), Clock::system())).unwrap();
        let vessels = ["tern", "gull", "auk"].map(VesselName::new);
        Self { runtime, ledger, directory: DirectoryName::new("d"), vessels, admitted: 0, _place: place }
    }

    /// Files that nobody has seen.
    fn files(&mut self, count: usize) -> Vec<NewVersion> {
        let first = self.admitted;
        self.admitted += count as u64;
        let entry = |n: u64| Entry {
            path: RelPath::new(format!("a file of the usual length {n}")).unwrap(),
            stamp: FileStamp { size: 4096, mtime: 1_700_000_000, mtime_nanos: 0, inode: n },
            kind: VersionKind::File,
            mode: 0o644,
            owner: None,
            target: Vec::new(),
            digest: Some(Digest::of(&n.to_be_bytes())),
            chunk_size: 10 << 20,
        };
        (first..self.admitted).map(|n| entry(n).into()).collect()
    }

    fn admit(&self, files: &[NewVersion]) {
        let admitting = self.ledger.admit(&self.directory, files, &self.vessels);
        self.runtime.block_on(admitting).unwrap();
    }

    /// As many deliveries of one vessel as are made at once; files are admitted when there are too few.
    fn due(&mut self) -> Vec<Delivery> {
        loop {
            let due = self.next_due();
            if due.len() == BATCH {
                return due;
            }
            let files = self.files(BATCH);
            self.admit(&files);
        }
    }

    fn next_due(&self) -> Vec<Delivery> {
        self.runtime.block_on(self.ledger.next_due(&self.vessels[0], false, BATCH as u32)).unwrap()
    }

    /// Makes a call for each delivery, all at once, each in a task of its own.
    fn at_once<T, F>(&self, deliveries: Vec<Delivery>, call: impl Fn(Ledger, Delivery) -> F) -> Duration
    where
        T: Send + 'static,
        F: Future<Output = T> + Send + 'static,
    {
        let started = Instant::now();
        self.runtime.block_on(async {
            let calls = deliveries.into_iter().map(|delivery| tokio::spawn(call(self.ledger.clone(), delivery)));
            try_join_all(calls).await.unwrap();
        });
        started.elapsed()
    }

    fn acknowledge(&self, deliveries: Vec<Delivery>) -> Duration {
        self.at_once(deliveries, async |ledger, one| ledger.acknowledge(one.id, Verified::ByVessel).await.unwrap())
    }
}

/// Deliveries that are acknowledged, or open, before anything is measured.
fn with_history(acknowledged: usize, open: usize) -> Bench {
    let mut bench = Bench::new();
    for (count, acknowledge) in [(acknowledged, true), (open, false)] {
        for _ in 0..count / 3 / 1000 {
            let files = bench.files(1000);
            bench.admit(&files);
            for vessel in acknowledge.then_some(&bench.vessels).into_iter().flatten() {
                let due = bench.runtime.block_on(bench.ledger.next_due(vessel, false, 1000)).unwrap();
                bench.runtime.block_on(join_all(
                    due.iter().map(|delivery| bench.ledger.acknowledge(delivery.id, Verified::ByVessel)),
                ));
            }
        }
    }
    bench
}

fn ledger(c: &mut Criterion) {
    let mut bench = Bench::new();
    let mut group = c.benchmark_group("ledger");
    group.throughput(Throughput::Elements(BATCH as u64)).sample_size(20);
    group.bench_function("admit 256 files for 3 vessels", |b| {
        b.iter_custom(|times| {
            let mut took = Duration::ZERO;
            for _ in 0..times {
                let files = bench.files(BATCH);
                let started = Instant::now();
                bench.admit(&files);
                took += started.elapsed();
            }
            took
        });
    });
    group.bench_function("enter 256 at once", |b| {
        let due = bench.due();
        let enter = async |ledger: Ledger, one: Delivery| ledger.enter(one.id, DeliveryState::Uploading).await.unwrap();
        b.iter_custom(|times| (0..times).map(|_| bench.at_once(due.clone(), enter)).sum());
    });
    group.bench_function("acknowledge 256 at once", |b| {
        b.iter_custom(|times| {
            (0..times)
                .map(|_| {
                    let due = bench.due();
                    bench.acknowledge(due)
                })
                .sum()
        });
    });
    group.throughput(Throughput::Elements(1)).bench_function("acknowledge one", |b| {
        b.iter_custom(|times| {
            (0..times)
                .map(|_| {
                    let due = bench.due();
                    bench.acknowledge(due[..1].to_vec())
                })
                .sum()
        });
    });
    group.finish();
}

/// What must not depend on how much is waiting or was delivered.
fn backlog(c: &mut Criterion) {
    let mut group = c.benchmark_group("backlog");
    group.sample_size(10);
    for (name, acknowledged, open) in
        [("1,000 open", 0, 3_000), ("300,000 open", 0, 300_000), ("300,000 acknowledged", 300_000, 3_000)]
    {
        let bench = with_history(acknowledged, open);
        let (vessel, directory) = (&bench.vessels[0], &bench.directory);
        group.bench_function(format!("next_due(256), {name}"), |b| b.iter(|| bench.next_due()));
        group.bench_function(format!("next_due_at, {name}"), |b| {
            b.iter(|| bench.runtime.block_on(bench.ledger.next_due_at(vessel)).unwrap());
        });
        group.bench_function(format!("retirable(256), {name}"), |b| {
            b.iter(|| bench.runtime.block_on(bench.ledger.retirable(directory, VersionId(0), 256)).unwrap());
        });
        group.bench_function(format!("hurry and reconcile as at a start, {name}"), |b| {
            b.iter(|| {
                bench.runtime.block_on(async {
                    bench.ledger.hurry(vessel).await.unwrap();
                    bench.ledger.reconcile(directory, &bench.vessels).await.unwrap();
                });
            });
        });
        group.bench_function(format!("current, {name}"), |b| {
            b.iter(|| bench.runtime.block_on(bench.ledger.current(directory)).unwrap());
        });
        let due = bench.next_due();
        group.bench_function(format!("acknowledge again 256 at once, {name}"), |b| {
            b.iter(|| bench.acknowledge(due.clone()));
        });
    }
    group.finish();
}

criterion_group!(benches, hashing, chunk_plan, ledger, backlog);
criterion_main!(benches);
