//! Tests of copies between the stores.

use std::collections::BTreeSet;

use sqlx::{Connection, Row};

use super::tables::TABLES;
use super::{copy, sqlite};
use crate::clock::Clock;
use crate::ledger::conformance::file;
use crate::ledger::postgres::tests::Place;
use crate::ledger::{Ledger, LedgerError, Pause, QueueSettings, VersionHistory};
use crate::names::{DirectoryName, RelPath, RemotePath, VesselName};
use crate::records::{DeliveryState, Verified, VersionId};
use crate::settings::{Database, Order};

fn docs() -> DirectoryName {
    DirectoryName::new("docs")
}

/// Writes records to many tables.
async fn fill(ledger: &Ledger) {
    let (tern, gull) = (VesselName::new("tern"), VesselName::new("gull"));
    let queue = QueueSettings { order: Order::Newest, expire: Some(std::time::Duration::from_secs(1_000_000_000)) };
    ledger.set_queue(&docs(), Some(queue)).await.unwrap();
    let files: Vec<_> = (0..1500).map(|n| file([b"\xff\n", format!("{n:04}").as_bytes()].concat(), "one", n)).collect();
    ledger.admit(&docs(), &files, &[tern.clone(), gull.clone()]).await.unwrap();
    ledger.locate(&docs(), &[(tern.clone(), RemotePath::new("/srv"))]).await.unwrap();
    ledger.reconcile(&docs(), &[tern.clone(), gull.clone()]).await.unwrap();
    let due = ledger.next_due_in(&tern, &docs(), false, 40, crate::ledger::QueueEnd::Front).await.unwrap();
    for (at, delivery) in due.iter().enumerate() {
        match at % 4 {
            0 => drop(ledger.acknowledge(delivery.id, Verified::ByVessel).await.unwrap()),
            1 => ledger.put_off(delivery.id, "no\0space", 5, at % 8 == 1).await.unwrap(),
            2 => drop(ledger.enter(delivery.id, DeliveryState::Uploading).await.unwrap()),
            _ => {}
        }
    }
    ledger.vanished(&docs(), &[files[7].path.clone()]).await.unwrap();
    ledger.pause(&gull, Some(&Pause { until: None, note: Some("dry dock".into()) })).await.unwrap();
    // The version with the highest number vanishes and is pruned below. Its number must not be given again.
    ledger.vanished(&docs(), &[files[1499].path.clone()]).await.unwrap();
    let mut at = Some(VersionId(0));
    while let Some(after) = at {
        at = ledger.prune(i64::MAX, after).await.unwrap().next;
    }
}

#[tokio::test]
async fn a_ledger_is_copied_to_postgresql_and_back_and_stays_the_same() {
    let place = Place::new().await;
    let directory = tempfile::tempdir().unwrap();
    let [first, back] = ["first", "back"].map(|name| Database::File(directory.path().join(name)));
    let ledger = Ledger::open_at(&first, Clock::system()).await.unwrap();
    fill(&ledger).await;
    let (instance, summary) = (ledger.instance(), ledger.view().summary(0).await.unwrap());
    let refused = copy(&first, &place.database()).await.unwrap_err();
    assert!(matches!(refused, LedgerError::InUse { .. }), "{refused:?}");
    ledger.close().await.unwrap();
    drop(ledger);

    let there = copy(&first, &place.database()).await.unwrap();
    assert!(there.iter().any(|table| table.name == "delivery" && table.rows > 2900), "{there:?}");
    let ledger = Ledger::open_at(&place.database(), Clock::system()).await.unwrap();
    let copied = ledger.view().summary(0).await.unwrap();
    assert_eq!((ledger.instance(), &copied.tallies), (instance, &summary.tallies));
    assert_eq!(copied.directories, summary.directories);
    // PostgreSQL can't store the character 0.
    assert_eq!(summary.postponed[0].reason, "no\0space");
    assert_eq!(copied.postponed[0].reason, "no\u{fffd}space");
    let refused = copy(&first, &place.database()).await.unwrap_err();
    assert!(matches!(refused, LedgerError::Held { .. }), "{refused:?}");
    ledger.close().await.unwrap();
    drop(ledger);
    let refused = copy(&first, &place.database()).await.unwrap_err();
    assert!(refused.to_string().contains("has records"), "{refused}");

    assert_eq!(copy(&place.database(), &back).await.unwrap(), there);
    // All three ledgers must continue in the same way.
    let mut histories: Vec<Vec<VersionHistory>> = Vec::new();
    for database in [&first, &back, &place.database()] {
        let ledger = Ledger::open_at(database, Clock::system()).await.unwrap();
        let (gull, docs) = (VesselName::new("gull"), docs());
        let front = ledger.next_due_in(&gull, &docs, false, 3, crate::ledger::QueueEnd::Front);
        assert_eq!(front.await.unwrap().len(), 3);
        ledger.admit(&docs, &[file("new", "two", 1)], &[VesselName::new("tern")]).await.unwrap();
        let history = ledger.view().history(&docs, &RelPath::new("new").unwrap()).await.unwrap();
        assert_eq!(history[0].version.id, VersionId(1501));
        histories.push(history);
        ledger.close().await.unwrap();
    }
    assert!(histories.iter().all(|history| history[0].deliveries[0].id == histories[0][0].deliveries[0].id));
}

