//! A vessel: an SSH server of some kind with keys, users and files of its own.
//!
//! Its files lie in `tree/`, which it sees at the path where the shore has its own; a chrooted one sees it as `/`.

use std::fs;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Mutex, MutexGuard};

use super::embedded::Embedded;
use super::namespace::Mounts;
use super::others;
use super::plan::{Kind, VesselPlan};
use super::port::free_port;
use super::proxy::Proxy;
use super::server::{Server, log_tail};

/// The password that every vessel's root has.
pub(crate) const PASSWORD: &str = "seven seas";
/// `openssl passwd -6 'seven seas'`.
const PASSWORD_HASH: &str =
    "$6$rcy8VFo6xlhbTmEv$twDXLMkeNqX1sadg9gGbKd9Zy.rR2MHbsBpuVxbyL4W.Go6yuNFzg8F4DvfGTh5SJxP0lvb887Lnzgi5zqcwM0";

/// Where a chrooted vessel's files are mounted: all directories above a chroot must belong to root alone.
const CHROOT: &str = "/mnt";

/// A vessel, running or not.
pub(crate) struct Vessel {
    plan: VesselPlan,
    /// The vessel's own directory on the test's side.
    home: PathBuf,
    /// Where the shore has its files, which is where the vessel sees its own.
    shore: PathBuf,
    port: u16,
    server: Mutex<Option<Server>>,
    embedded: Option<Embedded>,
    proxy: Option<Proxy>,
}

impl Vessel {
    /// Makes keys, users and directories, and starts the server. `login_key` is the public key that may log in.
    pub(crate) fn launch(plan: VesselPlan, home: PathBuf, shore: PathBuf, login_key: &str) -> Self {
        let mut vessel = Self { plan, home, shore, port: 0, server: Mutex::new(None), embedded: None, proxy: None };
        vessel.fit_out(login_key);
        if let Some(manners) = &vessel.plan.manners {
            let embedded = Embedded::start(manners, vessel.home.join("tree"), login_key);
            vessel.port = embedded.port();
            vessel.embedded = Some(embedded);
            vessel.proxy = vessel.plan.proxied.then(|| Proxy::start(vessel.port));
            return vessel;
        }
        vessel.change_host_key();
        for _ in 0..5 {
            vessel.port = free_port();
            if vessel.try_start() {
                vessel.proxy = vessel.plan.proxied.then(|| Proxy::start(vessel.port));
                return vessel;
            }
        }
        panic!("{} does not start:\n{}", vessel.plan.name, log_tail(&vessel.log()));
    }

    fn fit_out(&self, login_key: &str) {
        let private =
            |path: &str| fs::DirBuilder::new().recursive(true).mode(0o700).create(self.home.join(path)).unwrap();
        private("etc");
        private("home/.ssh");
        fs::create_dir_all(self.home.join("tree/temp")).unwrap();
        fs::set_permissions(self.home.join("tree"), fs::Permissions::from_mode(0o755)).unwrap();
        let write = |path: &str, text: &str| fs::write(self.home.join(path), text).unwrap();
        write("etc/passwd", "root:x:0:0:root:/root:/bin/sh\nsshd:x:102:65534::/run/sshd:/usr/sbin/nologin\n");
        write("etc/shadow", &format!("root:{PASSWORD_HASH}:20000:0:99999:7:::\nsshd:!:20000::::::\n"));
        write("home/.ssh/authorized_keys", if self.plan.takes_key { login_key } else { "" });
        write("etc/sshd_config", &self.sshd_config());
        if self.plan.kind == Kind::ProFtpd {
            let shown =
                run(Command::new("ssh-keygen").args(["-e", "-f"]).arg(self.home.join("home/.ssh/authorized_keys")));
            fs::write(self.home.join("etc/keys.rfc4716"), shown.stdout).unwrap();
        }
        let pam = ["auth", "account", "session"].map(|part| format!("{part} required pam_unix.so\n"));
        write("etc/pam", &pam.concat());
    }

    fn sshd_config(&self) -> String {
        let pam = if self.plan.asks_pam { "UsePAM yes\n" } else { "UsePAM no\n" };
        let common = "StrictModes no\nPidFile none\nUseDNS no\nPermitRootLogin yes\nPasswordAuthentication yes\n\
                      KbdInteractiveAuthentication no\nMaxStartups 100\nLogLevel VERBOSE\n";
        let sftp = match self.plan.kind {
            Kind::SftpOnly => {
                format!("Subsystem sftp internal-sftp\nForceCommand internal-sftp\nChrootDirectory {CHROOT}\n")
            }
            _ => "Subsystem sftp /usr/lib/openssh/sftp-server\n".to_owned(),
        };
        format!("{pam}{common}{sftp}")
    }

