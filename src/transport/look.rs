//! Queries paths on the vessel.

use super::error::{ErrorKind, RemoteError};
use super::remote::{MOST_ENTRIES, Remote, found};
use super::sftp::Attrs;
use super::stat::{at, behind, with_kind};
use crate::names::RemotePath;

impl Remote {
    /// Returns the attributes of a path without following a link, or `None` if the path does not exist.
    pub async fn look(&self, path: &RemotePath) -> Result<Option<Attrs>, RemoteError> {
        found(at(self.main_channel().files(), path.as_bytes()).await, || format!("reading the status of {path}"))
    }

    /// Returns the attributes of a path, following links, or `None` if the path does not exist.
    pub async fn look_through(&self, path: &RemotePath) -> Result<Option<Attrs>, RemoteError> {
        found(behind(self.main_channel().files(), path.as_bytes()).await, || format!("reading the status of {path}"))
    }

    /// Queries a path as [`Self::look`] does. If the vessel denies the query, searches the listing of the parent
    /// directory. The listing may be long, so only callers that need certainty use this function.
    pub async fn look_or_list(&self, path: &RemotePath) -> Result<Option<Attrs>, RemoteError> {
        match self.look(path).await {
            Err(e) if e.is_refusal() => match self.listed(path).await {
                Err(listing) if listing.is_connection() => Err(listing),
                Err(_) => Err(e),
                listed => listed,
            },
            looked => looked,
        }
    }

    async fn listed(&self, path: &RemotePath) -> Result<Option<Attrs>, RemoteError> {
        let directory = path.parent().unwrap_or_else(|| RemotePath::new("."));
        let name = path.as_bytes().rsplit(|byte| *byte == b'/').next().unwrap_or_default();
        let entries = self.list(&directory).await?;
        // The vessel's `.` and `..` count towards `MOST_ENTRIES`, but are not returned.
        if entries.len() + 2 >= MOST_ENTRIES {
            let why = "the directory has too many entries";
            return Err(RemoteError::new(ErrorKind::Unsupported, format_args!("listing {directory}"), why));
        }
        let Some((_, attrs)) = entries.into_iter().find(|(entry, _)| entry == name) else { return Ok(None) };
        let attrs = with_kind(self.main_channel().files(), path.as_bytes(), attrs, false).await;
        found(attrs, || format!("reading the status of {path}"))
    }
}
