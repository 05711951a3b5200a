//! Tests specific to SQLite: ledger files that are opened, refused, migrated, or left behind by a killed process.

mod queries;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions, Connection, Row};
use tempfile::TempDir;

use super::{MIGRATIONS, Sqlite, queue, reports};
use crate::clock::Clock;
use crate::digest::Digest;
use crate::fault::Scope;
use crate::ledger::conformance::{self, Hands, file};
use crate::ledger::{
    Ledger, LedgerError, LedgerView, QueueFilter, QueueLane, QueueSettings, QueueStage, QueueState, Scratch, Store,
};
use crate::names::{DirectoryName, RelPath, RemotePath, VesselName};
use crate::records::{DeliveryState, Host, NewVersion, Traits, Verified, VersionId};
use crate::settings::Order;

macro_rules! make_tests {
    ($($case:ident),* $(,)?) => {
        mod conforms {
            use super::*;
            $(
                #[tokio::test]
                async fn $case() {
                    let (dir, hands) = (TempDir::new().unwrap(), Hands::new());
                    let store = Sqlite::open(&dir.path().join("ledger"), hands.clock()).await.unwrap();
                    conformance::$case(&store, &hands).await;
                }
            )*
        }
    };
}
conformance::for_each_case!(make_tests);

struct Place {
    dir: TempDir,
}

impl Place {
    fn new() -> Self {
        Self { dir: TempDir::new().unwrap() }
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("ledger.sqlite3")
    }

    async fn open(&self) -> Result<Ledger, LedgerError> {
        Ledger::open(&self.file(), Clock::system()).await
    }

    /// Opens the database directly, without the ledger's lock.
    async fn database(&self) -> SqliteConnection {
        bare(&self.file()).await
    }
}

async fn bare(file: &Path) -> SqliteConnection {
    SqliteConnectOptions::new().filename(file).create_if_missing(true).connect().await.unwrap()
}

fn docs() -> DirectoryName {
    DirectoryName::new("docs")
}

fn tern() -> VesselName {
    VesselName::new("tern")
}

async fn due_paths(ledger: &Ledger) -> Vec<String> {
    let due = ledger.next_due(&tern(), false, 100_000).await.unwrap();
    due.iter().map(|delivery| delivery.version.path.to_string()).collect()
}

fn refusal(opened: Result<Ledger, LedgerError>) -> LedgerError {
    opened.err().expect("it should have been refused")
}

/// Rows that fit the tables of the first schema.
const ROWS_OF_FORM_1: &str = "
    INSERT INTO instance (id) VALUES ('00000000000000ab');
    INSERT INTO version (id, directory, path, size, mtime, mtime_nanos, inode, mode, digest, chunk_size, chunks, admitted_at)
        VALUES (7, 'docs', x'61', 3, 1, 2, 4, 420, zeroblob(32), 100, zeroblob(32), 5);
    INSERT INTO delivery (version, vessel, large, state, due_at, touched) VALUES (7, 'tern', 0, 'uploading', 5, 1);
    INSERT INTO version (id, directory, path, size, mtime, mtime_nanos, inode, mode, digest, chunk_size, chunks, admitted_at,
            complete)
        VALUES (8, 'docs', x'ff0a', 3, 1, 2, 4, 420, zeroblob(32), 100, zeroblob(32), 5, 1);
    INSERT INTO delivery (version, vessel, large, state, due_at) VALUES (8, 'tern', 0, 'acknowledged', 5);";

