//! Runs scripts in the vessel's `sh`.
//!
//! Starting a command costs two round trips, a process, and the run of the account's profile, often 0.5 s. To avoid
//! this cost, a few shells stay open, each a plain `sh` that reads scripts one after another from its standard input.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use russh::client::Msg;
use russh::{ChannelMsg, ChannelReadHalf, ChannelWriteHalf};
use tokio::sync::{Semaphore, SemaphorePermit};

use super::error::{ErrorKind, RemoteError};
use super::shell::Script;
use super::ssh::{Connection, StartTurn, Starts};
use crate::text::excerpt;

/// The maximum output of a script, in bytes. No script needs more.
const MOST_OUTPUT: usize = 1 << 20;
/// A command that prints 1,500 zero bytes, more than a TCP segment holds. Without them, the end of a script's output
/// may arrive a round trip later: the server's Nagle algorithm holds back a partly filled segment until all earlier
/// data is acknowledged. A separate program prints the bytes: while it starts, the server already puts the script's
/// output into an SSH packet.
pub(crate) const PADDING: &str = "dd if=/dev/zero bs=1500 count=1 2>/dev/null\n";
/// The maximum number of shells on one connection. The shells and the SFTP channel together stay well below the 10
/// sessions that OpenSSH allows (`MaxSessions`).
const SHELLS: usize = 5;

/// The result of a script: standard output and standard error, interleaved, and the exit status.
#[derive(Clone, Debug, Default)]
pub(crate) struct Output {
    pub(crate) text: Vec<u8>,
    pub(super) status: u32,
}

impl Output {
    pub(crate) fn is_success(&self) -> bool {
        self.status == 0
    }

    /// Returns the lines of the output.
    pub(crate) fn lines(&self) -> impl Iterator<Item = &[u8]> {
        self.text.split(|b| *b == b'\n')
    }

    /// Returns the last line of the output as the error text for a message, or the exit status if there is no output.
    pub(crate) fn error_text(&self) -> String {
        match self.text.trim_ascii().rsplit(|b| *b == b'\n').next().filter(|line| !line.is_empty()) {
            Some(line) => excerpt(line),
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
            RemoteError::new(ErrorKind::Failed, what, format_args!("the vessel refused another channel ({why:?})"))
        }
        e => closed(what, e),
    })
}

/// The shells of one connection. The vessel's `MaxSessions` may allow fewer than [`SHELLS`].
pub(crate) struct Shells {
    connection: Connection,
    idle: Mutex<Vec<Shell>>,
    places: Semaphore,
    /// The maximum number of shells, which falls when the vessel refuses a shell.
    most: AtomicUsize,
    /// Limits the shells that are started after the login. Set when the login has ended.
    starts: OnceLock<Starts>,
}

impl Shells {
    pub(crate) fn new(connection: Connection) -> Self {
        Self {
            connection,
            idle: Mutex::default(),
            places: Semaphore::new(SHELLS),
            most: AtomicUsize::new(SHELLS),
            starts: OnceLock::new(),
        }
    }

    /// From this call on, a new shell waits for its turn among the logins and shells of other vessels on the same host.
    /// Shells that were started earlier use the turn of the login.
    pub(crate) fn begin_in_turn(&self, starts: Starts) {
        // The result is ignored: each connection logs in only once, so the value is never set twice.
        let _ = self.starts.set(starts);
    }

