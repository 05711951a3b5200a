//! What is at a path, on servers of every manner: below each question stands another one, for those that refuse it or leave
//! out what kind of thing it is.

use futures_util::future::join;

use super::error::{ErrorKind, RemoteError};
use super::files::Files;
use super::remote::{MOST_ENTRIES, Remote, found};
use super::sftp::{Attrs, Kind, SftpError};
use crate::names::RemotePath;

impl Remote {
    /// What a path is, not following a link; `None` when there is nothing.
    pub async fn look(&self, path: &RemotePath) -> Result<Option<Attrs>, RemoteError> {
        found(at(self.lane().files(), path.as_bytes()).await, || format!("looking at {path}"))
    }

    /// What a path leads to, following links; `None` when there is nothing.
    pub async fn look_through(&self, path: &RemotePath) -> Result<Option<Attrs>, RemoteError> {
        found(behind(self.lane().files(), path.as_bytes()).await, || format!("looking at {path}"))
    }

    /// As [`Self::look`]; where the vessel lets nobody look, its directory's listing tells. That may be long, so only what
    /// must know asks.
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
        if entries.len() >= MOST_ENTRIES {
            let why = "it has too many entries";
            return Err(RemoteError::new(ErrorKind::Unsupported, format_args!("listing {directory}"), why));
        }
        let Some((_, attrs)) = entries.into_iter().find(|(entry, _)| entry == name) else { return Ok(None) };
        let attrs = with_kind(self.lane().files(), path.as_bytes(), attrs, false).await;
        found(attrs, || format!("looking at {path}"))
    }
}

/// What a path is, not following a link.
pub(super) async fn at(files: &Files, path: &[u8]) -> Result<Attrs, SftpError> {
    let refused = match files.lstat(path).await {
        Err(e) if e.is_refusal() => e,
        Ok(attrs) => return with_kind(files, path, attrs, false).await,
        other => return other,
    };
    // STAT follows links, and READLINK tells one from what it leads to.
    match join(files.stat(path), files.readlink(path)).await {
        (_, Ok(_)) => Ok(Attrs::of_kind(Kind::Link)),
        (Ok(attrs), _) => with_kind(files, path, attrs, false).await,
        (Err(e), _) if e.is_refusal() => Err(refused),
        (Err(e), _) => Err(e),
    }
}

/// What a path leads to, following links.
async fn behind(files: &Files, path: &[u8]) -> Result<Attrs, SftpError> {
    let refused = match files.stat(path).await {
        Err(e) if e.is_refusal() => e,
        Ok(attrs) => return with_kind(files, path, attrs, true).await,
        other => return other,
    };
    match files.lstat(path).await {
        Ok(attrs) if attrs.is_link() => match files.can_list(path).await {
            Ok(_) => Ok(Attrs::of_kind(Kind::Directory)),
            Err(e) if e.is_not_found() => Err(e),
            Err(_) => Err(refused),
        },
        Ok(attrs) => with_kind(files, path, attrs, true).await,
        Err(e) if e.is_refusal() => Err(refused),
        Err(e) => Err(e),
    }
}

/// The same attributes with what kind of thing it is, which some vessels leave out: a directory can be listed, a link read.
async fn with_kind(files: &Files, path: &[u8], attrs: Attrs, follow: bool) -> Result<Attrs, SftpError> {
    if attrs.has_kind() {
        return Ok(attrs);
    }
    let target = async { if follow { None } else { files.readlink(path).await.ok() } };
    let kind = match join(target, files.can_list(path)).await {
        (Some(_), _) => Kind::Link,
        (None, Ok(_)) => Kind::Directory,
        (None, Err(e @ (SftpError::Lost(_) | SftpError::Silent(_) | SftpError::Garbled))) => return Err(e),
        (None, Err(e)) if e.is_refusal() => return Ok(attrs),
        (None, Err(_)) => Kind::File,
    };
    Ok(Attrs { kind: Some(kind), ..attrs })
}