#[tokio::test]
async fn a_ledger_of_every_older_form_is_opened_and_keeps_its_rows() {
    let forms: Vec<i64> = MIGRATIONS.iter().map(|migration| migration.version).collect();
    for &form in &forms {
        let place = Place::new();
        let mut database = place.database().await;
        MIGRATIONS.run_to(forms[0], &mut database).await.unwrap();
        sqlx::raw_sql(ROWS_OF_FORM_1).execute(&mut database).await.unwrap();
        MIGRATIONS.run_to(form, &mut database).await.unwrap();
        database.close().await.unwrap();

        let ledger = place.open().await.unwrap();
        assert_eq!(ledger.instance().to_string(), "00000000000000ab", "form {form}");
        let due = ledger.next_due(&tern(), false, 10).await.unwrap();
        assert_eq!((due.len(), due[0].version.id, due[0].state), (1, VersionId(7), DeliveryState::Uploading));
        assert_eq!(due[0].version.digest, Digest::from_bytes(&[0; 32]));
        let retirable = ledger.retirable(&docs(), VersionId(0), 10).await.unwrap();
        assert_eq!((retirable.len(), retirable[0].path.as_bytes()), (1, &b"\xff\n"[..]));
        let tally = &ledger.view().summary(0).await.unwrap().tallies[0];
        assert_eq!((tally.waiting, tally.waiting_bytes, tally.acknowledged_bytes), (1, 3, 3), "form {form}");
        // After a migration, the first recorded place counts as the earlier one, so no file is sent again.
        ledger.locate(&docs(), &[(tern(), RemotePath::new("/srv/docs"))]).await.unwrap();
        ledger.reconcile(&docs(), &[tern()]).await.unwrap();
        let host = Host { address: "tern:22".into(), account: "mate".into(), key: Some(("ed".into(), "1".into())) };
        assert_eq!(ledger.meet(&tern(), &host).await.unwrap(), 0, "form {form}");
        assert_eq!(ledger.next_due(&tern(), false, 10).await.unwrap().len(), 1, "form {form}");
        // The migration keeps the sequence of version numbers: a new version gets a higher number than all before.
        ledger.admit(&docs(), &[file("new", "one", 1)], &[tern()]).await.unwrap();
        assert!(ledger.next_due(&tern(), false, 10).await.unwrap()[1].version.id > VersionId(8));
    }
}

#[tokio::test]
async fn the_numbers_of_migrations_only_grow() {
    let forms: Vec<i64> = MIGRATIONS.iter().map(|migration| migration.version).collect();
    assert!(forms.is_sorted_by(|a, b| a < b), "{forms:?}");
}

#[tokio::test]
async fn a_ledger_of_a_newer_program_is_refused_and_left_as_it_is() {
    let place = Place::new();
    let ledger = place.open().await.unwrap();
    ledger.admit(&docs(), &[file("a", "one", 1)], &[tern()]).await.unwrap();
    drop(ledger);
    let mut database = place.database().await;
    sqlx::query(
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
         VALUES (9999, 'from the future', TRUE, x'00', 1)",
    )
    .execute(&mut database)
    .await
    .unwrap();
    // The second attempt shows that a refused open leaves no lock behind.
    for _ in 0..2 {
        let refused = refusal(place.open().await);
        assert!(matches!(refused, LedgerError::TooNew { form: 9999, .. }), "{refused:?}");
        assert!(refused.to_string().contains("newer contentmonster"), "{refused}");
    }
    sqlx::query("DELETE FROM _sqlx_migrations WHERE version = 9999").execute(&mut database).await.unwrap();
    assert_eq!(due_paths(&place.open().await.unwrap()).await, ["a"]);
}

#[tokio::test]
async fn a_second_opener_is_refused_while_the_first_lives() {
    let place = Place::new();
    let first = place.open().await.unwrap();
    let clone = first.clone();
    drop(first);
    let refused = refusal(place.open().await);
    assert!(matches!(refused, LedgerError::InUse { .. }), "{refused:?}");
    assert!(refused.to_string().contains("in use"), "{refused}");
    drop(clone);
    place.open().await.unwrap();
}

#[tokio::test]
async fn the_shores_id_stays_and_no_two_ledgers_share_one() {
    let (here, there) = (Place::new(), Place::new());
    let first = here.open().await.unwrap().instance();
    assert_eq!(here.open().await.unwrap().instance(), first);
    assert_ne!(there.open().await.unwrap().instance(), first);
}

#[tokio::test]
async fn a_file_that_is_no_database_is_refused_and_left_as_it_is() {
    let place = Place::new();
    let text = "[MONSTER]\nDatabase = ledger.sqlite3\n".repeat(100);
    std::fs::write(place.file(), &text).unwrap();
    let refused = refusal(place.open().await);
    assert!(matches!(refused, LedgerError::Unusable { .. }), "{refused:?}");
    assert!(refused.to_string().contains("ledger.sqlite3 can't be opened"), "{refused}");
    assert!(refused.to_string().contains("not a database"), "{refused}");
    assert!(refused.to_string().contains("corrupt"), "{refused}");
    for advice in ["check Database in [MONSTER]", "contentmonster backup", "and start again"] {
        assert!(refused.fault().to_string().contains(advice), "{}", refused.fault());
    }
    assert_eq!(std::fs::read_to_string(place.file()).unwrap(), text);
}

