//! Implements [`Shores`]: records which shore has which work, takes over the work of shores whose leases have expired,
//! and sends hints by `NOTIFY`.
//!
//! The keeper of the connections ([`super::connections`]) renews the lease of this shore. A shore keeps its work as
//! long as it has its lease. Work passes from one shore to another only in writing transactions, which run one at a
//! time, so no two shores have the same work.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use sqlx::postgres::{PgListener, PgRow};
use sqlx::{PgExecutor, PgPool, Row};
use tokio::sync::Notify;
use tokio_util::task::AbortOnDropHandle;

use super::connections::Connections;
use super::former_assemblies::{self, change_tokens};
use super::lease::{LEDGER, Lease, SHORE};
use super::{Postgres, Result};
use crate::ledger::fair_share::{Member, share};
use crate::ledger::{Hint, Next, Share, ShoreSeen, Shores, Work};
use crate::names::VesselName;
use crate::records::FormerAssembly;

/// The channel of `NOTIFY`.
const CHANNEL: &str = "contentmonster";
/// Minimum time for which this shore must have been connected before it takes over the work of a shore whose lease has
/// expired: after an outage of the database, the other shores need some time to reconnect.
const GRACE: Duration = Duration::from_secs(10);
/// Time after the expected end of another shore's lease at which this shore checks whether the lease has expired.
const JUST_AFTER: Duration = Duration::from_millis(50);
/// Pause before the listener for hints is started again.
const LISTEN_AGAIN: Duration = Duration::from_secs(1);

/// The work of this shore, and the hints from other shores.
pub(super) struct Shares {
    held: Mutex<HashMap<Work, Arc<Lease>>>,
    /// The vessels to which this process has delivered. Only a process that uses the ledger alone records them.
    served: Mutex<HashSet<VesselName>>,
    hints: Arc<Inbox>,
    _listening: Option<AbortOnDropHandle<()>>,
}

/// The received hints that were not handled yet; equal hints are kept once.
#[derive(Default)]
struct Inbox {
    hints: Mutex<BTreeSet<Hint>>,
    arrived: Notify,
}

impl Inbox {
    fn add(&self, hint: Hint) {
        self.hints.lock().unwrap_or_else(PoisonError::into_inner).insert(hint);
        self.arrived.notify_one();
    }

    async fn next(&self) -> Hint {
        loop {
            let first = self.hints.lock().unwrap_or_else(PoisonError::into_inner).pop_first();
            match first {
                Some(hint) => return hint,
                None => self.arrived.notified().await,
            }
        }
    }
}

impl Shares {
    pub(super) fn start(connections: &Arc<Connections>) -> Self {
        let hints = Arc::<Inbox>::default();
        let listening = is_shared(connections)
            .then(|| AbortOnDropHandle::new(tokio::spawn(listen(connections.clone(), hints.clone()))));
        Self { held: Mutex::default(), served: Mutex::default(), hints, _listening: listening }
    }

    /// Records that this process delivers to a vessel. Returns `true` the first time.
    fn is_new(&self, vessel: &VesselName) -> bool {
        self.served.lock().unwrap_or_else(PoisonError::into_inner).insert(vessel.clone())
    }

    /// Returns whether this shore still has the work that it acquired with this lease.
    pub(super) fn has(&self, work: &Lease) -> bool {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).values().any(|held| **held == *work)
    }

    fn of(&self, work: &Work) -> Option<Arc<Lease>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).get(work).cloned()
    }

    fn replace(&self, held: HashMap<Work, Arc<Lease>>) {
        *self.held.lock().unwrap_or_else(PoisonError::into_inner) = held;
    }

    fn remove(&self, work: &[Work]) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        work.iter().for_each(|work| drop(held.remove(work)));
    }
}

fn is_shared(connections: &Connections) -> bool {
    connections.lease.name != LEDGER
}

