//! Runs scripts in the vessel's `sh`.
//!
//! Starting a command costs two round trips, a process, and whatever the account's profile does; half a second is not
//! rare. So a few shells are kept, each a plain `sh` that reads one script after the other from its standard input.

use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use russh::client::Msg;
use russh::{ChannelMsg, ChannelReadHalf, ChannelWriteHalf};
use tokio::sync::Semaphore;

use super::error::{ErrorKind, RemoteError};
use super::shell::Script;
use super::ssh::Connection;

/// Most output that is kept, in bytes. A vessel that says more is talking to itself.
const MOST_OUTPUT: usize = 1 << 20;
/// Shells at once. With the SFTP channel that stays well below the ten that OpenSSH allows (`MaxSessions`).
const SHELLS: usize = 5;

/// What a script left behind: its output and errors as they came, and its exit status.
#[derive(Clone, Debug, Default)]
pub(crate) struct Output {
    pub(crate) text: Vec<u8>,
    status: u32,
}

impl Output {
    pub(crate) fn is_success(&self) -> bool {
        self.status == 0
    }

    /// The lines of its output.
    pub(crate) fn lines(&self) -> impl Iterator<Item = &[u8]> {
        self.text.split(|b| *b == b'\n')
    }

    /// What it complained about, for a message: its last words.
    pub(crate) fn complaint(&self) -> String {
        let text = String::from_utf8_lossy(&self.text);
        match text.trim().lines().last() {
            Some(line) => line.escape_debug().to_string(),
            None => format!("exit status {}", self.status),
        }
    }
}

fn closed(what: &str, why: impl std::fmt::Display) -> RemoteError {
    RemoteError::new(ErrorKind::Connection, what, why)
}

async fn open(connection: &Connection, what: &str) -> Result<russh::Channel<Msg>, RemoteError> {
    connection.channel().await.map_err(|e| match e {
        russh::Error::ChannelOpenFailure(why) => {
            RemoteError::new(ErrorKind::Failed, what, format_args!("the vessel opens no further channel ({why:?})"))
        }
        e => closed(what, e),
    })
}

/// Runs one script in a shell of its own and returns what it printed, for finding out whether there is a shell at all.
pub(crate) async fn run_once(
    connection: &Connection,
    script: Script,
    what: &str,
    deadline: Duration,
) -> Result<Vec<u8>, RemoteError> {
    let running = async {
        let mut channel = open(connection, what).await?;
        channel.exec(true, "sh").await.map_err(|e| closed(what, e))?;
        channel.data_bytes(script.into_bytes()).await.map_err(|e| closed(what, e))?;
        channel.eof().await.map_err(|e| closed(what, e))?;
        let mut text = Vec::new();
        while let Some(message) = channel.wait().await {
            match message {
                ChannelMsg::Data { data } => keep(&mut text, &data),
                ChannelMsg::Failure => {
                    return Err(RemoteError::new(ErrorKind::Unsupported, what, "the account has no shell"));
                }
                ChannelMsg::Close => return Ok(text),
                _ => {}
            }
        }
        if connection.is_closed() { Err(closed(what, "the connection was closed")) } else { Ok(text) }
    };
    tokio::time::timeout(deadline, running).await.unwrap_or_else(|_| Err(RemoteError::silent(what, deadline)))
}

fn keep(kept: &mut Vec<u8>, data: &[u8]) {
    let room = MOST_OUTPUT.saturating_sub(kept.len());
    kept.extend_from_slice(&data[..data.len().min(room)]);
}

/// The shells of one connection.
pub(crate) struct Shells {
    connection: Connection,
    idle: Mutex<Vec<Shell>>,
    places: Semaphore,
}

impl Shells {
    pub(crate) fn new(connection: Connection) -> Self {
        Self { connection, idle: Mutex::default(), places: Semaphore::new(SHELLS) }
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Shell>> {
        self.idle.lock().expect("no code panics while it holds this lock")
    }

    /// Runs a script and waits for its end, at most for `deadline`; `what` names it in errors.
    pub(crate) async fn run(&self, script: Script, what: &str, deadline: Duration) -> Result<Output, RemoteError> {
        let running = async {
            let _place = self.places.acquire().await.map_err(|e| closed(what, e))?;
            let script = script.into_bytes();
            let kept = self.idle().pop();
            if let Some(shell) = kept {
                match self.run_in(shell, &script, what).await {
                    // One that was kept may have ended meanwhile. Scripts may be repeated.
                    Err(_) if !self.connection.is_closed() => {}
                    outcome => return outcome,
                }
            }
            let shell = Shell::start(&self.connection, what).await?;
            self.run_in(shell, &script, what).await
        };
        tokio::time::timeout(deadline, running).await.unwrap_or_else(|_| Err(RemoteError::silent(what, deadline)))
    }

    /// Runs a script in a shell, and keeps the shell when all went well with it.
    async fn run_in(&self, mut shell: Shell, script: &[u8], what: &str) -> Result<Output, RemoteError> {
        let output = shell.run(script, what).await?;
        self.idle().push(shell);
        Ok(output)
    }
}

/// One `sh` that waits for scripts. Dropping it closes its channel, which a shell that waits takes for the end.
struct Shell {
    reader: ChannelReadHalf,
    writer: Option<ChannelWriteHalf<Msg>>,
    /// What ends each script's output, a word that nothing else says.
    mark: String,
}

impl Shell {
    async fn start(connection: &Connection, what: &str) -> Result<Self, RemoteError> {
        let channel = open(connection, what).await?;
        channel.exec(false, "sh").await.map_err(|e| closed(what, e))?;
        let (reader, writer) = channel.split();
        Ok(Self { reader, writer: Some(writer), mark: format!("contentmonster-{:016x}", fastrand::u64(..)) })
    }