    /// Waits for a turn to start a shell, or returns `None` if no turn is needed: a shell is idle, or the login has not
    /// ended. The deadlines of scripts do not include this wait.
    pub(crate) async fn turn(&self) -> Option<StartTurn> {
        let starts = self.starts.get().filter(|_| self.idle().is_empty())?;
        Some(starts.turn().await)
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Shell>> {
        self.idle.lock().expect("no code panics while it holds this lock")
    }

    /// Runs a script and waits until it ends, for at most `deadline`. `what` names the script in errors.
    pub(crate) async fn run(&self, script: Script, what: &str, deadline: Duration) -> Result<Output, RemoteError> {
        let _turn = self.turn().await;
        self.run_now(script, what, deadline).await
    }

    /// Runs a script as [`run`](Self::run) does, without waiting for a turn.
    pub(crate) async fn run_now(&self, script: Script, what: &str, deadline: Duration) -> Result<Output, RemoteError> {
        self.run_padded(script, what, deadline, "").await
    }

    /// Runs a script as [`run_now`](Self::run_now) does, followed by `padding`: nothing, or [`PADDING`].
    pub(crate) async fn run_padded(
        &self,
        script: Script,
        what: &str,
        deadline: Duration,
        padding: &'static str,
    ) -> Result<Output, RemoteError> {
        let script = script.into_bytes();
        self.run_made(|| script.clone(), what, deadline, padding).await
    }

    /// Runs a script as [`run`](Self::run) does. The script is made when a shell is ready for it, because it contains a
    /// time limit.
    pub(crate) async fn run_timed(
        &self,
        make: impl Fn() -> Script,
        what: &str,
        deadline: Duration,
    ) -> Result<Output, RemoteError> {
        let _turn = self.turn().await;
        self.run_made(|| make().into_bytes(), what, deadline, "").await
    }

    async fn run_made(
        &self,
        make: impl Fn() -> Vec<u8>,
        what: &str,
        deadline: Duration,
        padding: &'static str,
    ) -> Result<Output, RemoteError> {
        let running = async {
            let (_place, shell, kept) = self.take(what).await?;
            match self.run_in(shell, &make(), what, padding).await {
                // A shell that was kept from an earlier script may have exited. Repeating the script in a new shell is
                // safe.
                Err(_) if kept && !self.connection.is_closed() => {}
                outcome => return outcome,
            }
            let shell = Shell::start(&self.connection, what).await?;
            self.run_in(shell, &make(), what, padding).await
        };
        tokio::time::timeout(deadline, running).await.unwrap_or_else(|_| Err(RemoteError::silent(what, deadline)))
    }

    /// Starts a script that reads lines from its standard input. `what` names the script in errors.
    ///
    /// # Errors
    /// Among others when no second shell is available, because the caller may have to run another script before it can
    /// end this one.
    pub(crate) async fn start(
        &self,
        script: Script,
        what: &'static str,
        deadline: Duration,
    ) -> Result<Running<'_>, RemoteError> {
        let _turn = self.turn().await;
        let starting = async {
            let script = script.into_bytes();
            let (place, mut shell, kept) = self.take(what).await?;
            if let Err(e) = self.have_a_spare(what).await {
                self.idle().push(shell);
                return Err(e);
            }
            match shell.begin(&script, what).await {
                Err(_) if kept && !self.connection.is_closed() => {
                    shell = Shell::start(&self.connection, what).await?;
                    shell.begin(&script, what).await?;
                }
                begun => begun?,
            }
            Ok(Running { shells: self, shell, what, _place: place })
        };
        tokio::time::timeout(deadline, starting).await.unwrap_or_else(|_| Err(RemoteError::silent(what, deadline)))
    }

    /// Starts a script in a shell of its own, where the script runs and reads its input for as long as the connection
    /// lasts. `what` names the script in errors. The script must end when it reads an empty line.
    ///
    /// # Errors
    /// The same errors as those of [`start`](Self::start).
    pub(super) async fn dedicate(
        self: &Arc<Self>,
        script: Script,
        what: &'static str,
        deadline: Duration,
    ) -> Result<Dedicated, RemoteError> {
        let _turn = self.turn().await;
        let starting = async {
            let script = script.into_bytes();
            let (place, mut shell, kept) = self.take(what).await?;
            // Starts the script and opens a second shell concurrently, which saves two round trips.
            let (begun, spare) = tokio::join!(shell.begin(&script, what), self.have_a_spare(what));
            match begun {
                Err(_) if kept && !self.connection.is_closed() => {
                    shell = Shell::start(&self.connection, what).await?;
                    shell.begin(&script, what).await?;
                }
                begun => begun?,
            }
            if let Err(e) = spare {
                shell.input.say(&b"\n"[..], what).await?;
                shell.hear(what, output_in).await?;
                self.idle().push(shell);
                return Err(e);
            }
            // The shell leaves the pool, but counts towards the limit until it ends.
            place.forget();
            let Shell { reader, input, heard, .. } = shell;
            Ok(Dedicated { reader, input: Some(input), heard, shells: self.clone() })
        };
        tokio::time::timeout(deadline, starting).await.unwrap_or_else(|_| Err(RemoteError::silent(what, deadline)))
    }

