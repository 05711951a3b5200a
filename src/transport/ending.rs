//! Completes a file by one script: hash, size, mode, time, flush, rename, and flush of the directory in one round trip.
//! Over SFTP, these steps cost four round trips.
//!
//! Each step depends on the step before it, so a file gets its final name only if it has the expected digest and was
//! flushed. The script continues even if the connection breaks. It must not replace a newer version much later, so
//! after a deadline it does not rename the file and leaves the rename to its caller.

use std::time::{Duration, Instant};

use super::capabilities::HashTool;
use super::error::{ErrorKind, RemoteError};
use super::exec::{Output, Running};
use super::remote::Remote;
use super::shell::Script;
use crate::digest::Digest;
use crate::names::RemotePath;

/// The names of the operations in errors.
const WHAT: &str = "completing a file on the vessel";
const HASHING: &str = "hashing on the vessel";

/// The lines that the hashing script reads. If the script has exited early, the shell reads the lines instead and
/// ignores them, because `:` does nothing.
const MORE: &str = ": more";
const ENOUGH: &str = ": enough";
/// The line that the script reads in place of a digest if it must not publish the file.
const NOTHING: &str = ": nothing";

/// A complete file, and its final name and attributes.
pub struct Ending<'a> {
    /// The temporary name.
    pub assembly: &'a RemotePath,
    /// The final name.
    pub destination: &'a RemotePath,
    /// The number of bytes.
    pub size: u64,
    /// The SHA-256 of the content.
    pub digest: Digest,
    /// The permission bits.
    pub mode: u32,
    /// The modification time in seconds since 1970.
    pub modified: u32,
    /// How long after the request the rename may begin; more than 10 s counts as 10 s. If less than 1 s, the file is
    /// not published.
    pub within: Duration,
}

/// The state of a file after the script.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The file has its final name and is flushed.
    Published,
    /// The content is right, but a later step failed or took too long. The text gives the reason.
    Verified(String),
    /// The content or the size is wrong, or the file can't be read. The text gives the reason.
    Not(String),
}

/// A running hash of a growing file; see [`Remote::hash_as_it_grows`].
pub struct GrowingHash<'a> {
    remote: &'a Remote,
    running: Running<'a>,
    publishes: bool,
    started: Instant,
}

impl GrowingHash<'_> {
    /// Reports that the file has grown. Does not wait until the new bytes are hashed.
    pub async fn grown(&self) -> Result<(), RemoteError> {
        self.running.tell(MORE).await
    }

    /// Returns whether [`GrowingHash::publish`] can be used.
    pub fn publishes(&self) -> bool {
        self.publishes
    }

    /// Returns the digest of the file, which is now `bytes` bytes long.
    pub async fn finish(self, bytes: u64) -> Result<Digest, RemoteError> {
        for line in [MORE, ENOUGH, NOTHING] {
            self.running.tell(line).await?;
        }
        let output = self.running.end(self.remote.deadline(bytes)).await?;
        let digest = output.lines().find_map(|line| Digest::from_hex(line.get(..64)?));
        digest.ok_or_else(|| RemoteError::new(ErrorKind::Failed, HASHING, output.error_text()))
    }

    /// Completes and publishes the file if it has the expected digest. The paths must be those that were passed to
    /// [`Remote::hash_as_it_grows`].
    ///
    /// # Errors
    /// After an error, it is unknown which steps were done.
    pub async fn publish(self, ending: &Ending<'_>) -> Result<Ended, RemoteError> {
        let Ending { digest, mode, modified, within, .. } = ending;
        let latest = match LONGEST.min(*within).as_secs() {
            0 => 0,
            _ => (self.started.elapsed() + LONGEST.min(*within)).as_secs(),
        };
        for line in [MORE, ENOUGH, &format!(": {digest} {mode:o} {modified} {latest}")] {
            self.running.tell(line).await?;
        }
        self.running.end(self.remote.deadline(ending.size)).await.map(|output| ended(&output))
    }
}

