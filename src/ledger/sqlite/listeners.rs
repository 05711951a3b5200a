//! The listeners for events, and the notices that are recorded for them.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use sqlx::{Sqlite as Db, Transaction};

use super::{Result, json};
use crate::bell::Bell;
use crate::ledger::Listener;
use crate::records::{EventKind, PlaceNumber};

/// The listeners. Cheap to clone, and cheap to query when there are no listeners.
#[derive(Clone, Default)]
pub(super) struct Listeners(Arc<RwLock<Wishes>>);

#[derive(Default)]
struct Wishes {
    /// For each event kind, a JSON array of `[directory, channel]` pairs: the channels to which the event is reported.
    /// Kinds without a listener are missing.
    rules: HashMap<EventKind, Arc<str>>,
    bells: Vec<Bell>,
}

impl Listeners {
    pub(super) fn set(&self, listeners: &[Listener]) {
        let mut rules = HashMap::new();
        for kind in EventKind::ALL {
            let wants = listeners.iter().flat_map(|listener| {
                let directories = listener.wants.iter().filter(move |(_, wanted)| *wanted == kind);
                directories.map(|(directory, _)| [directory.as_str(), listener.channel.as_str()])
            });
            let pairs = json::pairs(wants);
            if pairs != "[]" {
                rules.insert(kind, Arc::from(pairs));
            }
        }
        let bells = listeners.iter().map(|listener| listener.bell.clone()).collect();
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Wishes { rules, bells };
    }

    /// Returns the `[directory, channel]` pairs of an event kind as a JSON array; `None` when the kind has no listener.
    fn rules(&self, kind: EventKind) -> Option<Arc<str>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).rules.get(&kind).cloned()
    }

    /// Rings the bells of all listeners if `noted`, which means that a notice was recorded. Must be called after the
    /// commit.
    pub(super) fn ring_if(&self, noted: bool) {
        if noted {
            self.0.read().unwrap_or_else(PoisonError::into_inner).bells.iter().for_each(Bell::ring);
        }
    }

    /// Records notices about open or expired deliveries that are about to be acknowledged, at `place` if it is given.
    /// `deliveries` is a JSON array of their numbers. Returns whether a notice was recorded.
    pub(super) async fn note_delivered(
        &self,
        transaction: &mut Transaction<'_, Db>,
        (deliveries, place): (&str, Option<PlaceNumber>),
        now: i64,
    ) -> Result<bool> {
        let Some(rules) = self.rules(EventKind::Delivered) else { return Ok(false) };
        let noted = sqlx::query(
            "INSERT INTO notice (channel, event, version, vessel, at)
             SELECT rule.value ->> 1, 'delivered', d.version, d.vessel, ?3
             FROM json_each(?1) i CROSS JOIN delivery d ON d.id = i.value CROSS JOIN version v ON v.id = d.version
             CROSS JOIN json_each(?2) rule ON rule.value ->> 0 = v.directory
             WHERE (d.state NOT IN ('acknowledged', 'superseded') OR d.expired_at IS NOT NULL)
               AND d.place = coalesce(?4, d.place)",
        )
        .bind(deliveries)
        .bind(&*rules)
        .bind(now)
        .bind(place.map(|place| place.0))
        .execute(&mut **transaction)
        .await?;
        Ok(noted.rows_affected() > 0)
    }

    /// Records notices about open deliveries that are about to be parked. `deliveries` is a JSON array of their
    /// numbers. Leaves out deliveries whose last notice had the same reason. Returns whether a notice was recorded.
    pub(super) async fn note_parked(
        &self,
        transaction: &mut Transaction<'_, Db>,
        deliveries: &str,
        reason: &str,
        now: i64,
    ) -> Result<bool> {
        let Some(rules) = self.rules(EventKind::Parked) else { return Ok(false) };
        let noted = sqlx::query(
            "INSERT INTO notice (channel, event, version, vessel, reason, at)
             SELECT rule.value ->> 1, 'parked', d.version, d.vessel, ?4, ?3
             FROM json_each(?1) i CROSS JOIN delivery d ON d.id = i.value CROSS JOIN version v ON v.id = d.version
             CROSS JOIN json_each(?2) rule ON rule.value ->> 0 = v.directory
             WHERE d.state NOT IN ('acknowledged', 'superseded') AND d.told IS NOT ?4",
        )
        .bind(deliveries)
        .bind(&*rules)
        .bind(now)
        .bind(reason)
        .execute(&mut **transaction)
        .await?;
        sqlx::query("UPDATE delivery SET told = ?2 WHERE id IN (SELECT value FROM json_each(?1))")
            .bind(deliveries)
            .bind(reason)
            .execute(&mut **transaction)
            .await?;
        Ok(noted.rows_affected() > 0)
    }

    /// Records notices about files that are about to be retired. `versions` is a JSON array of version numbers. Skips
    /// versions that are not complete files or that no vessel acknowledged. Returns whether a notice was recorded.
    pub(super) async fn note_retired(
        &self,
        transaction: &mut Transaction<'_, Db>,
        versions: &str,
        now: i64,
    ) -> Result<bool> {
        let Some(rules) = self.rules(EventKind::Retired) else { return Ok(false) };
        let noted = sqlx::query(
            "INSERT INTO notice (channel, event, version, at)
             SELECT rule.value ->> 1, 'retired', v.id, ?3
             FROM json_each(?1) i CROSS JOIN version v ON v.id = i.value
             CROSS JOIN json_each(?2) rule ON rule.value ->> 0 = v.directory
             WHERE v.complete = 1 AND v.ended_at IS NULL AND v.kind = 'file'
               AND EXISTS (SELECT 1 FROM delivery d WHERE d.version = v.id AND d.state = 'acknowledged')",
        )
        .bind(versions)
        .bind(&*rules)
        .bind(now)
        .execute(&mut **transaction)
        .await?;
        Ok(noted.rows_affected() > 0)
    }
}
