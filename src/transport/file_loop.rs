//! Delivers small files through a script that loops in the vessel's shell, each file in one round trip.
//!
//! Over SFTP, a small file needs six round trips: query, open, write, verify, rename, flush. The loop receives a header
//! and the file's bytes on its standard input, does the same steps itself, and prints one line. Many files may be in
//! flight at once.
//!
//! The content of a file must never be taken for a command. The loop reads its input line by line, and each file's
//! content by its exact length. Each header begins with a random word, and the loop ends at the first header that does
//! not, so no byte of a file is ever run as a command. If the input breaks off, the file's hash differs, and the file
//! never gets its final name.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use russh::ChannelMsg;
use tokio::sync::{mpsc, oneshot};
use tokio_util::task::AbortOnDropHandle;

use super::capabilities::{Capabilities, HashTool};
use super::error::{ErrorKind, RemoteError};
use super::exec::{Dedicated, ShellInput};
use super::remote::Remote;
use super::shell::Script;
use super::ssh::Connection;
use crate::digest::Digest;
use crate::names::RemotePath;

/// The name of the operation in errors.
const WHAT: &str = "sending a file to the vessel's shell";
/// The maximum length of a line of output in bytes. The loop's own lines are much shorter; only error messages of
/// commands may be long.
const MOST_LINE: usize = 64 << 10;

/// Number of bytes that must be acknowledged within a deadline if the connection is to count as still sending.
const MOVES: u64 = 16 << 10;
/// Upper bound of the bytes that are acknowledged before a file's own bytes: those of other files in the loop, of
/// channel and socket buffers, and protocol overhead.
const MOST_AHEAD: u64 = 4 << 20;

/// A small file and its destination.
pub struct SmallFile {
    /// The temporary name beside the destination; it must not exist.
    pub assembly: RemotePath,
    /// The final name.
    pub destination: RemotePath,
    /// An empty file that the loop creates right before the rename. If the connection breaks and neither the assembly
    /// nor the destination exists afterwards, the existence of the marker tells whether the rename was done. The loop
    /// does not remove the marker after the rename.
    pub marker: Option<RemotePath>,
    /// The permission bits.
    pub mode: u32,
    /// The modification time in seconds since 1970.
    pub modified: u32,
    /// The SHA-256 of the content.
    pub digest: Digest,
    /// The number of bytes.
    pub size: u64,
    /// The content, in pieces.
    pub content: Vec<Bytes>,
    /// Whether the loop asks before it publishes the file, which costs another round trip.
    pub asks: bool,
}

/// A file that was given to the loop and whose result is pending.
pub struct Flight<'a> {
    file_loop: &'a FileLoop,
    deadline: Duration,
    /// The number of bytes that the vessel had acknowledged on the connection when the file was given to the loop.
    acknowledged: u64,
    size: u64,
    asked: oneshot::Receiver<()>,
    go: Option<oneshot::Sender<bool>>,
    answered: oneshot::Receiver<bool>,
}

/// A file to send, with the channel ends that connect the sending task to the file's [`Flight`].
struct Sending {
    file: SmallFile,
    expected: Expected,
    go: oneshot::Receiver<bool>,
    asked: oneshot::Receiver<()>,
}

/// The channels through which the loop's answers for one file are passed on.
struct Expected {
    /// Notified when the loop asks whether to publish the file: one for the [`Flight`], one for the sending task.
    asks: Vec<oneshot::Sender<()>>,
    answer: oneshot::Sender<bool>,
}

/// A running loop in a vessel's shell. Dropping this value ends the loop.
pub struct FileLoop {
    remote: Remote,
    files: mpsc::UnboundedSender<Sending>,
    awaited: Awaited,
    _tasks: [AbortOnDropHandle<()>; 2],
}

/// The files in flight, in the order in which they were sent; `None` once the loop has ended.
#[derive(Clone)]
struct Awaited(Arc<Mutex<Option<VecDeque<Expected>>>>);

impl Awaited {
    fn queue(&self) -> MutexGuard<'_, Option<VecDeque<Expected>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a file that is about to be sent. Returns `false` if the loop has ended.
    fn add(&self, expected: Expected) -> bool {
        self.queue().as_mut().map(|queue| queue.push_back(expected)).is_some()
    }

