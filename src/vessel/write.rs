//! Writes a range of the source into a file on the vessel, many writes in flight.

use std::ops::Range;
use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;

use super::visit::Visit;
use crate::fault::Fault;
use crate::local::{DiskError, SourceFile};
use crate::records::Version;
use crate::transport::RemoteFile;

/// How much is read from the source at once, in bytes: enough to be worth the way to a thread, little enough for many
/// deliveries at once.
const READ_SIZE: u64 = 512 << 10;

impl Visit {
    /// Writes bytes `range` of the source into `file`, those of offset `range.start` at `range.start - base`.
    ///
    /// Bytes go out in order, so that after a cut the file on the vessel holds a prefix and nothing but a prefix.
    pub(super) async fn write_range(
        &self,
        version: &Version,
        source: &Arc<SourceFile>,
        file: &RemoteFile,
        range: Range<u64>,
        base: u64,
    ) -> Result<(), Fault> {
        let per_write = usize::try_from(self.remote.capabilities().bytes_per_write()).unwrap_or(usize::MAX);
        let mut sent = FuturesUnordered::new();
        let mut at = range.start;
        // Not taken yet: what a vessel that is full must make room for.
        let mut missing = range.end - range.start;
        while at < range.end {
            let size = READ_SIZE.min(range.end - at);
            let mut bytes = self.read_source(version, source, at, size).await?;
            while !bytes.is_empty() {
                let piece = bytes.split_to(per_write.min(bytes.len()));
                let length = piece.len() as u64;
                let write = file.send(at - base, piece).await;
                sent.push(self.explained(write, file.path(), missing).await?.taken());
                at += length;
                // What has been answered meanwhile is taken note of, without waiting for more.
                while let Some(Some(taken)) = futures_util::FutureExt::now_or_never(sent.next()) {
                    let taken = self.explained(taken, file.path(), missing).await?;
                    missing -= taken;
                    self.sent(taken);
                }
            }
        }
        while let Some(taken) = sent.next().await {
            let taken = self.explained(taken, file.path(), missing).await?;
            missing -= taken;
            self.sent(taken);
        }
        Ok(())
    }

    async fn read_source(
        &self,
        version: &Version,
        source: &Arc<SourceFile>,
        at: u64,
        size: u64,
    ) -> Result<bytes::Bytes, Fault> {
        let (source, stamp) = (source.clone(), version.stamp);
        let reading = tokio::task::spawn_blocking(move || -> Result<Option<bytes::Bytes>, DiskError> {
            let bytes = source.read_at(at, usize::try_from(size).unwrap_or(usize::MAX))?;
            // Looked at after the read: bytes that belong to another version are not sent for nothing.
            Ok((source.stamp()? == stamp).then_some(bytes))
        });
        match reading.await.map_err(|e| Fault::daemon(format_args!("reading a source: {e}")))? {
            Ok(Some(bytes)) => Ok(bytes),
            Ok(None) | Err(DiskError::Changed { .. }) => Err(super::visit::source_changed(version)),
            Err(e) => Err(e.fault()),
        }
    }
}
