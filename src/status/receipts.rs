//! `/api/deliveries`: acknowledged deliveries, newest first. A response is one page with a cursor; its cost does not
//! depend on the number of all deliveries.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::convert::moment;
use super::document::Delivered;
use super::gather::Gatherer;
use super::queue::QueueError;
use crate::names::VesselName;
use crate::records::DeliveryId;

/// Maximum and default number of deliveries on a page.
const MOST: u32 = 1000;
const USUAL: u32 = 50;

/// The query parameters of `/api/deliveries`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct DeliveriesQuestion {
    /// Only to this vessel.
    vessel: Option<String>,
    /// Only files whose path contains this text.
    search: Option<String>,
    /// Maximum number of deliveries, up to 1000; default: 50.
    limit: Option<u32>,
    /// The cursor: the `next` of the previous page.
    before: Option<String>,
}

/// One page of deliveries.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct DeliveriesAnswer {
    /// When the answer was made.
    at: Timestamp,
    /// The deliveries, newest first.
    deliveries: Vec<Delivered>,
    /// The cursor of the next page; `null` at the end. A page before the end may be short, or even empty.
    next: Option<String>,
}

impl Gatherer {
    /// Returns the page of deliveries that a query asks for.
    ///
    /// # Errors
    /// When the query is invalid, or the ledger can't be read.
    pub(super) async fn deliveries(&self, question: &DeliveriesQuestion) -> Result<DeliveriesAnswer, QueueError> {
        let invalid =
            |before| QueueError::Invalid(format!("invalid cursor `{before}`; expected the `next` of an answer"));
        let before = question.before.as_deref();
        let before = before.map(|before| read(before).ok_or_else(|| invalid(before))).transpose()?;
        let vessel = question.vessel.as_deref().map(VesselName::new);
        let search = question.search.as_deref().filter(|text| !text.is_empty());
        let limit = question.limit.unwrap_or(USUAL).clamp(1, MOST);
        let page = self.ledger().latest_receipts(vessel.as_ref(), search, before, limit).await?;
        Ok(DeliveriesAnswer {
            at: moment(self.now_ms()),
            deliveries: page.0.into_iter().map(Delivered::from).collect(),
            next: page.1.map(|(at, DeliveryId(id))| format!("{at}.{id}")),
        })
    }
}

fn read(cursor: &str) -> Option<(i64, DeliveryId)> {
    let (at, id) = cursor.split_once('.')?;
    Some((at.parse().ok()?, DeliveryId(id.parse().ok()?)))
}