/// Receives the hints of other shores as long as the ledger is open.
async fn listen(connections: Arc<Connections>, hints: Arc<Inbox>) {
    let own = format!("{} ", connections.lease.token);
    while let Ok(pools) = connections.there().await {
        let heard = async {
            let mut listener = PgListener::connect_with(&pools.readers).await?;
            listener.listen(CHANNEL).await?;
            // This connection has missed the hints that were sent before `LISTEN`.
            hints.add(Hint::Anything);
            while let Some(told) = listener.try_recv().await? {
                let hint = told.payload().split_once(' ').and_then(|(_, hint)| Hint::parse(hint));
                if let Some(hint) = hint.filter(|_| !told.payload().starts_with(&own)) {
                    hints.add(hint);
                }
            }
            Ok::<(), sqlx::Error>(())
        };
        tokio::select! {
            heard = heard => {
                if let Err(e) = heard {
                    tracing::debug!("Cannot listen for hints of other shores: {e}");
                }
            }
            () = connections.went_away() => {}
        }
        tokio::time::sleep(LISTEN_AGAIN).await;
    }
}

/// The rows of the table `lease`.
struct Leases {
    members: Vec<Member>,
    /// The tokens of other shores whose leases have expired. These shores get no more work.
    over: Vec<i64>,
    /// Time until just after the next unexpired lease of another shore expires.
    look_in: Option<Duration>,
    /// The owner of each piece of work: the token of the shore's lease, and the token of the acquisition of this work.
    has: BTreeMap<Work, (i64, i64)>,
}

impl Leases {
    async fn read(executor: impl PgExecutor<'_>, own: i64) -> Result<Self> {
        let rows = sqlx::query(
            "SELECT name, token, shore, coalesce(serves, '{}') AS serves,
                 CASE WHEN until < 'infinity' THEN extract(epoch FROM until - clock_timestamp())::float8 END AS remains
             FROM lease",
        );
        let rows: Vec<PgRow> = rows.fetch_all(executor).await?;
        let mut leases = Self { members: Vec::new(), over: Vec::new(), look_in: None, has: BTreeMap::new() };
        for row in rows {
            let (name, token): (String, i64) = (row.try_get("name")?, row.try_get("token")?);
            if let Some(name) = name.strip_prefix(SHORE) {
                let serves: Vec<String> = row.try_get("serves")?;
                let mut serves: BTreeSet<Work> = serves.iter().filter_map(|work| Work::parse(work)).collect();
                let remains = row.try_get::<Option<f64>, _>("remains")?.unwrap_or_default();
                if token != own && remains <= 0.0 {
                    leases.over.push(token);
                    serves.clear();
                } else if token != own {
                    let look_in = Duration::try_from_secs_f64(remains).unwrap_or_default() + JUST_AFTER;
                    leases.look_in = leases.look_in.into_iter().chain([look_in]).min();
                }
                leases.members.push(Member { token, name: name.to_owned(), serves });
            } else if let (Some(work), Some(shore)) = (Work::parse(&name), row.try_get("shore")?) {
                leases.has.insert(work, (shore, token));
            }
        }
        leases.members.sort_by_key(|member| member.token);
        // Work is free if its shore has no lease any more.
        leases.has.retain(|_, (shore, _)| leases.members.iter().any(|member| member.token == *shore));
        Ok(leases)
    }

    /// Returns the free work that the shore with this token should acquire, and the work that it has.
    fn share_of(&self, own: i64) -> (Vec<Work>, Share) {
        let has = self.has.iter().map(|(work, (shore, _))| (work.clone(), *shore)).collect();
        let shared = share(&self.members, &has);
        let free = shared.iter().filter(|(work, to)| **to == own && !self.has.contains_key(work));
        let held = self
            .has
            .iter()
            .filter(|(_, (shore, _))| *shore == own)
            .map(|(work, _)| (work.clone(), if shared.get(work) == Some(&own) { Next::Stays } else { Next::Goes }));
        (free.map(|(work, _)| work.clone()).collect(), Share { held: held.collect(), look_in: self.look_in })
    }

    fn held_by(&self, own: i64) -> HashMap<Work, Arc<Lease>> {
        let own = self.has.iter().filter(|(_, (shore, _))| *shore == own);
        own.map(|(work, (_, token))| (work.clone(), Arc::new(Lease { name: work.to_string(), token: *token })))
            .collect()
    }
}

#[async_trait]
impl Shores for Postgres {
    fn share_interval(&self) -> Option<Duration> {
        is_shared(&self.connections).then(|| self.connections.lease_time / 3)
    }

