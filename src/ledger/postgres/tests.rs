//! Tests specific to PostgreSQL, and the conformance tests of the PostgreSQL store.

use std::time::{Duration, Instant};

use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{ConnectOptions, Connection, Row};

use super::{Postgres, current_versions, due, moves, new_versions, server, signatures, store, transitions, upkeep};
use crate::clock::Clock;
use crate::ledger::conformance::{self, Hands, file};
use crate::ledger::{Ledger, LedgerError, LedgerView};
use crate::names::{DirectoryName, RelPath, RemotePath, VesselName};
use crate::records::{DeliveryState, NewVersion, Traits, Verified, VersionId};
use crate::settings::{Database, PostgresAddress};

macro_rules! make_tests {
    ($($case:ident),* $(,)?) => {
        mod conforms {
            use super::*;
            $(
                #[tokio::test]
                async fn $case() {
                    let (place, hands) = (Place::new().await, Hands::new());
                    let store = Postgres::open(&place.address(), hands.clock()).await.unwrap();
                    conformance::$case(&store, &hands).await;
                    store.shut().await.unwrap();
                }
            )*
        }
    };
}
conformance::for_each_case!(make_tests);

/// A database for a test, and a directory for the lock files of hosts.
pub(in crate::ledger) struct Place {
    database: server::Place,
    directory: tempfile::TempDir,
}

impl Place {
    pub(in crate::ledger) async fn new() -> Self {
        let database = tokio::task::spawn_blocking(server::Place::new).await.unwrap();
        Self { database, directory: tempfile::tempdir().unwrap() }
    }

    /// Returns the address of the database for a simulated host, which has a lock file of its own.
    pub(super) fn address_of(&self, host: &str) -> PostgresAddress {
        let lock = self.directory.path().join(format!("{host}.lock"));
        let url = self.database.url();
        let Ok(Database::Postgres(address)) = Database::of_argument(&url, lock) else { panic!("{url} is no address") };
        let mut address = *address;
        address.lease_time = Duration::from_secs(3);
        address
    }

    fn address(&self) -> PostgresAddress {
        self.address_of("shore")
    }

    pub(in crate::ledger) fn database(&self) -> Database {
        Database::Postgres(Box::new(self.address()))
    }

    /// Connects to the database directly, without the lease.
    pub(in crate::ledger) async fn bare(&self) -> PgConnection {
        let options: PgConnectOptions = self.database.url().parse().unwrap();
        options.options([("search_path", "contentmonster")]).disable_statement_logging().connect().await.unwrap()
    }
}

pub(super) fn docs() -> DirectoryName {
    DirectoryName::new("docs")
}

pub(super) fn tern() -> VesselName {
    VesselName::new("tern")
}

async fn open(place: &Place, host: &str) -> Result<Ledger, LedgerError> {
    let address = Database::Postgres(Box::new(place.address_of(host)));
    Ledger::open_at(&address, Clock::system()).await
}

async fn due_paths(ledger: &Ledger) -> Vec<String> {
    let due = ledger.next_due(&tern(), false, 100_000).await.unwrap();
    due.iter().map(|delivery| delivery.version.path.to_string()).collect()
}

#[tokio::test]
async fn a_second_shore_is_refused_while_the_first_one_lives_and_takes_over_when_it_is_closed() {
    let place = Place::new().await;
    let first = open(&place, "first").await.unwrap();
    first.admit(&docs(), &[file("a", "one", 1)], &[tern()]).await.unwrap();
    let refused = open(&place, "second").await.err().expect("the first one lives");
    assert!(matches!(refused, LedgerError::Held { .. }), "{refused:?}");
    assert!(refused.fault().to_string().contains("process"), "{}", refused.fault());
    let refused = open(&place, "first").await.err().expect("the first one lives");
    assert!(matches!(refused, LedgerError::Held { .. }), "{refused:?}");
    first.close().await.unwrap();
    let asked = Instant::now();
    let second = open(&place, "second").await.unwrap();
    println!("the lease was handed over in {:?}", asked.elapsed());
    assert_eq!(due_paths(&second).await, ["a"]);
    assert!(first.admit(&docs(), &[file("b", "one", 1)], &[tern()]).await.is_err());
    second.close().await.unwrap();
}

