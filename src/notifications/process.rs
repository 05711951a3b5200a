//! Runs a command as a process: without a shell or input, and with limits of time and output. When the command times
//! out or is cancelled, its whole process group is killed.

use std::ffi::OsString;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};
use tokio_util::task::AbortOnDropHandle;

use crate::text::duration;

/// Maximum number of bytes that are logged of each of the two output streams.
const OUTPUT: usize = 4096;
/// Time between SIGTERM and SIGKILL when a command times out.
const GRACE: Duration = Duration::from_secs(2);
/// How long to wait for the rest of the output after a command has ended. Processes that it left running may keep the
/// output open.
const LEFTOVERS: Duration = Duration::from_millis(200);

/// Environment variables that the service manager and the logging set for this program. Commands must not inherit them.
const OURS: [&str; 6] =
    ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "CREDENTIALS_DIRECTORY", "JOURNAL_STREAM", "CONTENTMONSTER_LOG"];

/// Runs a command until it ends, for at most `limit`. The command's output is logged at debug level.
///
/// # Errors
/// A message for a person, when the command could not be started, failed, or timed out.
pub(super) async fn run(words: &[String], variables: Vec<(&str, OsString)>, limit: Duration) -> Result<(), String> {
    let Some((program, arguments)) = words.split_first() else { return Ok(()) };
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    for name in OURS {
        command.env_remove(name);
    }
    let mut child = command.envs(variables).spawn().map_err(|e| format!("cannot start: {e}"))?;
    let group = Group::of(&child);
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let reading = AbortOnDropHandle::new(tokio::spawn(async move { tokio::join!(read(stdout), read(stderr)) }));
    let ended = tokio::time::timeout(limit, child.wait()).await;
    let status = match ended {
        Ok(status) => status.map_err(|e| format!("cannot wait for the end of the command: {e}"))?,
        Err(_) => {
            group.end(&mut child).await;
            return Err(format!("the command took longer than HookTimeout ({}) and was killed", duration(limit)));
        }
    };
    group.let_be();
    if let Ok(Ok((out, err))) = tokio::time::timeout(LEFTOVERS, reading).await
        && !(out.is_empty() && err.is_empty())
    {
        tracing::debug!(command = %program, "{}{}", String::from_utf8_lossy(&out), String::from_utf8_lossy(&err));
    }
    verdict(status)
}

fn verdict(status: ExitStatus) -> Result<(), String> {
    if status.success() { Ok(()) } else { Err(status.to_string()) }
}

/// Reads a stream to its end, so that the command never blocks on it, and returns the first [`OUTPUT`] bytes.
async fn read(from: Option<impl AsyncRead + Unpin>) -> Vec<u8> {
    let (mut kept, mut piece) = (Vec::new(), vec![0; OUTPUT]);
    let Some(mut from) = from else { return kept };
    while let Ok(count @ 1..) = from.read(&mut piece).await {
        let room = OUTPUT.saturating_sub(kept.len());
        kept.extend_from_slice(&piece[..count.min(room)]);
    }
    kept
}

/// The process group of a command. Dropping the value kills the group.
struct Group(Option<Pid>);

impl Group {
    fn of(child: &Child) -> Self {
        Self(child.id().and_then(|id| Pid::from_raw(id.cast_signed())))
    }

    /// Ends the group with SIGTERM, and after [`GRACE`] with SIGKILL.
    async fn end(mut self, child: &mut Child) {
        if let Some(group) = self.0 {
            kill_process_group(group, Signal::TERM).ok();
            // Sleeps instead of calling `wait`, because the group's ID can't be reused until `wait` has reaped the
            // child.
            tokio::time::sleep(GRACE).await;
            kill_process_group(group, Signal::KILL).ok();
        }
        self.0 = None;
        child.wait().await.ok();
    }

    /// Drops the value without killing the group. The group's ID may be reused from now on.
    fn let_be(mut self) {
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            kill_process_group(group, Signal::KILL).ok();
        }
    }
}
