//! Updates that must not be applied twice, although the answer to a commit may be lost with the connection.

use std::sync::{Mutex, PoisonError};

use super::Result;
use super::write::{Pools, Write};

/// The transaction of an earlier attempt whose commit got no answer, and the result that it would have.
pub(super) struct Doubt<T>(Mutex<Option<(i64, T)>>);

impl<T: Clone> Doubt<T> {
    pub(super) fn new() -> Self {
        Self(Mutex::new(None))
    }

    /// Returns the result of the earlier attempt if its transaction was committed.
    pub(super) async fn resolved(&self, pools: &Pools) -> Result<Option<T>> {
        let pending = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Some((number, result)) = pending else { return Ok(None) };
        if pools.was_committed(number).await? {
            return Ok(Some(result));
        }
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
        Ok(None)
    }

    /// Commits, and returns the result.
    pub(super) async fn commit(&self, write: Write, result: T) -> Result<T> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((write.number, result.clone()));
        write.commit().await?;
        Ok(result)
    }
}