#[tokio::test]
async fn a_shore_that_lost_the_lease_writes_nothing_and_does_no_step_that_can_not_be_taken_back() {
    let place = Place::new().await;
    let first = open(&place, "first").await.unwrap();
    first.admit(&docs(), &[file("a", "one", 1)], &[tern()]).await.unwrap();
    first.surely_ours().await.unwrap();
    // Another host takes over the lease, as after this process was stopped for longer than the lease time.
    let mut bare = place.bare().await;
    sqlx::query("UPDATE lease SET token = nextval('lease_token'), holder = 'another host', lock_file = 'other'")
        .execute(&mut bare)
        .await
        .unwrap();
    let refused = first.admit(&docs(), &[file("b", "one", 1)], &[tern()]).await.unwrap_err();
    assert!(matches!(refused, LedgerError::TakenOver { .. }), "{refused:?}");
    for refused in [first.surely_ours().await, first.probe().await, first.hurry(&tern()).await] {
        assert!(matches!(refused, Err(LedgerError::TakenOver { .. })), "{refused:?}");
    }
    let files: i64 = sqlx::query_scalar("SELECT count(*) FROM version").fetch_one(&mut bare).await.unwrap();
    assert_eq!(files, 1);
    first.close().await.unwrap();
    // Closing does not give back the lease, which belongs to the other host now.
    let holder: Option<String> = sqlx::query_scalar("SELECT holder FROM lease").fetch_one(&mut bare).await.unwrap();
    assert_eq!(holder.as_deref(), Some("another host"));
    bare.close().await.unwrap();
}

#[tokio::test]
async fn a_lease_that_is_not_renewed_is_taken_over_once_it_is_over() {
    let place = Place::new().await;
    let first = open(&place, "first").await.unwrap();
    first.close().await.unwrap();
    let mut bare = place.bare().await;
    sqlx::query(
        "UPDATE lease SET holder = 'a host that lost its power', lock_file = 'other',
             until = clock_timestamp() + interval '2 s'",
    )
    .execute(&mut bare)
    .await
    .unwrap();
    let asked = Instant::now();
    let second = open(&place, "second").await.unwrap();
    let took = asked.elapsed();
    println!("a lease with 2 s left was taken over after {took:?}");
    assert!(took > Duration::from_secs(1), "{took:?}");
    second.close().await.unwrap();
    bare.close().await.unwrap();
}

#[tokio::test]
async fn a_process_that_was_killed_is_followed_on_its_host_without_waiting() {
    let place = Place::new().await;
    let first = open(&place, "shore").await.unwrap();
    let mut bare = place.bare().await;
    // Below, the row is restored as a killed process would leave it.
    let lease = sqlx::query("SELECT holder, lock_file, until FROM lease").fetch_one(&mut bare).await.unwrap();
    let (holder, lock): (String, String) = (lease.get("holder"), lease.get("lock_file"));
    first.close().await.unwrap();
    drop(first);
    sqlx::query("UPDATE lease SET holder = $1, lock_file = $2, until = clock_timestamp() + interval '1 hour'")
        .bind(holder)
        .bind(lock)
        .execute(&mut bare)
        .await
        .unwrap();
    let second = tokio::time::timeout(Duration::from_secs(20), open(&place, "shore")).await.unwrap().unwrap();
    second.close().await.unwrap();
    bare.close().await.unwrap();
}

/// Ends all other sessions of the database, as a restart of the server does.
async fn cut(place: &Place) {
    let mut bare = place.bare().await;
    sqlx::query(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
         WHERE datname = current_database() AND pid <> pg_backend_pid()",
    )
    .execute(&mut bare)
    .await
    .unwrap();
    bare.close().await.unwrap();
}