#[tokio::test]
async fn a_directory_that_does_not_exist_is_named() {
    let place = Place::new();
    let file = place.dir.path().join("nowhere/ledger.sqlite3");
    let refused = refusal(Ledger::open(&file, Clock::system()).await);
    assert!(matches!(refused, LedgerError::Unusable { .. }), "{refused:?}");
    let said = refused.to_string();
    assert!(said.contains("nowhere/ledger.sqlite3") && said.contains("No such file or directory"), "{said}");
    assert!(!file.parent().unwrap().exists());
}

#[tokio::test]
async fn a_directory_in_the_ledgers_place_is_refused() {
    let place = Place::new();
    std::fs::create_dir(place.file()).unwrap();
    let refused = refusal(place.open().await);
    assert!(matches!(refused, LedgerError::Unusable { .. }), "{refused:?}");
}

#[tokio::test]
async fn the_python_originals_database_at_the_same_path_keeps_its_rows() {
    let place = Place::new();
    let mut database = place.database().await;
    sqlx::raw_sql(
        "CREATE TABLE contentmonster_version (version INTEGER);
         INSERT INTO contentmonster_version VALUES (1);
         CREATE TABLE contentmonster_file (uuid VARCHAR(36) PRIMARY KEY, directory TEXT, name TEXT, checksum TEXT);
         INSERT INTO contentmonster_file VALUES ('u', 'docs', 'old', 'c');
         CREATE TABLE contentmonster_file_log (file TEXT, vessel TEXT, status INTEGER);",
    )
    .execute(&mut database)
    .await
    .unwrap();
    database.close().await.unwrap();

    let ledger = place.open().await.unwrap();
    ledger.admit(&docs(), &[file("a", "one", 1)], &[tern()]).await.unwrap();
    assert_eq!(due_paths(&ledger).await, ["a"]);
    drop(ledger);
    assert_eq!(due_paths(&place.open().await.unwrap()).await, ["a"]);
    let old = sqlx::query("SELECT name, (SELECT version FROM contentmonster_version) FROM contentmonster_file")
        .fetch_one(&mut place.database().await)
        .await
        .unwrap();
    assert_eq!((old.get::<String, _>(0), old.get::<i64, _>(1)), ("old".into(), 1));
}

#[tokio::test]
async fn state_survives_a_kill() {
    let place = Place::new();
    let ledger = place.open().await.unwrap();
    let batch = ["a", "b", "c"].map(|name| file(name, "one", 1));
    ledger.admit(&docs(), &batch, &[tern()]).await.unwrap();
    let due = ledger.next_due(&tern(), false, 10).await.unwrap();
    ledger.acknowledge(due[0].id, Verified::ByVessel).await.unwrap();
    ledger.enter(due[1].id, DeliveryState::Verifying).await.unwrap();
    ledger.put_off(due[2].id, "disk full", i64::MAX, true).await.unwrap();

    // These copies are the files as a killed process leaves them, with everything still in the write-ahead log.
    let copy = Place::new();
    for end in ["", "-wal"] {
        let name = format!("ledger.sqlite3{end}");
        std::fs::copy(place.dir.path().join(&name), copy.dir.path().join(&name)).unwrap();
    }
    drop(ledger);
    for place in [place, copy] {
        let ledger = place.open().await.unwrap();
        let due = ledger.next_due(&tern(), false, 10).await.unwrap();
        assert_eq!((due.len(), due[0].state), (1, DeliveryState::Verifying));
        assert_eq!(ledger.retirable(&docs(), VersionId(0), 10).await.unwrap()[0].path, RelPath::new("a").unwrap());
        assert_eq!(ledger.parked(10).await.unwrap()[0].reason, "disk full");
    }
}

