//! Adjusts the deliveries of a directory to the vessels that take the directory now, and to its current places on these
//! vessels.
//!
//! A directory may hold a million files, each with deliveries to hundreds of vessels. So each transaction handles a
//! limited number of paths, in the order of their keys.

use async_trait::async_trait;
use sqlx::{PgConnection, Row};

use super::doubt::Doubt;
use super::group::Entry;
use super::ranks::{expires_at, rank, rank_anew};
use super::transitions::settle_versions;
use super::write::{Pools, Write};
use super::{Postgres, Result, queues, rows};
use crate::ledger::Places;
use crate::ledger::places::sorted_names;
use crate::names::{DirectoryName, RemotePath, VesselName};
use crate::records::{Delivery, DeliveryCost, Host, Seen, Verified, VersionId};

/// Maximum number of deliveries per transaction. A transaction of this size takes some tens of milliseconds.
const STEP: usize = 1000;

/// A page of the versions that a directory holds now, in a transaction of its own.
struct Page {
    write: Write,
    versions: Vec<i64>,
    /// The key after which the next page begins; `None` after the last page.
    next: Option<Vec<u8>>,
}

/// Begins a transaction for the page after the key `after`; `None` if there is no further version.
async fn page(pools: &Pools, directory: &DirectoryName, vessels: usize, after: &[u8]) -> Result<Option<Page>> {
    let most = STEP / vessels.clamp(1, STEP);
    let mut write = pools.begin().await?;
    let rows = sqlx::query(
        "SELECT id, path_key(path) AS key FROM version WHERE directory = $1 AND ended_at IS NULL AND path_key(path) > $2
         ORDER BY path_key(path) LIMIT $3",
    )
    .bind(directory.as_str())
    .bind(after)
    .bind(i64::try_from(most).unwrap_or(1))
    .fetch_all(&mut *write)
    .await?;
    let Some(last) = rows.last() else {
        write.commit().await?;
        return Ok(None);
    };
    let next = if rows.len() < most { None } else { Some(last.try_get("key")?) };
    Ok(Some(Page { write, versions: rows::ids(&rows)?, next }))
}

/// Runs `$step` for each page. Returns the sum of the numbers that the steps return.
macro_rules! for_each_page {
    ($store:expr, $directory:expr, $vessels:expr, |$write:ident, $versions:ident| $step:expr) => {{
        let (mut after, mut sum) = (Some(Vec::new()), 0);
        while let Some(from) = after.take() {
            let (from, doubt) = (&from, &Doubt::new());
            let done = $store.lasting(|pools| async move {
                if let Some(done) = doubt.resolved(&pools).await? {
                    return Ok(done);
                }
                let Some(mut page) = page(&pools, $directory, $vessels, from).await? else { return Ok((0, None)) };
                let ($write, $versions): (&mut PgConnection, &[i64]) = (&mut page.write, &page.versions);
                let done: u64 = $step;
                doubt.commit(page.write, (done, page.next)).await
            });
            let (done, next) = done.await?;
            sum += done;
            after = next;
        }
        sum
    }};
}

/// Restarts the deliveries that went, or were to go, to an earlier place. Returns the number of restarted deliveries.
async fn send_to_new_places(
    transaction: &mut PgConnection,
    directory: &DirectoryName,
    (versions, vessels): (&[i64], &[&str]),
    now: i64,
) -> Result<u64> {
    let moved = sqlx::query(concat!(
        "UPDATE delivery d SET state = CASE WHEN d.touched AND d.state <> 'acknowledged' THEN 'uploading' ELSE 'pending' END,
             touched = d.touched AND d.state <> 'acknowledged', place = p.number, due_at = $4, failures = 0, reason = NULL,
             parked = false, acknowledged_at = NULL, verified = NULL, seen_size = NULL, seen_mtime = NULL, rank = ",
        rank_anew!(),
        " FROM place p
         WHERE d.version = ANY ($1) AND d.vessel = ANY ($2) AND p.vessel = d.vessel AND p.directory = $3
           AND d.place <> p.number AND d.state <> 'superseded'",
    ))
    .bind(versions)
    .bind(vessels)
    .bind(directory.as_str())
    .bind(now)
    .execute(transaction)
    .await?;
    Ok(moved.rows_affected())
}

/// Names of vessels, and for each vessel the number of its place.
type PlaceNumbers = (Vec<String>, Vec<i64>);

