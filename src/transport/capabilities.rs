//! The capabilities of a vessel, determined once per connection.

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use super::error::RemoteError;
use super::exec::{PADDING, Shells};
use super::sftp::Limits;
use super::shell::Script;
use super::tree::Tree;
use crate::compression::Codec;
use crate::digest::Digest;

/// The maximum size of one write in bytes, as OpenSSH announces it by `limits@openssh.com`.
const MOST_PER_WRITE: u64 = 255 * 1024;
/// The write size in bytes that every SFTP server must accept (draft-ietf-secsh-filexfer-02, section 3, requires
/// packets of 34,000 bytes).
const LEAST_PER_WRITE: u64 = 32 * 1024;

/// A program on the vessel that hashes its standard input with SHA-256.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HashTool(&'static str);

impl HashTool {
    /// The known programs, fastest first: Debian's `openssl` hashes 1,500 MB/s, Debian's `sha256sum` 220 MB/s.
    const ALL: [Self; 5] = [
        Self("openssl dgst -sha256 -r"),
        Self("sha256sum"),
        Self("busybox sha256sum"),
        Self("shasum -a 256"),
        Self("sha256 -q"),
    ];

    #[cfg(test)]
    pub(super) fn for_tests() -> Self {
        Self::ALL[1]
    }

    /// Returns the command line that runs the program.
    pub fn command(self) -> &'static str {
        self.0
    }
}

/// Those attributes of a directory that both SFTP and a shell report: its modification time, user and group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Landmark {
    pub(super) changed: u32,
    pub(super) user: u32,
    pub(super) group: u32,
}

/// The capabilities of a vessel.
#[derive(Clone, Debug, Default)]
pub struct Capabilities {
    pub(super) extensions: HashMap<String, String>,
    pub(super) limits: Limits,
    /// Whether commands can be run. `cat` and `rm` are then available too, because every shell account has them.
    pub shell: bool,
    /// The program that hashes files. `None`: files are hashed by `check-file`, or read back and hashed on the shore.
    pub hash_tool: Option<HashTool>,
    /// Whether SFTP answers `check-file`.
    pub check_file: bool,
    /// Whether `sync FILE` works.
    pub sync: bool,
    /// Whether `dd` copies ranges at any offset (`skip_bytes`, `count_bytes`).
    pub dd_ranges: bool,
    /// Whether `cp` has the option `--reflink`, which clones files. Whether a clone succeeds also depends on the file
    /// system.
    pub clones: bool,
    /// The best compression format that a program on the vessel can expand; `None`: files are not sent compressed.
    pub decompressor: Option<Codec>,
    /// Whether `sync -f FILE` works, which flushes the whole file system that the file is on.
    pub sync_file_system: bool,
    /// The command that, with a number appended, reads exactly that many bytes from its standard input; `None` if the
    /// shell cannot receive whole files (see [`file_loop`](super::file_loop)).
    pub(super) exact_read: Option<&'static str>,
    /// The attributes of the root and of the login directory, which show whether SFTP and the shell see the same files.
    pub(super) landmarks: Option<[Landmark; 2]>,
    /// The mapping of SFTP's paths to the shell's paths, if they differ.
    pub(super) tree: Option<Tree>,
    /// Whether the target is on this host, where the kernel handles all requests.
    pub(super) this_host: bool,
}

impl Capabilities {
    /// Probes the vessel's shell. Waits at most `deadline` for the result. If the round-trip time is `long`, requests
    /// extra output, so that the result arrives a round trip earlier.
    ///
    /// # Errors
    /// When there is no shell, or the shell does not answer in time. The probe may have ended the connection.
    pub(super) async fn probe_shell(shells: &Shells, deadline: Duration, long: bool) -> Result<Self, RemoteError> {
        let padding = if long { PADDING } else { "" };
        Ok(parse(&shells.run_padded(probe_script(), "probing the shell", deadline, padding).await?.text))
    }

    /// Returns whether `other` has the same capabilities of the shell.
    pub(super) fn has_same_shell(&self, other: &Self) -> bool {
        let tools =
            |it: &Self| (it.hash_tool, it.sync, it.sync_file_system, it.dd_ranges, it.decompressor, it.exact_read);
        let shell = |it: &Self| (it.shell, it.clones, tools(it));
        shell(self) == shell(other)
    }

    /// Returns the capabilities of a target on this host: all SFTP requests, but no shell. A shell is not needed,
    /// because files are written in order and read back.
    pub(super) fn of_this_host() -> Self {
        const OFFERED: [&str; 5] = [
            "posix-rename@openssh.com",
            "lsetstat@openssh.com",
            "fsync@openssh.com",
            "statvfs@openssh.com",
            "copy-data",
        ];
        Self {
            extensions: OFFERED.map(|name| (name.to_owned(), "1".to_owned())).into(),
            limits: Limits { read: MOST_PER_WRITE, write: MOST_PER_WRITE, handles: 0 },
            sync: true,
            sync_file_system: true,
            this_host: true,
            ..Self::default()
        }
    }

