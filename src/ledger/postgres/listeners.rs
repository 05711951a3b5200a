//! The listeners for events, and the notices that are recorded for them.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use sqlx::PgConnection;

use super::{Result, rows};
use crate::bell::Bell;
use crate::ledger::Listener;
use crate::records::{EventKind, PlaceNumber};

/// The listeners. Cheap to clone, and cheap to query when there are no listeners.
#[derive(Clone, Default)]
pub(super) struct Listeners(Arc<RwLock<Wishes>>);

/// Two lists of the same length: a directory, and the channel to which an event in this directory is reported.
type Rules = Arc<(Vec<String>, Vec<String>)>;

#[derive(Default)]
struct Wishes {
    /// The rules of each event kind. Kinds without a listener are missing.
    rules: HashMap<EventKind, Rules>,
    bells: Vec<Bell>,
}

impl Listeners {
    pub(super) fn set(&self, listeners: &[Listener]) {
        let mut rules = HashMap::new();
        for kind in EventKind::ALL {
            let wants = listeners.iter().flat_map(|listener| {
                let directories = listener.wants.iter().filter(move |(_, wanted)| *wanted == kind);
                directories.map(|(directory, _)| (directory.as_str().to_owned(), listener.channel.clone()))
            });
            let pairs: (Vec<String>, Vec<String>) = wants.unzip();
            if !pairs.0.is_empty() {
                rules.insert(kind, Arc::new(pairs));
            }
        }
        let bells = listeners.iter().map(|listener| listener.bell.clone()).collect();
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Wishes { rules, bells };
    }

    fn rules(&self, kind: EventKind) -> Option<Rules> {
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
    /// Returns whether a notice was recorded.
    pub(super) async fn note_delivered(
        &self,
        transaction: &mut PgConnection,
        (deliveries, place): (&[i64], Option<PlaceNumber>),
        now: i64,
    ) -> Result<bool> {
        let Some(rules) = self.rules(EventKind::Delivered) else { return Ok(false) };
        let noted = sqlx::query(
            "INSERT INTO notice (channel, event, version, vessel, at)
             SELECT rule.channel, 'delivered', d.version, d.vessel, $4
             FROM unnest($1::bigint[]) WITH ORDINALITY i (id, at) JOIN delivery d ON d.id = i.id
             JOIN version v ON v.id = d.version
             JOIN unnest($2::text[], $3::text[]) WITH ORDINALITY rule (directory, channel, at) ON rule.directory = v.directory
             WHERE (d.state NOT IN ('acknowledged', 'superseded') OR d.expired_at IS NOT NULL)
               AND d.place = coalesce($5, d.place) ORDER BY i.at, rule.at",
        )
        .bind(deliveries)
        .bind(&rules.0)
        .bind(&rules.1)
        .bind(now)
        .bind(place.map(|place| place.0))
        .execute(&mut *transaction)
        .await?;
        Ok(noted.rows_affected() > 0)
    }

    /// Records notices about open deliveries that are about to be parked. Leaves out deliveries whose last notice had
    /// the same reason. Returns whether a notice was recorded.
    pub(super) async fn note_parked(
        &self,
        transaction: &mut PgConnection,
        deliveries: &[i64],
        reason: &str,
        now: i64,
    ) -> Result<bool> {
        let Some(rules) = self.rules(EventKind::Parked) else { return Ok(false) };
        let noted = sqlx::query(
            "INSERT INTO notice (channel, event, version, vessel, reason, at)
             SELECT rule.channel, 'parked', d.version, d.vessel, $5, $4
             FROM unnest($1::bigint[]) WITH ORDINALITY i (id, at) JOIN delivery d ON d.id = i.id
             JOIN version v ON v.id = d.version
             JOIN unnest($2::text[], $3::text[]) WITH ORDINALITY rule (directory, channel, at) ON rule.directory = v.directory
             WHERE d.state NOT IN ('acknowledged', 'superseded') AND d.told IS DISTINCT FROM $5 ORDER BY i.at, rule.at",
        )
        .bind(deliveries)
        .bind(&rules.0)
        .bind(&rules.1)
        .bind(now)
        .bind(rows::text(reason))
        .execute(&mut *transaction)
        .await?;
        sqlx::query("UPDATE delivery SET told = $2 WHERE id = ANY ($1)")
            .bind(deliveries)
            .bind(rows::text(reason))
            .execute(&mut *transaction)
            .await?;
        Ok(noted.rows_affected() > 0)
    }

    /// Records notices about files that are about to be retired. Skips versions that are not complete files or that no
    /// vessel acknowledged. Returns whether a notice was recorded.
    pub(super) async fn note_retired(
        &self,
        transaction: &mut PgConnection,
        versions: &[i64],
        now: i64,
    ) -> Result<bool> {
        let Some(rules) = self.rules(EventKind::Retired) else { return Ok(false) };
        let noted = sqlx::query(
            "INSERT INTO notice (channel, event, version, at)
             SELECT rule.channel, 'retired', v.id, $4
             FROM unnest($1::bigint[]) WITH ORDINALITY i (id, at) JOIN version v ON v.id = i.id
             JOIN unnest($2::text[], $3::text[]) WITH ORDINALITY rule (directory, channel, at) ON rule.directory = v.directory
             WHERE v.complete AND v.ended_at IS NULL AND v.kind = 'file'
               AND EXISTS (SELECT 1 FROM delivery d WHERE d.version = v.id AND d.state = 'acknowledged')
             ORDER BY i.at, rule.at",
        )
        .bind(versions)
        .bind(&rules.0)
        .bind(&rules.1)
        .bind(now)
        .execute(&mut *transaction)
        .await?;
        Ok(noted.rows_affected() > 0)
    }
}
