//! Prevents updates from being applied twice when the connection is lost before the answer to a commit arrives.

use std::sync::{Mutex, PoisonError};

use super::Result;
use super::write::{Pools, Write};

/// The transaction of an earlier attempt whose commit got no answer, and the result that the attempt returns if the
/// transaction was committed.
pub(super) struct Doubt<T>(Mutex<Option<(i64, T)>>);

impl<T: Clone> Doubt<T> {
    pub(super) fn new() -> Self {
        Self(Mutex::new(None))
    }

    /// Returns the result of the earlier attempt if its transaction was committed; `None` if the update must be made
    /// now.
    pub(super) async fn resolved(&self, pools: &Pools) -> Result<Option<T>> {
        let pending = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Some((number, result)) = pending else { return Ok(None) };
        if pools.was_committed(number).await? {
            return Ok(Some(result));
        }
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
        Ok(None)
    }

    /// Commits the transaction and returns `result`. Remembers the transaction and the result in case the commit gets
    /// no answer.
    pub(super) async fn commit(&self, write: Write, result: T) -> Result<T> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((write.number, result.clone()));
        write.commit().await?;
        Ok(result)
    }
}