    /// Describes where the shell finds SFTP's files, or returns `None` if both use the same paths.
    pub fn other_tree(&self) -> Option<String> {
        self.tree.as_ref()?.elsewhere()
    }

    fn has(&self, extension: &str) -> bool {
        self.extensions.contains_key(extension)
    }

    /// Returns whether a rename can atomically replace an existing file.
    pub fn posix_rename(&self) -> bool {
        self.has("posix-rename@openssh.com")
    }

    /// Returns whether modification time and owner of a link itself can be set.
    pub fn lsetstat(&self) -> bool {
        self.has("lsetstat@openssh.com")
    }

    /// Returns whether open files can be flushed to disk.
    pub fn fsync(&self) -> bool {
        self.has("fsync@openssh.com")
    }

    /// Returns whether the vessel reports its free space.
    pub fn statvfs(&self) -> bool {
        self.has("statvfs@openssh.com")
    }

    /// Returns whether the vessel can copy ranges between open files.
    pub fn copy_data(&self) -> bool {
        self.has("copy-data")
    }

    /// Returns the maximum size of one write in bytes.
    pub fn bytes_per_write(&self) -> u64 {
        if self.limits.write == 0 { LEAST_PER_WRITE } else { self.limits.write.clamp(1, MOST_PER_WRITE) }
    }

    /// Returns the size of one read in bytes.
    pub fn bytes_per_read(&self) -> u32 {
        let most = if self.limits.read == 0 { LEAST_PER_WRITE } else { self.limits.read.clamp(1, MOST_PER_WRITE) };
        u32::try_from(most).unwrap_or(u32::MAX)
    }
}

impl fmt::Display for Capabilities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.this_host {
            return f.write_str("this host, without SSH: files are assembled in place, read back, flushed and renamed");
        }
        let yes_no = |yes: bool| if yes { "yes" } else { "no" };
        write!(
            f,
            "shell {}, hash {}, flush {}, atomic replace {}, free space {}, copies ranges {}, decompresses {}, {} bytes per write",
            yes_no(self.shell),
            match (self.hash_tool, self.check_file) {
                (Some(tool), _) => tool.command(),
                (None, true) => "by check-file",
                (None, false) => "by read-back",
            },
            match (self.fsync(), self.sync) {
                (true, _) => "by SFTP",
                (false, true) => "by sync",
                (false, false) => "none",
            },
            yes_no(self.posix_rename()),
            yes_no(self.statvfs()),
            match (self.copy_data(), self.shell, self.dd_ranges) {
                (true, ..) => "by SFTP",
                (false, true, true) => "by dd",
                (false, true, false) => "by tail",
                (false, false, _) => "no",
            },
            self.decompressor.map_or("no", Codec::name),
            self.bytes_per_write(),
        )
    }
}

/// The first line that the probe prints. An account whose shell is `internal-sftp` accepts any command, and answers
/// with SFTP packets or not at all, so only a shell prints this line.
const GREETING: &[u8] = b"contentmonster has a shell";

/// The text that each decompressor must output when the probe runs it on the compressed sample.
const SAMPLE: &[u8] = b"contentmonster";

/// Returns the sample as the octal escapes of `printf`, compressed.
fn compressed_sample(codec: Codec) -> &'static str {
    match codec {
        Codec::Zstd => r"\050\265\057\375\000\130\161\000\000\143\157\156\164\145\156\164\155\157\156\163\164\145\162",
        Codec::Gzip => concat!(
            r"\037\213\010\000\000\000\000\000\002\003\113\316\317\053\111\315\053\311\315\317\053\056\111\055\002\000",
            r"\333\121\133\265\016\000\000\000"
        ),
    }
}