    async fn run(&mut self, script: &[u8], what: &str) -> Result<Output, RemoteError> {
        let Some(writer) = &self.writer else { return Err(closed(what, "the shell has ended")) };
        writer.data_bytes(framed(script, &self.mark)).await.map_err(|e| closed(what, e))?;
        let mut heard = Vec::new();
        loop {
            match self.reader.wait().await {
                Some(ChannelMsg::Data { data }) => {
                    heard.extend_from_slice(&data);
                    if let Some(output) = output_in(&heard, &self.mark) {
                        return Ok(output);
                    }
                    if heard.len() > MOST_OUTPUT {
                        return Err(RemoteError::new(ErrorKind::Failed, what, "it says more than anyone asked for"));
                    }
                }
                Some(ChannelMsg::Eof | ChannelMsg::Close) | None => return Err(closed(what, "the shell has ended")),
                // Standard error of the profile; that of scripts comes with their output.
                Some(_) => {}
            }
        }
    }
}

/// A script between its marks; in a subshell, so that nothing that it sets or ends outlives it.
fn framed(script: &[u8], mark: &str) -> Vec<u8> {
    let begin = format!("printf '%s\\n' {mark}; (\n");
    let end = format!("\n) </dev/null 2>&1; printf '\\n%s %d\\n' {mark} $?\n");
    [begin.as_bytes(), script, end.as_bytes()].concat()
}

/// The output of a script that has ended: what stands between the two marks. A profile may have spoken before.
fn output_in(heard: &[u8], mark: &str) -> Option<Output> {
    let end = heard.strip_suffix(b"\n")?;
    let last_line = end.iter().rposition(|b| *b == b'\n').map(|at| at + 1)?;
    let status = std::str::from_utf8(&end[last_line..]).ok()?.strip_prefix(mark)?.trim().parse().ok()?;
    let begin = format!("{mark}\n");
    let start = heard.windows(begin.len()).position(|window| window == begin.as_bytes())? + begin.len();
    Some(Output { text: heard[start..(last_line - 1).max(start)].to_vec(), status })
}

impl Drop for Shell {
    fn drop(&mut self) {
        if let (Some(writer), Ok(runtime)) = (self.writer.take(), tokio::runtime::Handle::try_current()) {
            runtime.spawn(async move { writer.close().await });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::process::{Command, Stdio};

    /// Has a real `sh` read these scripts one after the other, behind what a profile may say.
    fn through_sh(scripts: &[&str]) -> Vec<u8> {
        let mut sh = Command::new("sh").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut input = sh.stdin.take().unwrap();
        input.write_all(b"echo welcome\n").unwrap();
        for script in scripts {
            input.write_all(&framed(script.as_bytes(), "mark")).unwrap();
        }
        drop(input);
        sh.wait_with_output().unwrap().stdout
    }

    #[test]
    fn output_and_status_are_those_of_the_script() {
        for (script, text, status) in [
            ("echo hi\n", "hi\n", 0),
            ("printf hi; exit 3", "hi", 3),
            ("true", "", 0),
            ("echo no >&2; false\n", "no\n", 1),
        ] {
            let output = output_in(&through_sh(&[script]), "mark").unwrap();
            assert_eq!((String::from_utf8(output.text).unwrap().as_str(), output.status), (text, status), "{script}");
        }
    }

    #[test]
    fn a_script_leaves_the_shell_as_it_was() {
        let heard = through_sh(&["set -e; umask 0; cd /; cat; exit 1", "echo still here"]);
        assert!(heard.ends_with(b"mark\nstill here\n\nmark 0\n"), "{}", heard.escape_ascii());
    }

    #[test]
    fn nothing_is_taken_for_an_end_that_is_none() {
        for heard in
            ["", "mark\n", "mark\nhalf", "mark\nhalf\n", "mark\nhalf\nmark", "mark\nx\nmark 0", "x\nmarket 0\n"]
        {
            assert!(output_in(heard.as_bytes(), "mark").is_none(), "{heard:?}");
        }
    }
}