    /// Passes on the loop's question whether to publish the first file. Returns `false` if no file is in flight.
    fn ask(&self) -> bool {
        let mut queue = self.queue();
        let first = queue.as_mut().and_then(VecDeque::front_mut);
        let Some(first) = first else { return false };
        for asks in first.asks.drain(..) {
            // The result is ignored, because the delivery may have been cancelled.
            let _ = asks.send(());
        }
        true
    }

    /// Passes on the answer for the first file. Returns `false` if no file is in flight.
    fn answer(&self, delivered: bool) -> bool {
        let first = self.queue().as_mut().and_then(VecDeque::pop_front);
        // The result is ignored, because the delivery may have been cancelled.
        first.map(|first| first.answer.send(delivered)).is_some()
    }

    fn end(&self) {
        *self.queue() = None;
    }
}

impl Capabilities {
    /// Returns whether the vessel's shell can receive whole files. The shell itself must be able to flush them, because
    /// the loop publishes files without a request over SFTP.
    pub fn receives_files(&self) -> bool {
        self.shell && self.sync && self.exact_read.is_some() && self.hash_tool.is_some()
    }
}

/// Returns the loop's script. Each header begins with a line that holds the word, size, mode, time, digest and `ask` or
/// `-`. One line for each path follows: assembly, destination, and marker (or an empty line). With `ask`, the loop
/// prints `ready` before it publishes the file, and publishes the file only if it reads `go`.
///
/// If one step fails, the later steps are skipped. The file gets its final name only if its content, read back from the
/// assembly, has the digest, and only after the file was flushed. If the content could not be read to its end, the rest
/// of the input is undefined, so the loop exits. `set -C` makes the shell create the assembly and the marker
/// exclusively, so the loop never writes to an existing file or through an existing link.
fn script(word: &str, exact_read: &'static str, tool: HashTool) -> Script {
    let script =
        Script::new().code("umask 077; set -C; export LC_ALL=C\nwhile IFS=' ' read -r d n m t s q && [ \"$d\" =");
    let script = script.word(word).code(" ]; do r=no; IFS= read -r a && IFS= read -r f && IFS= read -r k || exit\n");
    let script =
        script.code("if true >\"$a\"; then ").code(exact_read).code("\"$n\" >>\"$a\" || { rm -f \"$a\"; exit; }\n");
    let script = script.code("case $(").code(tool.command()).code(" <\"$a\") in \"$s\"*)\n");
    let script = script.code("case $f in */*) p=${f%/*}/. ;; *) p=. ;; esac\n");
    let script =
        script.code("if chmod \"$m\" \"$a\" && touch -d \"@$t\" \"$a\" && sync \"$a\" && { [ \"$q\" != ask ] ||\n");
    let script = script.code("{ printf '%s ready\\n' \"$d\" && IFS= read -r g && [ \"$g\" = go ]; }; } && ");
    let script = script.code("{ [ -z \"$k\" ] || true >\"$k\"; } && mv -fT \"$a\" \"$f\"; then r=ok; sync \"$p\"\n");
    let script = script.code("elif [ \"$k\" ]; then rm -f \"$k\"; fi ;; esac\n[ $r = ok ] || rm -f \"$a\"\n");
    let script = script.code("else ").code(exact_read).code("\"$n\" >/dev/null || exit\nfi\nprintf '%s %s\\n'");
    script.word(word).code(" $r; done\n")
}

/// Returns a path as the loop's shell uses it, with `./` before a leading `-`, so that no command parses it as an
/// option. `None` if the path is empty or contains a line break, because a header can't hold such a path.
fn line_of(remote: &Remote, path: &RemotePath) -> Option<Vec<u8>> {
    let path = remote.in_shell(path);
    let bytes = path.as_bytes();
    if bytes.contains(&b'\n') || bytes.is_empty() {
        return None;
    }
    Some(if bytes.starts_with(b"-") { [b"./", bytes].concat() } else { bytes.to_vec() })
}

/// Returns whether the loop can receive a file at this path. A line break would break the header.
pub fn takes_name(path: &RemotePath) -> bool {
    !path.as_bytes().contains(&b'\n')
}