/// Returns those of `vessels` that may have deliveries of this directory for an earlier place, with the numbers of
/// their current places.
async fn unsettled(store: &Postgres, directory: &DirectoryName, vessels: &[&str]) -> Result<PlaceNumbers> {
    let unsettled = store.lasting(|pools| async move {
        let statement = sqlx::query_as::<_, (String, i64)>(
            "SELECT vessel, number FROM place WHERE directory = $1 AND vessel = ANY ($2) AND NOT settled",
        );
        let places = statement.bind(directory.as_str()).bind(vessels).fetch_all(&pools.readers).await?;
        Ok(places.into_iter().unzip())
    });
    unsettled.await
}

/// Records that all deliveries of a directory use these places. Skips a vessel whose place has changed meanwhile.
async fn settled(store: &Postgres, directory: &DirectoryName, (vessels, numbers): &PlaceNumbers) -> Result<()> {
    let settled = store.lasting(|pools| {
        let statement = sqlx::query(
            "UPDATE place p SET settled = true FROM unnest($2::text[], $3::bigint[]) i (vessel, number)
             WHERE p.directory = $1 AND p.vessel = i.vessel AND p.number = i.number",
        );
        let statement = statement.bind(directory.as_str()).bind(vessels).bind(numbers);
        async move { pools.write_one(statement).await.map(drop) }
    });
    settled.await
}

/// Returns whether it is recorded that all deliveries of a directory fit these vessels, their places and the
/// directory's queue.
async fn is_reconciled(store: &Postgres, directory: &DirectoryName, names: &[&str], sorted: &str) -> Result<bool> {
    let is_reconciled = store.lasting(|pools| async move {
        let statement = sqlx::query_scalar(
            "SELECT EXISTS (SELECT 1 FROM reconciled WHERE directory = $1 AND vessels = $2 AND settled)
                 AND NOT EXISTS (SELECT 1 FROM queue WHERE directory = $1 AND NOT settled)
                 AND NOT EXISTS (SELECT 1 FROM place WHERE directory = $1 AND NOT settled AND vessel = ANY ($3))",
        );
        Ok(statement.bind(directory.as_str()).bind(sorted).bind(names).fetch_one(&pools.readers).await?)
    });
    is_reconciled.await
}

/// Executes a statement on a directory's row of the table `reconciled`.
async fn mark(store: &Postgres, statement: &'static str, directory: &DirectoryName, sorted: &str) -> Result<()> {
    let marked = store.lasting(|pools| {
        let statement = sqlx::query(statement).bind(directory.as_str()).bind(sorted);
        async move { pools.write_one(statement).await.map(drop) }
    });
    marked.await
}

pub(super) async fn reconcile(store: &Postgres, directory: &DirectoryName, vessels: &[VesselName]) -> Result<()> {
    /// If versions are admitted for other vessels meanwhile, the admission removes this row.
    const BEGUN: &str = "INSERT INTO reconciled (directory, vessels) VALUES ($1, $2)
         ON CONFLICT (directory) DO UPDATE SET vessels = excluded.vessels, settled = false";
    const ENDED: &str = "UPDATE reconciled SET settled = true WHERE directory = $1 AND vessels = $2";
    let (now, names, sorted) = (store.now(), &rows::names(vessels), sorted_names(vessels));
    if is_reconciled(store, directory, names, &sorted).await? {
        return Ok(());
    }
    mark(store, BEGUN, directory, &sorted).await?;
    let places = unsettled(store, directory, names).await?;
    let is_unsettled = queues::is_unsettled(store, directory).await?;
    for_each_page!(store, directory, vessels.len(), |write, versions| {
        fit(write, directory, (versions, names), now).await?;
        if is_unsettled {
            queues::requeue(write, directory, versions).await?;
        }
        settle_versions(write, versions, now).await?;
        0
    });
    if is_unsettled {
        queues::settled(store, directory).await?;
    }
    settled(store, directory, &places).await?;
    mark(store, ENDED, directory, &sorted).await
}