    async fn share_out(&self, serves: &[Work]) -> Result<Share> {
        let serves: BTreeSet<Work> = serves.iter().cloned().collect();
        let (serves, own) = (&serves, self.connections.lease.token);
        let (share, held) = self
            .lasting(|pools| async move {
                let takes_over = self.connections.steady_for() >= self.connections.lease_time.max(GRACE);
                let leases = Leases::read(&pools.readers, own).await?;
                let is_known = leases.members.iter().any(|one| one.token == own && one.serves == *serves);
                let (free, share) = leases.share_of(own);
                let nothing_is_over = !takes_over || leases.over.is_empty();
                if is_known && free.is_empty() && nothing_is_over {
                    return Ok((share, leases.held_by(own)));
                }
                let mut write = pools.begin().await?;
                if takes_over {
                    let ended = sqlx::query_scalar(
                        "DELETE FROM lease WHERE name LIKE 'shore %' AND token <> $1 AND until <= clock_timestamp()
                         RETURNING holder",
                    );
                    let ended: Vec<Option<String>> = ended.bind(own).fetch_all(&mut *write).await?;
                    for holder in ended.into_iter().flatten() {
                        tracing::warn!(
                            "The lease of the shore on {holder} expired; the other shores take over its work"
                        );
                    }
                }
                sqlx::query("UPDATE lease SET serves = $2 WHERE token = $1")
                    .bind(own)
                    .bind(serves.iter().map(Work::to_string).collect::<Vec<_>>())
                    .execute(&mut *write)
                    .await?;
                let (free, _) = Leases::read(&mut *write, own).await?.share_of(own);
                sqlx::query(
                    "INSERT INTO lease AS l (name, token, holder, shore, since, until)
                     SELECT w, nextval('lease_token'), o.holder, o.token, clock_timestamp(), 'infinity'
                     FROM unnest($2::text[]) w, (SELECT holder, token FROM lease WHERE token = $1) o
                     ON CONFLICT (name) DO UPDATE SET token = excluded.token, holder = excluded.holder,
                         shore = excluded.shore, since = excluded.since, until = excluded.until",
                )
                .bind(own)
                .bind(free.iter().map(Work::to_string).collect::<Vec<_>>())
                .execute(&mut *write)
                .await?;
                let vessels: Vec<&str> = free.iter().filter_map(Work::vessel).map(VesselName::as_str).collect();
                change_tokens(&mut write, &vessels).await?;
                let leases = Leases::read(&mut *write, own).await?;
                write.commit().await?;
                self.say(&pools.readers, &[Hint::Shares]).await?;
                Ok((leases.share_of(own).1, leases.held_by(own)))
            })
            .await?;
        self.shares.replace(held);
        Ok(share)
    }

    async fn give_back(&self, work: &[Work]) -> Result<()> {
        self.give_back_and(work, Serves::AsBefore).await
    }

    async fn leave(&self, work: &[Work]) -> Result<()> {
        self.give_back_and(work, Serves::Nothing).await
    }

    async fn former_assemblies(&self, vessel: &VesselName) -> Result<Vec<FormerAssembly>> {
        // A program that uses the ledger alone never acquires single vessels, so the tokens are changed here, before
        // the first delivery to each vessel.
        if !is_shared(&self.connections) && self.shares.is_new(vessel) {
            self.lasting(|pools| async move {
                let mut write = pools.begin().await?;
                change_tokens(&mut write, &[vessel.as_str()]).await?;
                write.commit().await
            })
            .await?;
        }
        former_assemblies::of_vessel(self, vessel).await
    }

    async fn forget_former_assemblies(&self, numbers: &[i64]) -> Result<()> {
        former_assemblies::forget(self, numbers).await
    }

    async fn with_work(&self, vessels: Vec<VesselName>) -> Result<Vec<VesselName>> {
        let names: Vec<&str> = vessels.iter().map(VesselName::as_str).collect();
        let names = &names;
        let with_work: Vec<String> = self
            .lasting(|pools| async move {
                // Each inner query stops at the first delivery that its index yields.
                let statement = sqlx::query_scalar(
                    "SELECT w.vessel FROM unnest($1::text[]) w (vessel), LATERAL (
                         (SELECT FROM delivery d WHERE d.vessel = w.vessel
                            AND d.state NOT IN ('acknowledged', 'superseded') ORDER BY d.version LIMIT 1)
                         UNION ALL
                         (SELECT FROM delivery d WHERE d.vessel = w.vessel
                            AND d.state = 'superseded' AND d.touched ORDER BY d.id LIMIT 1)
                         LIMIT 1) first",
                );
                Ok(statement.bind(names).fetch_all(&pools.readers).await?)
            })
            .await?;
        Ok(with_work.iter().map(|name| VesselName::new(name)).collect())
    }

    async fn send_hints(&self, hints: &[Hint]) -> Result<()> {
        self.say(&self.connections.readers_now()?, hints).await
    }

    async fn next_hint(&self) -> Hint {
        self.shares.hints.next().await
    }
}

