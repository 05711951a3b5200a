//! A command as a process: no shell, nothing to read, a limit of time and of output, and an end for all that it started.

use std::ffi::OsString;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};
use tokio_util::task::AbortOnDropHandle;

/// How much of its output is logged.
const OUTPUT: usize = 4096;
/// How long it has to end by itself when it is asked to.
const GRACE: Duration = Duration::from_secs(2);
/// How long what it left running may still hold its output open.
const LEFTOVERS: Duration = Duration::from_millis(200);

/// What this program is told by its own service manager, and is no concern of others.
const OURS: [&str; 6] =
    ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "CREDENTIALS_DIRECTORY", "JOURNAL_STREAM", "CONTENTMONSTER_LOG"];

/// Runs a command to its end, at most for as long as `limit`. What it writes is logged at debug.
///
/// # Errors
/// In words for a person, when it could not be started, failed, or took too long.
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
        Ok(status) => status.map_err(|e| format!("cannot wait for it: {e}"))?,
        Err(_) => {
            group.end(&mut child).await;
            return Err(format!("it took longer than HookTimeout ({} s) and was killed", limit.as_secs()));
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
    if status.success() { Ok(()) } else { Err(format!("it failed: {status}")) }
}

/// Reads all there is, and keeps the beginning: who writes should not have to wait for us.
async fn read(from: Option<impl AsyncRead + Unpin>) -> Vec<u8> {
    let (mut kept, mut piece) = (Vec::new(), vec![0; OUTPUT]);
    let Some(mut from) = from else { return kept };
    while let Ok(count @ 1..) = from.read(&mut piece).await {
        let room = OUTPUT.saturating_sub(kept.len());
        kept.extend_from_slice(&piece[..count.min(room)]);
    }
    kept
}

/// The processes that a command consists of. They end when this is dropped before they did.
struct Group(Option<Pid>);

impl Group {
    fn of(child: &Child) -> Self {
        Self(child.id().and_then(|id| Pid::from_raw(id.cast_signed())))
    }

    /// Asks them to end, then makes them.
    async fn end(mut self, child: &mut Child) {
        if let Some(group) = self.0 {
            kill_process_group(group, Signal::TERM).ok();
            // Not waited for with `wait`: as long as nobody has, the number is taken by nobody else.
            tokio::time::sleep(GRACE).await;
            kill_process_group(group, Signal::KILL).ok();
        }
        self.0 = None;
        child.wait().await.ok();
    }

    /// The number may belong to others from now on.
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