/// Adds the missing deliveries of versions, restarts deliveries for an earlier place, and supersedes deliveries to
/// other vessels.
async fn fit(
    transaction: &mut PgConnection,
    directory: &DirectoryName,
    (versions, names): (&[i64], &[&str]),
    now: i64,
) -> Result<()> {
    // `due_at` is the time of admission, so that an added vessel gets the oldest files first. A negative size means a
    // size of 2^63 or more, see `signed`.
    sqlx::query(concat!(
        "INSERT INTO delivery AS d (version, vessel, large, state, due_at, token, place, queue, rank, expires_at)
         SELECT v.id, n.vessel, v.size < 0 OR v.size > v.chunk_size, 'pending', least(v.admitted_at, $4), random_token(),
             coalesce((SELECT number FROM place p WHERE p.vessel = n.vessel AND p.directory = $3), 0),
             q.directory, ",
        rank!(),
        ", ",
        expires_at!(),
        " FROM version v CROSS JOIN unnest($2::text[]) WITH ORDINALITY n (vessel, at)
             LEFT JOIN queue q ON q.directory = $3 AND q.ordering IS NOT NULL
         WHERE v.id = ANY ($1) AND v.forgotten_at IS NULL
         ORDER BY n.at, v.id
         ON CONFLICT (version, vessel) DO UPDATE
             SET state = CASE WHEN d.touched THEN 'uploading' ELSE 'pending' END, due_at = excluded.due_at, failures = 0,
                 reason = NULL, place = excluded.place, queue = excluded.queue, rank = excluded.rank,
                 expires_at = excluded.expires_at
             WHERE d.state = 'superseded' AND d.expired_at IS NULL"
    ))
    .bind(versions)
    .bind(names)
    .bind(directory.as_str())
    .bind(now)
    .execute(&mut *transaction)
    .await?;
    send_to_new_places(transaction, directory, (versions, names), now).await?;
    sqlx::query(
        "UPDATE delivery SET state = 'superseded', parked = false
         WHERE state NOT IN ('acknowledged', 'superseded') AND version = ANY ($1) AND vessel <> ALL ($2)",
    )
    .bind(versions)
    .bind(names)
    .execute(&mut *transaction)
    .await?;
    Ok(())
}

#[async_trait]
impl Places for Postgres {
    async fn locate(&self, directory: &DirectoryName, locations: &[(VesselName, RemotePath)]) -> Result<()> {
        let located = self.lasting(|pools| async move {
            let mut write = pools.begin().await?;
            for (vessel, location) in locations {
                sqlx::query(
                    "INSERT INTO place AS p (vessel, directory, location) VALUES ($1, $2, $3)
                     ON CONFLICT (vessel, directory) DO UPDATE
                         SET location = excluded.location, number = p.number + 1, settled = false
                         WHERE p.location <> excluded.location",
                )
                .bind(vessel.as_str())
                .bind(directory.as_str())
                .bind(location.as_bytes())
                .execute(&mut *write)
                .await?;
            }
            write.commit().await
        });
        located.await
    }

    async fn meet(&self, vessel: &VesselName, host: &Host) -> Result<u64> {
        let doubt = &Doubt::new();
        let entered = self.lasting(|pools| async move {
            if doubt.resolved(&pools).await?.is_some() {
                return Ok(());
            }
            let mut write = pools.begin().await?;
            enter_host(&mut write, vessel, host).await?;
            doubt.commit(write, ()).await
        });
        entered.await?;
        let directories = self.lasting(|pools| async move {
            let statement =
                sqlx::query_scalar("SELECT directory FROM place WHERE vessel = $1 AND NOT settled ORDER BY directory");
            Ok(statement.bind(vessel.as_str()).fetch_all(&pools.readers).await?)
        });
        let directories: Vec<String> = directories.await?;
        let (one, mut due) = (&[vessel.as_str()], 0);
        for directory in directories.iter().map(|name| DirectoryName::new(name)) {
            let (directory, now) = (&directory, self.now());
            let places = unsettled(self, directory, one).await?;
            due += for_each_page!(self, directory, 1, |write, versions| {
                let due = send_to_new_places(write, directory, (versions, one), now).await?;
                settle_versions(write, versions, now).await?;
                due
            });
            settled(self, directory, &places).await?;
        }
        Ok(due)
    }

    async fn resend(
        &self,
        directory: &DirectoryName,
        version: Option<VersionId>,
        vessels: &[VesselName],
    ) -> Result<u64> {
        let (names, now) = (&rows::names(vessels), self.now());
        if let Some(version) = version {
            let doubt = &Doubt::new();
            let due = self.lasting(|pools| async move {
                if let Some(due) = doubt.resolved(&pools).await? {
                    return Ok(due);
                }
                let mut write = pools.begin().await?;
                let due = resend(&mut write, (&[version.0], names), now).await?;
                doubt.commit(write, due).await
            });
            return due.await;
        }
        let due = for_each_page!(self, directory, vessels.len(), |write, versions| {
            resend(write, (versions, names), now).await?
        });
        Ok(due)
    }

