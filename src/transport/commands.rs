//! Operations for which the vessel runs its own programs: joining parts, hashing, flushing. For a target on this host,
//! system calls flush the files instead.

use std::ops::Range;

use super::capabilities::HashTool;
use super::disk::Disk;
use super::error::{ErrorKind, RemoteError};
use super::files::Files;
use super::remote::Remote;
use super::shell::Script;
use crate::compression::Codec;
use crate::digest::Digest;
use crate::names::RemotePath;

/// A piece of data to append to a file.
#[derive(Clone, Debug)]
pub enum Ingredient {
    /// The whole content of a part, which is removed afterwards.
    Part(RemotePath),
    /// The decompressed content of a part that holds a compressed stream. The part is removed afterwards.
    Compressed(RemotePath, Codec),
    /// A range of bytes of another file, which is kept.
    Range(Range<u64>),
}

impl Remote {
    /// Appends the `ingredients` to a file in the given order, and removes the parts among them. Ranges are read from
    /// the file `other`. `range` is the range of `file` that the appended data fills. A missing file is created,
    /// accessible only to its owner.
    ///
    /// # Errors
    /// Among others when the file's size is not `range.start` before, or not `range.end` afterwards, for example
    /// because a `cat` of an earlier session still writes to the file. After an error, the file may contain some of the
    /// appended data; its size tells how much.
    pub async fn build(
        &self,
        file: &RemotePath,
        range: Range<u64>,
        ingredients: &[Ingredient],
        other: Option<&RemotePath>,
    ) -> Result<(), RemoteError> {
        let has_size = |script: Script, size: u64| {
            let script =
                script.code(" [ \"$(wc -c <").path(self.in_shell(file).as_bytes()).code(")\" -eq ").number(size);
            script.code(" ] || { echo 'it has another size than expected' >&2; exit 1; }\n")
        };
        let script = Script::new().code("umask 077; set -e; : >>").path(self.in_shell(file).as_bytes()).code("\n");
        let script = has_size(script, range.start);
        let script = other.iter().fold(script, |script, other| self.range_of(script, other)).code("{ :\n");
        let script = ingredients.iter().fold(script, |script, ingredient| match ingredient {
            Ingredient::Part(part) => script.code("cat").path(self.in_shell(part).as_bytes()).code("\n"),
            // The decompressor reads its standard input, so it does not depend on the part's name.
            Ingredient::Compressed(part, codec) => {
                script.code(codec.command()).code(" <").path(self.in_shell(part).as_bytes()).code("\n")
            }
            Ingredient::Range(range) => {
                let script = script.code("range ").number(range.start).code(" ");
                script.number(range.end - range.start).code("\n")
            }
        });
        let script = script.code("} >>").path(self.in_shell(file).as_bytes()).code("\n");
        let script = has_size(script, range.end).code("rm -f");
        let script = ingredients.iter().fold(script, |script, ingredient| match ingredient {
            Ingredient::Part(part) | Ingredient::Compressed(part, _) => script.path(self.in_shell(part).as_bytes()),
            Ingredient::Range(_) => script,
        });
        let script = script.code("\n");
        let output = self.run(script, "joining parts", range.end - range.start).await?;
        if output.is_success() {
            return Ok(());
        }
        let kind = ErrorKind::by_words(&output.error_text());
        Err(RemoteError::new(kind, format_args!("joining parts into {file}"), output.error_text()))
    }

    /// Clones the file `from`, which has `bytes` bytes: both files share their blocks on the disk until one of them
    /// changes. Only the owner can read and write the new file. Returns `false`, and leaves no new file, if the vessel
    /// can't clone the file.
    ///
    /// # Errors
    /// When the command could not be run.
    pub async fn clone_file(&self, from: &RemotePath, to: &RemotePath, bytes: u64) -> Result<bool, RemoteError> {
        let (from, to) = (self.in_shell(from), self.in_shell(to));
        let script = Script::new().code("umask 077; cp --reflink=always").path(from.as_bytes()).path(to.as_bytes());
        let script = script.code(" 2>/dev/null && chmod 600").path(to.as_bytes()).code(" && [ \"$(wc -c <");
        let script = script.path(to.as_bytes()).code(")\" -eq ").number(bytes).code(" ] && exit 0\nrm -f");
        let script = script.path(to.as_bytes()).code("\nexit 1\n");
        Ok(self.run(script, "cloning a file", bytes).await?.is_success())
    }

