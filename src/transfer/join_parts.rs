//! Joins complete parts into the assembly, while later parts are uploaded.

use std::ops::Range;

use futures_util::future::try_join_all;
use tokio_util::sync::CancellationToken;

use super::append::{append, cut};
use super::growing_hash::{grown, hash_as_it_grows};
use super::ranges::{Part, Piece};
use super::upload_state::PartsUpload;
use crate::fault::Fault;
use crate::names::Stream;
use crate::transport::{ErrorKind, GrowingHash, RemoteError};

impl<'a> PartsUpload<'a> {
    /// Joins complete parts in order as soon as possible, until the file is joined or the upload has ended. Lets the
    /// vessel hash the joined bytes and returns that hash.
    pub(super) async fn join(&self, ended: &CancellationToken) -> Result<Option<GrowingHash<'a>>, Fault> {
        let (mut hash, mut hashed) = (None, None);
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            // Whether the upload has ended is checked before the parts are read, so that parts completed just before
            // the end are still joined.
            let last = ended.is_cancelled();
            let (parts, joined) = {
                let ranges = self.ranges();
                (ranges.joinable(), ranges.joined())
            };
            if joined > hashed.unwrap_or(0) {
                if hashed.is_none() {
                    let destination = Some(&self.destination);
                    hash = hash_as_it_grows(self.session, self.version(), &self.assembly, destination).await;
                }
                hash = grown(hash).await;
                hashed = Some(joined);
                continue;
            }
            let Some(end) = parts.last().map(|part| part.range.end) else {
                if last || self.ranges().is_joined() {
                    return Ok(hash);
                }
                tokio::select! {
                    () = changed => {}
                    () = ended.cancelled() => {}
                }
                continue;
            };
            let appended = append(self.session, self.delivery, &self.assembly, &parts, joined..end).await;
            if appended.as_ref().is_err_and(RemoteError::is_silent) && parts.iter().any(|part| part.stream.is_some()) {
                self.session.link.compressor.distrust();
            }
            if let Err(e) = &appended
                && is_not_expanded(e, &parts)
            {
                self.send_again(e, joined..end).await?;
                continue;
            }
            self.session.explained(appended, &self.assembly, end - joined).await?;
            self.ranges().join(end);
            self.changed.notify_waiters();
        }
    }

    /// After the vessel failed to expand compressed parts, removes all compressed parts up to the end of `range` and
    /// all unfinished ones, and marks their ranges as missing again. If the vessel's decompressor is no longer trusted,
    /// does the same with the later compressed parts.
    async fn send_again(&self, error: &RemoteError, range: Range<u64>) -> Result<(), Fault> {
        let (vessel, file) = (&self.session.link.settings.name, &self.version().path);
        self.session.link.compressor.failed();
        let again = if self.session.link.compressor.is_trusted() { "compressed" } else { "uncompressed" };
        tracing::warn!(
            %vessel, %file, "The vessel cannot expand compressed parts; sending them again {again}: {error}"
        );
        let cut = cut(self.session, &self.assembly, range.start).await;
        self.session.explained(cut, &self.assembly, 0).await?;
        let end = if self.session.link.compressor.is_trusted() { range.end } else { u64::MAX };
        let withdrawn = self.ranges().withdraw_streams(end);
        let remove = async |(piece, stream): (Piece, Stream)| {
            let removed = self.session.remote.remove(&self.session.compressed_part(self.delivery, stream)).await;
            self.give_back(piece);
            removed.map_err(|e| e.fault())
        };
        try_join_all(withdrawn.into_iter().map(remove)).await.map(|_| ())
    }
}

/// Returns whether parts probably could not be joined because a compressed one could not be expanded.
fn is_not_expanded(error: &RemoteError, parts: &[Part]) -> bool {
    let is_place = matches!(error.kind, ErrorKind::NoSpace { .. } | ErrorKind::Quota | ErrorKind::ReadOnly);
    !error.is_connection() && !is_place && parts.iter().any(|part| part.stream.is_some())
}