#[tokio::test]
async fn a_backup_of_a_ledger_in_postgresql_in_use_is_a_ledger_file() {
    let place = Place::new().await;
    let directory = tempfile::tempdir().unwrap();
    let ledger = Ledger::open_at(&place.database(), Clock::system()).await.unwrap();
    fill(&ledger).await;
    let to = directory.path().join("backup");
    crate::ledger::backup(&place.database(), &to).await.unwrap();
    let copy = Ledger::open(&to, Clock::system()).await.unwrap();
    assert_eq!(copy.view().summary(0).await.unwrap().tallies, ledger.view().summary(0).await.unwrap().tallies);
    let mut scratch = crate::ledger::Scratch::of_ledger(&place.database(), Clock::system()).await.unwrap();
    for _ in 0..2 {
        let rehearsed = scratch.ledger();
        assert_eq!(rehearsed.backlog().await.unwrap(), ledger.backlog().await.unwrap());
        rehearsed.forget_all(&docs()).await.unwrap();
        drop(rehearsed);
        scratch.refresh().await.unwrap();
    }
    ledger.close().await.unwrap();
}

/// A new column or table must be added to both stores and to the list of tables.
#[tokio::test]
async fn both_stores_have_the_tables_that_are_copied() {
    let place = Place::new().await;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("ledger");
    drop(Ledger::open(&file, Clock::system()).await.unwrap());
    Ledger::open_at(&place.database(), Clock::system()).await.unwrap().close().await.unwrap();
    let listed: BTreeSet<(String, String)> = TABLES
        .iter()
        .flat_map(|table| table.columns.iter().map(|(column, _)| (table.name.to_owned(), (*column).to_owned())))
        .collect();
    let mut connection = sqlite(&file).await.unwrap();
    let rows = sqlx::query(
        "SELECT t.name, c.name FROM sqlite_schema t JOIN pragma_table_info(t.name) c
         WHERE t.type = 'table' AND t.name NOT LIKE 'sqlite\\_%' ESCAPE '\\' AND t.name <> '_sqlx_migrations'",
    );
    let rows = rows.fetch_all(&mut connection).await.unwrap();
    let sqlite: BTreeSet<(String, String)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    assert_eq!(sqlite, listed, "left: SQLite, right: the list");
    let mut bare = place.bare().await;
    let rows = sqlx::query(
        "SELECT table_name::text, column_name::text FROM information_schema.columns
         WHERE table_schema = 'contentmonster' AND table_name NOT IN ('_sqlx_migrations', 'lease')",
    );
    let rows = rows.fetch_all(&mut bare).await.unwrap();
    let postgres: BTreeSet<(String, String)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    assert_eq!(postgres, listed, "left: PostgreSQL, right: the list");
    bare.close().await.unwrap();
}
