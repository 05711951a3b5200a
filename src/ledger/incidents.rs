//! Records which troubles were reported to commands and webhooks, so that each is reported once, also after a restart.

use async_trait::async_trait;

use super::LedgerError;

type Result<T> = std::result::Result<T, LedgerError>;

/// An incident that was reported and has not been reported as over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToldIncident {
    /// The kind of trouble, as a word.
    pub kind: String,
    /// The vessel or the directory; empty for the shore itself.
    pub subject: String,
    /// When the trouble began, in milliseconds since 1970.
    pub since: i64,
    /// The reason that was reported.
    pub reason: String,
}

/// The ledger's interface for troubles.
#[async_trait]
pub trait IncidentMemory: Send + Sync {
    /// Returns the troubles that were reported, ordered by kind and subject.
    async fn told_incidents(&self) -> Result<Vec<ToldIncident>>;

    /// Records that a trouble was reported.
    async fn incident_told(&self, incident: &ToldIncident) -> Result<()>;

    /// Records that the end of a trouble was reported.
    async fn incident_over(&self, kind: &str, subject: &str) -> Result<()>;
}
