//! The program's views for people: the status document, the status page, metrics, and the history of one file.
//!
//! There is one [`Document`], assembled from the ledger and from the live state ([`Live`]). The terminal, the page and
//! the metrics are made from this document, so they can't disagree. Without a running daemon, the document is assembled
//! from the ledger alone.
//!
//! [`serve()`] answers HTTP requests: on a Unix socket beside the ledger for the command line, and at `Listen` for
//! browsers. No other module serves HTTP. All requests only read, except [`Orders`](crate::orders::Orders), which are
//! passed on to that module.

mod access;
mod document;
mod doors;
mod find;
mod gather;
mod histogram;
mod history;
mod live;
mod meter;
mod metrics;
mod page;
mod plan;
mod queue;
mod queues;
mod routes;
mod socket;
mod web;

#[cfg(test)]
pub use document::{Amount, LedgerStatus, Link};
pub use document::{BudgetStatus, DirectoryStatus, Document, LinkState, Reload, VesselStatus, WayStatus};
pub use find::{Meant, find};
pub use gather::{Gatherer, Place};
pub use histogram::Histogram;
pub use history::{Chapter, DeliveryReport, History, Reporter, report};
pub use live::{Done, Live};
pub use plan::{QueuePlan, VesselPlan, Window, plan};
pub use queue::{QueueAnswer, QueueEntry, QueueError, QueueQuestion};
pub use socket::{Socket, SocketError, call, path_beside};
pub use web::{Listening, Web, listen, serve};