/// Adds the steps after the hash. The shell variable `h` holds the hash, `s` the expected hash, `m` the mode, `t` the
/// time. The rename must begin within `e` seconds after the time `b`. `touch -c` sets the time without opening the file
/// for writing.
fn end(script: Script, size: u64, assembly: &RemotePath, destination: &RemotePath) -> Script {
    let directory = destination.parent().unwrap_or_else(|| RemotePath::new(".")).join(".");
    let (assembly, destination) = (assembly.as_bytes(), destination.as_bytes());
    let script = script.code("case $h in \"$s\"*) ;; *) echo 'it has another digest'; exit 3 ;; esac\n");
    let script = script.code("[ \"$(wc -c <").path(assembly).code(")\" -eq ").number(size);
    let script = script.code(" ] || { echo 'it has another size'; exit 3; }\necho verified\n");
    let script = script.code("chmod \"$m\"").path(assembly).code(" && touch -c -d \"@$t\"").path(assembly);
    let script = script.code(" && sync").path(assembly).code(" || exit 4\n");
    let script = script
        .code("[ $(($(date +%s) - b)) -lt \"$e\" ] || { echo 'the time limit for the rename has passed'; exit 5; }\n");
    let script = script.code("mv -fT").path(assembly).path(destination).code(" || exit 6\nsync");
    script.path(directory.as_bytes()).code("\necho published\n")
}

/// Returns a script that hashes a file, completes it and publishes it.
fn whole(tool: HashTool, ending: &Ending<'_>) -> Script {
    let Ending { assembly, destination, size, digest, mode, modified, within } = ending;
    let script =
        Script::new().code("export LC_ALL=C; b=$(date +%s); set --").word(digest.to_string()).word(format!("{mode:o}"));
    let script = script
        .word(modified.to_string())
        .word(LONGEST.min(*within).as_secs().to_string())
        .code("\ns=$1 m=$2 t=$3 e=$4\nh=$(")
        .code(tool.command())
        .code(" <");
    let script = script.path(assembly.as_bytes()).code(") || exit 2\n");
    end(script, *size, assembly, destination)
}

/// Maximum time between the request and the beginning of the rename.
const LONGEST: Duration = Duration::from_secs(10);

fn ended(output: &Output) -> Ended {
    let says = |word: &[u8]| output.lines().any(|line| line == word);
    match (says(b"verified"), says(b"published")) {
        (true, true) => Ended::Published,
        (true, false) => Ended::Verified(output.error_text()),
        (false, _) => Ended::Not(output.error_text()),
    }
}

impl Remote {
    /// Hashes, completes and publishes a file whose bytes have all arrived.
    ///
    /// # Errors
    /// After an error, it is unknown which steps were done.
    pub async fn publish(&self, tool: HashTool, ending: &Ending<'_>) -> Result<Ended, RemoteError> {
        let (assembly, destination) = (&self.in_shell(ending.assembly), &self.in_shell(ending.destination));
        let asked = Instant::now();
        let script = || {
            // The wait for a shell shortens the time limit.
            let within = ending.within.saturating_sub(asked.elapsed());
            whole(tool, &Ending { assembly, destination, within, ..*ending })
        };
        let output = self.shells(WHAT)?.run_timed(script, WHAT, self.deadline(ending.size)).await?;
        Ok(ended(&output))
    }

    /// Starts to hash a file that is still being written, and reads each byte once, so that the digest is available
    /// soon after the last byte. Must only be used for a file that is appended to and not changed otherwise.
    ///
    /// `ending` is the final name and the size, if the file may be published by [`GrowingHash::publish`] at the end.
    pub async fn hash_as_it_grows(
        &self,
        tool: HashTool,
        path: &RemotePath,
        ending: Option<(&RemotePath, u64)>,
    ) -> Result<GrowingHash<'_>, RemoteError> {
        let path = self.in_shell(path);
        // Each `cat` continues where the previous one stopped, and reads up to the current end of the file.
        let script = Script::new()
            .code("export LC_ALL=C; b=$(date +%s); exec 3<")
            .path(path.as_bytes())
            .code(" || exit 1\nh=$(");
        let script = script.code("while read -r word && [ \"$word\" = ': more' ]; do cat <&3; done | ");
        let script = script.code(tool.command()).code(")\nprintf '%s\\n' \"$h\"\n");
        let script = script.code("IFS=' ' read -r word s m t e && [ \"$e\" ] || exit 0\n");
        let script = match ending {
            Some((destination, size)) => end(script, size, &path, &self.in_shell(destination)),
            None => script,
        };
        let running = self.start(script, HASHING).await?;
        // Not before the script was sent: an earlier time would lengthen the time limit of the rename by the wait for a
        // shell.
        Ok(GrowingHash { remote: self, running, publishes: ending.is_some(), started: Instant::now() })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    use std::process::{Command, Stdio};

