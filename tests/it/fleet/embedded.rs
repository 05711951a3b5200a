//! An embedded vessel as one of a fleet: it runs in the test's own process, and sees the host as it is.

use std::sync::Arc;

use contentmonster::embedded_vessel::{EmbeddedVessel, Faults, Options, Quirks};
use russh::keys::PublicKey;
use tokio::runtime::Runtime;

use super::vessel::PASSWORD;

/// How it behaves.
#[derive(Clone)]
pub(crate) struct Manners {
    pub(crate) faults: Arc<dyn Faults>,
    pub(crate) quirks: Quirks,
    /// Whether commands are run.
    pub(crate) shell: bool,
    /// Whether SFTP sees the vessel's tree as `/`, and commands the whole host.
    pub(crate) rooted: bool,
}

/// One that runs; ends when it is dropped.
pub(super) struct Embedded {
    vessel: Option<EmbeddedVessel>,
    runtime: Runtime,
}

impl Embedded {
    pub(super) fn start(manners: &Manners, home: std::path::PathBuf, login_key: &str) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let sftp_root = manners.rooted.then(|| home.clone());
        let options = Options {
            user: "root".into(),
            password: Some(PASSWORD.into()),
            authorized_key: Some(PublicKey::from_openssh(login_key).unwrap()),
            exec: manners.shell,
            home,
            faults: Some(manners.faults.clone()),
            quirks: Quirks { sftp_root, ..manners.quirks.clone() },
        };
        let vessel = {
            let _inside = runtime.enter();
            EmbeddedVessel::start(options).unwrap()
        };
        Self { vessel: Some(vessel), runtime }
    }

    fn vessel(&self) -> &EmbeddedVessel {
        self.vessel.as_ref().expect("it ends with this")
    }

    pub(super) fn port(&self) -> u16 {
        self.vessel().address().port()
    }

    /// Its host key, as `known_hosts` has it.
    pub(super) fn host_key(&self) -> String {
        self.vessel().host_key().to_openssh().unwrap()
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        if let Some(vessel) = self.vessel.take() {
            self.runtime.block_on(vessel.shutdown());
        }
    }
}