    /// Returns a shell, and whether the shell was kept from an earlier script. If the vessel allows no further shell,
    /// waits for an existing one.
    async fn take(&self, what: &str) -> Result<(SemaphorePermit<'_>, Shell, bool), RemoteError> {
        loop {
            let place = self.places.acquire().await.map_err(|e| closed(what, e))?;
            let kept = self.idle().pop();
            if let Some(shell) = kept {
                return Ok((place, shell, true));
            }
            match Shell::start(&self.connection, what).await {
                Err(e) if e.kind == ErrorKind::Failed && self.make_do_with_fewer() => place.forget(),
                started => return started.map(|shell| (place, shell, false)),
            }
        }
    }

    /// Ensures that a second shell is available while a script uses the first one.
    async fn have_a_spare(&self, what: &str) -> Result<(), RemoteError> {
        let none = |_| RemoteError::new(ErrorKind::Unsupported, what, "all shells are in use");
        let place = self.places.try_acquire().map_err(none)?;
        if !self.idle().is_empty() {
            return Ok(());
        }
        match Shell::start(&self.connection, what).await {
            Ok(shell) => {
                self.idle().push(shell);
                Ok(())
            }
            Err(e) => {
                if self.make_do_with_fewer() {
                    place.forget();
                }
                Err(e)
            }
        }
    }

    /// Reduces the number of allowed shells by one after the vessel refused a shell. Returns `false` if only one is
    /// allowed.
    fn make_do_with_fewer(&self) -> bool {
        let fewer = |most: usize| (most > 1).then(|| most - 1);
        self.most.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fewer).is_ok()
    }

    /// Runs a script in a shell. Keeps the shell for later scripts, unless an error occurs.
    async fn run_in(&self, mut shell: Shell, script: &[u8], what: &str, padding: &str) -> Result<Output, RemoteError> {
        shell.send([&framed(script, &shell.mark, "</dev/null")[..], padding.as_bytes()].concat(), what).await?;
        let output = shell.hear(what, output_in).await?;
        self.idle().push(shell);
        Ok(output)
    }
}

/// A script that reads lines while it runs. Dropping this value closes the script's input, which ends the script.
pub(crate) struct Running<'a> {
    shells: &'a Shells,
    shell: Shell,
    what: &'static str,
    _place: SemaphorePermit<'a>,
}

impl Running<'_> {
    /// Sends a line to the script.
    pub(crate) async fn tell(&self, line: &str) -> Result<(), RemoteError> {
        self.shell.input.say(format!("{line}\n").into_bytes(), self.what).await
    }

    /// Waits until the script ends, for at most `deadline`.
    pub(crate) async fn end(mut self, deadline: Duration) -> Result<Output, RemoteError> {
        let silent = |_| Err(RemoteError::silent(self.what, deadline));
        let output =
            tokio::time::timeout(deadline, self.shell.hear(self.what, output_in)).await.unwrap_or_else(silent)?;
        self.shells.idle().push(self.shell);
        Ok(output)
    }
}

/// A shell that runs a single script until the shell ends.
pub(super) struct Dedicated {
    pub(super) reader: ChannelReadHalf,
    pub(super) input: Option<ShellInput>,
    /// Output that arrived with the start of the script.
    pub(super) heard: Vec<u8>,
    shells: Arc<Shells>,
}

impl Drop for Dedicated {
    fn drop(&mut self) {
        self.shells.places.add_permits(1);
    }
}

/// The standard input of a shell. Dropping this value closes the channel, which ends an idle shell.
pub(super) struct ShellInput(Option<ChannelWriteHalf<Msg>>);

impl ShellInput {
    pub(super) async fn say(&self, text: impl Into<Bytes>, what: &str) -> Result<(), RemoteError> {
        let Some(writer) = &self.0 else { return Err(closed(what, "the shell has exited")) };
        writer.data_bytes(text).await.map_err(|e| closed(what, e))
    }
}

impl Drop for ShellInput {
    fn drop(&mut self) {
        if let (Some(writer), Ok(runtime)) = (self.0.take(), tokio::runtime::Handle::try_current()) {
            runtime.spawn(async move { writer.close().await });
        }
    }
}

/// One `sh` that reads scripts.
struct Shell {
    reader: ChannelReadHalf,
    input: ShellInput,
    /// A random word that marks the start and the end of each script's output.
    mark: String,
    /// The output received since the last script was sent.
    heard: Vec<u8>,
}

