//! Determines where the vessel's shell finds SFTP's files.
//!
//! SFTP creates a probe file with random content, and the shell searches for the file below some directories that may
//! be SFTP's root. If the shell does not find the file, SFTP and the shell do not show the same files.

use std::borrow::Cow;

use bytes::Bytes;

use super::error::RemoteError;
use super::exec::Shells;
use super::known;
use super::remote::Remote;
use super::sftp::OpenFlags;
use super::shell::Script;
use super::tree::Tree;
use crate::names::RemotePath;

impl Remote {
    /// Returns the shell's path of the file that has the path `path` in SFTP.
    pub(super) fn in_shell<'a>(&self, path: &'a RemotePath) -> Cow<'a, RemotePath> {
        match &self.capabilities().tree {
            None => Cow::Borrowed(path),
            Some(tree) => Cow::Owned(tree.in_shell(path)),
        }
    }

    /// Determines where the shell finds SFTP's files, by means of a temporary probe file. Returns `None` if the shell
    /// does not find the file, or if no file can be created. `places` are the directories in which the file may be
    /// created.
    pub(super) async fn find_tree(&self, shells: &Shells, places: &[RemotePath]) -> Result<Option<Tree>, RemoteError> {
        let home = self.real_path(&RemotePath::new(".")).await?;
        let absolute = |place: &RemotePath| match place.as_bytes() {
            b"." => home.clone(),
            [b'/', ..] => place.clone(),
            below => home.join(below),
        };
        let words = format!("contentmonster-{:016x}", fastrand::u64(..));
        for place in places {
            let probe = absolute(place).join(format!(".{words}.probe"));
            match self.make_probe(&probe, &words).await {
                Err(e) if e.is_connection() => return Err(e),
                Err(e) => {
                    tracing::debug!("Cannot create the probe file that maps SFTP paths to shell paths: {e}");
                    continue;
                }
                Ok(()) => {}
            }
            let script = search(&home, &probe, &words);
            let found = shells.run_now(script, "finding SFTP's files in the shell", known::DEADLINE).await;
            self.remove(&probe).await?;
            let found = found?;
            let said = |word: &[u8]| found.lines().find_map(|line| line.strip_prefix(word).map(<[u8]>::to_vec));
            let (root, shell_home) = (said(b"root "), RemotePath::new(said(b"home ").unwrap_or_default()));
            return Ok(root.map(|root| Tree { root, home, shell_home }));
        }
        Ok(None)
    }

    async fn make_probe(&self, probe: &RemotePath, words: &str) -> Result<(), RemoteError> {
        let file = self.open(probe, OpenFlags::NEW, 0o600).await?;
        file.send(0, Bytes::from(words.to_owned())).await?.taken().await?;
        file.close().await
    }
}

/// Returns a script that searches for the probe file below the possible roots of SFTP: the root of the shell, the
/// shell's login directory (whole, or without SFTP's login directory at its end), and the volumes of a NAS.
fn search(home: &RemotePath, probe: &RemotePath, words: &str) -> Script {
    let script =
        Script::new().code("h=$(pwd -P); s=").code("$(printf %s").word(home.as_bytes()).code("); f=$(printf %s");
    let script =
        script.word(probe.as_bytes()).code("); w=$(printf %s").word(words).code("); printf 'home %s\\n' \"$h\"\n");
    let script = script.code("case $h in *\"$s\") p=${h%\"$s\"};; *) p=;; esac\n");
    let script = script.code("for r in '' \"$p\" \"$h\" \"$HOME\" /volume[0-9]*; do\n");
    let script =
        script.code("if [ \"$(cat \"$r$f\" 2>/dev/null)\" = \"$w\" ]; then printf 'root %s\\n' \"$r\"; break; fi\n");
    script.code("done\n")
}
