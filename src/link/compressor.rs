//! Compresses on separate threads, within limits of memory and processors that all vessels share. Tracks whether a
//! vessel's program that expands the streams is trusted.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::compression::Codec;

/// Maximum memory for ranges that are compressed or sent compressed, over all vessels, in KiB. A range for which no
/// memory is left is sent uncompressed, so no vessel waits for another one.
const MEMORY: usize = 64 << 10;
/// Number of damaged or failed expansions after which the vessel's program is not used for [`DISTRUST`].
const FAILURES: u32 = 2;
const DISTRUST: Duration = Duration::from_secs(3600);

/// Compresses for one vessel; clones share their state.
#[derive(Clone)]
pub struct Compressor {
    memory: Arc<Semaphore>,
    threads: Arc<Semaphore>,
    trouble: Arc<Mutex<Trouble>>,
}

/// Failed expansions on one vessel.
#[derive(Default)]
struct Trouble {
    failures: u32,
    distrusted_since: Option<Instant>,
}

/// Memory for a range and its stream, freed when this value is dropped.
pub(crate) struct Memory(OwnedSemaphorePermit);

/// A compressed stream.
pub(crate) struct Compressed {
    pub(crate) bytes: Bytes,
    /// How long the compression took.
    pub(crate) took: Duration,
    _memory: Memory,
}

impl Default for Compressor {
    fn default() -> Self {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            memory: Arc::new(Semaphore::new(MEMORY)),
            threads: Arc::new(Semaphore::new(processors)),
            trouble: Arc::default(),
        }
    }
}

fn in_kib(bytes: u64) -> u32 {
    u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX)
}

impl Compressor {
    /// Returns a compressor for another vessel, within the same limits.
    pub fn for_another_vessel(&self) -> Self {
        Self { trouble: Arc::default(), ..self.clone() }
    }

    /// Reserves memory for a range of `bytes` bytes; `None` if too little is left.
    pub(crate) fn reserve(&self, bytes: u64) -> Option<Memory> {
        self.memory.clone().try_acquire_many_owned(in_kib(bytes)).ok().map(Memory)
    }

    /// Compresses a range for which memory is reserved; `None` if that fails.
    pub(crate) async fn compress(&self, codec: Codec, pieces: Vec<Bytes>, memory: Memory) -> Option<Compressed> {
        let thread = self.threads.clone().acquire_owned().await.ok()?;
        let work = move || {
            let since = Instant::now();
            let stream = codec.compress(&pieces);
            drop((pieces, thread));
            (stream, since.elapsed(), memory)
        };
        let (stream, took, Memory(mut memory)) = tokio::task::spawn_blocking(work).await.ok()?;
        let bytes = match stream {
            Ok(stream) => Bytes::from(stream.into_boxed_slice()),
            Err(e) => {
                tracing::debug!("Cannot compress: {e}");
                return None;
            }
        };
        let surplus = memory.num_permits().saturating_sub(in_kib(bytes.len() as u64) as usize);
        drop(memory.split(surplus));
        Some(Compressed { bytes, took, _memory: Memory(memory) })
    }

    fn trouble(&self) -> std::sync::MutexGuard<'_, Trouble> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns whether the vessel's program is trusted to expand streams.
    pub(crate) fn is_trusted(&self) -> bool {
        self.trouble().distrusted_since.is_none_or(|since| since.elapsed() >= DISTRUST)
    }

    /// Records that the vessel failed to expand a stream, or expanded it wrongly. The first time, the stream may have
    /// been damaged; if it happens again, the program is not used for an hour.
    pub(crate) fn failed(&self) {
        let mut trouble = self.trouble();
        trouble.failures += 1;
        if trouble.failures >= FAILURES {
            *trouble = Trouble { failures: 0, distrusted_since: Some(Instant::now()) };
        }
    }

    /// Records that the vessel's program can't be used.
    pub(crate) fn distrust(&self) {
        self.trouble().distrusted_since = Some(Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn memory_is_bounded_and_shrinks_to_the_stream() {
        let compressor = Compressor::default();
        let all = compressor.reserve((MEMORY as u64) << 10).unwrap();
        assert!(compressor.for_another_vessel().reserve(1).is_none());
        drop(all);
        let memory = compressor.reserve(1 << 20).unwrap();
        let zeros = Bytes::from(vec![0; 1 << 20]);
        let stream = compressor.compress(Codec::Zstd, vec![zeros], memory).await.unwrap();
        assert_eq!(compressor.memory.available_permits(), MEMORY - 1);
        drop(stream);
        assert_eq!(compressor.memory.available_permits(), MEMORY);
    }

    #[test]
    fn a_program_that_fails_twice_is_not_used_for_this_vessel() {
        let (one, other) = (Compressor::default(), Compressor::default().for_another_vessel());
        one.failed();
        assert!(one.is_trusted());
        one.failed();
        assert!(!one.is_trusted() && other.is_trusted());
        one.trouble().distrusted_since = Instant::now().checked_sub(DISTRUST);
        assert!(one.is_trusted());
    }
}