#[tokio::test]
async fn sessions_that_are_cut_again_and_again_lose_nothing_and_count_nothing_twice() {
    let place = Place::new().await;
    let ledger = open(&place, "shore").await.unwrap();
    let cutting = async {
        for _ in 0..20 {
            tokio::time::sleep(Duration::from_millis(fastrand::u64(1..150))).await;
            cut(&place).await;
        }
    };
    let writing = async {
        let day = crate::records::UtcDay(20_000);
        let (mut admitted, mut failures) = (0_u64, 0);
        while admitted < 400 {
            let name = format!("{admitted:04}");
            ledger.admit(&docs(), &[file(&name, "one", admitted)], &[tern()]).await.unwrap();
            let bytes = crate::records::LinkBytes { sent: 1, received: 0, resent: 0 };
            ledger.add_link_bytes(day, &[((tern(), None), bytes)]).await.unwrap();
            let due = ledger.next_due(&tern(), false, 1).await.unwrap();
            ledger.put_off(due[0].id, "later", 0, false).await.unwrap();
            failures += 1;
            assert!(ledger.acknowledge(due[0].id, Verified::ByVessel).await.unwrap());
            admitted += 1;
        }
        (admitted, failures, day)
    };
    let ((admitted, failures, day), ()) = tokio::join!(writing, cutting);
    assert_eq!(failures, 400);
    let backlog = ledger.backlog().await.unwrap();
    assert_eq!((backlog[0].waiting, backlog[0].acknowledged), (0, admitted));
    let sums = crate::ledger::LinkUsage::link_bytes(&*ledger, day..=day).await.unwrap();
    assert_eq!(sums[0].1.sent, 400);
    assert_eq!(ledger.retirable(&docs(), VersionId(0), 1000).await.unwrap().len(), 400);
    ledger.close().await.unwrap();
}

