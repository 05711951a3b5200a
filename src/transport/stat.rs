//! Queries paths on all kinds of servers. Each query has a fallback for servers that reject the request or do not
//! report the file type.

use futures_util::future::join;

use super::files::Files;
use super::sftp::{Attrs, Kind, SftpError};

/// Returns the attributes of a path without following a link. Hundreds of these futures exist at once, so the rare
/// fallbacks, whose futures are three times as large, are boxed.
pub(super) async fn at(files: &Files, path: &[u8]) -> Result<Attrs, SftpError> {
    match files.lstat(path).await {
        Err(e) if e.is_refusal() => Box::pin(at_without_lstat(files, path, e)).await,
        Ok(attrs) if !attrs.has_kind() => Box::pin(with_kind(files, path, attrs, false)).await,
        other => other,
    }
}

async fn at_without_lstat(files: &Files, path: &[u8], refused: SftpError) -> Result<Attrs, SftpError> {
    // STAT follows links, so READLINK checks whether the path itself is a link.
    match join(files.stat(path), files.readlink(path)).await {
        (_, Ok(_)) => Ok(Attrs::of_kind(Kind::Link)),
        (Ok(attrs), _) => with_kind(files, path, attrs, false).await,
        (Err(e), _) if e.is_refusal() => Err(refused),
        (Err(e), _) => Err(e),
    }
}

/// Returns the attributes of a path, following links.
pub(super) async fn behind(files: &Files, path: &[u8]) -> Result<Attrs, SftpError> {
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

/// Adds the file type if the vessel does not report it. To find the type, tries to list the path as a directory and,
/// unless links are followed, to read it as a link.
pub(super) async fn with_kind(files: &Files, path: &[u8], attrs: Attrs, follow: bool) -> Result<Attrs, SftpError> {
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