/// [`Store`] doesn't show how a version ended, but the statistics depend on it.
#[tokio::test]
async fn only_what_is_complete_ends_as_retired() {
    let place = Place::new();
    let ledger = place.open().await.unwrap();
    let names = ["retired", "complete, then gone", "complete, then changed", "gone", "changed"];
    ledger.admit(&docs(), &names.map(|name| file(name, "one", 1)), &[tern()]).await.unwrap();
    for delivery in &ledger.next_due(&tern(), false, 10).await.unwrap()[..3] {
        ledger.acknowledge(delivery.id, Verified::ByVessel).await.unwrap();
    }
    ledger.retired(&[VersionId(1)]).await.unwrap();
    let gone = [names[1], names[3]].map(|name| RelPath::new(name).unwrap());
    assert_eq!(ledger.vanished(&docs(), &gone).await.unwrap().len(), 1);
    ledger.admit(&docs(), &[names[2], names[4]].map(|name| file(name, "two", 1)), &[tern()]).await.unwrap();
    let endings: Vec<String> = sqlx::query_scalar("SELECT ending FROM version WHERE ended_at IS NOT NULL ORDER BY id")
        .fetch_all(&mut place.database().await)
        .await
        .unwrap();
    assert_eq!(endings, ["retired", "retired", "superseded", "vanished", "superseded"]);
}

#[tokio::test]
async fn a_transaction_that_fails_fails_for_all_who_share_it_and_for_nobody_after() {
    let place = Place::new();
    let ledger = place.open().await.unwrap();
    let files: Vec<_> = (0..20).map(|n| file(format!("{n}"), "one", n)).collect();
    ledger.admit(&docs(), &files, &[tern()]).await.unwrap();
    let due = ledger.next_due(&tern(), false, 20).await.unwrap();
    let acknowledge_all = || join_all(due.iter().map(|one| ledger.acknowledge(one.id, Verified::ByVessel)));

    let mut database = place.database().await;
    sqlx::raw_sql("ALTER TABLE delivery RENAME TO aside").execute(&mut database).await.unwrap();
    for failed in acknowledge_all().await {
        let fault = failed.unwrap_err().fault();
        assert_eq!(fault.scope, Scope::Daemon, "without its ledger the daemon stops");
        assert!(fault.reason.contains("delivery"), "{fault}");
    }
    sqlx::raw_sql("ALTER TABLE aside RENAME TO delivery").execute(&mut database).await.unwrap();
    assert!(acknowledge_all().await.into_iter().all(Result::unwrap));
    assert_eq!(ledger.retirable(&docs(), VersionId(0), 30).await.unwrap().len(), 20);
}

/// The sums that the triggers maintain must equal a fresh count.
#[tokio::test]
async fn the_sums_are_what_counting_gives_whatever_happened() {
    let place = Place::new();
    let ledger = place.open().await.unwrap();
    let (gull, mut random) = (VesselName::new("gull"), fastrand::Rng::with_seed(7));
    let mut database = place.database().await;
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
            (_, Some(one)) => drop(ledger.acknowledge(one, Verified::ByVessel).await.unwrap()),
            _ => {}
        }
        let differing: i64 = sqlx::query_scalar(
            "SELECT (SELECT count(*) FROM tally t WHERE (t.waiting, t.waiting_bytes, t.parked, t.postponed, t.acknowledged) IS NOT (
                 SELECT count(*) FILTER (WHERE d.state NOT IN ('acknowledged', 'superseded')),
                     coalesce(sum(v.size) FILTER (WHERE d.state NOT IN ('acknowledged', 'superseded')), 0),
                     sum(d.parked), count(*) FILTER (WHERE d.failures > 0 AND d.parked = 0
                         AND d.state NOT IN ('acknowledged', 'superseded')),
                     count(*) FILTER (WHERE d.state = 'acknowledged')
                 FROM delivery d JOIN version v ON v.id = d.version
                 WHERE d.vessel = t.vessel AND v.directory = t.directory))
             + (SELECT count(*) FROM directory_tally t WHERE (t.waiting, t.waiting_bytes) IS NOT (
                 SELECT count(*), coalesce(sum(v.size), 0) FROM version v WHERE v.directory = t.directory
                     AND v.ended_at IS NULL AND v.complete = 0 AND v.forgotten_at IS NULL))
             + (SELECT coalesce(sum(files), 0) FROM retired_tally)
             - (SELECT count(*) FROM version WHERE ending = 'retired')",
        )
        .fetch_one(&mut database)
        .await
        .unwrap();
        assert_eq!(differing, 0, "after step {step}");
    }
}

