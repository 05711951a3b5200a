//! Batches many small requests to the vessel's shell into few commands.
//!
//! A command costs round trips and a process. Requests that arrive while a command runs are collected and sent as one
//! command when it ends. No request waits for a batch to fill.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};
use tokio_util::task::AbortOnDropHandle;

use crate::digest::Digest;
use crate::names::RemotePath;
use crate::transport::{Remote, RemoteError};

/// Maximum number of requests per command.
const MOST: usize = 512;

struct Request<Q, A> {
    question: Q,
    answer: oneshot::Sender<Result<A, RemoteError>>,
}

/// Collects the questions for one kind of command. Dropping the batcher aborts the task that runs the commands.
struct Batcher<Q, A> {
    requests: mpsc::Sender<Request<Q, A>>,
    _runner: AbortOnDropHandle<()>,
}

impl<Q: Send + 'static, A: Send + 'static> Batcher<Q, A> {
    /// Creates a batcher. `run` returns one answer per question, in the order of the questions, or one error for all of
    /// them.
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
                            // The caller may have been cancelled meanwhile.
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

    /// Asks one question; `None` if the runner ended without an answer, which happens only when the connection is lost.
    async fn ask(&self, question: Q) -> Option<Result<A, RemoteError>> {
        let (answer, answered) = oneshot::channel();
        self.requests.send(Request { question, answer }).await.ok()?;
        answered.await.ok()
    }
}

/// A question to the vessel's shell about a small file.
enum Question {
    /// Asks for the digest of a file of `bytes` bytes. If many questions are answered at once, the file is flushed as
    /// well.
    Check { path: RemotePath, bytes: u64 },
    /// Asks to flush a file or a directory.
    Flush { path: RemotePath },
}

impl Question {
    fn is_flush(&self) -> bool {
        matches!(self, Self::Flush { .. })
    }

    fn path(&self) -> &RemotePath {
        match self {
            Self::Check { path, .. } | Self::Flush { path } => path,
        }
    }
}

#[derive(Clone, Copy, Default)]
struct Answer {
    digest: Option<Digest>,
    flushed: bool,
}

/// The batched commands of one connection.
pub(crate) struct CommandBatcher {
    remote: Remote,
    batcher: Batcher<Question, Answer>,
}

impl CommandBatcher {
    pub(crate) fn new(remote: &Remote) -> Self {
        let runner = Arc::new(Runner { remote: remote.clone(), whole_is_slow: AtomicBool::new(false) });
        let run = move |questions: Vec<Question>| {
            let runner = runner.clone();
            async move { runner.answer(&questions).await }
        };
        Self { remote: remote.clone(), batcher: Batcher::new(run) }
    }

    async fn ask(&self, question: Question) -> Result<Answer, RemoteError> {
        self.batcher.ask(question).await.unwrap_or_else(|| Err(self.remote.lost_error()))
    }

    /// Returns the digest of a file of `bytes` bytes on the vessel (`None` if it can't be hashed there) and whether the
    /// file was flushed as well.
    pub(crate) async fn check(&self, path: &RemotePath, bytes: u64) -> Result<(Option<Digest>, bool), RemoteError> {
        let answer = self.ask(Question::Check { path: path.clone(), bytes }).await?;
        Ok((answer.digest, answer.flushed))
    }

    /// Flushes a file or directory with the vessel's `sync`. Returns `false` if the vessel can't.
    pub(crate) async fn flush(&self, path: &RemotePath) -> Result<bool, RemoteError> {
        Ok(self.ask(Question::Flush { path: path.clone() }).await?.flushed)
    }
}

/// From this number of collected questions on, flushing whole file systems is cheaper than flushing each path.
const MANY: usize = 4;
/// Maximum time for hashing a batch of files and flushing whole file systems. If this takes longer, the file systems
/// probably have much other data to write, so this connection flushes only single paths from then on.
const SLOW_FLUSH: Duration = Duration::from_secs(3);

struct Runner {
    remote: Remote,
    whole_is_slow: AtomicBool,
}

impl Runner {
    async fn answer(&self, questions: &[Question]) -> Result<Vec<Answer>, RemoteError> {
        let (mut files, mut bytes, mut places) = (Vec::new(), 0, BTreeSet::new());
        for question in questions {
            match question {
                Question::Check { path, bytes: size } => {
                    files.push(path);
                    bytes += size;
                    places.extend(path.parent());
                }
                Question::Flush { path } => {
                    places.insert(path.clone());
                }
            }
        }
        let many = questions.len() >= MANY && !self.whole_is_slow.load(Ordering::Relaxed);
        let places: Vec<&RemotePath> = places.iter().filter(|_| many).collect();
        let started = Instant::now();
        let (digests, whole) = self.hash_and_flush(&files, bytes, &places).await?;
        if started.elapsed() > SLOW_FLUSH && many {
            self.whole_is_slow.store(true, Ordering::Relaxed);
        }
        let each: BTreeSet<_> = questions.iter().filter(|q| q.is_flush() && !whole).map(Question::path).collect();
        let failed = self.flush_each(each).await?;
        let mut digests = digests.into_iter();
        let answer = |question: &Question| match question {
            Question::Check { .. } => Answer { digest: digests.next().flatten(), flushed: whole },
            Question::Flush { path } => Answer { digest: None, flushed: !failed.contains(path) },
        };
        Ok(questions.iter().map(answer).collect())
    }

    /// Hashes files and flushes file systems, in one command if there are files to hash. Returns the digests, and
    /// whether the file systems were flushed.
    async fn hash_and_flush(
        &self,
        files: &[&RemotePath],
        bytes: u64,
        places: &[&RemotePath],
    ) -> Result<(Vec<Option<Digest>>, bool), RemoteError> {
        let capabilities = self.remote.capabilities();
        let places = if capabilities.sync_file_system { places } else { &[] };
        match capabilities.hash_tool {
            Some(tool) if !files.is_empty() => self.remote.hash_many(tool, files, bytes, places).await,
            _ if places.is_empty() => Ok((vec![None; files.len()], false)),
            _ => Ok((vec![None; files.len()], succeeded(self.remote.sync_file_systems(places).await)?)),
        }
    }

    /// Flushes all paths with one command. If the command fails, flushes each path by itself, because a single path
    /// that can't be opened makes the whole command fail. Returns the paths that can't be flushed.
    async fn flush_each<'a>(&self, paths: BTreeSet<&'a RemotePath>) -> Result<BTreeSet<&'a RemotePath>, RemoteError> {
        let mut failed = BTreeSet::new();
        if paths.is_empty() {
            return Ok(failed);
        }
        if !self.remote.capabilities().sync {
            return Ok(paths);
        }
        if !succeeded(self.remote.sync(&paths.iter().copied().collect::<Vec<_>>()).await)? {
            for path in paths {
                if !succeeded(self.remote.sync(&[path]).await)? {
                    failed.insert(path);
                }
            }
        }
        Ok(failed)
    }
}

/// Returns whether a flush succeeded. Only a lost connection is an error.
fn succeeded(flushed: Result<(), RemoteError>) -> Result<bool, RemoteError> {
    match flushed {
        Ok(()) => Ok(true),
        Err(e) if e.is_connection() => Err(e),
        Err(e) => {
            tracing::debug!("Cannot flush files on the vessel: {e}");
            Ok(false)
        }
    }
}
