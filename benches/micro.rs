//! Micro-benchmarks of what every byte or every file goes through on the shore: `cargo bench`.
//!
//! Figures of whole deliveries depend on the vessel and the link and are not measured here.

#![allow(missing_docs, clippy::unwrap_used, reason = "criterion's macro makes the functions; a benchmark may fail")]

use std::hint::black_box;

use contentmonster::chunk::ChunkPlan;
use contentmonster::clock::Clock;
use contentmonster::digest::{Digest, FileHasher};
use contentmonster::ledger::Ledger;
use contentmonster::names::{DirectoryName, RelPath, VesselName};
use contentmonster::records::{DeliveryState, FileStamp, NewVersion, Verified};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

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

fn versions(round: u64) -> Vec<NewVersion> {
    let version = |n: u64| NewVersion {
        path: RelPath::new(format!("file {round} {n}")).unwrap(),
        stamp: FileStamp { size: 4096, mtime: 1_700_000_000, mtime_nanos: 0, inode: n },
        mode: 0o644,
        digest: Digest::of(&n.to_be_bytes()),
        chunk_size: 10 << 20,
        chunks: vec![Digest::of(&n.to_be_bytes())],
    };
    (0..256).map(version).collect()
}

fn ledger(c: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let place = tempfile::tempdir().unwrap();
    let ledger = runtime.block_on(Ledger::open(&place.path().join("ledger"), Clock::system())).unwrap();
    let (directory, vessel) = (DirectoryName::new("d"), VesselName::new("v"));
    let mut round = 0;
    let mut group = c.benchmark_group("ledger");
    group.throughput(Throughput::Elements(256)).sample_size(20);
    group.bench_function("admit 256 files, then enter and acknowledge each", |b| {
        b.iter(|| {
            round += 1;
            runtime.block_on(async {
                ledger.admit(&directory, &versions(round), std::slice::from_ref(&vessel)).await.unwrap();
                for delivery in ledger.next_due(&vessel, false, 256).await.unwrap() {
                    ledger.enter(delivery.id, DeliveryState::Uploading).await.unwrap();
                    ledger.acknowledge(delivery.id, Verified::ByVessel).await.unwrap();
                }
            });
        });
    });
    group.finish();
}

criterion_group!(benches, hashing, chunk_plan, ledger);
criterion_main!(benches);
