//! One running SSH server: started in its mount namespace, stopped with everything it started.
//!
//! Knows processes and ports; what is configured stands in `vessel`.

use std::fs::{self, File};
use std::io::Read;
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use rustix::process::Signal;

use super::namespace::Mounts;
use super::process::{children, descendants, program_of, signal};
use super::wait::wait_for;

/// The server; killed when it is dropped.
pub(crate) struct Server {
    child: Child,
}

impl Server {
    /// Starts a server and waits until it greets on its port.
    ///
    /// `None` when it ended instead, as it does when somebody else took the port; the log says why.
    pub(crate) fn start(mounts: &Mounts, program: &[String], port: u16, log: &Path) -> Option<Self> {
        let log_file = File::options().create(true).append(true).open(log).unwrap();
        let mut command = mounts.command_as_init();
        command.args(program).stdin(Stdio::null()).stdout(log_file.try_clone().unwrap()).stderr(log_file);
        let child = command.spawn().expect("setpriv and unshare are part of every Debian");
        let mut server = Self { child };
        let greeted = wait_for(&format!("{program:?} to greet on port {port}"), || {
            if server.child.try_wait().unwrap().is_some() { Some(false) } else { greets(port).then_some(true) }
        });
        greeted.then_some(server)
    }

    /// The server's own process number; its root directory shows the namespace's mounts.
    fn pid(&self) -> u32 {
        *children(self.child.id()).first().expect("the server runs as long as nobody stops it")
    }

    /// What lies at an absolute path as the server sees it.
    pub(crate) fn seen(&self, path: &Path) -> PathBuf {
        let root = PathBuf::from(format!("/proc/{}/root", self.pid()));
        root.join(path.strip_prefix("/").expect("an absolute path"))
    }

    /// Those of its processes, at any depth, that run a program of this name, by number.
    pub(crate) fn processes(&self, name: &str) -> Vec<u32> {
        let mut running = descendants(self.child.id());
        running.retain(|pid| program_of(*pid).as_deref() == Some(name));
        running.sort_unstable();
        running
    }

    /// Stops all of its processes where they are: connections stay open, nothing answers.
    pub(crate) fn freeze(&self) {
        descendants(self.child.id()).into_iter().for_each(|pid| signal(pid, Signal::STOP));
    }

    /// Lets them go on.
    pub(crate) fn thaw(&self) {
        descendants(self.child.id()).into_iter().for_each(|pid| signal(pid, Signal::CONT));
    }
}

impl Drop for Server {
    /// Process 1 of the namespace takes all others with it; the kernel reports its end when they are gone.
    fn drop(&mut self) {
        match children(self.child.id()).first() {
            Some(init) => signal(*init, Signal::KILL),
            None => signal(self.child.id(), Signal::KILL),
        }
        let _ = self.child.wait();
    }
}

fn greets(port: u16) -> bool {
    let Ok(mut stream) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)) else { return false };
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let mut greeting = [0; 4];
    stream.read_exact(&mut greeting).is_ok() && greeting == *b"SSH-"
}

/// The end of a server's log, for a failed test.
pub(crate) fn log_tail(log: &Path) -> String {
    let text = fs::read(log).unwrap_or_default();
    let lines: Vec<_> = String::from_utf8_lossy(&text).lines().map(str::to_owned).collect();
    lines[lines.len().saturating_sub(25)..].join("\n")
}
