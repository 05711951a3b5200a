//! The vessel's own hash of a file, made while the file grows.

use crate::link::Session;
use crate::names::RemotePath;
use crate::transport::GrowingHash;

/// Has the vessel hash an assembly while it grows, where it can.
pub(super) async fn hash_as_it_grows<'s>(session: &'s Session, assembly: &RemotePath) -> Option<GrowingHash<'s>> {
    let tool = session.remote.capabilities().hash_tool?;
    session.remote.hash_as_it_grows(tool, assembly).await.ok()
}

/// Tells the vessel's hash that the assembly has grown. One that fails is given up: the whole is hashed at the end then.
pub(super) async fn grown(hash: Option<GrowingHash<'_>>) -> Option<GrowingHash<'_>> {
    let hash = hash?;
    hash.grown().await.ok().map(|()| hash)
}
