//! The transport to a vessel: SSH, SFTP and the vessel's own commands behind one handle, [`Remote`]. For a target on
//! this host, [`Remote`] uses its file system.
//!
//! [`Remote::connect`] connects, checks the host key, logs in and determines the vessel's [`Capabilities`]. The errors
//! name the failed operation or the host. [`RemoteError::fault`] and [`ConnectError::fault`] convert them to a
//! [`Fault`](crate::fault::Fault). Apart from `embedded_vessel`, only this module depends on the SSH library. This
//! module does not depend on deliveries, the ledger or the shore's disk.

mod capabilities;
mod check_file;
mod commands;
mod connect;
mod directories;
mod disk;
mod ending;
mod error;
mod excerpt;
mod exec;
mod explain_error;
mod file;
mod file_loop;
mod files;
mod find_tree;
mod known;
mod known_hosts;
mod leftovers;
mod look;
mod remote;
mod rename;
mod sftp;
mod sftp_channel;
mod shell;
mod ssh;
mod stat;
#[cfg(any(test, fuzzing))]
pub mod strangers;
mod tree;

pub use capabilities::{Capabilities, HashTool};
pub use commands::Ingredient;
pub use ending::{Ended, Ending, GrowingHash};
pub use error::{ConnectError, ErrorKind, RemoteError};
pub use file::{RemoteFile, Sent};
pub use file_loop::{FileLoop, Flight, SmallFile, takes_name};
pub use known::KnownShell;
pub use leftovers::{Leftovers, Listed};
pub use remote::Remote;
pub use rename::Renamed;
pub use sftp::{Attrs, OpenFlags, Space};
pub use sftp_channel::SftpChannel;
pub use shell::Script;
pub use ssh::{
    DialIn, Endpoint, Follow, HostKeys, Lead, LinkMeter, LinkMeters, LoginLimit, PathState, Rank, RoundTrip, SeenKey,
    SshEnvironment, Standing, see_host_key,
};
