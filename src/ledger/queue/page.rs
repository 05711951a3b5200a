//! One page of a queue: the deliveries that match a filter, and the cursor after them.

use std::time::Duration;

use super::reader::{QueueReader, Wanted};
use super::walk::{Effort, Progress, Walk};
use super::{QueueCursor, QueueFilter, QueuePage, QueueStage, plan};
use crate::ledger::LedgerError;

impl Effort {
    /// The limits for an answer that a person waits for. Usually the time limit is reached first.
    pub(in crate::ledger) const ANSWER: Self = Self { deliveries: 200_000, time: Duration::from_millis(40) };
}

/// Returns a page of at most `limit` deliveries.
pub(in crate::ledger) async fn page(
    reader: &mut impl QueueReader,
    stages: &[QueueStage],
    filter: &QueueFilter,
    from: Option<&QueueCursor>,
    (limit, effort): (usize, Effort),
) -> Result<QueuePage, LedgerError> {
    let wanted = Wanted::of(filter);
    let directories = wanted.directories.as_deref();
    // The ledger's sums show how many deliveries the directories have, so the listing ends when all of them are found.
    let waiting = match directories {
        Some(directories) => reader.waiting(directories).await?,
        None => u64::MAX,
    };
    if waiting == 0 {
        return Ok(QueuePage::default());
    }
    let stages = match plan::apart(filter) {
        Some(stage) => vec![stage],
        None => plan::stages(stages, &reader.queues().await?, directories),
    };
    let mut walk = Walk::new(stages, from, (limit + 1, !wanted.is_all()), effort);
    let mut deliveries = Vec::new();
    let next = loop {
        if from.is_none() && deliveries.len() as u64 == waiting {
            break None;
        }
        match walk.next(reader).await? {
            // There is one more match than the page may hold, so another page follows.
            Progress::Wanted(_) if deliveries.len() == limit => break Some(walk.passed().clone()),
            Progress::Wanted(step) => {
                deliveries.push(step.place.position().delivery);
                walk.pass(step);
            }
            Progress::Limit => break Some(walk.cursor()),
            Progress::End => break None,
        }
    };
    Ok(QueuePage { entries: reader.entries(&deliveries).await?, next })
}
