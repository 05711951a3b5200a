//! Finds the remains of an unfinished file by one command. Over SFTP, this takes up to eight round trips: status of the
//! assembly and of its directory, listing of TempDir, owner of new files, number of links.

use bytes::Bytes;

use super::error::{ErrorKind, RemoteError};
use super::remote::Remote;
use super::shell::Script;
use crate::names::RemotePath;

/// The name of the operation in errors.
const WHAT: &str = "looking for an unfinished file on the vessel";

/// The attributes of a path that `ls -ldn` prints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Whether the path is a regular file.
    pub is_file: bool,
    /// The permission bits.
    pub mode: u32,
    /// The number of hard links.
    pub links: u64,
    /// The user id of the owner.
    pub owner: u32,
    /// The size in bytes.
    pub size: u64,
}

/// The remains of an unfinished file on a vessel.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Leftovers {
    /// The assembly (the unfinished file under its temporary name); `None` if there is none.
    pub assembly: Option<Listed>,
    /// The directory of the assembly, with links resolved.
    pub directory: Option<Listed>,
    /// The user id of the owner that new files in that directory get.
    pub us: Option<u32>,
    /// The names of the parts in TempDir, and their sizes in bytes.
    pub parts: Vec<(Bytes, u64)>,
}

impl Remote {
    /// Queries the assembly, its directory, and the files in `temp_dir` whose names begin with `prefix`. To find the
    /// owner of new files, creates the file `probe` beside the assembly and removes it again.
    ///
    /// # Errors
    /// Among others when the vessel's `ls` prints its lines in an unexpected format.
    pub async fn find_leftovers(
        &self,
        assembly: &RemotePath,
        probe: &RemotePath,
        temp_dir: &RemotePath,
        prefix: &str,
    ) -> Result<Leftovers, RemoteError> {
        let above = assembly.parent().unwrap_or_else(|| RemotePath::new(".")).join(".");
        let (directory, assembly) = (self.in_shell(&above), self.in_shell(assembly));
        let (probe, temp_dir) = (self.in_shell(probe), self.in_shell(temp_dir));
        let (assembly, probe) = (assembly.as_bytes(), probe.as_bytes());
        let script = Script::new().code("export LC_ALL=C; exec 2>/dev/null; umask 077; set -C\nls -ldn").path(assembly);
        let script = script.code(" || { [ -e").path(assembly).code(" ] && echo unknown; }\necho =\nls -ldnL");
        let script = script.path(directory.as_bytes()).code("\necho =\nrm -f").path(probe).code("; true >").path(probe);
        let script = script.code(" && ls -ldn").path(probe).code("; rm -f").path(probe).code("\necho =\n");
        let script = script.code("cd").path(temp_dir.as_bytes()).code(" && ls -ldn").word(prefix).code("*; echo =\n");
        let output = self.run(script, WHAT, 0).await?;
        parse(&output.text).ok_or_else(|| RemoteError::new(ErrorKind::Failed, WHAT, output.error_text()))
    }
}

fn parse(output: &[u8]) -> Option<Leftovers> {
    let mut leftovers = Leftovers::default();
    let mut section = 0;
    for line in output.split(|byte| *byte == b'\n') {
        match (section, line) {
            (_, b"=") => section += 1,
            (_, b"") => {}
            (0, line) if leftovers.assembly.is_none() => leftovers.assembly = Some(listed(line)?.0),
            (1, line) if leftovers.directory.is_none() => leftovers.directory = Some(listed(line)?.0),
            (2, line) if leftovers.us.is_none() => leftovers.us = Some(listed(line)?.0.owner),
            (3, line) => {
                let (file, name) = listed(line)?;
                if file.is_file {
                    leftovers.parts.push((Bytes::copy_from_slice(name), file.size));
                }
            }
            // A further line of a name with a line break is ignored.
            _ => {}
        }
    }
    (section == 4).then_some(leftovers)
}

/// Parses a line of `ls -ldn`. Also returns the last word of the line: the end of the name.
fn listed(line: &[u8]) -> Option<(Listed, &[u8])> {
    let mut words = line.split(|byte| *byte == b' ').filter(|word| !word.is_empty());
    let number = |word: Option<&[u8]>| std::str::from_utf8(word?).ok()?.parse::<u64>().ok();
    let kind_and_mode = words.next()?;
    let (links, owner, _group, size) = (number(words.next())?, number(words.next())?, words.next()?, words.next()?);
    let (kind, mode) = (*kind_and_mode.first()?, mode(kind_and_mode.get(1..10)?)?);
    let owner = u32::try_from(owner).ok()?;
    // For a device, `ls` prints two device numbers in place of the size.
    let size = number(Some(size)).unwrap_or_default();
    Some((Listed { is_file: kind == b'-', mode, links, owner, size }, words.next_back()?))
}

/// Converts the nine letters that `ls` prints, such as `rwxr-x---`, to permission bits.
fn mode(letters: &[u8]) -> Option<u32> {
    let mut mode = 0;
    for (index, letter) in letters.iter().enumerate() {
        let bit = 1 << (8 - index);
        let special = 0o1000 << (2 - index / 3);
        mode |= match (index % 3, letter) {
            (_, b'-') => 0,
            (0, b'r') | (1, b'w') | (2, b'x') => bit,
            (2, b's' | b't') => bit | special,
            (2, b'S' | b'T') => special,
            _ => return None,
        };
    }
    Some(mode)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ls_prints_is_understood() {
        let leftovers = parse(
            b"-rw-r-----+ 1 1000 1000 70000 Nov 29 00:00 /a dir/.x.tmp\n=\ndrwxrwsr-t    2 0 0 4096 Nov 29  2025 /a dir/.\n=\n\
              -rw------- 1 7 7 0 Nov 29 00:00 .p\n=\n-rw------- 1 7 7 123 Nov 29 00:00 0a-12.0.part\n\
              prw------- 1 7 7 5 Nov 29 00:00 0a-12.9.part\n=\n",
        )
        .unwrap();
        let file = Listed { is_file: true, mode: 0o640, links: 1, owner: 1000, size: 70_000 };
        let directory = Listed { is_file: false, mode: 0o3775, links: 2, owner: 0, size: 4096 };
        assert_eq!((leftovers.assembly, leftovers.directory, leftovers.us), (Some(file), Some(directory), Some(7)));
        assert_eq!(leftovers.parts, [(Bytes::from_static(b"0a-12.0.part"), 123)]);
    }

    #[test]
    fn nothing_is_found_where_there_is_nothing_and_nothing_is_guessed() {
        assert_eq!(parse(b"=\n=\n=\n=\n"), Some(Leftovers::default()));
        for output in [&b""[..], b"=\n=\n=\n", b"unknown\n=\n=\n=\n=\n", b"-rw------- ? 0 0 5 x\n=\n=\n=\n=\n"] {
            assert_eq!(parse(output), None, "{}", output.escape_ascii());
        }
    }
}