impl Shell {
    async fn start(connection: &Connection, what: &str) -> Result<Self, RemoteError> {
        let channel = open(connection, what).await?;
        channel.exec(true, "sh").await.map_err(|e| closed(what, e))?;
        let (reader, writer) = channel.split();
        let mark = format!("contentmonster-{:016x}", fastrand::u64(..));
        Ok(Self { reader, input: ShellInput(Some(writer)), mark, heard: Vec::new() })
    }

    /// Starts a script that reads lines, and waits until the script runs. The shell reads its input ahead, so it would
    /// consume lines that arrive before the script runs.
    async fn begin(&mut self, script: &[u8], what: &str) -> Result<(), RemoteError> {
        self.send(framed(script, &self.mark, ""), what).await?;
        self.hear(what, |heard, mark| begin_in(heard, mark).map(|_| ())).await
    }

    async fn send(&mut self, script: Vec<u8>, what: &str) -> Result<(), RemoteError> {
        self.heard.clear();
        self.input.say(script, what).await
    }

    /// Receives output until `find` finds a match in the output received since the script was sent.
    async fn hear<T>(&mut self, what: &str, find: impl Fn(&[u8], &str) -> Option<T>) -> Result<T, RemoteError> {
        loop {
            if let Some(found) = find(&self.heard, &self.mark) {
                return Ok(found);
            }
            if self.heard.len() > MOST_OUTPUT {
                return Err(RemoteError::new(ErrorKind::Failed, what, "the command's output is longer than 1 MiB"));
            }
            match self.reader.wait().await {
                Some(ChannelMsg::Data { data }) => self.heard.extend_from_slice(&data),
                Some(ChannelMsg::Failure) => {
                    return Err(RemoteError::new(ErrorKind::Unsupported, what, "the account has no shell"));
                }
                Some(ChannelMsg::Eof | ChannelMsg::Close) | None => return Err(closed(what, "the shell has exited")),
                // Ignores the standard error of the account's profile. Scripts redirect their standard error to their
                // standard output.
                Some(_) => {}
            }
        }
    }
}

/// Returns a script enclosed in commands that print the marks. The script runs in a subshell, so that it can't change
/// or end the shell. `input` redirects the script's standard input; if it is empty, the script shares the shell's
/// input.
fn framed(script: &[u8], mark: &str, input: &str) -> Vec<u8> {
    let begin = format!("printf '%s\\n' {mark}; (\n");
    let end = format!("\n) {input} 2>&1; printf '\\n%s %d\\n' {mark} $?\n");
    [begin.as_bytes(), script, end.as_bytes()].concat()
}

/// Returns the offset at which the output of a script starts, after any output of the profile. Returns `None` if the
/// first mark has not arrived yet.
fn begin_in(heard: &[u8], mark: &str) -> Option<usize> {
    let begin = format!("{mark}\n");
    Some(heard.windows(begin.len()).position(|window| window == begin.as_bytes())? + begin.len())
}

/// Returns the output between the two marks, or `None` if the script has not ended yet. Ignores [`PADDING`].
pub(super) fn output_in(heard: &[u8], mark: &str) -> Option<Output> {
    let bare = heard.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    let end = heard[..bare].strip_suffix(b"\n")?;
    let last_line = end.iter().rposition(|b| *b == b'\n').map(|at| at + 1)?;
    let status = std::str::from_utf8(&end[last_line..]).ok()?.strip_prefix(mark)?.trim().parse().ok()?;
    let start = begin_in(heard, mark)?;
    Some(Output { text: heard[start..(last_line - 1).max(start)].to_vec(), status })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::process::{Command, Stdio};

    /// Runs the scripts in a real `sh` that first prints a line, as a profile may do. Returns the output.
    fn through_sh(scripts: &[&str]) -> Vec<u8> {
        let mut sh = Command::new("sh").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut input = sh.stdin.take().unwrap();
        input.write_all(b"echo welcome\n").unwrap();
        for script in scripts {
            input.write_all(&framed(script.as_bytes(), "mark", "</dev/null")).unwrap();
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
    fn padding_is_no_output() {
        let heard = through_sh(&["echo hi\n"]);
        let padded = [&heard[..], &[0; 1500]].concat();
        for heard in [&padded[..], &padded[..heard.len() + 7]] {
            assert_eq!(output_in(heard, "mark").unwrap().text, b"hi\n");
        }
        assert!(output_in(&[0; 1500], "mark").is_none());
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
