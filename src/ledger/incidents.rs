//! The record of incidents that were reported to commands and webhooks, so that each is reported once, even across
//! restarts.

use async_trait::async_trait;

use super::LedgerError;

type Result<T> = std::result::Result<T, LedgerError>;

/// An incident that was reported. Its end was not reported yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReportedIncident {
    /// The kind of the incident, as a word.
    pub kind: String,
    /// The vessel or the directory concerned; empty for the shore itself.
    pub subject: String,
    /// When the incident began, in milliseconds since 1970.
    pub since: i64,
    /// The reason that was reported.
    pub reason: String,
}

/// The ledger's interface for incidents.
#[async_trait]
pub trait IncidentMemory: Send + Sync {
    /// Returns the reported incidents whose end was not reported yet, ordered by kind and subject.
    async fn told_incidents(&self) -> Result<Vec<ReportedIncident>>;

    /// Records that an incident was reported.
    async fn incident_told(&self, incident: &ReportedIncident) -> Result<()>;

    /// Records that the end of an incident was reported.
    async fn incident_over(&self, kind: &str, subject: &str) -> Result<()>;
}
