//! The vessel: an SSH server with keys of its own, as a distribution would run it, on the far end of the link.

use std::fs;
use std::io::Read;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use crate::Result;
use crate::freight::at;
use crate::link::Shore;
use crate::stop::Stop;
use crate::watch::{Running, tail};

/// Which server.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    OpenSsh,
    Dropbear,
}

impl Kind {
    /// Where the server's program is, if it is installed.
    pub(crate) fn program(self) -> Option<PathBuf> {
        let name = if self == Self::Dropbear { "dropbear" } else { "sshd" };
        ["/usr/sbin", "/usr/local/sbin", "/sbin", "/usr/bin"]
            .iter()
            .map(|at| Path::new(at).join(name))
            .find(|p| p.exists())
    }
}

/// A running server, and what a client needs to log in.
pub(crate) struct Vessel {
    server: Option<Running>,
    home: PathBuf,
    pub(crate) address: String,
    pub(crate) port: u16,
    pub(crate) user: String,
    /// The fingerprint of its host key, `SHA256:…`.
    pub(crate) fingerprint: String,
}

impl Vessel {
    /// Makes keys and configuration in `home`, which becomes the clients' `HOME` too, starts the server, and logs in once.
    pub(crate) fn launch(kind: Kind, home: &Path, shore: &Shore, stop: &Stop) -> Result<Self> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(home.join(".ssh")).map_err(at(home))?;
        let mut vessel = Self {
            server: None,
            home: home.to_owned(),
            address: shore.address.clone(),
            port: 0,
            user: said("id", &["-un"])?,
            fingerprint: String::new(),
        };
        let host_key = vessel.make_keys(kind)?;
        for _ in 0..5 {
            vessel.port = free_port()?;
            vessel.configure(&host_key)?;
            let server = Running::start(vessel.command(kind, shore)?, &vessel.log())?;
            if vessel.greets(&server, stop)? {
                vessel.server = Some(server);
                vessel.try_login()?;
                return Ok(vessel);
            }
        }
        Err(format!("the SSH server does not start: {}", tail(&vessel.log(), 5)))
    }

    /// Makes the user's key and the host key; returns the public host key's algorithm and value.
    fn make_keys(&mut self, kind: Kind) -> Result<String> {
        let (identity, host) = (self.identity(), self.home.join("host_key"));
        let keygen = |file: &Path| {
            let _ = fs::remove_file(file);
            output(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(file))
        };
        keygen(&identity)?;
        fs::copy(identity.with_extension("pub"), self.home.join(".ssh/authorized_keys")).map_err(at(&self.home))?;
        let shown = if kind == Kind::Dropbear {
            output(Command::new("dropbearkey").args(["-t", "ed25519", "-f"]).arg(&host))?;
            output(Command::new("dropbearkey").arg("-y").arg("-f").arg(&host))?
        } else {
            keygen(&host)?;
            output(Command::new("ssh-keygen").arg("-y").arg("-f").arg(&host))?
        };
        let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
        let line = shown.lines().find(|line| line.starts_with("ssh-")).ok_or("no public host key was shown")?;
        let public = self.home.join("host_key.line");
        fs::write(&public, line).map_err(at(&public))?;
        let shown = output(Command::new("ssh-keygen").arg("-lf").arg(&public))?;
        let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
        self.fingerprint = shown.split_whitespace().nth(1).ok_or("no fingerprint was shown")?.to_owned();
        Ok(line.split_whitespace().take(2).collect::<Vec<_>>().join(" "))
    }

    /// Writes what depends on the port: the server's configuration and the clients'.
    fn configure(&self, host_key: &str) -> Result<()> {
        let (address, port, home) = (&self.address, self.port, self.home.display());
        let sftp = ["/usr/lib/openssh/sftp-server", "/usr/libexec/openssh/sftp-server", "/usr/lib/ssh/sftp-server"];
        let sftp = sftp.into_iter().find(|path| Path::new(path).exists()).unwrap_or("internal-sftp");
        // What is not said here is at its default, MaxStartups and MaxSessions above all.
        let server = format!(
            "ListenAddress {address}\nPort {port}\nHostKey {home}/host_key\nAuthorizedKeysFile {home}/.ssh/authorized_keys\n\
             StrictModes no\nPidFile none\nUsePAM no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n\
             Subsystem sftp {sftp}\n"
        );
        let client = format!(
            "Host *\n  Port {port}\n  User {}\n  IdentityFile {}\n  IdentitiesOnly yes\n  BatchMode yes\n  \
             UserKnownHostsFile {home}/known_hosts\n  GlobalKnownHostsFile /dev/null\n  StrictHostKeyChecking yes\n  \
             LogLevel ERROR\n",
            self.user,
            self.identity().display(),
        );
        let known = format!("[{address}]:{port} {host_key}\n");
        for (file, text) in [("sshd_config", server), ("ssh_config", client), ("known_hosts", known)] {
            fs::write(self.home.join(file), text).map_err(at(&self.home))?;
        }
        Ok(())
    }

    /// The server's command: in the vessel's network namespace, and in a mount namespace where it needs other files than
    /// the machine has. Each of these programs replaces itself by the next, so the process is the server's own.
    fn command(&self, kind: Kind, shore: &Shore) -> Result<Command> {
        let program = kind.program().ok_or("the SSH server is not installed")?;
        let mounts = self.mounts(kind);
        let mut words: Vec<String> = Vec::new();
        let mut add = |more: &[&str]| words.extend(more.iter().map(|&word| word.to_owned()));
        // A server that outlives this process, whatever ended it, would keep the port.
        add(&["setpriv", "--pdeathsig", "SIGTERM", "--"]);
        if let Some(namespace) = &shore.namespace {
            add(&["ip", "netns", "exec", namespace]);
        }
        if !mounts.is_empty() {
            let script = format!("set -e\n{mounts}exec \"$@\"\n");
            add(&["unshare", "--mount", "--propagation", "private", "--", "sh", "-c", &script, "sh"]);
        }
        let home = self.home.display();
        add(&[&program.display().to_string()]);
        if kind == Kind::Dropbear {
            let place = format!("{}:{}", self.address, self.port);
            add(&["-F", "-E", "-r", &format!("{home}/host_key"), "-p", &place]);
            if names_its_keys() {
                add(&["-D", &format!("{home}/.ssh")]);
            }
        } else {
            add(&["-D", "-e", "-f", &format!("{home}/sshd_config")]);
        }
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]);
        Ok(command)
    }

    /// The lines of a shell script that mounts what is missing.
    fn mounts(&self, kind: Kind) -> String {
        let home = self.home.display();
        match kind {
            // sshd insists on a directory that packages make at boot, if at all.
            Kind::OpenSsh if is_root() && !Path::new("/run/sshd").exists() => {
                "mount -t tmpfs -o mode=755 tmpfs /run\nmkdir /run/sshd\n".to_owned()
            }
            Kind::Dropbear if !names_its_keys() => format!("mount --bind '{home}' ~\n"),
            _ => String::new(),
        }
    }

    fn greets(&self, server: &Running, stop: &Stop) -> Result<bool> {
        let started = Instant::now();
        while server.runs() && started.elapsed() < Duration::from_secs(20) {
            stop.check()?;
            if greeting(&self.address, self.port).is_some() {
                return Ok(true);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(false)
    }

    /// Better here than as a failure of every program.
    fn try_login(&self) -> Result<()> {
        let config = self.home.join("ssh_config");
        let login = output(Command::new("ssh").arg("-F").arg(config).args([&self.address, "true"]));
        login.map(drop).map_err(|e| format!("{e}; the server's log says: {}", tail(&self.log(), 5)))
    }

    fn log(&self) -> PathBuf {
        self.home.join("server.log")
    }

    /// The clients' home directory: it holds `ssh_config`, `known_hosts` and `.ssh/`.
    pub(crate) fn home(&self) -> &Path {
        &self.home
    }

    /// The private key that may log in.
    pub(crate) fn identity(&self) -> PathBuf {
        self.home.join(".ssh/id_ed25519")
    }
}

impl Drop for Vessel {
    fn drop(&mut self) {
        // Sessions whose client is gone end by themselves; others are killed with the server.
        drop(self.server.take());
    }
}

/// Why this kind of server can't be started here, if it can't.
pub(crate) fn cannot_run(kind: Kind) -> Option<&'static str> {
    match kind {
        Kind::OpenSsh if kind.program().is_none() => Some("sshd is not installed (Debian: openssh-server)"),
        Kind::Dropbear if kind.program().is_none() => Some("Dropbear is not installed (Debian: dropbear-bin)"),
        Kind::Dropbear if !is_root() && !names_its_keys() => Some(
            "this Dropbear looks for keys in the home directory alone, so it needs a mount namespace: run it as root",
        ),
        _ => None,
    }
}

pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Whether this Dropbear can be told where `authorized_keys` lies (since 2025.87).
fn names_its_keys() -> bool {
    let help = Kind::Dropbear.program().and_then(|program| Command::new(program).arg("-h").output().ok());
    let words = help.map(|help| [help.stdout, help.stderr].concat()).unwrap_or_default();
    String::from_utf8_lossy(&words).lines().any(|line| line.trim_start().starts_with("-D"))
}

/// A port that is free on loopback now. The vessel's own namespace, if it has one, is empty anyway.
fn free_port() -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr());
    listener.map(|address| address.port()).map_err(|e| format!("no free port: {e}"))
}

fn greeting(address: &str, port: u16) -> Option<()> {
    let place = format!("{address}:{port}").parse().ok()?;
    let mut stream = TcpStream::connect_timeout(&place, Duration::from_secs(5)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    let mut greeting = [0; 4];
    stream.read_exact(&mut greeting).ok()?;
    (greeting == *b"SSH-").then_some(())
}

/// Runs a small tool; what it wrote to standard error is the error.
pub(crate) fn output(command: &mut Command) -> Result<Output> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.output().map_err(|e| format!("{program} can't be started: {e}"))?;
    if output.status.success() {
        return Ok(output);
    }
    Err(format!("{program} ended with {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim()))
}

/// What a small tool says, without the line's end.
pub(crate) fn said(program: &str, words: &[&str]) -> Result<String> {
    let output = output(Command::new(program).args(words))?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Makes a directory that every account may pass through.
pub(crate) fn make_open(directory: &Path) -> Result<()> {
    fs::create_dir_all(directory).map_err(at(directory))?;
    fs::set_permissions(directory, fs::Permissions::from_mode(0o755)).map_err(at(directory))
}