/// Returns the versions and their deliveries as text, one line for each delivery.
async fn deliveries(database: &mut SqliteConnection) -> Vec<String> {
    let question =
        "SELECT json_array(v.id, v.complete, v.ended_at, v.ending, d.vessel, d.state, d.due_at, d.failures, d.parked,
             d.touched, d.place, d.queue, hex(d.rank), d.expires_at)
         FROM version v LEFT JOIN delivery d ON d.version = v.id ORDER BY v.id, d.vessel";
    sqlx::query_scalar(question).fetch_all(database).await.unwrap()
}

/// A directory that was reconciled with the same vessels is not reconciled again. This test verifies that another
/// reconciliation would change nothing, whatever happened in between.
#[tokio::test]
async fn what_was_reconciled_fits_whatever_happens_afterwards() {
    let (place, hands) = (Place::new(), Hands::new());
    let ledger = Ledger::open(&place.file(), hands.clock()).await.unwrap();
    let (gull, mut random) = (VesselName::new("gull"), fastrand::Rng::with_seed(11));
    let mut database = place.database().await;
    let both = [tern(), gull];
    for step in 0..1500_u64 {
        hands.forward(1);
        let name = random.u8(0..6).to_string();
        let at = [RelPath::new(name.as_str()).unwrap()];
        // Mostly uses both vessels, as the program does; sometimes only one.
        let some = if random.u8(0..8) > 0 { &both[..] } else { &both[random.usize(0..2)..] };
        let open = ledger.next_due(&tern(), false, 100).await.unwrap();
        let one = open.first().map(|delivery| delivery.id);
        match (random.u8(0..16), one) {
            (0..4, _) => ledger.admit(&docs(), &[file(&name, "one", step)], some).await.unwrap(),
            (4, _) => {
                let skipped = NewVersion::without_content(at[0].clone(), Traits::SKIPPED, Vec::new());
                ledger.admit(&docs(), &[skipped], &[]).await.unwrap();
            }
            (5, _) => drop(ledger.resend(&docs(), None, some).await.unwrap()),
            (6, _) => {
                let place = RemotePath::new(random.u8(0..2).to_string());
                ledger.locate(&docs(), &[(both[random.usize(0..2)].clone(), place)]).await.unwrap();
            }
            (7, _) => {
                let (address, account) = (random.u8(0..2).to_string(), "mate".to_owned());
                ledger.meet(&tern(), &Host { address, account, key: None }).await.unwrap();
            }
            (8, _) => drop(ledger.vanished(&docs(), &at).await.unwrap()),
            (9, Some(_)) => drop(ledger.forget(open[0].version.id).await.unwrap()),
            (10, _) => {
                let retirable = ledger.retirable(&docs(), VersionId(0), 1).await.unwrap();
                ledger.retired(&retirable.iter().map(|version| version.id).collect::<Vec<_>>()).await.unwrap();
            }
            (11, _) => {
                let expire = random.bool().then(|| Duration::from_millis(random.u64(1..40)));
                let settings = random.bool().then_some(QueueSettings { order: Order::Name, expire });
                ledger.set_queue(&docs(), settings).await.unwrap();
            }
            (12, _) => drop(ledger.expire(&docs(), hands.now(), 10).await.unwrap()),
            (13, Some(one)) => ledger.put_off(one, "no space", hands.now(), random.bool()).await.unwrap(),
            (_, Some(one)) => drop(ledger.acknowledge(one, Verified::ByVessel).await.unwrap()),
            _ => {}
        }
        let some = if random.u8(0..8) > 0 { &both[..] } else { &both[..1] };
        ledger.reconcile(&docs(), some).await.unwrap();
        let found = deliveries(&mut database).await;
        sqlx::raw_sql("DELETE FROM reconciled").execute(&mut database).await.unwrap();
        ledger.reconcile(&docs(), some).await.unwrap();
        assert_eq!(deliveries(&mut database).await, found, "after step {step}");
    }
}

