//! A fault at every step: a small delivery is made once for each of its requests and each kind of failure.

use std::sync::Arc;
use std::time::{Duration, Instant};

use contentmonster::daemon::Report;
use contentmonster::embedded_vessel::Faults;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::bay::{Bay, Berth};
use super::policy::{At, Far, Kind, Tally};
use crate::fleet::content::{content, text};

/// Cases at once in all scenes: most of them wait most of the time. Each takes one of the kernel's 128 inotify instances.
static PLACES: Semaphore = Semaphore::const_new(24);
/// Long enough for a busy machine, and so long that a stall is noticed soon.
const PATIENT: Duration = Duration::from_secs(10);
const FURTHER_RUNS: usize = 3;
const IMPATIENT: Duration = Duration::from_millis(700);
/// What is delivered, and to what kind of vessel.
#[derive(Clone, Copy, Debug)]
struct Scene {
    size: usize,
    shell: bool,
    /// `SmallFiles` of the vessel.
    small_files: &'static str,
    /// Whether the file shrinks, and is sent compressed.
    compressed: bool,
    /// Whether the vessel is far away, so that requests are sent together and scripts do several steps.
    far: bool,
}

impl Scene {
    /// One that fits into a chunk of 64 KiB, and one of three chunks.
    const SMALL: usize = 3_000;
    const LARGE: usize = 150_000;

    fn files(self) -> Vec<(String, Vec<u8>)> {
        let bytes = if self.compressed { text } else { content };
        vec![("cargo".to_owned(), bytes(self.size as u64, self.size))]
    }

    fn open(self, policy: Arc<dyn Faults>) -> Bay {
        let policy: Arc<dyn Faults> = if self.far { Arc::new(Far(policy)) } else { policy };
        // The limit tells that the link is slow, before its rate is measured.
        let keys = if self.compressed { "Compression = auto\nRateLimit = 2 MiB/s\n" } else { "" };
        let keys = format!("{keys}Connections = 2\nSmallFiles = {}", self.small_files);
        let bay = Bay::open(vec![Berth { name: "vessel", shell: self.shell, policy }], &keys);
        self.files().iter().for_each(|(name, bytes)| bay.put(name, bytes));
        bay
    }
}

/// How many requests each kind of failure can befall.
async fn count(scene: Scene) -> Arc<Tally> {
    let tally = Arc::new(Tally::default());
    let bay = scene.open(tally.clone());
    let report = bay.once(PATIENT).await.unwrap();
    assert!(is_delivered(&report), "{scene:?} without any fault: {report:?}");
    assert_eq!(bay.unfinished(&scene.files()), Vec::<String>::new(), "{scene:?} without any fault");
    bay.close().await;
    tally
}

/// Whatever trouble the directory had meanwhile.
fn is_delivered(report: &Report) -> bool {
    report.backlog.iter().all(|backlog| backlog.waiting == 0)
}

/// One case; gives what broke a promise.
async fn attempt(scene: Scene, kind: Kind, index: usize) -> Result<(), String> {
    let policy = Arc::new(At::new(kind, index));
    let bay = scene.open(policy.clone());
    let patience = if kind == Kind::Stall { IMPATIENT } else { PATIENT };
    let started = Instant::now();
    let first = bay.once(patience).await;
    let told = || {
        format!("{scene:?} {kind:?} at {index} ({}) after {:?}", policy.hit().unwrap_or_default(), started.elapsed())
    };
    let first = first.map_err(|fault| format!("{}: the program gave up: {fault}", told()))?;
    let mut wrong = bay.broken_promises();
    let intact = scene.files().iter().all(|(name, bytes)| std::fs::read(bay.source(name)).is_ok_and(|b| b == *bytes));
    if is_delivered(&first) {
        wrong.extend(bay.unfinished(&scene.files()));
    } else if !intact {
        wrong.push("not delivered, and the source is not intact".to_owned());
    }
    if wrong.is_empty() && !is_delivered(&first) {
        // Whatever it was is over, and a daemon would go on. On a busy machine one more run may run out of time.
        for _ in 0..FURTHER_RUNS {
            let next = bay.once(PATIENT).await.map_err(|fault| format!("{}: next run: {fault}", told()))?;
            if is_delivered(&next) {
                break;
            }
        }
        wrong.extend(bay.unfinished(&scene.files()));
    }
    let told = told();
    bay.close().await;
    if wrong.is_empty() { Ok(()) } else { Err(format!("{told}: {wrong:?}")) }
}

async fn at_every_request(scene: Scene) {
    let tally = count(scene).await;
    let (mut cases, started) = (0, Instant::now());
    let mut running = JoinSet::new();
    for kind in Kind::ALL {
        for index in 0..tally.of(kind) {
            cases += 1;
            running.spawn(async move {
                let _place = PLACES.acquire().await;
                attempt(scene, kind, index).await
            });
        }
    }
    let outcomes = running.join_all().await;
    let broken: Vec<String> = outcomes.into_iter().filter_map(Result::err).collect();
    println!("{scene:?}: {cases} cases in {:.1?}, {} broke a promise", started.elapsed(), broken.len());
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_small_file_to_a_vessel_with_a_shell_survives_every_fault() {
    at_every_request(Scene { size: Scene::SMALL, shell: true, small_files: "sftp", compressed: false, far: false })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_large_file_to_a_vessel_with_a_shell_survives_every_fault() {
    at_every_request(Scene { size: Scene::LARGE, shell: true, small_files: "sftp", compressed: false, far: false })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_small_file_to_a_vessel_without_a_shell_survives_every_fault() {
    at_every_request(Scene { size: Scene::SMALL, shell: false, small_files: "sftp", compressed: false, far: false })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_large_file_to_a_vessel_without_a_shell_survives_every_fault() {
    at_every_request(Scene { size: Scene::LARGE, shell: false, small_files: "sftp", compressed: false, far: false })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_small_file_in_one_round_trip_survives_every_fault() {
    at_every_request(Scene { size: Scene::SMALL, shell: true, small_files: "shell", compressed: false, far: false })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_large_file_that_is_sent_compressed_survives_every_fault() {
    at_every_request(Scene { size: Scene::LARGE, shell: true, small_files: "sftp", compressed: true, far: false })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_large_file_that_a_script_ends_survives_every_fault() {
    at_every_request(Scene { size: Scene::LARGE, shell: true, small_files: "shell", compressed: false, far: false })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_large_file_to_a_vessel_far_away_survives_every_fault() {
    at_every_request(Scene { size: Scene::LARGE, shell: true, small_files: "auto", compressed: false, far: true })
        .await;
}
