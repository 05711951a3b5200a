//! Appends complete parts to the assembly, by one command on the vessel.

use std::ops::Range;
use std::time::Duration;

use super::ranges::Part;
use crate::link::Session;
use crate::names::RemotePath;
use crate::records::Delivery;
use crate::transport::{Attrs, ErrorKind, Ingredient, RemoteError};

/// Maximum number of attempts to append. A `cat` of an earlier session that is still running may disturb an attempt.
const APPENDS: u32 = 4;
/// The first wait between two attempts. Each further wait is longer by the same time.
const STRAGGLERS: Duration = Duration::from_millis(50);

/// Appends parts to the assembly. The parts hold the bytes `range` of the file.
pub(super) async fn append(
    session: &Session,
    delivery: &Delivery,
    assembly: &RemotePath,
    parts: &[Part],
    range: Range<u64>,
) -> Result<(), RemoteError> {
    let ingredient = |part: &Part| match part.stream {
        Some(stream) => Ingredient::Compressed(session.compressed_part(delivery, stream), stream.codec),
        None => Ingredient::Part(session.part(delivery.id, part.range.start)),
    };
    let ingredients: Vec<Ingredient> = parts.iter().map(ingredient).collect();
    cut_parts(session, delivery, parts.iter().filter(|part| part.ragged)).await?;
    for tried in 1..APPENDS {
        match session.remote.build(assembly, range.clone(), &ingredients, None).await {
            Err(e) if e.kind == ErrorKind::Failed => {
                tracing::debug!(vessel = %session.link.settings.name, file = %delivery.version.path, "{e}");
            }
            appended => return appended,
        }
        tokio::time::sleep(STRAGGLERS * tried).await;
        cut(session, assembly, range.start).await?;
        cut_parts(session, delivery, parts.iter()).await?;
    }
    session.remote.build(assembly, range, &ingredients, None).await
}

/// Truncates parts to the lengths of their ranges. Compressed parts are not truncated: they are used only at their full
/// size.
async fn cut_parts(
    session: &Session,
    delivery: &Delivery,
    parts: impl Iterator<Item = &Part>,
) -> Result<(), RemoteError> {
    for part in parts.filter(|part| part.stream.is_none()) {
        let path = session.part(delivery.id, part.range.start);
        cut(session, &path, part.range.end - part.range.start).await?;
    }
    Ok(())
}

/// Truncates a file.
pub(super) async fn cut(session: &Session, path: &RemotePath, size: u64) -> Result<(), RemoteError> {
    session.remote.set(path, Attrs { size: Some(size), ..Attrs::default() }).await
}