    fn mounts(&self) -> Mounts {
        let etc = self.home.join("etc");
        let root = self.root_of_files();
        let mut mounts = Mounts::default()
            .tmpfs("1m", Path::new("/run"))
            .directory(Path::new("/run/sshd"))
            .bind(&self.home.join("home"), Path::new("/root"))
            .bind(&etc.join("passwd"), Path::new("/etc/passwd"))
            .bind(&etc.join("shadow"), Path::new("/etc/shadow"))
            .bind(&self.home.join("tree"), &root);
        if let Some(size) = &self.plan.temp_size {
            mounts = mounts.tmpfs(size, &root.join("temp"));
        }
        if self.plan.asks_pam {
            mounts = mounts.bind(&etc.join("pam"), Path::new("/etc/pam.d/sshd"));
        }
        for directory in &self.plan.read_only {
            mounts = mounts.directory(&root.join(directory)).read_only(&root.join(directory));
        }
        mounts
    }

    /// Where the server sees the tree.
    fn root_of_files(&self) -> PathBuf {
        if self.plan.kind == Kind::SftpOnly { CHROOT.into() } else { self.shore.clone() }
    }

    fn program(&self) -> Vec<String> {
        let etc = |name: &str| self.home.join("etc").join(name).display().to_string();
        let key = etc("host_key");
        let keys = self.home.join("home/.ssh/authorized_keys");
        match self.plan.kind {
            Kind::ProFtpd => {
                let conf = self.home.join("etc/proftpd.conf");
                let text = others::proftpd_config(self.port, Path::new(&key), &self.home.join("etc/keys.rfc4716"));
                fs::write(&conf, text).unwrap();
                return ["proftpd", "-n", "-c", &conf.display().to_string()].map(str::to_owned).to_vec();
            }
            Kind::Rclone(cache) => {
                let (tree, cache_dir) = (self.root_of_files(), self.home.join("cache"));
                return others::rclone(self.port, Path::new(&key), &keys, &tree, cache, &cache_dir);
            }
            _ => {}
        }
        if self.plan.kind == Kind::Dropbear {
            let address = format!("127.0.0.1:{}", self.port);
            return ["dropbear", "-F", "-E", "-r", &key, "-p", &address].map(str::to_owned).to_vec();
        }
        let (config, port) = (etc("sshd_config"), self.port.to_string());
        // The full path: sshd starts itself again for each connection and insists on it.
        let words =
            ["/usr/sbin/sshd", "-D", "-e", "-o", "ListenAddress=127.0.0.1", "-p", &port, "-f", &config, "-h", &key];
        words.map(str::to_owned).to_vec()
    }

    fn try_start(&self) -> bool {
        let server = Server::start(&self.mounts(), &self.program(), self.port, &self.log());
        *self.server() = server;
        self.server().is_some()
    }

    fn server(&self) -> MutexGuard<'_, Option<Server>> {
        self.server.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn log(&self) -> PathBuf {
        self.home.join("log")
    }

    /// Its name in the settings.
    pub(crate) fn name(&self) -> &str {
        &self.plan.name
    }

    /// How it was planned.
    pub(crate) fn plan(&self) -> &VesselPlan {
        &self.plan
    }

    /// Where the shore reaches it.
    pub(crate) fn port(&self) -> u16 {
        self.proxy.as_ref().map_or(self.port, Proxy::port)
    }

    /// The link in front of it.
    pub(crate) fn link(&self) -> &Proxy {
        self.proxy.as_ref().expect("the vessel was planned with `proxied`")
    }

    /// Ends the server, its sessions and what runs in them; a vessel in a tmpfs loses that.
    pub(crate) fn stop(&self) {
        *self.server() = None;
    }

    /// Starts it again: same port, same host key.
    pub(crate) fn start(&self) {
        assert!(self.try_start(), "{} does not start again:\n{}", self.plan.name, log_tail(&self.log()));
    }

    /// Those of its processes that run a program of this name, by number.
    pub(crate) fn processes(&self, name: &str) -> Vec<u32> {
        self.server().as_ref().expect("it runs").processes(name)
    }

    /// Keeps connections open but answers nothing any more.
    pub(crate) fn freeze(&self) {
        self.server().as_ref().expect("it runs").freeze();
    }

    /// Answers again.
    pub(crate) fn thaw(&self) {
        self.server().as_ref().expect("it runs").thaw();
    }

