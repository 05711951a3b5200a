//! Sees every rename on a vessel before it happens: what gets a final name must be one of the versions that ever were.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
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
}

impl Witness {
    pub(crate) fn new(policy: Arc<dyn Faults>, versions: Versions) -> Self {
        Self { policy, versions, published: Mutex::default(), wrongs: Mutex::default() }
    }

    /// What must never have happened, and did.
    pub(crate) fn wrongs(&self) -> Vec<String> {
        self.wrongs.lock().unwrap().clone()
    }

    /// Whether bytes with this digest ever got a final name.
    pub(crate) fn has_published(&self, digest: &Digest) -> bool {
        self.published.lock().unwrap().contains(digest)
    }

    fn look_at_rename(&self, from: &[u8], to: &[u8]) {
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
