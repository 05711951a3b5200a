//! Runs a script in the vessel's `sh`.

use std::time::Duration;

use russh::ChannelMsg;

use super::error::{ErrorKind, RemoteError};
use super::shell::Script;
use super::ssh::Connection;

/// Most output that is kept, in bytes. A vessel that says more is talking to itself.
const MOST_OUTPUT: usize = 1 << 20;

/// What a script left behind.
#[derive(Clone, Debug, Default)]
pub(crate) struct Output {
    /// The exit status; `None` when it was killed or the vessel doesn't say.
    pub(crate) status: Option<u32>,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
}

impl Output {
    pub(crate) fn is_success(&self) -> bool {
        self.status == Some(0)
    }

    /// What it complained about, for a message: the last line of its standard error.
    pub(crate) fn complaint(&self) -> String {
        let text = String::from_utf8_lossy(&self.stderr);
        match text.trim().lines().last() {
            Some(line) => line.escape_debug().to_string(),
            None => match self.status {
                Some(status) => format!("exit status {status}"),
                None => "it was killed".into(),
            },
        }
    }
}

/// Runs a script and waits for its end, at most for `deadline`; `what` names it in errors.
pub(crate) async fn run(
    connection: &Connection,
    script: Script,
    what: &str,
    deadline: Duration,
) -> Result<Output, RemoteError> {
    let running = async {
        let lost = |why: &dyn std::fmt::Display| RemoteError::new(ErrorKind::Connection, what, why);
        let mut channel = connection.channel().await.map_err(|e| match e {
            russh::Error::ChannelOpenFailure(why) => {
                RemoteError::new(ErrorKind::Failed, what, format_args!("the vessel opens no further channel ({why:?})"))
            }
            e => lost(&e),
        })?;
        channel.exec(true, "sh").await.map_err(|e| lost(&e))?;
        channel.data_bytes(script.into_bytes()).await.map_err(|e| lost(&e))?;
        channel.eof().await.map_err(|e| lost(&e))?;
        let mut output = Output::default();
        while let Some(message) = channel.wait().await {
            match message {
                ChannelMsg::Data { data } => keep(&mut output.stdout, &data),
                ChannelMsg::ExtendedData { data, .. } => keep(&mut output.stderr, &data),
                ChannelMsg::ExitStatus { exit_status } => output.status = Some(exit_status),
                ChannelMsg::Failure => {
                    return Err(RemoteError::new(ErrorKind::Unsupported, what, "the account has no shell"));
                }
                ChannelMsg::Close => return Ok(output),
                _ => {}
            }
        }
        if connection.is_closed() { Err(lost(&"the connection was closed")) } else { Ok(output) }
    };
    tokio::time::timeout(deadline, running).await.unwrap_or_else(|_| Err(RemoteError::silent(what, deadline)))
}

fn keep(kept: &mut Vec<u8>, data: &[u8]) {
    let room = MOST_OUTPUT.saturating_sub(kept.len());
    kept.extend_from_slice(&data[..data.len().min(room)]);
}