fn header(remote: &Remote, word: &str, file: &SmallFile) -> Option<Vec<u8>> {
    let SmallFile { mode, modified, digest, size, .. } = file;
    let asks = if file.asks { "ask" } else { "-" };
    let mut header = format!("{word} {size} {mode:o} {modified} {digest} {asks}\n").into_bytes();
    let marker = file.marker.as_ref().map_or(Some(Vec::new()), |marker| line_of(remote, marker))?;
    for line in [line_of(remote, &file.assembly)?, line_of(remote, &file.destination)?, marker] {
        header.extend_from_slice(&line);
        header.push(b'\n');
    }
    Some(header)
}

impl FileLoop {
    /// Starts the loop, which takes one or two round trips.
    ///
    /// # Errors
    /// Among others when the vessel's shell can't receive files, or all shells are in use.
    pub async fn start(remote: &Remote) -> Result<Self, RemoteError> {
        let unsupported = |why: &str| RemoteError::new(ErrorKind::Unsupported, WHAT, why);
        let capabilities = remote.capabilities();
        let (Some(exact_read), Some(tool)) = (capabilities.exact_read, capabilities.hash_tool) else {
            return Err(unsupported("the vessel's tools cannot receive files"));
        };
        let word = format!("file-{:016x}", fastrand::u64(..));
        let mut shell =
            remote.shells(WHAT)?.dedicate(script(&word, exact_read, tool), WHAT, remote.deadline(0)).await?;
        let Some(input) = shell.input.take() else { return Err(unsupported("the shell has ended")) };
        let awaited = Awaited(Arc::new(Mutex::new(Some(VecDeque::new()))));
        let (files, coming) = mpsc::unbounded_channel();
        let sending = tokio::spawn(send_all(remote.clone(), input, coming, awaited.clone(), word.clone()));
        let hearing = tokio::spawn(hear(shell, awaited.clone(), word));
        Ok(Self { remote: remote.clone(), files, awaited, _tasks: [sending, hearing].map(AbortOnDropHandle::new) })
    }

    /// Returns whether the loop can receive no more files.
    pub fn has_ended(&self) -> bool {
        self.awaited.queue().is_none()
    }

    /// Cuts the loop's connection off and discards unsent data.
    pub fn abandon(&self) {
        self.remote.main_channel().abandon();
    }

    /// Sends a file.
    ///
    /// # Errors
    /// When the loop has ended.
    pub fn send(&self, file: SmallFile) -> Result<Flight<'_>, RemoteError> {
        let (deadline, file_size) = (self.remote.deadline(file.size), file.size);
        let ((asks, asked), (asks_sender, sender_asked)) = (oneshot::channel(), oneshot::channel());
        let ((go, may_go), (answer, answered)) = (oneshot::channel(), oneshot::channel());
        let expected = Expected { asks: vec![asks, asks_sender], answer };
        let sending = Sending { file, expected, go: may_go, asked: sender_asked };
        self.files.send(sending).map_err(|_| ended())?;
        let (acknowledged, size) = (self.acknowledged(), file_size);
        Ok(Flight { file_loop: self, deadline, acknowledged, size, asked, go: Some(go), answered })
    }

    /// Returns the number of bytes that the vessel's kernel has acknowledged on the connection; 0 if it is unknown.
    fn acknowledged(&self) -> u64 {
        self.remote.connection().and_then(Connection::tcp_info).map_or(0, |info| info.bytes_acknowledged)
    }
}

fn ended() -> RemoteError {
    RemoteError::new(ErrorKind::Failed, WHAT, "the shell has ended")
}

