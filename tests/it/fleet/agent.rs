//! A real `ssh-agent` of the shore's user.

use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::process::tied_command;
use super::wait::wait_until;

/// A running agent; it ends when it is dropped.
pub(crate) struct Agent {
    child: Child,
    socket: PathBuf,
}

impl Agent {
    /// Starts one that listens at `socket` and holds these private keys, in this order.
    pub(crate) fn holding(socket: PathBuf, keys: &[PathBuf]) -> Self {
        let mut command = tied_command("ssh-agent");
        command.arg("-D").arg("-a").arg(&socket).stdin(Stdio::null()).stdout(Stdio::null());
        let agent = Self { child: command.spawn().expect("ssh-agent is part of openssh-client"), socket };
        // The socket exists a moment before the agent listens.
        wait_until("the agent to listen", || UnixStream::connect(&agent.socket).is_ok());
        let added = Command::new("ssh-add").arg("-q").args(keys).env("SSH_AUTH_SOCK", &agent.socket).output().unwrap();
        assert!(added.status.success(), "ssh-add: {}", String::from_utf8_lossy(&added.stderr));
        agent
    }

    /// What `SSH_AUTH_SOCK` must say.
    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
