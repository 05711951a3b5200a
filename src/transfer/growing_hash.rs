//! The vessel's own hash of a file, computed while the file grows.

use crate::link::Session;
use crate::names::RemotePath;
use crate::transport::GrowingHash;

/// Starts to hash an assembly on the vessel while the assembly grows; `None` if the vessel can't.
pub(super) async fn hash_as_it_grows<'s>(session: &'s Session, assembly: &RemotePath) -> Option<GrowingHash<'s>> {
    let tool = session.hash_tool()?;
    session.remote.hash_as_it_grows(tool, assembly).await.ok()
}

/// Tells the vessel's hash tool that the assembly has grown. Returns `None` if that fails; then the whole file is
/// hashed at the end.
pub(super) async fn grown(hash: Option<GrowingHash<'_>>) -> Option<GrowingHash<'_>> {
    let hash = hash?;
    hash.grown().await.ok().map(|()| hash)
}
