//! The vessel's own hash of a file, computed while the file grows.

use super::end_in_shell::may_end;
use crate::link::Session;
use crate::names::RemotePath;
use crate::records::Version;
use crate::transport::GrowingHash;

/// Starts to hash an assembly on the vessel while the assembly grows; `None` if the vessel can't. With `destination`,
/// the same script can publish the file there at the end, if [`may_end`] allows it.
pub(super) async fn hash_as_it_grows<'s>(
    session: &'s Session,
    version: &Version,
    assembly: &RemotePath,
    destination: Option<&RemotePath>,
) -> Option<GrowingHash<'s>> {
    let tool = session.hash_tool()?;
    let destination = destination.filter(|_| may_end(session, version));
    let ending = destination.map(|destination| (destination, version.stamp.size));
    session.remote.hash_as_it_grows(tool, assembly, ending).await.ok()
}

/// Notifies the vessel's hash tool that the assembly has grown. Returns `None` if that fails; then the whole file is
/// hashed at the end.
pub(super) async fn grown(hash: Option<GrowingHash<'_>>) -> Option<GrowingHash<'_>> {
    let hash = hash?;
    hash.grown().await.ok().map(|()| hash)
}