    /// Adds the definition of the shell function `range`, which prints a range of `file`. Its arguments are the offset
    /// and the number of bytes.
    fn range_of(&self, script: Script, file: &RemotePath) -> Script {
        if self.capabilities().dd_ranges {
            let dd = "range() { dd bs=256k iflag=skip_bytes,count_bytes skip=$1 count=$2 2>/dev/null <";
            script.code(dd).path(self.in_shell(file).as_bytes()).code("; }\n")
        } else {
            let script = script.code("range() { tail -c +$(($1 + 1)) <").path(self.in_shell(file).as_bytes());
            script.code(" | head -c $2; }\n")
        }
    }

    /// Sets a file's modification time, in seconds since 1970. Returns `false` if the time could not be set.
    ///
    /// The `touch` of GNU and busybox accepts seconds; the `touch` of the BSDs accepts only a date and time.
    pub async fn touch(&self, path: &RemotePath, seconds: i64) -> Result<bool, RemoteError> {
        let script = Script::new().code("touch -m -d").word(format!("@{seconds}")).path(self.in_shell(path).as_bytes());
        let script =
            script.code(" 2>/dev/null || touch -m -d").word(calendar(seconds)).path(self.in_shell(path).as_bytes());
        let output = self.run(script.code("\n"), "setting a time", 0).await?;
        Ok(output.is_success())
    }

    /// Hashes a file on the vessel. `bytes` is the size of the file.
    pub async fn hash(&self, tool: HashTool, path: &RemotePath, bytes: u64) -> Result<Digest, RemoteError> {
        let script = Script::new().code(tool.command()).code(" <").path(self.in_shell(path).as_bytes()).code("\n");
        self.hashes(script, path, 1, bytes).await.map(|digests| digests[0])
    }

    /// Hashes many files on the vessel, `bytes` bytes in total. The digest of an unreadable file is `None`. First
    /// flushes the file systems of the `flush` paths, if any, and returns whether the flush succeeded.
    ///
    /// One process hashes all files, because starting a process costs more than hashing a small file. Each file is
    /// hashed by its own process if the number of digests differs from the number of files, or if a name contains a
    /// line break: a line of such a name may look like a digest.
    pub async fn hash_many(
        &self,
        tool: HashTool,
        paths: &[&RemotePath],
        bytes: u64,
        flush: &[&RemotePath],
    ) -> Result<(Vec<Option<Digest>>, bool), RemoteError> {
        let digest = |line: &[u8]| {
            // `sha256sum` starts a line with a backslash if it escapes the name of the file.
            let line = line.strip_prefix(b"\\").unwrap_or(line);
            line.get(..64).and_then(Digest::from_hex)
        };
        let words = |script: Script, paths: &[&RemotePath]| {
            paths.iter().fold(script, |script, path| script.path(self.in_shell(path).as_bytes()))
        };
        let mut script = Script::new();
        if !flush.is_empty() {
            script = words(script.code("sync -f"), flush).code(" && echo flushed\n");
        }
        let script = words(script.code(tool.command()), paths).code(" 2>/dev/null\n");
        let output = self.run(script, "hashing on the vessel", bytes).await?;
        let flushed = output.lines().next() == Some(b"flushed");
        let digests: Vec<_> = output.lines().filter_map(digest).map(Some).collect();
        // `openssl` prints names unchanged. If a name contains a line break, one of its lines may look like a digest
        // and hide that a file is missing.
        let has_lines = paths.iter().any(|path| path.as_bytes().contains(&b'\n'));
        if digests.len() == paths.len() && !has_lines {
            return Ok((digests, flushed));
        }
        let mut script = Script::new();
        for path in paths {
            script = script
                .code(tool.command())
                .code(" 2>/dev/null <")
                .path(self.in_shell(path).as_bytes())
                .code(" || echo\n");
        }
        let output = self.run(script, "hashing on the vessel", bytes).await?;
        let digests: Vec<_> = output.lines().take(paths.len()).map(digest).collect();
        if digests.len() == paths.len() {
            return Ok((digests, flushed));
        }
        Err(RemoteError::new(ErrorKind::Failed, "hashing on the vessel", output.error_text()))
    }