    use super::*;

    /// Runs the script for a file in a real `sh`. `change` first changes the destination or the expected attributes.
    fn run(name: &str, change: impl FnOnce(&std::path::Path, &mut Ending<'_>)) -> (Ended, tempfile::TempDir) {
        run_begun(name, "$(date +%s)", change)
    }

    /// Runs the script as `run` does, with the shell expression `begun` as its start time.
    fn run_begun(
        name: &str,
        begun: &str,
        change: impl FnOnce(&std::path::Path, &mut Ending<'_>),
    ) -> (Ended, tempfile::TempDir) {
        let root = tempfile::tempdir().unwrap();
        let [temporary, wanted] = [".x.tmp", name].map(|name| root.path().join(name));
        fs::write(&temporary, b"bytes").unwrap();
        let paths = [&temporary, &wanted].map(|path| RemotePath::new(path.as_os_str().as_bytes()));
        let (digest, mode, modified) = (Digest::of(b"bytes"), 0o640, 1_000_000_000);
        let (assembly, destination) = (&paths[0], &paths[1]);
        let mut ending = Ending { assembly, destination, size: 5, digest, mode, modified, within: Duration::MAX };
        change(&wanted, &mut ending);
        let script = whole(HashTool::for_tests(), &ending);
        let mut sh = Command::new("sh").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let script = String::from_utf8(script.into_bytes()).unwrap().replace("b=$(date +%s)", &format!("b={begun}"));
        sh.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
        let text = sh.wait_with_output().unwrap().stdout;
        (ended(&Output { text, ..Output::default() }), root)
    }

    #[test]
    fn a_file_gets_its_name_mode_and_time_whatever_it_is_called() {
        for name in ["plain", "-rf", "two words", "$(id)", "it's", "line\nbreak"] {
            let (ended, root) = run(name, |_, _| {});
            assert_eq!(ended, Ended::Published, "{name:?}");
            let there = fs::metadata(root.path().join(name)).unwrap();
            assert_eq!((there.permissions().mode() & 0o7777, there.mtime()), (0o640, 1_000_000_000), "{name:?}");
            assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1);
        }
    }

    #[test]
    fn what_is_not_as_expected_gets_no_name() {
        let wrong: [fn(&mut Ending<'_>); 2] = [|it| it.digest = Digest::of(b"other"), |it| it.size = 6];
        for wrong in wrong {
            let (ended, root) = run("name", |_, ending| wrong(ending));
            assert!(matches!(ended, Ended::Not(_)), "{ended:?}");
            assert!(!root.path().join("name").exists() && root.path().join(".x.tmp").exists());
        }
    }

    #[test]
    fn a_script_that_comes_to_the_rename_late_leaves_it_to_its_caller() {
        let (ended, root) = run_begun("name", "$(($(date +%s) - 60))", |_, _| {});
        assert_eq!(ended, Ended::Verified("the time limit for the rename has passed".to_owned()));
        assert!(!root.path().join("name").exists() && root.path().join(".x.tmp").exists());
    }

    #[test]
    fn a_script_whose_caller_may_not_wait_for_the_rename_leaves_it_to_the_caller() {
        let (ended, root) =
            run_begun("name", "$(($(date +%s) - 6))", |_, ending| ending.within = Duration::from_secs(4));
        assert_eq!(ended, Ended::Verified("the time limit for the rename has passed".to_owned()));
        assert!(!root.path().join("name").exists() && root.path().join(".x.tmp").exists());
        let (ended, _root) = run("name", |_, ending| ending.within = Duration::from_millis(900));
        assert_eq!(ended, Ended::Verified("the time limit for the rename has passed".to_owned()));
    }

    #[test]
    fn a_file_whose_name_is_taken_by_a_directory_stays_verified() {
        let (ended, root) = run("name", |destination, _| fs::create_dir_all(destination.join("in")).unwrap());
        assert!(matches!(ended, Ended::Verified(_)), "{ended:?}");
        assert!(root.path().join(".x.tmp").exists() && fs::read_dir(root.path().join("name")).unwrap().count() == 1);
    }
}