#[tokio::test]
async fn a_directory_that_was_reconciled_is_not_gone_through_again() {
    let place = Place::new();
    let ledger = place.open().await.unwrap();
    let gull = VesselName::new("gull");
    ledger.admit(&docs(), &[file("a", "one", 1)], &[tern()]).await.unwrap();
    ledger.reconcile(&docs(), &[tern(), gull.clone()]).await.unwrap();
    // No part of the program deletes deliveries like this.
    let mut database = place.database().await;
    sqlx::raw_sql("DELETE FROM delivery").execute(&mut database).await.unwrap();
    ledger.reconcile(&docs(), &[gull.clone(), tern()]).await.unwrap();
    assert_eq!(due_paths(&ledger).await, [""; 0]);
    ledger.reconcile(&docs(), &[tern()]).await.unwrap();
    assert_eq!(due_paths(&ledger).await, ["a"]);
}

#[tokio::test]
async fn what_was_taken_in_while_the_clock_was_ahead_is_due_after_a_restart() {
    let (place, hands) = (Place::new(), Hands::new());
    hands.forward(86_400_000);
    let ledger = Ledger::open(&place.file(), hands.clock()).await.unwrap();
    ledger.admit(&docs(), &[file("a", "one", 1)], &[tern()]).await.unwrap();
    drop(ledger);
    hands.forward(-86_400_000);
    let ledger = Ledger::open(&place.file(), hands.clock()).await.unwrap();
    assert_eq!(due_paths(&ledger).await, ["a"]);
}

#[tokio::test]
async fn a_copy_to_rehearse_on_is_made_once_as_long_as_the_ledger_stays_as_it_is() {
    let place = Place::new();
    let ledger = place.open().await.unwrap();
    ledger.admit(&docs(), &[file("a", "one", 1)], &[tern()]).await.unwrap();
    let mut scratch = Scratch::of(&place.file(), Clock::system()).await.unwrap();
    for _ in 0..3 {
        let copy = scratch.ledger();
        assert_eq!(due_paths(&copy).await, ["a"]);
        copy.admit(&docs(), &[file("b", "two", 1)], &[tern()]).await.unwrap();
        copy.vanished(&docs(), &[RelPath::new("a").unwrap()]).await.unwrap();
        assert_eq!(due_paths(&copy).await, ["b"]);
        drop(copy);
        scratch.refresh().await.unwrap();
    }
    ledger.admit(&docs(), &[file("c", "three", 1)], &[tern()]).await.unwrap();
    scratch.refresh().await.unwrap();
    assert_eq!(due_paths(&scratch.ledger()).await, ["a", "c"]);
    assert_eq!(due_paths(&ledger).await, ["a", "c"]);
}

#[tokio::test]
async fn a_ledger_can_be_looked_at_beside_whoever_writes_it() {
    let place = Place::new();
    let refused = LedgerView::open(&place.file()).await.err().expect("there is none");
    assert!(matches!(refused, LedgerError::NotThere { .. }), "{refused:?}");
    assert!(!place.file().exists());
    let ledger = place.open().await.unwrap();
    ledger.admit(&docs(), &[file("a", "one", 1)], &[tern()]).await.unwrap();
    let view = LedgerView::open(&place.file()).await.unwrap();
    assert_eq!(view.summary(0).await.unwrap().tallies[0].waiting, 1);
    drop((ledger, view));
    // A read-only view also opens without a writer, and doesn't block later writers.
    let view = LedgerView::open(&place.file()).await.unwrap();
    let ledger = place.open().await.unwrap();
    assert_eq!(view.summary(0).await.unwrap(), ledger.view().summary(0).await.unwrap());
}

#[tokio::test]
async fn a_ledger_of_another_form_is_not_looked_at() {
    let place = Place::new();
    let mut database = place.database().await;
    MIGRATIONS.run_to(1, &mut database).await.unwrap();
    database.close().await.unwrap();
    let refused = LedgerView::open(&place.file()).await.err().expect("it is too old");
    assert!(matches!(refused, LedgerError::TooOld { .. }), "{refused:?}");
}

#[tokio::test]
async fn a_ledger_whose_writer_hangs_has_no_beat() {
    let place = Place::new();
    let store = Sqlite::open(&place.file(), Clock::system()).await.unwrap();
    let hanging = store.writer.begin().await.unwrap();
    let mut beat = store.beat();
    assert!(tokio::time::timeout(Duration::from_millis(200), &mut beat).await.is_err());
    hanging.rollback().await.unwrap();
    beat.await.unwrap();
}