    /// A file of its `etc`, whose place is the same for the server and for the test.
    pub(crate) fn etc(&self, name: &str) -> PathBuf {
        self.home.join("etc").join(name)
    }

    /// Starts it again with these lines in front of its `sshd_config`, where the first line on a matter counts.
    pub(crate) fn configure(&self, lines: &str) {
        let config = self.etc("sshd_config");
        let rest = fs::read_to_string(&config).unwrap();
        fs::write(&config, format!("{lines}\n{rest}")).unwrap();
        self.stop();
        self.start();
    }

    /// Starts it again with some words of its configuration replaced.
    pub(crate) fn replace_in_configuration(&self, words: &str, by: &str) {
        let config = self.etc("sshd_config");
        let text = fs::read_to_string(&config).unwrap();
        assert!(text.contains(words), "{text}");
        fs::write(&config, text.replace(words, by)).unwrap();
        self.stop();
        self.start();
    }

    /// Starts it again with bash as its user's shell, and this as the user's `.bashrc`.
    pub(crate) fn greet_with_bash(&self, bashrc: &str) {
        let passwd = self.etc("passwd");
        let text = fs::read_to_string(&passwd).unwrap().replace(":/bin/sh", ":/bin/bash");
        fs::write(&passwd, text).unwrap();
        fs::write(self.home.join("home/.bashrc"), bashrc).unwrap();
        self.stop();
        self.start();
    }

    /// Lets these public keys log in, and no others.
    pub(crate) fn authorize(&self, keys: &str) {
        fs::write(self.home.join("home/.ssh/authorized_keys"), keys).unwrap();
    }

    /// Makes a new host key; a running server takes it when it is started again.
    pub(crate) fn change_host_key(&self) {
        let key = self.home.join("etc/host_key");
        let _ = fs::remove_file(&key);
        match self.plan.kind {
            Kind::Dropbear => run(Command::new("dropbearkey").args(["-t", "ed25519", "-f"]).arg(&key)),
            _ => run(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&key)),
        };
    }

    /// The line of a `known_hosts` that names its host key.
    pub(crate) fn known_hosts_line(&self) -> String {
        if let Some(embedded) = &self.embedded {
            return format!("[127.0.0.1]:{} {}\n", self.port(), embedded.host_key());
        }
        let key = self.home.join("etc/host_key");
        let shown = match self.plan.kind {
            Kind::Dropbear => run(Command::new("dropbearkey").arg("-y").arg("-f").arg(&key)),
            _ => run(Command::new("ssh-keygen").arg("-y").arg("-f").arg(&key)),
        };
        let shown = String::from_utf8(shown.stdout).unwrap();
        let key = shown.lines().find(|line| line.starts_with("ssh-ed25519 ")).expect("it was made so");
        format!("[127.0.0.1]:{} {key}\n", self.port())
    }

    /// The fingerprint of its host key, as `ssh-keygen -l` shows it.
    pub(crate) fn fingerprint(&self) -> String {
        let file = self.home.join("etc/known_line");
        fs::write(&file, self.known_hosts_line()).unwrap();
        let shown = run(Command::new("ssh-keygen").arg("-lf").arg(&file));
        String::from_utf8(shown.stdout).unwrap().split_whitespace().nth(1).expect("bits, fingerprint, name").to_owned()
    }

    /// Where a path below the tree (`in/name`, `temp/parts`) lies for the test to look at.
    pub(crate) fn path(&self, below: impl AsRef<Path>) -> PathBuf {
        let own_mount = self.plan.temp_size.is_some() && below.as_ref().starts_with("temp");
        match self.server().as_ref() {
            Some(server) if own_mount => server.seen(&self.root_of_files().join(below)),
            _ => self.home.join("tree").join(below),
        }
    }

    fn is_sftp_rooted(&self) -> bool {
        self.plan.manners.as_ref().is_some_and(|manners| manners.rooted)
    }

    /// What the settings call a path below the tree.
    pub(crate) fn remote(&self, below: &str) -> String {
        let root = match self.plan.kind {
            Kind::SftpOnly | Kind::Rclone(_) => "/".into(),
            Kind::Embedded if self.is_sftp_rooted() => "/".into(),
            Kind::Embedded => self.home.join("tree"),
            _ => self.shore.clone(),
        };
        root.join(below).display().to_string()
    }
}

impl Drop for Vessel {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("--- vessel {}: end of the server's log\n{}", self.plan.name, log_tail(&self.log()));
        }
    }
}

#[track_caller]
fn run(command: &mut Command) -> Output {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}
