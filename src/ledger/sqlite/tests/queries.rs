//! Tests of the cost of queries: which indexes they use, how long they take, and how long they block other callers.

use super::*;

#[tokio::test]
async fn thousands_of_versions_are_admitted_and_delivered_in_batches() {
    let place = Place::new();
    let ledger = place.open().await.unwrap();
    let files: Vec<_> = (0..2000).map(|n| file(format!("{n:04}"), "one", n)).collect();
    for batch in files.chunks(256) {
        ledger.admit(&docs(), batch, &[tern(), VesselName::new("gull")]).await.unwrap();
    }
    let mut delivered = 0;
    loop {
        let due = ledger.next_due(&tern(), false, 256).await.unwrap();
        if due.is_empty() {
            break;
        }
        for delivery in due {
            assert_eq!(delivery.version.path.to_string(), format!("{delivered:04}"));
            assert!(ledger.next_due(&tern(), true, 2).await.unwrap().is_empty());
            assert!(ledger.acknowledge(delivery.id, Verified::ByVessel).await.unwrap());
            delivered += 1;
        }
    }
    assert_eq!(delivered, 2000);
    ledger.reconcile(&docs(), &[tern()]).await.unwrap();
    assert_eq!(ledger.retirable(&docs(), VersionId(0), 3000).await.unwrap().len(), 2000);
}

/// The queue may be long, so the most frequent queries must not scan all of the queue or the history.
#[tokio::test]
async fn what_is_asked_for_every_file_reads_no_more_than_it_gives() {
    let place = Place::new();
    drop(place.open().await.unwrap());
    let mut database = place.database().await;
    let open = "d.state NOT IN ('acknowledged', 'superseded')";
    for (question, index) in [
        (
            format!(
                "SELECT d.id FROM delivery d JOIN version v ON v.id = d.version WHERE d.vessel = 'tern' AND d.large = 1
                 AND d.due_at <= 9 AND d.queue IS NULL AND {open} ORDER BY d.due_at, d.id LIMIT 2"
            ),
            "delivery_open (vessel=? AND large=? AND due_at<?)",
        ),
        (
            format!(
                "SELECT min(due_at) FROM delivery d WHERE vessel = 'tern' AND large = 0 AND queue IS NULL AND {open}"
            ),
            "delivery_open (vessel=? AND large=?)",
        ),
        (
            format!(
                "SELECT d.id FROM delivery d JOIN version v ON v.id = d.version WHERE d.vessel = 'tern' AND d.large = 1
                 AND d.queue = 'docs' AND d.rank > -1e300 AND d.due_at <= 9 AND {open}
                 ORDER BY d.rank, d.due_at, d.id LIMIT 2"
            ),
            "delivery_queue (vessel=? AND queue=? AND large=? AND rank>?)",
        ),
        (
            format!(
                "SELECT d.id FROM delivery d JOIN version v ON v.id = d.version WHERE d.vessel = 'tern' AND d.large = 1
                 AND d.queue = 'docs' AND d.rank > -1e300 AND d.due_at <= 9 AND {open}
                 ORDER BY d.rank DESC, d.due_at DESC, d.id DESC LIMIT 2"
            ),
            "delivery_queue (vessel=? AND queue=? AND large=? AND rank>?)",
        ),
        (
            format!(
                "SELECT d.id FROM delivery d JOIN version v ON v.id = d.version WHERE d.vessel = 'tern' AND d.large = 1
                 AND d.queue = 'docs' AND d.rank IS NULL AND d.due_at <= 9 AND {open} ORDER BY d.due_at, d.id LIMIT 2"
            ),
            "delivery_queue (vessel=? AND queue=? AND large=? AND rank=? AND due_at<?)",
        ),
        (
            format!(
                "SELECT d.id FROM delivery d CROSS JOIN version v ON v.id = d.version
                 WHERE d.queue = 'docs' AND d.expires_at <= 9 AND {open} ORDER BY d.expires_at LIMIT 9"
            ),
            "delivery_expiry (queue=? AND expires_at<?)",
        ),
        (
            "SELECT v.path FROM version v WHERE v.directory = 'docs' AND v.complete = 1 AND v.ended_at IS NULL
             AND v.id > 7 ORDER BY v.id LIMIT 2"
                .to_owned(),
            "version_complete (directory=? AND rowid>?)",
        ),
        (
            "SELECT v.id FROM json_each('[\"61\"]') i CROSS JOIN version v
             WHERE v.directory = 'docs' AND v.path = unhex(i.value) AND v.ended_at IS NULL"
                .to_owned(),
            "version_current (directory=? AND path=?)",
        ),
        (
            "SELECT path FROM version WHERE directory = 'docs' AND ended_at IS NULL ORDER BY path".to_owned(),
            "version_current (directory=?)",
        ),
        (
            format!("SELECT d.version FROM delivery d WHERE d.vessel = 'tern' AND {open} ORDER BY d.version LIMIT 1"),
            "delivery_oldest (vessel=?)",
        ),
        (
            "SELECT d.id FROM delivery d CROSS JOIN version v ON v.id = d.version WHERE d.state = 'acknowledged'
             AND d.acknowledged_at >= 5 AND (d.acknowledged_at > 5 OR d.id > 2) ORDER BY d.acknowledged_at, d.id LIMIT 9"
                .to_owned(),
            "delivery_acknowledged (acknowledged_at>?)",
        ),
        (
            format!("UPDATE delivery AS d SET touched = 1 WHERE id IN (SELECT value FROM json_each('[1]')) AND {open}"),
            "PRIMARY KEY (rowid=?)",
        ),
    ] {
        let explain = sqlx::AssertSqlSafe(format!("EXPLAIN QUERY PLAN {question}"));
        let plan = sqlx::query(explain).fetch_all(&mut database).await.unwrap();
        let plan: Vec<String> = plan.iter().map(|row| row.get("detail")).collect();
        assert!(plan.iter().any(|step| step.starts_with("SEARCH") && step.contains(index)), "{question}: {plan:?}");
        assert!(!plan.iter().any(|step| step.contains("TEMP B-TREE")), "{question}: {plan:?}");
    }
}