fn probe_script() -> Script {
    let mut script = Script::new().code("exec </dev/null; printf '%s %s\\n' contentmonster 'has a shell'\n");
    // The probe stops at the first tool with a correct hash, because some tools take long to start.
    for (index, tool) in HashTool::ALL.iter().enumerate() {
        script = script
            .code("found=$(printf abc | ")
            .code(tool.0)
            .code(" 2>/dev/null)\nprintf 'hash ")
            .number(index as u64)
            .code(" %s\\n' \"$found\"\ncase $found in ba7816bf*) ;; *)\n");
    }
    script = HashTool::ALL.iter().fold(script, |script, _| script.code(";; esac\n"));
    for (index, codec) in Codec::ALL.into_iter().enumerate() {
        script = script
            .code("found=$(printf '")
            .code(compressed_sample(codec))
            .code("' | ")
            .code(codec.command())
            .code(" 2>/dev/null)\nprintf 'decompress ")
            .number(index as u64)
            .code(" %s\\n' \"$found\"\ncase $found in contentmonster) ;; *)\n");
    }
    script = Codec::ALL.iter().fold(script, |script, _| script.code(";; esac\n"));
    let script = script.code("sync --help 2>&1 | grep -q FILE && echo sync\n");
    let script = script.code("sync --help 2>&1 | grep -q -e -f -e -df && echo sync -f\n");
    let script =
        script.code("stat -c 'landmark %Y %u %g' / . 2>/dev/null || stat -f 'landmark %m %u %g' / . 2>/dev/null\n");
    // The probe compares the output, because a busybox whose `dd` does not support these flags copies other bytes.
    let script = script.code("printf abcdef | dd bs=4 iflag=skip_bytes,count_bytes skip=1 count=3 2>/dev/null | ");
    let script = script.code("grep -q '^bcd$' && echo dd ranges\n");
    let script = script.code("cp --help 2>&1 | grep -q -e --reflink && echo cp reflink\n");
    // Tests that the command reads no more bytes than requested: in a stream of several files, further bytes belong to
    // the next file. Also requires `mv -T`, which does not move the file into a directory that has the name of the
    // destination.
    let script = script.code("printf abcdef | { head -c 3 >/dev/null; cat; } | grep -q '^def$' && echo exact head\n");
    let script = script.code("printf abcdef | { dd bs=64k iflag=fullblock,count_bytes count=3 >/dev/null; cat; } ");
    let script = script.code("2>/dev/null | grep -q '^def$' && echo exact dd\n");
    script.code(
        "mv --help 2>&1 | grep -q -e -T && touch -c -d @86400 /.contentmonster-none 2>/dev/null && echo mv touch\n",
    )
}

/// The commands that read exactly a given number of bytes, by the names that the probe prints for them.
const EXACT_READS: [(&[u8], &str); 2] =
    [(b"exact head", "head -c "), (b"exact dd", "dd bs=64k iflag=fullblock,count_bytes 2>/dev/null count=")];

pub(super) fn parse(output: &[u8]) -> Capabilities {
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
    let expands = |(index, _): &(usize, Codec)| {
        let expected = [format!("decompress {index} ").as_bytes(), SAMPLE].concat();
        lines.contains(&expected.as_slice())
    };
    let decompressor = Codec::ALL.into_iter().enumerate().find(expands).map(|(_, codec)| codec);
    let says = |word: &'static [u8]| lines.contains(&word);
    let (sync, sync_file_system, dd_ranges) = (says(b"sync"), says(b"sync -f"), says(b"dd ranges"));
    let exact_read = EXACT_READS.iter().find(|(name, _)| says(name)).map(|(_, command)| *command);
    let exact_read = exact_read.filter(|_| says(b"mv touch"));
    let landmarks: Vec<Landmark> = lines.iter().filter_map(|line| landmark(line)).collect();
    let landmarks = <[Landmark; 2]>::try_from(landmarks).ok();
    Capabilities {
        shell,
        hash_tool,
        sync,
        sync_file_system,
        dd_ranges,
        clones: says(b"cp reflink"),
        decompressor,
        exact_read,
        landmarks,
        ..Capabilities::default()
    }
}

fn landmark(line: &[u8]) -> Option<Landmark> {
    let mut numbers = std::str::from_utf8(line).ok()?.strip_prefix("landmark ")?.split(' ').map(str::parse);
    let (changed, user, group) = (numbers.next()?.ok()?, numbers.next()?.ok()?, numbers.next()?.ok()?);
    Some(Landmark { changed, user, group })
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
        assert!(
            found.shell
                && found.sync
                && found.sync_file_system
                && found.dd_ranges
                && found.clones
                && found.hash_tool.is_some()
                && found.exact_read.is_some(),
            "{found}"
        );
    }

    #[test]
    fn a_wrong_hash_is_no_hash_tool() {
        let found = parse(b"contentmonster has a shell\nhash 0 \nhash 1 0000\n");
        assert!(found.shell);
        assert_eq!(found.hash_tool, None);
    }

    #[test]
    fn a_decompressor_is_believed_for_its_output_only() {
        let found = |lines: &str| parse(format!("contentmonster has a shell\n{lines}").as_bytes()).decompressor;
        assert_eq!(found("decompress 0 contentmonster\n"), Some(Codec::Zstd));
        assert_eq!(found("decompress 0 \ndecompress 1 contentmonster\n"), Some(Codec::Gzip));
        assert_eq!(found("decompress 0 Contentmonster\ndecompress 1 contentmonster2\n"), None);
        assert_eq!(found(""), None);
    }

    #[test]
    fn each_decompressor_of_this_host_expands_its_sample() {
        for codec in Codec::ALL {
            let script = format!("printf '{}' | {}", compressed_sample(codec), codec.command());
            let output = std::process::Command::new("sh").args(["-c", &script]).output().unwrap();
            // The host that runs the test may lack zstd.
            assert!(
                output.stdout == SAMPLE || codec == Codec::Zstd && output.stdout.is_empty(),
                "{codec:?}: {output:?}"
            );
        }
    }

    #[test]
    fn an_sftp_server_in_place_of_a_shell_is_no_shell() {
        assert!(!parse(b"\0\0\0\x05\x02\0\0\0\x03").shell);
    }
}
