//! What people see of it: the status document, the page, metrics, and the history of one file.
//!
//! There is one [`Document`], put together from the ledger (what is owed) and from what is going on now ([`Live`]). The
//! terminal, the page and the metrics are three ways of showing it, so they can't disagree. Without a running daemon the
//! same document is put together from the ledger alone.
//!
//! [`serve()`] answers over HTTP: on a Unix socket beside the ledger for the command line, and where `Listen` says for a
//! browser. Alone knows HTTP. Reads only, but for [`Orders`](crate::orders::Orders) that it passes on.

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
