//! A PostgreSQL server for tests, in a temporary directory, with a Unix socket and no port. One server serves all tests
//! of the process that use [`Place::new`], and each test gets a database of its own. The integration tests use this
//! file, too.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

/// A server. It stops when the value is dropped or the process ends.
pub(crate) struct Server {
    /// A shell that stops the server when the shell's standard input ends.
    process: Mutex<Option<Child>>,
    directory: tempfile::TempDir,
}

/// Returns the directory of the newest installed server's programs.
fn programs() -> PathBuf {
    let mut found: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
        .expect("the Debian package postgresql is installed (scripts/test packages)")
        .filter_map(|entry| Some(entry.ok()?.path().join("bin")))
        .filter(|path| path.join("postgres").exists())
        .collect();
    found.sort();
    found.pop().expect("a server is installed")
}

/// Returns a command that runs as an unprivileged user, because the server refuses to run as root.
fn unprivileged(program: &Path) -> Command {
    if !rustix::process::geteuid().is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid=nobody", "--regid=nogroup", "--clear-groups", "--"]).arg(program);
    command
}

impl Server {
    fn start() -> Self {
        let directory = tempfile::Builder::new().prefix("cm-postgres-").tempdir().unwrap();
        let data = directory.path().join("data");
        std::fs::set_permissions(directory.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        std::fs::create_dir(&data).unwrap();
        if rustix::process::geteuid().is_root() {
            let owned = Command::new("chown").arg("nobody:nogroup").arg(directory.path()).arg(&data).status().unwrap();
            assert!(owned.success());
        }
        let made = unprivileged(&programs().join("initdb"))
            .args(["--username=cm", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync", "-D"])
            .arg(&data)
            .current_dir(directory.path())
            .stdout(Stdio::null())
            .status()
            .unwrap();
        assert!(made.success(), "initdb failed");
        let server = Self { process: Mutex::new(None), directory };
        server.run();
        server
    }

    /// Starts the server's process, which may have been killed before.
    pub(crate) fn run(&self) {
        let log = std::fs::File::options().create(true).append(true).open(self.path().join("log")).unwrap();
        // The shell's standard input ends when the test process ends. Then the shell stops the server. A parent-death
        // signal would come too early: when the thread of the first test ends.
        let shell = "\"$@\" & pid=$!; cat >/dev/null; kill -QUIT $pid 2>/dev/null; wait $pid";
        let child = unprivileged(Path::new("/bin/sh"))
            .args(["-c", shell, "sh"])
            .arg(programs().join("postgres"))
            .arg("-D")
            .arg(self.path().join("data"))
            .arg("-k")
            .arg(self.path())
            .args(["-c", "listen_addresses=", "-c", "fsync=off", "-c", "full_page_writes=off"])
            .args(["-c", "max_connections=400", "-c", "shared_buffers=32MB", "-c", "autovacuum_naptime=5s"])
            .current_dir(self.path())
            .stdin(Stdio::piped())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        *self.process.lock().unwrap_or_else(PoisonError::into_inner) = Some(child);
        let deadline = Instant::now() + Duration::from_secs(60);
        let answers = || {
            let asked = Command::new(programs().join("pg_isready")).arg("-q").arg("-h").arg(self.path()).status();
            asked.unwrap().success()
        };
        while !answers() {
            assert!(Instant::now() < deadline, "the server does not answer");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Kills the server, as a power cut would end it.
    #[allow(dead_code, reason = "the unit tests end sessions instead")]
    pub(crate) fn kill9(&self) {
        let pids = std::fs::read_to_string(self.path().join("data/postmaster.pid")).unwrap();
        let pid: i32 = pids.lines().next().and_then(|pid| pid.parse().ok()).expect("the number of the process");
        let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
        let pid = rustix::process::Pid::from_raw(pid).expect("a process");
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        self.end();
        // A new server can start only after all sessions of the old one have ended.
        let deadline = Instant::now() + Duration::from_secs(60);
        while children.split_whitespace().any(|child| Path::new(&format!("/proc/{child}")).exists()) {
            assert!(Instant::now() < deadline, "sessions are left");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn end(&self) {
        let process = self.process.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(mut process) = process {
            drop(process.stdin.take());
            process.wait().ok();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end();
    }
}

static SERVER: Mutex<Weak<Server>> = Mutex::new(Weak::new());
static DATABASES: AtomicU32 = AtomicU32::new(0);

/// The database of one test.
pub(crate) struct Place {
    pub(crate) server: Arc<Server>,
    name: String,
}

impl Place {
    /// Creates a database on the server that the tests of this process share.
    pub(crate) fn new() -> Self {
        let mut server = SERVER.lock().unwrap_or_else(PoisonError::into_inner);
        let running = server.upgrade().unwrap_or_else(|| {
            let started = Arc::new(Server::start());
            *server = Arc::downgrade(&started);
            started
        });
        drop(server);
        Self::on(running)
    }

    /// Creates a database on a server of its own.
    #[allow(dead_code, reason = "the unit tests share a server")]
    pub(crate) fn alone() -> Self {
        Self::on(Arc::new(Server::start()))
    }

    fn on(server: Arc<Server>) -> Self {
        let name = format!("test{}", DATABASES.fetch_add(1, Ordering::Relaxed));
        let mut create = Command::new(programs().join("createdb"));
        let created = create.arg("-h").arg(server.path()).args(["-U", "cm", &name]).status().unwrap();
        assert!(created.success(), "createdb failed");
        Self { server, name }
    }

    /// Returns the address of the database, as in the settings.
    pub(crate) fn url(&self) -> String {
        format!("postgresql://cm@localhost/{}?host={}&sslmode=disable", self.name, self.server.path().display())
    }

    /// Returns the address of the database through a forwarder, which listens on this port and connects to the server.
    #[allow(dead_code, reason = "the unit tests use the socket")]
    pub(crate) fn url_at(&self, port: u16) -> String {
        format!("postgresql://cm@127.0.0.1:{port}/{}?sslmode=disable", self.name)
    }

    /// Returns the path of the server's socket.
    #[allow(dead_code, reason = "the unit tests use the address")]
    pub(crate) fn socket(&self) -> PathBuf {
        self.server.path().join(".s.PGSQL.5432")
    }

    /// Runs a statement, and returns its output.
    #[allow(dead_code, reason = "the unit tests have connections")]
    pub(crate) fn psql(&self, statement: &str) -> String {
        let mut psql = Command::new(programs().join("psql"));
        let psql = psql.arg("-h").arg(self.server.path()).args(["-U", "cm", "-d", &self.name, "-Atqc", statement]);
        let out = psql.stderr(Stdio::inherit()).output().unwrap();
        assert!(out.status.success(), "psql failed: {statement}");
        String::from_utf8(out.stdout).unwrap().trim().to_owned()
    }
}
