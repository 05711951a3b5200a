//! The plan of a fleet: which vessels, which directories, which settings. A test writes it in one sentence.

use super::Fleet;
use super::embedded::Manners;

/// What kind of server a vessel runs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// OpenSSH with a shell and `sftp-server`.
    OpenSsh,
    /// Dropbear with a shell and OpenSSH's `sftp-server`.
    Dropbear,
    /// OpenSSH, chrooted, with nothing but `internal-sftp`.
    SftpOnly,
    /// ProFTPD with mod_sftp: no shell.
    ProFtpd,
    /// `rclone serve sftp` with this kind of cache (`off`, `writes`): no shell.
    Rclone(&'static str),
    /// An embedded vessel, in the test's own process.
    Embedded,
}

/// One vessel.
pub(crate) struct VesselPlan {
    pub(crate) name: String,
    pub(crate) kind: Kind,
    /// Lines of its section in the settings.
    pub(crate) keys: Vec<(String, String)>,
    /// Whether the shore's key may log in.
    pub(crate) takes_key: bool,
    /// Whether `known_hosts` names its host key.
    pub(crate) known: bool,
    /// Whether it is reached through a link that counts and can be slowed down.
    pub(crate) proxied: bool,
    /// The size of a file system of its own for TempDir.
    pub(crate) temp_size: Option<String>,
    /// Whether it asks PAM, with a configuration of its own.
    pub(crate) asks_pam: bool,
    /// Directories it can't write to.
    pub(crate) read_only: Vec<String>,
    /// How it behaves, of an embedded one.
    pub(crate) manners: Option<Manners>,
}

/// One `[Directory x]`.
pub(crate) struct DirectoryPlan {
    pub(crate) name: String,
    pub(crate) keys: Vec<(String, String)>,
}

/// The plan; [`start`](FleetPlan::start) makes it real.
///
/// Methods that change something change the vessel or the directory named last.
#[derive(Default)]
pub(crate) struct FleetPlan {
    pub(crate) monster: Vec<(String, String)>,
    pub(crate) directories: Vec<DirectoryPlan>,
    pub(crate) vessels: Vec<VesselPlan>,
    last_is_directory: bool,
}

impl FleetPlan {
    /// Adds a vessel with OpenSSH.
    pub(crate) fn openssh(self, name: &str) -> Self {
        self.vessel(name, Kind::OpenSsh)
    }

    /// Adds a vessel with Dropbear.
    pub(crate) fn dropbear(self, name: &str) -> Self {
        self.vessel(name, Kind::Dropbear)
    }

    /// Adds a vessel without a shell.
    pub(crate) fn sftp_only(self, name: &str) -> Self {
        self.vessel(name, Kind::SftpOnly)
    }

    /// Adds a vessel with ProFTPD.
    pub(crate) fn proftpd(self, name: &str) -> Self {
        self.vessel(name, Kind::ProFtpd)
    }

    /// Adds a vessel with `rclone serve sftp` and this kind of cache: `off`, `writes`.
    pub(crate) fn rclone(self, name: &str, cache: &'static str) -> Self {
        self.vessel(name, Kind::Rclone(cache))
    }

    /// Adds an embedded vessel that behaves so.
    pub(crate) fn embedded(self, name: &str, manners: Manners) -> Self {
        let mut plan = self.vessel(name, Kind::Embedded);
        plan.last().manners = Some(manners);
        plan
    }

    /// Adds a vessel of any kind.
    pub(crate) fn vessel(mut self, name: &str, kind: Kind) -> Self {
        self.vessels.push(VesselPlan {
            name: name.to_owned(),
            kind,
            keys: Vec::new(),
            takes_key: true,
            known: true,
            proxied: false,
            temp_size: None,
            asks_pam: false,
            read_only: Vec::new(),
            manners: None,
        });
        self.last_is_directory = false;
        self
    }

    /// Adds a directory, beside the `in` that every fleet has.
    pub(crate) fn directory(mut self, name: &str) -> Self {
        self.directories.push(DirectoryPlan { name: name.to_owned(), keys: Vec::new() });
        self.last_is_directory = true;
        self
    }

    /// A line in the section of the vessel or directory named last.
    pub(crate) fn key(mut self, key: &str, value: &str) -> Self {
        let keys = if self.last_is_directory {
            &mut self.directories.last_mut().expect("a directory was named").keys
        } else {
            &mut self.last().keys
        };
        keys.push((key.to_owned(), value.to_owned()));
        self
    }

    /// A line in `[MONSTER]`.
    pub(crate) fn monster(mut self, key: &str, value: &str) -> Self {
        self.monster.push((key.to_owned(), value.to_owned()));
        self
    }

    /// The vessel does not take the shore's key, only the password.
    pub(crate) fn without_key(mut self) -> Self {
        self.last().takes_key = false;
        self
    }

    /// `known_hosts` does not name the vessel.
    pub(crate) fn unknown(mut self) -> Self {
        self.last().known = false;
        self
    }

    /// The vessel is reached through a [`Proxy`](super::proxy::Proxy).
    pub(crate) fn proxied(mut self) -> Self {
        self.last().proxied = true;
        self
    }

    /// The vessel's TempDir lies on a file system of its own, of this size (`8m`).
    pub(crate) fn temp_on_tmpfs(mut self, size: &str) -> Self {
        self.last().temp_size = Some(size.to_owned());
        self
    }

    /// The vessel has PAM check passwords.
    pub(crate) fn asks_pam(mut self) -> Self {
        self.last().asks_pam = true;
        self
    }

    /// The vessel can't write where this directory's files go.
    pub(crate) fn read_only(mut self, directory: &str) -> Self {
        self.last().read_only.push(directory.to_owned());
        self
    }

    fn last(&mut self) -> &mut VesselPlan {
        self.vessels.last_mut().expect("a vessel was named")
    }

    /// Starts all servers. `None`, said aloud, where the machine does not allow it.
    pub(crate) fn start(mut self) -> Option<Fleet> {
        if !self.directories.iter().any(|directory| directory.name == "in") {
            self.directories.insert(0, DirectoryPlan { name: "in".to_owned(), keys: Vec::new() });
        }
        super::process::can_mount().then(|| Fleet::launch(self))
    }
}