impl Flight<'_> {
    /// Waits until the loop asks whether to publish the file. Returns `false` if the loop does not ask, because it has
    /// ended or has refused the file.
    pub async fn asked(&mut self) -> bool {
        let mut asked = std::mem::replace(&mut self.asked, oneshot::channel().1);
        match self.patiently(&mut asked).await {
            Some(asked) => asked.is_ok(),
            None => {
                // The loop counts as ended, so that no task waits for a shell that did not ask in time.
                self.file_loop.awaited.end();
                false
            }
        }
    }

    /// Waits for an answer of the shell until the deadline. If the file's bytes are still being acknowledged then, the
    /// deadline starts again, because on a slow link the transfer takes longer than the shell's work. Returns `None` if
    /// the shell does not answer.
    async fn patiently<T>(&self, mut answer: impl Future<Output = T> + Unpin) -> Option<T> {
        let mut before = self.acknowledged;
        loop {
            if let Ok(answer) = tokio::time::timeout(self.deadline, &mut answer).await {
                return Some(answer);
            }
            let now = self.file_loop.acknowledged();
            // Bytes that are acknowledged beyond this file and the bytes ahead of it belong to other transfers on this
            // connection.
            let is_moving = now >= before.saturating_add(MOVES) && now < self.acknowledged + self.size + MOST_AHEAD;
            if !is_moving {
                return None;
            }
            before = now;
        }
    }

    /// Answers the loop's question whether to publish the file.
    pub fn publish(&mut self, publish: bool) {
        if let Some(go) = self.go.take() {
            // The result is ignored, because the loop may have ended.
            let _ = go.send(publish);
        }
    }

    /// Waits until the loop has published the file. Returns `false` if a step failed on the vessel, or if the caller
    /// decided not to publish the file. In both cases, neither the assembly nor the marker is left.
    ///
    /// # Errors
    /// When the loop has ended, or does not answer in time. Then it is unknown whether the file was published.
    pub async fn delivered(mut self) -> Result<bool, RemoteError> {
        let mut answered = std::mem::replace(&mut self.answered, oneshot::channel().1);
        match self.patiently(&mut answered).await {
            Some(answer) => answer.map_err(|_| ended()),
            None => {
                // The loop counts as ended, so that no more files are sent to a shell that does not answer.
                self.file_loop.awaited.end();
                let why = format_args!("no answer for {}", crate::text::duration(self.deadline));
                Err(RemoteError::new(ErrorKind::Failed, WHAT, why))
            }
        }
    }
}

/// Sends the files one after another. Runs as a separate task, because deliveries may be cancelled at any point, and a
/// file that is sent only in part would end the loop.
async fn send_all(
    remote: Remote,
    input: ShellInput,
    mut files: mpsc::UnboundedReceiver<Sending>,
    awaited: Awaited,
    word: String,
) {
    while let Some(Sending { file, expected, go, asked }) = files.recv().await {
        let Some(header) = header(&remote, &word, &file) else {
            // The result is ignored, because the delivery may have been cancelled.
            let _ = expected.answer.send(false);
            continue;
        };
        if !awaited.add(expected) {
            return;
        }
        let pieces = std::iter::once(Bytes::from(header)).chain(file.content.iter().cloned());
        for piece in pieces {
            if let Err(e) = input.say(piece, WHAT).await {
                tracing::debug!("{e}");
                awaited.end();
                return;
            }
        }
        // The loop reads the answer right after the file, so no other file is sent before the answer. If the loop does
        // not ask, it has refused the file.
        if file.asks && asked.await.is_ok() {
            let answer = if go.await.unwrap_or(false) { "go\n" } else { "stop\n" };
            if input.say(Bytes::from_static(answer.as_bytes()), WHAT).await.is_err() {
                awaited.end();
                return;
            }
        }
    }
}

/// Receives the loop's answers until the loop ends.
async fn hear(mut shell: Dedicated, awaited: Awaited, word: String) {
    let mut heard = std::mem::take(&mut shell.heard);
    // Discards the output that arrived before the loop started, such as the output of the account's profile.
    heard.clear();
    loop {
        match shell.reader.wait().await {
            Some(ChannelMsg::Data { data }) => heard.extend_from_slice(&data),
            Some(ChannelMsg::Eof | ChannelMsg::Close) | None => break,
            Some(_) => {}
        }
        while let Some(end) = heard.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = heard.drain(..=end).collect();
            match said(&line[..end], &word) {
                Some(Said::Ready) if awaited.ask() => {}
                Some(Said::Done(delivered)) if awaited.answer(delivered) => {}
                Some(_) => return awaited.end(),
                None if line.trim_ascii().is_empty() => {}
                None => tracing::debug!("The vessel's shell: {}", crate::text::excerpt(&line)),
            }
        }
        if heard.len() > MOST_LINE {
            break;
        }
    }
    awaited.end();
}

/// The meaning of a line that the loop prints. Each line is about the first file in flight.
enum Said {
    /// The loop asks whether to publish the file.
    Ready,
    /// The loop has finished with the file. `true`: the file was delivered.
    Done(bool),
}

/// Parses a line of output; `None` for lines that are not the loop's.
fn said(line: &[u8], word: &str) -> Option<Said> {
    match line.strip_prefix(word.as_bytes())? {
        b" ready" => Some(Said::Ready),
        b" ok" => Some(Said::Done(true)),
        b" no" => Some(Said::Done(false)),
        _ => None,
    }
}
