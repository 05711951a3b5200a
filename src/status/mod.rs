//! The program's views for people: the status document, the status page, metrics, and the history of one file.
//!
//! There is one [`Document`], assembled from the ledger and from the live state ([`Live`]). The terminal, the page and
//! the metrics are made from this document, so they can't disagree. Without a running daemon, the document is assembled
//! from the ledger alone.
//!
//! [`serve()`] answers HTTP requests: on a Unix socket beside the ledger for the command line, and at `Listen` for
//! browsers. No other module serves HTTP. Requests only read, except orders, which are passed on to
//! [`Orders`](crate::orders::Orders).

mod access;
mod changes;
mod convert;
mod cpu;
mod delivery_report;
mod directory_status;
mod document;
mod doors;
mod find;
mod fleet;
mod forecast;
mod gather;
mod histogram;
mod history;
mod holds;
mod incidents;
mod live;
mod log_lines;
mod meter;
mod metrics;
mod on_shore;
mod page;
mod place;
mod plan;
mod queue;
mod queue_cursor;
mod queue_order;
mod queues;
mod rank;
mod receipts;
mod recorded;
mod reporter;
mod routes;
mod running;
mod socket;
mod speed;
mod trouble_times;
mod vessel_status;
mod web;

pub use delivery_report::DeliveryReport;
#[cfg(test)]
pub use document::{Amount, LedgerStatus, Link};
pub use document::{
    BudgetStatus, DirectoryStatus, Document, LinkState, Reload, ServedStatus, ShoreStatus, VesselStatus, WayStatus,
};
pub use find::{Meant, find};
pub use gather::Gatherer;
pub use histogram::Histogram;
pub use history::{Chapter, History, report};
pub use live::{Done, Live};
pub use log_lines::LogLines;
pub use place::Place;
pub use plan::{QueuePlan, VesselPlan, Window, plan};
pub use queue::{QueueAnswer, QueueEntry, QueueError, QueueQuestion};
pub use queues::NO_RATE;
pub use reporter::Reporter;
pub use running::Running;
pub use socket::{Socket, SocketError, call};
pub use speed::PathStatus;
pub use web::{Listening, Web, listen, serve};
