//! A mount namespace: how a process gets files of its own at the paths that the shore uses too.
//!
//! Mounts made in it are seen by the processes started in it alone, and are gone with the last of them.

use std::path::Path;
use std::process::Command;

use super::process::tied_command;

/// The mounts to make before the program starts, as lines of a shell script.
#[derive(Clone, Default)]
pub(crate) struct Mounts {
    script: String,
}

impl Mounts {
    /// Shows the file or directory `source` at `target`.
    pub(crate) fn bind(mut self, source: &Path, target: &Path) -> Self {
        self.line(&["mount", "--bind"], &[source, target]);
        self
    }

    /// Shows a directory at its own place, but read-only.
    pub(crate) fn read_only(mut self, target: &Path) -> Self {
        self.line(&["mount", "--bind"], &[target, target]);
        self.line(&["mount", "-o", "remount,bind,ro"], &[target]);
        self
    }

    /// Puts a new, empty file system of a size (`8m`) in memory at `target`.
    pub(crate) fn tmpfs(mut self, size: &str, target: &Path) -> Self {
        self.line(&["mount", "-t", "tmpfs", "-o", &format!("mode=755,size={size}"), "tmpfs"], &[target]);
        self
    }

    /// Mounts a directory of an SSH server with `sshfs`, which ends with the program; its number is written to `pid_file`.
    pub(crate) fn sshfs(
        mut self,
        (port, remote): (u16, &str),
        (key, known_hosts): (&Path, &Path),
        target: &Path,
        pid_file: &Path,
    ) -> Self {
        let (key, known_hosts, target) = (key.display(), known_hosts.display(), target.display());
        let options = format!("IdentityFile={key},UserKnownHostsFile={known_hosts},Port={port},BatchMode=yes");
        self.script.push_str(&format!(
            "setpriv --pdeathsig SIGKILL -- sshfs -f -F /dev/null -o '{options}' 'root@127.0.0.1:{remote}' '{target}' &\n\
             echo $! > '{}'\n\
             tries=0; until mountpoint -q '{target}'; do sleep 0.05; tries=$((tries + 1)); [ $tries -lt 600 ]; done\n",
            pid_file.display()
        ));
        self
    }

    /// Stops the process whose number stands in a file.
    pub(crate) fn stopped(mut self, pid_file: &Path) -> Self {
        self.script.push_str(&format!("kill -STOP \"$(cat '{}')\"\n", pid_file.display()));
        self
    }

    /// Makes a directory.
    pub(crate) fn directory(mut self, path: &Path) -> Self {
        self.line(&["mkdir", "-p"], &[path]);
        self
    }

    fn line(&mut self, words: &[&str], paths: &[&Path]) {
        self.script.push_str(&words.join(" "));
        for path in paths {
            let path = path.to_str().expect("the fixture's own paths are plain");
            assert!(!path.contains('\''), "a quote in the temporary directory's name: {path}");
            self.script.push_str(&format!(" '{path}'"));
        }
        self.script.push('\n');
    }

    /// A command that makes the mounts and then becomes the program that is added as its arguments; the child's number
    /// is the program's.
    pub(crate) fn command(&self) -> Command {
        self.unshare(&["--mount", "--propagation", "private"])
    }

    /// The same, with the program as process 1 of its own process namespace: the program is the child's only child, and
    /// when it ends, the kernel ends everything that was started below it.
    pub(crate) fn command_as_init(&self) -> Command {
        let flags = ["--mount", "--propagation", "private", "--pid", "--fork", "--kill-child", "--mount-proc"];
        self.unshare(&flags)
    }

    fn unshare(&self, flags: &[&str]) -> Command {
        let mut command = tied_command("unshare");
        let script = format!("set -e\n{}exec \"$@\"\n", self.script);
        command.args(flags).args(["--", "sh", "-c", &script, "sh"]);
        command
    }
}
