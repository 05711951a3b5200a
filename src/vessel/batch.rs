//! Many small requests to the vessel's shell, answered by few commands.
//!
//! A command costs round trips and a process. While one runs, further requests gather; they go out together when it ends.
//! Nobody waits for a batch to fill.

use tokio::sync::{mpsc, oneshot};
use tokio_util::task::AbortOnDropHandle;

use crate::digest::Digest;
use crate::names::RemotePath;
use crate::transport::{Remote, RemoteError};

/// Requests that go out together.
const MOST: usize = 128;

struct Request<Q, A> {
    question: Q,
    answer: oneshot::Sender<Result<A, RemoteError>>,
}

/// Gathers questions for one kind of command. Ends when it is dropped.
struct Batcher<Q, A> {
    requests: mpsc::Sender<Request<Q, A>>,
    _runner: AbortOnDropHandle<()>,
}

impl<Q: Send + 'static, A: Send + 'static> Batcher<Q, A> {
    /// `run` answers each of its questions, in order, or fails for all.
    fn new<F>(run: impl Fn(Vec<Q>) -> F + Send + 'static) -> Self
    where
        F: Future<Output = Result<Vec<A>, RemoteError>> + Send,
    {
        let (requests, mut waiting) = mpsc::channel::<Request<Q, A>>(MOST);
        let runner = tokio::spawn(async move {
            let mut gathered = Vec::with_capacity(MOST);
            while waiting.recv_many(&mut gathered, MOST).await > 0 {
                let (questions, answers): (Vec<_>, Vec<_>) =
                    gathered.drain(..).map(|request| (request.question, request.answer)).unzip();
                match run(questions).await {
                    Ok(outcomes) => {
                        for (answer, outcome) in answers.into_iter().zip(outcomes) {
                            // Whoever asked may have been stopped meanwhile.
                            let _ = answer.send(Ok(outcome));
                        }
                    }
                    Err(e) => {
                        for answer in answers {
                            let _ = answer.send(Err(e.clone()));
                        }
                    }
                }
            }
        });
        Self { requests, _runner: AbortOnDropHandle::new(runner) }
    }

    /// `None` when the runner has ended without an answer, which it does only along with the connection.
    async fn ask(&self, question: Q) -> Option<Result<A, RemoteError>> {
        let (answer, answered) = oneshot::channel();
        self.requests.send(Request { question, answer }).await.ok()?;
        answered.await.ok()
    }
}

/// The commands of one connection that are worth gathering.
pub(super) struct Batches {
    remote: Remote,
    hashes: Batcher<RemotePath, Option<Digest>>,
    syncs: Batcher<RemotePath, ()>,
}

impl Batches {
    pub(super) fn new(remote: &Remote) -> Self {
        let (hasher, syncer) = (remote.clone(), remote.clone());
        let hash = move |paths: Vec<RemotePath>| {
            let remote = hasher.clone();
            async move {
                let Some(tool) = remote.capabilities().hash_tool else { return Ok(vec![None; paths.len()]) };
                remote.hash_many(tool, &paths).await
            }
        };
        let sync = move |paths: Vec<RemotePath>| {
            let remote = syncer.clone();
            async move {
                let mut distinct: Vec<&RemotePath> = paths.iter().collect();
                distinct.sort();
                distinct.dedup();
                remote.sync(&distinct).await?;
                Ok(vec![(); paths.len()])
            }
        };
        Self { remote: remote.clone(), hashes: Batcher::new(hash), syncs: Batcher::new(sync) }
    }

    /// The digest of a small file on the vessel; `None` when it can't be hashed there.
    pub(super) async fn hash(&self, path: &RemotePath) -> Result<Option<Digest>, RemoteError> {
        self.hashes.ask(path.clone()).await.unwrap_or_else(|| Err(self.remote.lost_error()))
    }

    /// Flushes a file or directory with the vessel's `sync`.
    pub(super) async fn sync(&self, path: &RemotePath) -> Result<(), RemoteError> {
        self.syncs.ask(path.clone()).await.unwrap_or_else(|| Err(self.remote.lost_error()))
    }
}
