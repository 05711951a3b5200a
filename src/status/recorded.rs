//! The ledger's part of the status document.

use std::collections::HashMap;

use super::convert::midnight;
use super::routes::{Routes, Spent};
use crate::ledger::{LedgerError, LedgerView, Receipt, ShoreSeen, Summary, Trouble, Work};
use crate::names::VesselName;
use crate::records::{LinkBytes, UtcDay};

/// Maximum lengths of the lists `parked` and `deliveries` in the document.
const PARKED: u32 = 50;
const DELIVERIES: u32 = 20;

/// The ledger's part of a document.
#[derive(Default)]
pub(super) struct Recorded {
    pub(super) summary: Summary,
    pub(super) parked: Vec<Trouble>,
    pub(super) receipts: Vec<Receipt>,
    pub(super) link_today: HashMap<VesselName, LinkBytes>,
    pub(super) spent: Spent,
    pub(super) shores: Vec<ShoreSeen>,
}

impl Recorded {
    /// Reads the ledger's part of a document. `now` is in milliseconds since 1970.
    pub(super) async fn read(ledger: &LedgerView, routes: &Routes, now: i64) -> Result<Self, LedgerError> {
        let today = UtcDay::at(now);
        Ok(Self {
            summary: ledger.summary(midnight(now)).await?,
            parked: ledger.troubles(PARKED).await?,
            receipts: ledger.last_receipts(DELIVERIES).await?,
            link_today: ledger.link_bytes(today..=today).await?.into_iter().collect(),
            spent: routes.spent(ledger, now).await?,
            shores: ledger.shores().await?,
        })
    }

    /// Returns the name of the shore that has `work`.
    pub(super) fn shore_of(&self, work: &Work) -> Option<&str> {
        let has = |shore: &&ShoreSeen| shore.work.iter().any(|(held, _)| held == work);
        self.shores.iter().find(has).map(|shore| &*shore.name)
    }
}
