//! What a vessel offers, found out once per connection.

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use super::error::{ErrorKind, RemoteError};
use super::exec;
use super::sftp::{Limits, Sftp};
use super::shell::Script;
use super::ssh::Connection;
use crate::digest::Digest;

/// The largest write that any server is asked to take: what OpenSSH's `limits@openssh.com` names.
const MOST_PER_WRITE: u64 = 255 * 1024;
/// What every SFTP server must take (draft-ietf-secsh-filexfer-02, section 3: packets of 34,000 bytes).
const LEAST_PER_WRITE: u64 = 32 * 1024;

/// A program on the vessel that hashes its standard input with SHA-256.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HashTool(&'static str);

impl HashTool {
    /// Those we know, fastest first: Debian's `openssl` hashes 1,500 MB/s where its `sha256sum` does 220.
    const ALL: [Self; 5] = [
        Self("openssl dgst -sha256 -r"),
        Self("sha256sum"),
        Self("busybox sha256sum"),
        Self("shasum -a 256"),
        Self("sha256 -q"),
    ];

    /// The command line.
    pub fn command(self) -> &'static str {
        self.0
    }
}

/// What a vessel offers.
#[derive(Clone, Debug, Default)]
pub struct Capabilities {
    extensions: HashMap<String, String>,
    limits: Limits,
    /// Whether commands can be run there (with `cat` and `rm`, which come with every shell account).
    pub shell: bool,
    /// What hashes files there; `None`: they are read back.
    pub hash_tool: Option<HashTool>,
    /// Whether `sync FILE` works there.
    pub sync: bool,
}

impl Capabilities {
    /// Asks the vessel. An account without a shell is no error.
    pub(crate) async fn probe(
        connection: &Connection,
        sftp: &Sftp,
        extensions: HashMap<String, String>,
        timeout: Duration,
    ) -> Result<Self, RemoteError> {
        let limits = if extensions.contains_key("limits@openssh.com") {
            sftp.limits().await.map_err(|e| RemoteError::from_sftp(&e, "asking for the vessel's limits"))?
        } else {
            Limits::default()
        };
        let found = match exec::run_once(connection, probe_script(), "looking for a shell", timeout).await {
            Ok(output) => parse(&output),
            Err(e) if e.kind == ErrorKind::Unsupported => Self::default(),
            // No answer says nothing about a shell, and a vessel that is taken for one without costs twice the traffic.
            Err(e) => return Err(e),
        };
        Ok(Self { extensions, limits, ..found })
    }

    fn has(&self, extension: &str) -> bool {
        self.extensions.contains_key(extension)
    }

    /// Whether a rename can replace an existing file in one step.
    pub fn posix_rename(&self) -> bool {
        self.has("posix-rename@openssh.com")
    }

    /// Whether open files can be flushed to disk.
    pub fn fsync(&self) -> bool {
        self.has("fsync@openssh.com")
    }

    /// Whether the vessel tells its free space.
    pub fn statvfs(&self) -> bool {
        self.has("statvfs@openssh.com")
    }

    /// How many bytes go into one write.
    pub fn bytes_per_write(&self) -> u64 {
        if self.limits.write == 0 { LEAST_PER_WRITE } else { self.limits.write.clamp(1, MOST_PER_WRITE) }
    }

    /// How many bytes are asked for in one read.
    pub fn bytes_per_read(&self) -> u32 {
        let most = if self.limits.read == 0 { LEAST_PER_WRITE } else { self.limits.read.clamp(1, MOST_PER_WRITE) };
        u32::try_from(most).unwrap_or(u32::MAX)
    }
}

impl fmt::Display for Capabilities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let yes_no = |yes: bool| if yes { "yes" } else { "no" };
        write!(
            f,
            "shell {}, hash {}, flush {}, atomic replace {}, free space {}, {} bytes per write",
            yes_no(self.shell),
            self.hash_tool.map_or("by read-back", HashTool::command),
            match (self.fsync(), self.sync) {
                (true, _) => "by SFTP",
                (false, true) => "by sync",
                (false, false) => "none",
            },
            yes_no(self.posix_rename()),
            yes_no(self.statvfs()),
            self.bytes_per_write(),
        )
    }
}

/// An account whose shell is replaced by `internal-sftp` takes any command and answers in SFTP, or not at all; so the
/// script starts by saying a word that only a shell repeats.
const GREETING: &[u8] = b"contentmonster has a shell";

fn probe_script() -> Script {
    let mut script = Script::new().code("exec </dev/null; printf '%s %s\\n' contentmonster 'has a shell'\n");
    for (index, tool) in HashTool::ALL.iter().enumerate() {
        script = script
            .code("printf 'hash ")
            .number(index as u64)
            .code(" %s\\n' \"$(printf abc | ")
            .code(tool.0)
            .code(" 2>/dev/null)\"\n");
    }
    // Asked and not tried: one that takes no file flushes everything, which can take minutes.
    script.code("sync --help 2>&1 | grep -q FILE && echo sync\n")
}

fn parse(output: &[u8]) -> Capabilities {
    let lines: Vec<&[u8]> = output.split(|b| *b == b'\n').collect();
    let shell = lines.contains(&GREETING);
    let abc = Digest::of(b"abc");
    let works = |index: usize| {
        let prefix = format!("hash {index} ");
        lines.iter().any(|line| {
            line.strip_prefix(prefix.as_bytes()).and_then(|hash| Digest::from_hex(hash.get(..64)?)) == Some(abc)
        })
    };
    let hash_tool = HashTool::ALL.iter().enumerate().find(|(index, _)| works(*index)).map(|(_, tool)| *tool);
    Capabilities { shell, hash_tool, sync: lines.contains(&b"sync".as_slice()), ..Capabilities::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_real_shell_is_recognised_and_its_tools_are_tried() {
        use std::io::Write;
        let mut sh = std::process::Command::new("sh")
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        sh.stdin.take().unwrap().write_all(&probe_script().into_bytes()).unwrap();
        let found = parse(&sh.wait_with_output().unwrap().stdout);
        assert!(found.shell && found.sync && found.hash_tool.is_some(), "{found}");
    }

    #[test]
    fn a_wrong_hash_is_no_hash_tool() {
        let found = parse(b"contentmonster has a shell\nhash 0 \nhash 1 0000\n");
        assert!(found.shell);
        assert_eq!(found.hash_tool, None);
    }

    #[test]
    fn an_sftp_server_in_place_of_a_shell_is_no_shell() {
        assert!(!parse(b"\0\0\0\x05\x02\0\0\0\x03").shell);
    }
}
