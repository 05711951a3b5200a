//! The program's views for people: the status document, the page, metrics, and the history of one file.
//!
//! There is one [`Document`], assembled from the ledger and from the live state ([`Live`]). The terminal, the page and
//! the metrics are three views of it, so they can't disagree. Without a running daemon, the document is assembled from
//! the ledger alone.
//!
//! [`serve()`] answers over HTTP: on a Unix socket beside the ledger for the command line, and at `Listen` for a
//! browser. No other module serves HTTP. Everything is read-only except [`Orders`](crate::orders::Orders), which are
//! passed on.

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
mod socket;
mod web;

pub use document::{DirectoryStatus, Document, LinkState, Reload, VesselStatus};
pub use find::{Meant, find};
pub use gather::{Gatherer, Place};
pub use histogram::Histogram;
pub use history::{Chapter, DeliveryReport, History, Reporter, report};
pub use live::Live;
pub use socket::{Socket, SocketError, call, path_beside};
pub use web::{Listening, Web, listen, serve};
