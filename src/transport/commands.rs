//! What is done on the vessel by its own programs: joining parts, hashing, flushing.

use std::ops::Range;

use super::capabilities::HashTool;
use super::error::{ErrorKind, RemoteError};
use super::remote::Remote;
use super::shell::Script;
use crate::digest::Digest;
use crate::names::RemotePath;

impl Remote {
    /// Appends parts to a file with `cat`, in this order, and removes them; `from..to` is the range of the file that they
    /// are. The file is made when it is missing, readable by its owner only.
    ///
    /// # Errors
    /// Among others when the file is not of the size `from` before, or not of the size `to` afterwards: then somebody else
    /// writes to it, such as a `cat` of an earlier session that nobody has told of its end. The file may hold some of the
    /// parts; its size tells which.
    pub async fn append(&self, parts: &[RemotePath], file: &RemotePath, range: Range<u64>) -> Result<(), RemoteError> {
        let words = |script: Script| parts.iter().fold(script, |script, part| script.path(part.as_bytes()));
        let has_size = |script: Script, size: u64| {
            let script = script.code(" [ \"$(wc -c <").path(file.as_bytes()).code(")\" -eq ").number(size);
            script.code(" ] || { echo 'it has another size than expected' >&2; exit 1; }\n")
        };
        let script = Script::new().code("umask 077; set -e; : >>").path(file.as_bytes()).code("\n");
        let script = words(has_size(script, range.start).code("cat")).code(" >>").path(file.as_bytes()).code("\n");
        let script = words(has_size(script, range.end).code("rm -f")).code("\n");
        let output = self.run(script, "joining parts", range.end - range.start).await?;
        if output.is_success() {
            return Ok(());
        }
        Err(RemoteError::new(ErrorKind::Failed, format_args!("joining parts into {file}"), output.complaint()))
    }

    /// Hashes a file on the vessel; `bytes` is its size.
    pub async fn hash(&self, tool: HashTool, path: &RemotePath, bytes: u64) -> Result<Digest, RemoteError> {
        let script = Script::new().code(tool.command()).code(" <").path(path.as_bytes()).code("\n");
        self.hashes(script, path, 1, bytes).await.map(|digests| digests[0])
    }

    /// Hashes many files on the vessel, `bytes` in all; `None` for each that can't be read.
    ///
    /// One process hashes them all, for starting one costs more than hashing a small file. Where that gives another number
    /// of digests than files (one is missing, or a name holds a line that looks like a digest), each has its own.
    pub async fn hash_many(
        &self,
        tool: HashTool,
        paths: &[RemotePath],
        bytes: u64,
    ) -> Result<Vec<Option<Digest>>, RemoteError> {
        let digest = |line: &[u8]| {
            // `sha256sum` puts a backslash before the line of a name that it escapes.
            let line = line.strip_prefix(b"\\").unwrap_or(line);
            line.get(..64).and_then(Digest::from_hex)
        };
        let script = paths.iter().fold(Script::new().code(tool.command()), |script, path| script.path(path.as_bytes()));
        let output = self.run(script.code(" 2>/dev/null\n"), "hashing on the vessel", bytes).await?;
        let digests: Vec<_> = output.lines().filter_map(digest).map(Some).collect();
        if digests.len() == paths.len() {
            return Ok(digests);
        }
        let mut script = Script::new();
        for path in paths {
            script = script.code(tool.command()).code(" 2>/dev/null <").path(path.as_bytes()).code(" || echo\n");
        }
        let output = self.run(script, "hashing on the vessel", bytes).await?;
        let digests: Vec<_> = output.lines().take(paths.len()).map(digest).collect();
        if digests.len() == paths.len() {
            return Ok(digests);
        }
        Err(RemoteError::new(ErrorKind::Failed, "hashing on the vessel", output.complaint()))
    }

    /// Hashes ranges of a file on the vessel, one digest each.
    pub async fn hash_ranges(
        &self,
        tool: HashTool,
        path: &RemotePath,
        ranges: &[Range<u64>],
    ) -> Result<Vec<Digest>, RemoteError> {
        let mut script = Script::new();
        for range in ranges {
            script = script.code("tail -c +").number(range.start + 1).code(" <").path(path.as_bytes());
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
        Err(RemoteError::new(ErrorKind::Failed, format_args!("hashing {path} on the vessel"), output.complaint()))
    }

    /// Flushes files or directories to the vessel's disk with `sync`.
    pub async fn sync(&self, paths: &[&RemotePath]) -> Result<(), RemoteError> {
        let script = paths.iter().fold(Script::new().code("sync"), |script, path| script.path(path.as_bytes()));
        let output = self.run(script.code("\n"), "flushing", 0).await?;
        if output.is_success() {
            return Ok(());
        }
        Err(RemoteError::new(ErrorKind::Failed, "flushing with sync", output.complaint()))
    }
}
