//! Sees every rename on a vessel before it happens: what gets a final name must be one of the versions that ever were.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use contentmonster::digest::Digest;
use contentmonster::embedded_vessel::{Faults, InjectedFault, Request};

use super::policy::rename_of;

/// The digests of all versions that a shore ever had.
pub(crate) type Versions = Arc<Mutex<HashSet<Digest>>>;

/// Lets a policy decide, and remembers what it saw.
#[derive(Debug)]
pub(crate) struct Witness {
    policy: Arc<dyn Faults>,
    versions: Versions,
    published: Mutex<HashSet<Digest>>,
    wrongs: Mutex<Vec<String>>,
    /// What the vessel's `mv` notes: the digest of each file that the shell gives a final name, right before.
    moved: PathBuf,
}

/// Returns whether a path has the name of an assembly, which nobody but the program looks at.
fn is_assembly(path: &[u8]) -> bool {
    let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    name.starts_with(b".contentmonster-") && name.ends_with(b".tmp")
}

/// An `mv` for the vessel's shell that notes what it moves. `$1` is `-fT` where the program publishes a file.
fn install_mv(programs: &Path) -> PathBuf {
    let (mv, moved) = (programs.join("mv"), programs.join("moved"));
    std::fs::create_dir_all(programs).unwrap();
    let note = format!("sha256sum <\"$2\" >>'{}'", moved.display());
    let script = format!("#!/bin/sh\n[ \"$1\" != -fT ] || {note} || exit 1\nexec /bin/mv \"$@\"\n");
    std::fs::write(&mv, script).unwrap();
    std::fs::set_permissions(&mv, std::fs::Permissions::from_mode(0o755)).unwrap();
    moved
}

impl Witness {
    /// `programs` is where the vessel's shell finds its `mv`.
    pub(crate) fn new(policy: Arc<dyn Faults>, versions: Versions, programs: &Path) -> Self {
        let moved = install_mv(programs);
        Self { policy, versions, published: Mutex::default(), wrongs: Mutex::default(), moved }
    }

    /// The digests of what the vessel's shell gave a final name.
    fn moved(&self) -> HashSet<Digest> {
        let text = std::fs::read_to_string(&self.moved).unwrap_or_default();
        text.lines().filter_map(|line| Digest::from_hex(line.get(..64)?.as_bytes())).collect()
    }

    /// What must never have happened, and did.
    pub(crate) fn wrongs(&self) -> Vec<String> {
        let versions = self.versions.lock().unwrap().clone();
        let moved = self.moved().into_iter().filter(|digest| !versions.contains(digest));
        let moved = moved.map(|digest| format!("the shell published what was no version ever ({digest})"));
        self.wrongs.lock().unwrap().iter().cloned().chain(moved).collect()
    }

    /// Whether bytes with this digest ever got a final name.
    pub(crate) fn has_published(&self, digest: &Digest) -> bool {
        self.published.lock().unwrap().contains(digest) || self.moved().contains(digest)
    }

    fn look_at_rename(&self, from: &[u8], to: &[u8]) {
        // A process that takes the ledger over renames the assemblies of the one before it.
        if is_assembly(from) && is_assembly(to) {
            return;
        }
        let from = Path::new(OsStr::from_bytes(from));
        // One that isn't there can't be renamed either.
        let Ok(bytes) = std::fs::read(from) else { return };
        let digest = Digest::of(&bytes);
        if self.versions.lock().unwrap().contains(&digest) {
            self.published.lock().unwrap().insert(digest);
        } else {
            let to = String::from_utf8_lossy(to).into_owned();
            self.wrongs.lock().unwrap().push(format!("{to} became {} bytes that were no version ever", bytes.len()));
        }
    }
}

impl Faults for Witness {
    fn decide(&self, request: Request<'_>) -> InjectedFault {
        let fault = self.policy.decide(request);
        let served = !matches!(fault, InjectedFault::Answer(_) | InjectedFault::CutBefore | InjectedFault::Stall);
        if let (true, Request::Packet(packet)) = (served, request)
            && let Some((from, to)) = rename_of(packet)
        {
            self.look_at_rename(&from, &to);
        }
        fault
    }
}