/// An index leads directly to the place of any part of the queue.
#[tokio::test]
async fn a_part_of_the_queue_is_found_by_an_index() {
    let place = Place::new();
    drop(place.open().await.unwrap());
    let mut database = place.database().await;
    for (question, index) in [
        (queue::SHARED, "delivery_open (vessel=? AND large=? AND due_at>"),
        (queue::OWN, "delivery_queue (vessel=? AND queue=? AND large=? AND rank=? AND due_at>"),
        (queue::RANKED, "delivery_queue (vessel=? AND queue=? AND large=? AND (rank,due_at)>"),
        (queue::PUT_OFF, "delivery_failed (vessel=? AND parked=? AND due_at>?)"),
        (queue::PARKED, "delivery_failed (vessel=? AND parked=? AND due_at>?)"),
        (reports::POSTPONED, "delivery_failed (vessel=? AND parked=?)"),
    ] {
        let explain = sqlx::AssertSqlSafe(format!("EXPLAIN QUERY PLAN {question}"));
        let plan = sqlx::query(explain).fetch_all(&mut database).await.unwrap();
        let plan: Vec<String> = plan.iter().map(|row| row.get("detail")).collect();
        let searched = |step: &&String| step.starts_with("SEARCH") && step.contains(index);
        // Both parts of the statement read the range: one for the deliveries of a piece, and one for its last place.
        // Only the returned rows are sorted.
        let is_piece = question.contains("is_last");
        assert_eq!(plan.iter().filter(searched).count(), if is_piece { 2 } else { 1 }, "{question}: {plan:#?}");
        let sorts = plan.iter().filter(|step| step.contains("TEMP B-TREE")).count();
        let scans = plan.iter().any(|step| step.starts_with("SCAN d"));
        assert!(!scans && (sorts <= 1 || !is_piece), "{question}: {plan:#?}");
    }
}