    /// Hashes ranges of a file on the vessel, and returns one digest for each range.
    pub async fn hash_ranges(
        &self,
        tool: HashTool,
        path: &RemotePath,
        ranges: &[Range<u64>],
    ) -> Result<Vec<Digest>, RemoteError> {
        let mut script = Script::new();
        for range in ranges {
            script = script.code("tail -c +").number(range.start + 1).code(" <").path(self.in_shell(path).as_bytes());
            script = script.code(" | head -c ").number(range.end - range.start);
            script = script.code(" | ").code(tool.command()).code("\n");
        }
        let bytes = ranges.iter().map(|r| r.end - r.start).sum();
        self.hashes(script, path, ranges.len(), bytes).await
    }

    async fn hashes(
        &self,
        script: Script,
        path: &RemotePath,
        count: usize,
        bytes: u64,
    ) -> Result<Vec<Digest>, RemoteError> {
        let output = self.run(script, "hashing on the vessel", bytes).await?;
        let digests: Vec<Digest> = output.lines().filter_map(|line| Digest::from_hex(line.get(..64)?)).collect();
        if digests.len() == count {
            return Ok(digests);
        }
        Err(RemoteError::new(ErrorKind::Failed, format_args!("hashing {path} on the vessel"), output.error_text()))
    }

    /// Returns the number of hard links of a file on the vessel, as the vessel's `ls` reports it.
    pub async fn links(&self, path: &RemotePath) -> Result<u64, RemoteError> {
        let what = "counting links on the vessel";
        if !self.capabilities().shell {
            return Err(RemoteError::new(ErrorKind::Unsupported, what, "there is no shell"));
        }
        let script = Script::new().code("ls -ldn").path(self.in_shell(path).as_bytes()).code("\n");
        let output = self.run(script, what, 0).await?;
        let text = String::from_utf8_lossy(&output.text).into_owned();
        let links = text.split_whitespace().nth(1).and_then(|links| links.parse().ok());
        links.ok_or_else(|| RemoteError::new(ErrorKind::Failed, what, output.error_text()))
    }

    /// Flushes files or directories to disk: by the command `sync` on a vessel, by system calls on this host.
    pub async fn sync(&self, paths: &[&RemotePath]) -> Result<(), RemoteError> {
        match self.main_channel().files() {
            Files::Disk(disk) => flush_here(disk, paths, false).await,
            Files::Sftp(_) => self.flush_with("sync", paths).await,
        }
    }

    /// Flushes the file systems that the given files or directories are on.
    pub async fn sync_file_systems(&self, paths: &[&RemotePath]) -> Result<(), RemoteError> {
        match self.main_channel().files() {
            Files::Disk(disk) => flush_here(disk, paths, true).await,
            Files::Sftp(_) => self.flush_with("sync -f", paths).await,
        }
    }

    async fn flush_with(&self, command: &'static str, paths: &[&RemotePath]) -> Result<(), RemoteError> {
        let script =
            paths.iter().fold(Script::new().code(command), |script, path| script.path(self.in_shell(path).as_bytes()));
        let output = self.run(script.code("\n"), "flushing", 0).await?;
        if output.is_success() {
            return Ok(());
        }
        Err(RemoteError::new(ErrorKind::Failed, "flushing with sync", output.error_text()))
    }
}

async fn flush_here(disk: &Disk, paths: &[&RemotePath], whole: bool) -> Result<(), RemoteError> {
    let paths = paths.iter().map(|path| path.as_bytes().to_vec()).collect();
    disk.flush(paths, whole).await.map_err(|e| RemoteError::from_sftp(&e, "flushing"))
}
/// Formats a time in UTC so that every `touch -d` accepts it.
fn calendar(seconds: i64) -> String {
    jiff::Timestamp::from_second(seconds).map_or_else(|_| String::new(), |moment| moment.to_string())
}
