//! A command that a client runs on the embedded vessel: `sh -c COMMAND` on this host, connected to the channel.
//!
//! This module owns the child process: when the channel closes, the connection is lost or the vessel stops, it kills
//! the child with its whole process group, and it always reaps the child.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use russh::server::Msg;
use russh::{Channel, ChannelMsg, ChannelReadHalf, ChannelWriteHalf};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio_util::sync::CancellationToken;

use super::fault_injection::{Faults, InjectedFault, Request};

/// The number of the standard error stream in SSH (RFC 4254, 5.2).
const STDERR: u32 = 1;
/// The exit status of a shell for a command that can't be run.
const NOT_RUN: u32 = 126;
const BUFFER: usize = 32 * 1024;

/// The environment in which a command runs.
pub(super) struct Seat {
    /// The working directory of the command.
    pub(super) home: PathBuf,
    /// A directory that comes first in the command's `PATH`.
    pub(super) programs: Option<PathBuf>,
    /// The decisions on the command's input.
    pub(super) faults: Option<Arc<dyn Faults>>,
}

/// Time for a command to process the last input, before its connection or channel is closed without an answer.
const AFTERWARDS: Duration = Duration::from_millis(100);

/// Runs a command until it ends, the channel closes, or `stop` is cancelled.
///
/// The reported exit status of a command that was killed by a signal is 128 + signal, as in a shell.
pub(super) async fn run(channel: Channel<Msg>, command: Vec<u8>, seat: Seat, stop: CancellationToken) {
    let (reader, writer) = channel.split();
    let status = match spawn(&command, &seat) {
        Ok(child) => attend(child, reader, &writer, seat.faults, &stop).await.map(code),
        Err(error) => {
            // The result is ignored: an error means that the client has disconnected and reads no message.
            let _ = writer.extended_data_bytes(STDERR, format!("can't run sh: {error}\n").into_bytes()).await;
            Some(NOT_RUN)
        }
    };
    if let Some(status) = status {
        let _ = writer.eof().await;
        let _ = writer.exit_status(status).await;
    }
    let _ = writer.close().await;
}

fn spawn(command: &[u8], seat: &Seat) -> std::io::Result<Child> {
    let inherited = std::env::var_os("PATH").unwrap_or_default();
    let path = seat.programs.iter().cloned().chain(std::env::split_paths(&inherited));
    // `join_paths` fails for a directory with a colon in its name; then the command gets the inherited `PATH`.
    let path = std::env::join_paths(path).unwrap_or(inherited);
    Command::new("sh")
        .arg("-c")
        .arg(OsStr::from_bytes(command))
        .current_dir(&seat.home)
        .env("HOME", &seat.home)
        .env("PATH", path)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
}

/// Transfers data in both directions until the command has ended and its output is sent. Returns `None` if the client
/// disconnects first, or `stop` is cancelled.
async fn attend(
    mut child: Child,
    reader: ChannelReadHalf,
    writer: &ChannelWriteHalf<Msg>,
    faults: Option<Arc<dyn Faults>>,
    stop: &CancellationToken,
) -> Option<ExitStatus> {
    let (stdin, stdout, stderr) = (child.stdin.take()?, child.stdout.take()?, child.stderr.take()?);
    let (input, inbox) = unbounded_channel();
    let group = child.id();
    let muted = AtomicBool::new(false);
    let status = {
        let works = async {
            tokio::join!(send(stdout, writer, None, &muted), send(stderr, writer, Some(STDERR), &muted));
            child.wait().await.ok()
        };
        let feeds = async {
            write_input(inbox, stdin).await;
            std::future::pending().await
        };
        tokio::select! {
            status = works => status,
            () = listen(reader, input, faults, &muted, stop) => None,
            () = feeds => None,
            () = stop.cancelled() => None,
        }
    };
    if status.is_none() {
        kill(group);
        // The child is reaped here, so that no zombie is left after the vessel has stopped.
        let _ = child.wait().await;
    }
    status
}

/// Receives the client's messages; returns when the client closes the channel, or the connection is lost.
///
/// Never waits for the command, because this could be a deadlock: while this channel's queue is full, russh's session
/// loop blocks, so it neither sends the command's output nor processes window updates of the client.
async fn listen(
    mut reader: ChannelReadHalf,
    input: UnboundedSender<Bytes>,
    faults: Option<Arc<dyn Faults>>,
    muted: &AtomicBool,
    stop: &CancellationToken,
) {
    let mut input = Some(input);
    // An error of `send` means that the command reads no more input.
    let give = |input: &Option<UnboundedSender<Bytes>>, data| drop(input.as_ref().map(|input| input.send(data)));
    while let Some(message) = reader.wait().await {
        match message {
            ChannelMsg::Data { data } => {
                match faults.as_ref().map_or(InjectedFault::Serve, |faults| faults.decide(Request::Input(&data))) {
                    _ if muted.load(Ordering::Relaxed) => {}
                    InjectedFault::Serve => give(&input, data),
                    InjectedFault::Delay(time) => {
                        tokio::time::sleep(time).await;
                        give(&input, data);
                    }
                    InjectedFault::Change(data) => give(&input, data),
                    InjectedFault::Answer(_) => return,
                    InjectedFault::CutBefore => return stop.cancel(),
                    after @ (InjectedFault::CutAfter | InjectedFault::ServeAndAnswer(_)) => {
                        muted.store(true, Ordering::Relaxed);
                        give(&input, data);
                        tokio::time::sleep(AFTERWARDS).await;
                        if after == InjectedFault::CutAfter {
                            stop.cancel();
                        }
                        return;
                    }
                    InjectedFault::Stall => muted.store(true, Ordering::Relaxed),
                }
            }
            ChannelMsg::Eof => input = None,
            ChannelMsg::Close => return,
            _ => {}
        }
    }
}

async fn write_input(mut inbox: UnboundedReceiver<Bytes>, mut stdin: ChildStdin) {
    while let Some(data) = inbox.recv().await {
        if stdin.write_all(&data).await.is_err() {
            return;
        }
    }
}

/// Sends one output stream of the command until the stream ends. While this function waits for the client's window, it
/// reads no output, so the command may block.
async fn send(
    mut output: impl AsyncRead + Unpin,
    writer: &ChannelWriteHalf<Msg>,
    stream: Option<u32>,
    muted: &AtomicBool,
) {
    let mut buffer = BytesMut::new();
    loop {
        buffer.reserve(BUFFER);
        match output.read_buf(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        let data = buffer.split().freeze();
        if muted.load(Ordering::Relaxed) {
            continue;
        }
        let sent = match stream {
            None => writer.data_bytes(data).await,
            Some(stream) => writer.extended_data_bytes(stream, data).await,
        };
        if sent.is_err() {
            return;
        }
    }
}

fn kill(group: Option<u32>) {
    let group = group.and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    // An error means that the process group has already ended.
    let _ = group.map(|group| kill_process_group(group, Signal::KILL));
}

fn code(status: ExitStatus) -> u32 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u32::try_from(code).ok()).unwrap_or(NOT_RUN)
}
