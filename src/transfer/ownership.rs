//! Ownership of files on the vessel: if another user has replaced an assembly, the replacement is neither written to
//! nor published.

use crate::fault::Fault;
use crate::link::OURS;
use crate::link::Session;
use crate::names::{OurFile, RemotePath};
use crate::records::Version;
use crate::rights::CopyOf;
use crate::transport::{Attrs, ErrorKind, Leftovers, Listed, RemoteError};

/// Returns whether a file belongs to another user: neither to the owner of new files beside the assembly, nor to the
/// owner that is set on the version's copy. `false` if the vessel does not report owners.
async fn is_foreign(
    session: &Session,
    version: &Version,
    assembly: &RemotePath,
    attrs: &Attrs,
) -> Result<bool, RemoteError> {
    let Some((owner, _)) = attrs.owner else { return Ok(false) };
    if version.owner.is_some_and(|(given, _)| given == owner) {
        return Ok(false);
    }
    let ours = session.owners.beside(&session.remote, assembly).await?;
    Ok(ours.is_some_and(|ours| ours != owner))
}

/// Returns whether a file left by an earlier attempt may be written to. It must be a regular file with our mode and
/// owner and, if others can write to its directory, a single link. Otherwise another user may have put it there.
pub(super) async fn may_resume(
    session: &Session,
    version: &Version,
    path: &RemotePath,
    attrs: &Attrs,
) -> Result<bool, RemoteError> {
    let mode_is_ours = attrs.mode.is_none_or(|mode| [OURS, version.mode & 0o7777].contains(&(mode & 0o7777)));
    if (attrs.has_kind() && !attrs.is_file()) || !mode_is_ours {
        return Ok(false);
    }
    // On this host, opening the file checks its owner and number of links.
    if session.remote.is_this_host() {
        return Ok(true);
    }
    if is_foreign(session, version, path, attrs).await? {
        return Ok(false);
    }
    let directory = path.parent().unwrap_or_else(|| RemotePath::new("."));
    let shared = match session.remote.look_through(&directory).await {
        Ok(Some(there)) => {
            there.mode.is_some_and(|mode| mode & 0o022 != 0) || is_foreign(session, version, path, &there).await?
        }
        Err(e) if e.is_connection() => return Err(e),
        Ok(None) | Err(_) => false,
    };
    if !shared {
        return Ok(true);
    }
    match session.remote.links(path).await {
        Ok(links) => Ok(links == 1),
        Err(e) if e.is_connection() => Err(e),
        Err(_) => Ok(false),
    }
}

/// Returns like [`may_resume`] whether a file may be written to, but judges by the output of a command.
pub(super) fn may_resume_listed(version: &Version, file: &Listed, leftovers: &Leftovers) -> bool {
    let is_foreign = |owner: u32| {
        let is_given = version.owner.is_some_and(|(given, _)| given == owner);
        !is_given && leftovers.us.is_some_and(|us| us != owner)
    };
    if !file.is_file || ![OURS, version.mode & 0o7777].contains(&file.mode) || is_foreign(file.owner) {
        return false;
    }
    let is_shared = leftovers.directory.is_some_and(|there| there.mode & 0o022 != 0 || is_foreign(there.owner));
    !is_shared || file.links == 1
}

/// Returns whether a file under its final name has another mode than its version and belongs to another user, so that
/// its mode can't be set.
pub(super) async fn is_of_others_rights(
    session: &Session,
    version: &Version,
    assembly: &RemotePath,
    attrs: &Attrs,
) -> Result<bool, Fault> {
    let same = attrs.mode.is_none_or(|mode| mode & 0o7777 == CopyOf::File.plain(version.mode));
    Ok(!same && is_foreign(session, version, assembly, attrs).await.map_err(|e| e.fault())?)
}

/// Handles an error of setting a file's mode or time. If the file belongs to another user, that user has replaced the
/// assembly, and the file must not be published. Otherwise the error is only logged, because a file system without
/// modes (FAT) must not block the delivery.
pub(super) async fn check_attribute_error(
    session: &Session,
    version: &Version,
    path: &RemotePath,
    error: RemoteError,
) -> Result<(), RemoteError> {
    if error.is_connection() {
        return Err(error);
    }
    if error.kind == ErrorKind::Denied
        && let Some(attrs) = session.remote.look(path).await?
        && is_foreign(session, version, path, &attrs).await?
    {
        let why = "another user has replaced this file";
        return Err(RemoteError::new(ErrorKind::Failed, format_args!("setting the mode of {path}"), why));
    }
    tracing::warn!(vessel = %session.link.settings.name, file = %version.path, "{error}");
    Ok(())
}

/// Returns whether a path has the name of an assembly.
pub(super) fn is_assembly(session: &Session, path: &RemotePath) -> bool {
    let name = path.as_bytes().rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    matches!(OurFile::parse(session.link.instance, name), Some(OurFile::Assembly { .. }))
}