#[tokio::test]
async fn a_database_that_refuses_writes_is_told_apart_and_all_goes_on_when_it_accepts_them() {
    let place = Place::new().await;
    let ledger = open(&place, "shore").await.unwrap();
    let mut bare = place.bare().await;
    let name: String = sqlx::query_scalar("SELECT current_database()").fetch_one(&mut bare).await.unwrap();
    let set = |on: &str| sqlx::AssertSqlSafe(format!("ALTER DATABASE {name} SET default_transaction_read_only = {on}"));
    sqlx::query(set("on")).execute(&mut bare).await.unwrap();
    cut(&place).await;
    let admitting = async {
        ledger.admit(&docs(), &[file("a", "one", 1)], &[tern()]).await.unwrap();
    };
    let watching = async {
        let deadline = Instant::now() + Duration::from_secs(30);
        let outage = loop {
            match ledger.outage() {
                Some(outage) if outage.refuses_writes => break outage,
                _ => assert!(Instant::now() < deadline, "it is not told"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        assert!(outage.to_string().contains("read-only"), "{outage}");
        let refused = ledger.view().summary(0).await.unwrap_err();
        assert!(matches!(refused, LedgerError::Away(_)), "{refused:?}");
        ledger.beat().await.unwrap();
        let mut again = place.bare().await;
        sqlx::query("SET default_transaction_read_only = off").execute(&mut again).await.unwrap();
        sqlx::query(set("off")).execute(&mut again).await.unwrap();
        again.close().await.unwrap();
    };
    tokio::join!(admitting, watching);
    assert_eq!(due_paths(&ledger).await, ["a"]);
    assert_eq!(ledger.outage(), None);
    ledger.close().await.unwrap();
}

#[tokio::test]
async fn a_ledger_can_be_looked_at_beside_its_writer_and_one_of_another_schema_is_refused() {
    let place = Place::new().await;
    let refused = LedgerView::open_at(&place.database()).await.err().expect("there is none");
    assert!(matches!(refused, LedgerError::NotThere { .. }), "{refused:?}");
    let ledger = open(&place, "shore").await.unwrap();
    ledger.admit(&docs(), &[file("a", "one", 1)], &[tern()]).await.unwrap();
    let view = LedgerView::open_at(&place.database()).await.unwrap();
    assert_eq!(view.summary(0).await.unwrap().tallies[0].waiting, 1);
    ledger.close().await.unwrap();
    let mut bare = place.bare().await;
    sqlx::query(
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
         VALUES (9999, 'from the future', TRUE, '\\x00', 1)",
    )
    .execute(&mut bare)
    .await
    .unwrap();
    for refused in [open(&place, "shore").await.err(), LedgerView::open_at(&place.database()).await.err()] {
        assert!(matches!(refused, Some(LedgerError::TooNew { form: 9999, .. })), "{refused:?}");
    }
    bare.close().await.unwrap();
}

/// Paths may be longer than the keys of an index.
#[tokio::test]
async fn paths_of_any_length_are_found_and_listed_in_order() {
    let place = Place::new().await;
    let ledger = open(&place, "shore").await.unwrap();
    let mut random = fastrand::Rng::with_seed(3);
    let long = |length: usize, random: &mut fastrand::Rng| -> Vec<u8> {
        (0..length)
            .map(|at| if at % 200 == 199 { b'/' } else { random.u8(1..=255) })
            .map(|b| if b == b'/' { b'x' } else { b })
            .collect()
    };
    let above = [long(199, &mut random), b"/".to_vec(), long(967, &mut random)].concat();
    let mut names: Vec<Vec<u8>> = [0, 1, 30, 500, 2000, 3500]
        .into_iter()
        .map(|length| [above.clone(), b"/".to_vec(), long(length + 1, &mut random)].concat())
        .collect();
    names.extend([above.clone(), long(960, &mut random), long(2900, &mut random)]);
    let files: Vec<NewVersion> = (0..).zip(&names).map(|(inode, name)| file(name, "one", inode)).collect();
    ledger.admit(&docs(), &files, &[tern()]).await.unwrap();
    ledger.admit(&docs(), &files, &[tern()]).await.unwrap();
    let paths: Vec<Vec<u8>> =
        ledger.current(&docs()).await.unwrap().iter().map(|it| it.path.as_bytes().to_vec()).collect();
    let mut sorted = names.clone();
    sorted.sort();
    assert_eq!(paths, sorted);
    let (mut parts, mut after) = (Vec::new(), None);
    while let Some(version) = ledger.current_after(&docs(), after.as_ref(), 1).await.unwrap().pop() {
        after = Some(version.path.clone());
        parts.push(version.path.as_bytes().to_vec());
    }
    parts.sort();
    assert_eq!(parts, sorted);
    let below = ledger.current_below(&docs(), &[RelPath::new(&above[..]).unwrap()]).await.unwrap();
    assert_eq!(below.len(), 6);
    assert!(ledger.is_open_below(&tern(), &docs(), &RelPath::new(&above[..]).unwrap()).await.unwrap());
    assert_eq!(ledger.versions_in(&docs(), &RelPath::new(&above[..]).unwrap(), 100).await.unwrap().len(), 7);
    ledger.close().await.unwrap();
}

/// Queries that run for each file must not become slower when the ledger has more records.
#[tokio::test]
async fn questions_of_single_files_are_answered_by_conditions_of_indexes() {
    let place = Place::new().await;
    let ledger = open(&place, "shore").await.unwrap();
    let mut session = super::servers(&place.address()).unwrap().options[0].connect().await.unwrap();
    let new = file(b"a", "one", 1);
    let explain = |question: &str| sqlx::query(sqlx::AssertSqlSafe(format!("EXPLAIN {question}")));
    let paths = &[&b"a"[..], b"b"][..];
    let copies = |question| explain(question).bind("tern").bind(2_000_000_i64).bind(1_i64);
    for (name, question) in [
        ("last delivered", explain(signatures::LAST_DELIVERED).bind("docs").bind(&b"a"[..]).bind("tern")),
        ("held before", explain(store::HELD_BEFORE).bind(1_i64).bind("tern")),
        ("copies by digest", copies(moves::COPIES_BY_DIGEST).bind(&b"digest"[..])),
        ("copies by size", copies(moves::COPIES_BY_SIZE)),
        ("same inode", new_versions::bind(explain(moves::SAME_INODE), &[(&new, None)]).bind("docs")),
        ("current versions", explain(current_versions::AT).bind(paths).bind("docs")),
        ("vanished files", explain(transitions::VANISHED).bind(paths).bind("docs")),
        ("prunable versions", explain(upkeep::PRUNABLE).bind(0_i64).bind(9_i64).bind(1_i64)),
    ] {
        let plan = question.fetch_all(&mut session).await.unwrap();
        let plan: Vec<String> = plan.iter().map(|row| row.get(0)).collect();
        let scans = plan.iter().filter(|line| line.contains("Index Scan") || line.contains("Index Only Scan")).count();
        let conditions = plan.iter().filter(|line| line.contains("Index Cond:")).count();
        assert!(scans == conditions && scans > 0, "{name} looks through a whole index: {plan:#?}");
        // The key of a path must be a condition of an index. As a filter, it would be compared with all paths of a
        // directory.
        let filters = plan.iter().filter(|line| line.contains("Filter:"));
        let compares_paths = filters.filter(|line| line.contains("octet_length")).count() > 0;
        assert!(!compares_paths, "{name} looks through a whole directory: {plan:#?}");
    }
    ledger.close().await.unwrap();
}

/// Statements that are planned once must have the right plan from the beginning, when the tables are empty.
#[tokio::test]
async fn statements_that_are_planned_once_find_their_rows_by_indexes_of_empty_tables() {
    let place = Place::new().await;
    let ledger = open(&place, "shore").await.unwrap();
    let mut session = super::servers(&place.address()).unwrap().options[0].connect().await.unwrap();
    let mut run = async |sql: &str| sqlx::raw_sql(sqlx::AssertSqlSafe(sql.to_owned())).fetch_all(&mut session).await;
    run("SET plan_cache_mode = force_generic_plan").await.unwrap();
    for (name, question, parameters) in [
        ("last_delivered", signatures::LAST_DELIVERED, "'docs', 'a', 'tern'"),
        ("held_before", store::HELD_BEFORE, "1, 'tern'"),
        ("next_due", due::NEXT_DUE, "'tern', false, 9, '{}', 9"),
        ("next_due_at", due::NEXT_DUE_AT, "'tern'"),
    ] {
        run(&format!("PREPARE {name} AS {question}")).await.unwrap();
        let plan = run(&format!("EXPLAIN EXECUTE {name} ({parameters})")).await.unwrap();
        let plan: Vec<String> = plan.iter().map(|row| row.get(0)).collect();
        let scans = plan.iter().filter(|line| line.contains("Index Scan") || line.contains("Index Only Scan")).count();
        let conditions = plan.iter().filter(|line| line.contains("Index Cond:")).count();
        assert!(scans == conditions && scans > 0, "{name} looks through a whole index: {plan:#?}");
        if name.starts_with("next_due") {
            let is_in_order = plan.iter().any(|line| line.contains("delivery_open"));
            assert!(
                is_in_order && !plan.iter().any(|line| line.contains("->  Sort")),
                "{name} is not in order: {plan:#?}"
            );
        }
    }
    ledger.close().await.unwrap();
}

/// The sums that the triggers maintain must equal a fresh count.
#[tokio::test]
async fn the_sums_are_what_counting_gives_whatever_happened() {
    let place = Place::new().await;
    let ledger = open(&place, "shore").await.unwrap();
    let (gull, mut random) = (VesselName::new("gull"), fastrand::Rng::with_seed(7));
    let mut database = place.bare().await;
    for step in 0..300 {
        let name = random.u8(0..6).to_string();
        let at = [RelPath::new(name.as_str()).unwrap()];
        let both = [tern(), gull.clone()];
        let some = &both[..random.usize(1..=2)];
        let open = ledger.next_due(&tern(), false, 100).await.unwrap();
        let one = open.first().map(|delivery| delivery.id);
        match (random.u8(0..12), one) {
            (11, _) => {
                let skipped = NewVersion::without_content(at[0].clone(), Traits::SKIPPED, Vec::new());
                ledger.admit(&docs(), &[skipped], some).await.unwrap();
            }
            (9, _) => drop(ledger.resend(&docs(), None, some).await.unwrap()),
            (10, _) => {
                let place = RemotePath::new(random.u8(0..2).to_string());
                ledger.locate(&docs(), &[(tern(), place)]).await.unwrap();
            }
            (0..2, _) => ledger.admit(&docs(), &[file(&name, &"x".repeat(step), step as u64)], some).await.unwrap(),
            (2, _) => ledger.reconcile(&docs(), some).await.unwrap(),
            (3, _) => drop(ledger.vanished(&docs(), &at).await.unwrap()),
            (4, Some(_)) => drop(ledger.forget(open[0].version.id).await.unwrap()),
            (5, _) => {
                let retirable = ledger.retirable(&docs(), VersionId(0), 1).await.unwrap();
                ledger.retired(&retirable.iter().map(|version| version.id).collect::<Vec<_>>()).await.unwrap();
            }
            (6, Some(one)) => ledger.put_off(one, "no space", 0, random.bool()).await.unwrap(),
            (7, Some(one)) => drop(ledger.enter(one, DeliveryState::Uploading).await.unwrap()),
            (_, Some(one)) => drop(ledger.acknowledge(one, Verified::ByVessel).await.unwrap()),
            _ => {}
        }
        let differing: i64 = sqlx::query_scalar(
            "SELECT ((SELECT count(*) FROM tally t
                 WHERE (t.waiting, t.waiting_bytes, t.parked, t.postponed, t.acknowledged, t.acknowledged_bytes)
                 IS DISTINCT FROM (
                 SELECT (count(*) FILTER (WHERE d.state NOT IN ('acknowledged', 'superseded')),
                     coalesce(sum(v.size) FILTER (WHERE d.state NOT IN ('acknowledged', 'superseded')), 0)::bigint,
                     count(*) FILTER (WHERE d.parked), count(*) FILTER (WHERE d.failures > 0 AND NOT d.parked
                         AND d.state NOT IN ('acknowledged', 'superseded')),
                     count(*) FILTER (WHERE d.state = 'acknowledged'),
                     coalesce(sum(v.size) FILTER (WHERE d.state = 'acknowledged'), 0)::bigint)
                 FROM delivery d JOIN version v ON v.id = d.version
                 WHERE d.vessel = t.vessel AND v.directory = t.directory))
             + (SELECT count(*) FROM directory_tally t WHERE (t.waiting, t.waiting_bytes) IS DISTINCT FROM (
                 SELECT (count(*), coalesce(sum(v.size), 0)::bigint) FROM version v WHERE v.directory = t.directory
                     AND v.ended_at IS NULL AND NOT v.complete AND v.forgotten_at IS NULL))
             + (SELECT coalesce(sum(files), 0) FROM retired_tally)
             - (SELECT count(*) FROM version WHERE ending = 'retired'))::bigint",
        )
        .fetch_one(&mut database)
        .await
        .unwrap();
        assert_eq!(differing, 0, "after step {step}");
    }
    ledger.close().await.unwrap();
}
