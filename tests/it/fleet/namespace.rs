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
