//! The vessel's own hash of a file, computed while the file grows.

use crate::link::Session;
use crate::names::RemotePath;
use crate::transport::GrowingHash;

/// Starts to hash an assembly on the vessel while it grows, if the vessel can.
pub(super) async fn hash_as_it_grows<'s>(session: &'s Session, assembly: &RemotePath) -> Option<GrowingHash<'s>> {
    let tool = session.remote.capabilities().hash_tool?;
    session.remote.hash_as_it_grows(tool, assembly).await.ok()
}

/// Notifies the vessel's hash that the assembly has grown. If that fails, the whole file is hashed at the end instead.
pub(super) async fn grown(hash: Option<GrowingHash<'_>>) -> Option<GrowingHash<'_>> {
    let hash = hash?;
    hash.grown().await.ok().map(|()| hash)
}