    async fn acknowledge_there(
        &self,
        delivery: &Delivery,
        verified: Verified,
        seen: Option<Seen>,
        cost: Option<DeliveryCost>,
    ) -> Result<bool> {
        let entry = Entry::AcknowledgedAt { verified: verified.as_str(), place: delivery.place, seen };
        self.make_at_cost(entry, delivery.id.0, cost).await
    }
}

/// Restarts acknowledged deliveries of versions. Returns the number of restarted deliveries.
async fn resend(transaction: &mut PgConnection, (versions, vessels): (&[i64], &[&str]), now: i64) -> Result<u64> {
    let due = sqlx::query(concat!(
        "UPDATE delivery d SET state = 'pending', touched = false, due_at = $3, failures = 0, reason = NULL,
             acknowledged_at = NULL, verified = NULL, rank = ",
        rank_anew!(),
        " WHERE d.version = ANY ($1) AND d.vessel = ANY ($2) AND d.state = 'acknowledged'
           AND EXISTS (SELECT 1 FROM version v WHERE v.id = d.version AND v.ended_at IS NULL AND v.forgotten_at IS NULL)",
    ))
    .bind(versions)
    .bind(vessels)
    .bind(now)
    .execute(&mut *transaction)
    .await?;
    settle_versions(transaction, versions, now).await?;
    Ok(due.rows_affected())
}

/// Records a vessel's host. If the host differs from the recorded one, gives each of the vessel's places a new number.
async fn enter_host(transaction: &mut PgConnection, vessel: &VesselName, host: &Host) -> Result<()> {
    if is_other_host(transaction, vessel, host).await? {
        sqlx::query("DELETE FROM host_key WHERE vessel = $1").bind(vessel.as_str()).execute(&mut *transaction).await?;
        // This also covers directories without a recorded place, because their earlier deliveries went to the previous
        // host.
        sqlx::query(
            "INSERT INTO place AS p (vessel, directory, location, number)
             SELECT vessel, directory, ''::bytea, 1 FROM tally WHERE vessel = $1
             ON CONFLICT (vessel, directory) DO UPDATE SET number = p.number + 1, settled = false",
        )
        .bind(vessel.as_str())
        .execute(&mut *transaction)
        .await?;
    }
    sqlx::query(
        "INSERT INTO host (vessel, address, account) VALUES ($1, $2, $3)
         ON CONFLICT (vessel) DO UPDATE SET address = excluded.address, account = excluded.account",
    )
    .bind(vessel.as_str())
    .bind(rows::text(&host.address))
    .bind(rows::text(&host.account))
    .execute(&mut *transaction)
    .await?;
    if let Some((algorithm, fingerprint)) = &host.key {
        sqlx::query(
            "INSERT INTO host_key (vessel, algorithm, fingerprint) VALUES ($1, $2, $3)
             ON CONFLICT (vessel, algorithm) DO UPDATE SET fingerprint = excluded.fingerprint",
        )
        .bind(vessel.as_str())
        .bind(algorithm)
        .bind(fingerprint)
        .execute(&mut *transaction)
        .await?;
    }
    Ok(())
}

/// Returns whether `host` differs from the recorded host of the vessel. Hosts differ if their accounts differ, or if
/// their keys of the same algorithm differ. If no key of the same algorithm is recorded, the addresses are compared
/// instead.
async fn is_other_host(transaction: &mut PgConnection, vessel: &VesselName, host: &Host) -> Result<bool> {
    let before: Option<(String, String)> = sqlx::query_as("SELECT address, account FROM host WHERE vessel = $1")
        .bind(vessel.as_str())
        .fetch_optional(&mut *transaction)
        .await?;
    let Some((address, account)) = before else { return Ok(false) };
    if account != host.account {
        return Ok(true);
    }
    let algorithm = host.key.as_ref().map(|(algorithm, _)| algorithm.as_str());
    let known: Option<String> =
        sqlx::query_scalar("SELECT fingerprint FROM host_key WHERE vessel = $1 AND algorithm = $2")
            .bind(vessel.as_str())
            .bind(algorithm)
            .fetch_optional(&mut *transaction)
            .await?;
    Ok(match (known, &host.key) {
        (Some(known), Some((_, shown))) => known != *shown,
        _ => address != host.address,
    })
}