/// Whether a shore still serves the work that it has announced.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Serves {
    AsBefore,
    Nothing,
}

impl Postgres {
    async fn give_back_and(&self, work: &[Work], serves: Serves) -> Result<()> {
        self.shares.remove(work);
        let (names, own) = (work.iter().map(Work::to_string).collect::<Vec<_>>(), self.connections.lease.token);
        let names = &names;
        self.lasting(|pools| async move {
            let mut write = pools.begin().await?;
            if serves == Serves::Nothing {
                let nothing = sqlx::query("UPDATE lease SET serves = '{}' WHERE token = $1").bind(own);
                nothing.execute(&mut *write).await?;
            }
            sqlx::query(
                "UPDATE lease SET token = nextval('lease_token'), holder = NULL, shore = NULL, until = clock_timestamp()
                 WHERE name = ANY ($2) AND shore = $1",
            )
            .bind(own)
            .bind(names)
            .execute(&mut *write)
            .await?;
            write.commit().await?;
            self.say(&pools.readers, &[Hint::Shares]).await
        })
        .await
    }

    /// Returns a handle for the tasks of `work`; see [`Store::for_work`](crate::ledger::Store::for_work).
    pub(super) fn part_for(&self, work: &Work) -> Option<Self> {
        if !is_shared(&self.connections) {
            return None;
        }
        // If this shore doesn't have the work, the handle gets the token 0. No acquisition has this token, so the
        // database rejects all updates of the handle.
        let nobody = || Arc::new(Lease { name: work.to_string(), token: 0 });
        let work = self.shares.of(work).unwrap_or_else(nobody);
        Some(Self { core: self.core.clone(), work: Some(work) })
    }

    async fn say(&self, executor: impl PgExecutor<'_>, hints: &[Hint]) -> Result<()> {
        let own = self.connections.lease.token;
        let hints: Vec<String> = hints.iter().map(|hint| format!("{own} {hint}")).collect();
        sqlx::query("SELECT pg_notify('contentmonster', hint) FROM unnest($1::text[]) hint")
            .bind(hints)
            .execute(executor)
            .await?;
        Ok(())
    }
}

/// Returns the shores that have leases, and a program that uses the ledger alone, ordered by the names of their leases.
pub(super) async fn seen(pool: &PgPool) -> Result<Vec<ShoreSeen>> {
    let rows = sqlx::query(
        "SELECT name, token, shore, holder, latency, serves, (extract(epoch FROM since) * 1000)::bigint AS since,
             CASE WHEN until < 'infinity' THEN (extract(epoch FROM until - clock_timestamp()) * 1000)::bigint END AS remains
         FROM lease WHERE holder IS NOT NULL ORDER BY name",
    );
    let rows = rows.fetch_all(pool).await?;
    let (mut seen, mut tokens) = (Vec::new(), Vec::new());
    for row in &rows {
        let name: &str = row.try_get("name")?;
        let Some(name) = name.strip_prefix(SHORE).or_else(|| (name == LEDGER).then_some("")) else { continue };
        let serves: Option<Vec<String>> = row.try_get("serves")?;
        tokens.push(row.try_get::<i64, _>("token")?);
        seen.push(ShoreSeen {
            name: name.to_owned(),
            holder: row.try_get("holder")?,
            since: row.try_get("since")?,
            left: row.try_get::<Option<i64>, _>("remains")?.unwrap_or_default(),
            latency: row.try_get("latency")?,
            is_drained: serves.is_some_and(|serves| serves.is_empty()),
            work: Vec::new(),
        });
    }
    for row in &rows {
        let shore: Option<i64> = row.try_get("shore")?;
        let at = tokens.iter().position(|token| Some(*token) == shore);
        if let (Some(at), Some(work)) = (at, Work::parse(row.try_get("name")?)) {
            seen[at].work.push((work, row.try_get("since")?));
        }
    }
    Ok(seen)
}