/// `CONTENTMONSTER_MILLION=1` measures each answer with 1,000,000 waiting files, of which 400,000 failed.
#[tokio::test]
async fn a_part_of_a_queue_of_a_million_files_takes_milliseconds() {
    let million = std::env::var_os("CONTENTMONSTER_MILLION").is_some();
    let files: i64 = if million { 1_000_000 } else { 20_000 };
    let place = Place::new();
    let ledger = place.open().await.unwrap();
    ledger.admit(&docs(), &[file("first", "one", 1)], &[tern()]).await.unwrap();
    let mut database = place.database().await;
    let fill = sqlx::AssertSqlSafe(format!(
        "WITH RECURSIVE n(i) AS (SELECT 2 UNION ALL SELECT i + 1 FROM n WHERE i < {files})
         INSERT INTO version (directory, path, size, mtime, mtime_nanos, inode, mode, digest, chunk_size, kind, target,
             admitted_at)
         SELECT iif(i % 1000 = 0, 'rare', 'docs'), CAST('file ' || i AS BLOB), i, 0, 0, i, 420, zeroblob(32), 100, 'file', x'', i
         FROM n;
         INSERT INTO delivery (version, vessel, large, state, failures, parked, due_at, reason)
         SELECT id, 'tern', id % 10 = 0, 'pending', id % 5 < 2, id % 5 = 0, admitted_at, 'full' FROM version WHERE id > 1;
         UPDATE tally SET postponed = (SELECT count(*) FROM delivery WHERE failures > 0 AND parked = 0)
         WHERE directory = 'docs'"
    ));
    sqlx::raw_sql(fill).execute(&mut database).await.unwrap();
    // A third of the files is in the queue of another directory, which is ordered by name.
    sqlx::raw_sql(
        "INSERT INTO queue (directory, ordering, settled) VALUES ('maps', 'name', 1);
         UPDATE version SET directory = 'maps' WHERE id % 3 = 0 AND directory = 'docs';
         UPDATE delivery SET queue = 'maps', rank = iif(failures > 0, NULL,
             (SELECT path FROM version v WHERE v.id = delivery.version))
         WHERE version IN (SELECT id FROM version WHERE directory = 'maps')",
    )
    .execute(&mut database)
    .await
    .unwrap();
    let view = ledger.view();
    let lane = |shared, queues: &[&str], ranked| {
        let queues = queues.iter().map(|name| DirectoryName::new(name)).collect();
        QueueLane { shared, queues, ranked }
    };
    let stages = [
        QueueStage {
            lanes: vec![lane(false, &["maps"], true), lane(true, &[], false)],
            due_after: i64::MIN,
            due_until: files,
        },
        QueueStage { lanes: vec![lane(true, &["maps"], false)], due_after: files, due_until: i64::MAX },
    ];
    let directory = Some(DirectoryName::new("rare"));
    for (what, filter) in [
        ("all", QueueFilter::default()),
        ("waiting", QueueFilter { state: Some(QueueState::Waiting), ..QueueFilter::default() }),
        ("put off", QueueFilter { state: Some(QueueState::PutOff), ..QueueFilter::default() }),
        ("parked", QueueFilter { state: Some(QueueState::Parked), ..QueueFilter::default() }),
        ("a rare directory", QueueFilter { directory, ..QueueFilter::default() }),
        ("a search in vain", QueueFilter { search: Some("nowhere".into()), ..QueueFilter::default() }),
    ] {
        let (mut after, mut found, mut pages, mut slowest) = (None, 0, 0, Duration::ZERO);
        loop {
            let began = Instant::now();
            let page = view.queue(&tern(), &stages, &filter, after.as_ref(), 1000).await.unwrap();
            slowest = slowest.max(began.elapsed());
            (found, pages) = (found + page.entries.len(), pages + 1);
            after = page.next;
            if after.is_none() || pages == 60 {
                break;
            }
        }
        println!("{files} files, {what}: {found} in {pages} pages, the slowest took {slowest:?}");
        // The limit is generous, because the test may be built without optimisation and run on a busy machine.
        assert!(slowest < Duration::from_secs(2), "{what}: {slowest:?}");
    }
    let began = Instant::now();
    assert_eq!(view.summary(0).await.unwrap().postponed.len(), 1);
    println!("{files} files, the summary took {:?}", began.elapsed());
}

/// Other writers get their turn during the reconciliation of a directory with many files.
#[tokio::test]
async fn reconciling_holds_nobody_up() {
    let place = Place::new();
    let ledger = place.open().await.unwrap();
    let versions: Vec<_> = (0..20_000).map(|n| file(format!("{n:05}"), "x", n)).collect();
    ledger.admit(&docs(), &versions, &[tern()]).await.unwrap();
    let one = ledger.next_due(&tern(), false, 1).await.unwrap().remove(0).id;
    let vessels: Vec<_> = (0..20).map(|n| VesselName::new(&n.to_string())).chain([tern()]).collect();
    let name = docs();
    let reconciling = ledger.reconcile(&name, &vessels);
    let entering = async {
        tokio::task::yield_now().await;
        let mut entered = 0;
        while ledger.view().summary(0).await.unwrap().tallies.iter().map(|tally| tally.waiting).sum::<u64>() < 420_000 {
            ledger.enter(one, DeliveryState::Uploading).await.unwrap();
            entered += 1;
        }
        entered
    };
    let (reconciled, entered) = tokio::join!(reconciling, entering);
    reconciled.unwrap();
    assert!(entered > 10, "only {entered} entries were made meanwhile");
}
