//! The embedded vessel, driven by OpenSSH's own clients.

#![allow(clippy::unwrap_used, reason = "clippy doesn't count this file's helpers as tests")]

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use contentmonster::embedded_vessel::{EmbeddedVessel, Options, Quirks};
use russh::keys::PublicKey;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

const DEADLINE: Duration = Duration::from_secs(30);
const LOGIN: &str = "captain@127.0.0.1";
const MIB: usize = 1024 * 1024;

/// An embedded vessel, and a desk beside it with a client's key and `known_hosts`.
struct Harbour {
    vessel: EmbeddedVessel,
    directory: TempDir,
}

impl Harbour {
    async fn open() -> Self {
        Self::open_with(|options| options).await
    }

    async fn open_with(change: impl FnOnce(Options) -> Options) -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("home")).unwrap();
        let authorized_key = Some(key_pair(directory.path(), "key").await);
        let home = directory.path().join("home");
        let options = Options {
            user: "captain".into(),
            password: None,
            authorized_key,
            exec: true,
            home,
            faults: None,
            quirks: Quirks::default(),
        };
        let vessel = EmbeddedVessel::start(change(options)).unwrap();
        let line = format!("[127.0.0.1]:{} {}\n", vessel.address().port(), vessel.host_key().to_openssh().unwrap());
        fs::write(directory.path().join("known_hosts"), line).unwrap();
        Self { vessel, directory }
    }

    /// A path on the client's side.
    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A path in the vessel's home.
    fn at_home(&self, name: &str) -> PathBuf {
        self.path("home").join(name)
    }

    fn content(&self, name: &str, size: usize) -> Vec<u8> {
        let content: Vec<u8> = (0..size).map(|i| (i * 31 + i / 251) as u8).collect();
        fs::write(self.path(name), &content).unwrap();
        content
    }

    /// One of OpenSSH's clients that trusts this vessel's key only and asks nobody anything.
    fn client(&self, program: &str, key: &str) -> Command {
        let mut command = Command::new(program);
        command.args([
            "-F",
            "none",
            "-o",
            "StrictHostKeyChecking=yes",
            "-o",
            "IdentitiesOnly=yes",
            "-o",
            "IdentityAgent=none",
        ]);
        command.arg("-o").arg(format!("UserKnownHostsFile={}", self.path("known_hosts").display()));
        command.args(["-o", "GlobalKnownHostsFile=/dev/null"]);
        command.arg("-o").arg(format!("Port={}", self.vessel.address().port()));
        command.arg("-i").arg(self.path(key)).current_dir(self.directory.path());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        command
    }

    fn quiet(&self, program: &str) -> Command {
        let mut command = self.client(program, "key");
        command.args(["-o", "BatchMode=yes"]);
        command
    }

    async fn sftp(&self, batch: &str) -> Output {
        run(self.quiet("sftp").args(["-q", "-b", "-", LOGIN]), batch.as_bytes()).await
    }

    async fn ssh(&self, command: &str, input: &[u8]) -> Output {
        run(self.quiet("ssh").arg(LOGIN).arg(command), input).await
    }
}

async fn key_pair(directory: &Path, name: &str) -> PublicKey {
    let path = directory.join(name);
    let mut keygen = Command::new("ssh-keygen");
    assert_ok(&run(keygen.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&path), b"").await);
    PublicKey::read_openssh_file(path.with_extension("pub")).unwrap()
}

/// Runs a program to its end, within the deadline.
async fn run(command: &mut Command, input: &[u8]) -> Output {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let source_cache = async move {
        // It may end without reading all.
        let _ = stdin.write_all(input).await;
    };
    let both = async { tokio::join!(source_cache, child.wait_with_output()).1.unwrap() };
    timeout(DEADLINE, both).await.expect("the client ends in time")
}

fn text(bytes: &[u8]) -> &str {
    str::from_utf8(bytes).unwrap()
}

#[track_caller]
fn assert_ok(output: &Output) {
    assert!(output.status.success(), "{output:?}");
}

#[track_caller]
fn assert_fails_saying(output: &Output, message: &str) {
    assert!(!output.status.success() && text(&output.stderr).contains(message), "{output:?}");
}

async fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < DEADLINE, "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn lives(pid: &str) -> bool {
    Path::new("/proc").join(pid).exists()
}

/// A command that says its process id and then sleeps, and a child of it likewise.
async fn sleeper(harbour: &Harbour) -> (Child, [String; 2]) {
    let mut ssh = harbour.quiet("ssh").arg(LOGIN).arg("sleep 1000 & echo $!; echo $$; wait").spawn().unwrap();
    let mut lines = BufReader::new(ssh.stdout.take().unwrap()).lines();
    let mut line = async || timeout(DEADLINE, lines.next_line()).await.unwrap().unwrap().unwrap();
    let pids = [line().await, line().await];
    assert!(pids.iter().all(|pid| lives(pid)));
    (ssh, pids)
}

#[tokio::test(flavor = "multi_thread")]
async fn sftp_brings_20_mib_there_and_back_unchanged() {
    let harbour = Harbour::open().await;
    let content = harbour.content("big", 20 * MIB + 1);
    assert_ok(&harbour.sftp("put -f big there\nget there back\n").await);
    assert!(fs::read(harbour.at_home("there")).unwrap() == content);
    assert!(fs::read(harbour.path("back")).unwrap() == content);
    harbour.vessel.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn scp_brings_20_mib_there_and_back_unchanged() {
    let harbour = Harbour::open().await;
    let content = harbour.content("big", 20 * MIB);
    let there = harbour.at_home("there");
    let remote = format!("{LOGIN}:{}", there.display());
    assert_ok(&run(harbour.quiet("scp").args(["big", &remote]), b"").await);
    assert!(fs::read(&there).unwrap() == content);
    assert_ok(&run(harbour.quiet("scp").args([&remote, "back"]), b"").await);
    assert!(fs::read(harbour.path("back")).unwrap() == content);
}

#[tokio::test(flavor = "multi_thread")]
async fn posix_rename_replaces_and_plain_rename_does_not() {
    let harbour = Harbour::open().await;
    fs::write(harbour.at_home("new"), "new").unwrap();
    fs::write(harbour.at_home("old"), "old").unwrap();
    assert_fails_saying(&harbour.sftp("rename -l new old\n").await, "Failure");
    assert_eq!(fs::read(harbour.at_home("old")).unwrap(), b"old");
    assert_ok(&harbour.sftp("rename new old\n").await);
    assert_eq!(fs::read(harbour.at_home("old")).unwrap(), b"new");
    assert!(!harbour.at_home("new").exists());
    assert_ok(&harbour.sftp("rename -l old other\n").await);
    assert!(harbour.at_home("other").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn directories_are_made_listed_and_removed() {
    let harbour = Harbour::open().await;
    harbour.content("file", 10);
    assert_ok(&harbour.sftp("mkdir d\nmkdir d/e\nput file d/f\n").await);
    assert!(harbour.at_home("d/e").is_dir());
    let listed = harbour.sftp("ls -1 d\n").await;
    assert_eq!(text(&listed.stdout), "sftp> ls -1 d\nd/e                                             d/f                                             \n".replace("                                             ", " ").replace("d/e d/f \n", "d/e\nd/f\n"));
    assert_fails_saying(&harbour.sftp("rmdir d\n").await, "Failure");
    assert_fails_saying(&harbour.sftp("rm d/e\n").await, "Failure");
    assert_ok(&harbour.sftp("rm d/f\nrmdir d/e\nrmdir d\n").await);
    assert!(!harbour.at_home("d").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listing_of_many_names_is_complete() {
    let harbour = Harbour::open().await;
    fs::create_dir(harbour.at_home("many")).unwrap();
    for number in 0..1234 {
        fs::write(harbour.at_home(&format!("many/{number}")), "").unwrap();
    }
    let listed = harbour.sftp("ls -1 many\n").await;
    assert_eq!(text(&listed.stdout).lines().filter(|line| line.starts_with("many/")).count(), 1234);
}

#[tokio::test(flavor = "multi_thread")]
async fn mode_and_times_are_kept_and_changed() {
    let harbour = Harbour::open().await;
    harbour.content("file", 10);
    let time = fs::FileTimes::new().set_modified(std::time::UNIX_EPOCH + Duration::from_secs(1_000_000_000));
    fs::File::options().write(true).open(harbour.path("file")).unwrap().set_times(time).unwrap();
    fs::set_permissions(harbour.path("file"), Permissions::from_mode(0o640)).unwrap();
    assert_ok(&harbour.sftp("put -p file kept\nput file changed\nchmod 751 changed\n").await);
    let kept = fs::metadata(harbour.at_home("kept")).unwrap();
    assert_eq!((kept.mode() & 0o7777, kept.mtime()), (0o640, 1_000_000_000));
    assert_eq!(fs::metadata(harbour.at_home("changed")).unwrap().mode() & 0o7777, 0o751);
    let listed = harbour.sftp("ls -l changed\n").await;
    assert!(text(&listed.stdout).contains("-rwxr-x--x"), "{listed:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_have_openssh_s_status_codes() {
    let harbour = Harbour::open().await;
    assert_fails_saying(&harbour.sftp("get nothing\n").await, "not found");
    assert_fails_saying(&harbour.sftp("rm nothing\n").await, "No such file or directory");
    assert_fails_saying(&harbour.sftp("ln -s a b\n").await, "Operation unsupported");
    assert_fails_saying(&harbour.sftp("mkdir /proc/here\n").await, "No such file");
    fs::create_dir(harbour.at_home("there")).unwrap();
    assert_fails_saying(&harbour.sftp("mkdir there\n").await, "Failure");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_extensions_and_limits_are_those_of_openssh() {
    let harbour = Harbour::open().await;
    harbour.content("file", 1000);
    let output = run(harbour.quiet("sftp").args(["-vvv", "-b", "-", LOGIN]), b"put -f file\n").await;
    assert_ok(&output);
    let log = text(&output.stderr);
    for extension in ["posix-rename@openssh.com", "fsync@openssh.com", "statvfs@openssh.com", "limits@openssh.com"] {
        assert!(log.contains(&format!("Server supports extension \"{extension}\"")), "{extension}: {log}");
    }
    assert!(log.contains("server upload/download buffer sizes 261120 / 261120"), "{log}");
    assert!(log.contains("Sending SSH2_FXP_EXTENDED(fsync@openssh.com)"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_is_no_utf_8_is_refused_and_not_mistaken() {
    let harbour = Harbour::open().await;
    harbour.content("file", 1000);
    let put = run(harbour.quiet("sftp").args(["-q", "-b", "-", LOGIN]), b"put file caf\xe9\n").await;
    assert_fails_saying(&put, "Failure");
    assert_eq!(fs::read_dir(harbour.path("home")).unwrap().count(), 0);
    assert_ok(&harbour.sftp("put file caf\u{e9}\n").await);
    assert!(harbour.at_home("caf\u{e9}").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn free_space_is_told() {
    let harbour = Harbour::open().await;
    let told = harbour.sftp("df\n").await;
    assert_ok(&told);
    let line = text(&told.stdout).lines().last().unwrap().to_owned();
    let size: u64 = line.split_whitespace().next().unwrap().parse().unwrap();
    let real = rustix::fs::statvfs(harbour.path("home")).unwrap();
    assert_eq!(size, real.f_frsize * real.f_blocks / 1024);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_answers_with_both_outputs_and_its_exit_code() {
    let harbour = Harbour::open().await;
    let output = harbour.ssh("sh", b"echo out\necho err >&2\npwd\nexit 7\n").await;
    assert_eq!(output.status.code(), Some(7));
    assert_eq!(text(&output.stdout), format!("out\n{}\n", harbour.path("home").display()));
    assert_eq!(text(&output.stderr), "err\n");
    assert_eq!(harbour.ssh("kill -9 $$", b"").await.status.code(), Some(128 + 9));
    assert_eq!(text(&harbour.ssh("printf '%s' \"a'b $((1+1))\"", b"").await.stdout), "a'b 2");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_echoes_more_than_every_buffer_holds_does_not_stick() {
    let harbour = Harbour::open().await;
    let content = harbour.content("big", 24 * MIB);
    let output = harbour.ssh("cat", &content).await;
    assert_ok(&output);
    assert!(output.stdout == content);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_reads_nothing_ends_all_the_same() {
    let harbour = Harbour::open().await;
    let content = harbour.content("big", 8 * MIB);
    assert_eq!(harbour.ssh("exit 3", &content).await.status.code(), Some(3));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lot_of_output_on_both_streams_arrives_complete() {
    let harbour = Harbour::open().await;
    let command = "head -c 8388608 /dev/zero & head -c 8388608 /dev/zero >&2; wait";
    let output = harbour.ssh(command, b"").await;
    assert_eq!((output.stdout.len(), output.stderr.len()), (8 * MIB, 8 * MIB));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_shell_sftp_still_works() {
    let harbour = Harbour::open_with(|options| Options { exec: false, ..options }).await;
    harbour.content("file", 1000);
    assert_fails_saying(&harbour.ssh("true", b"").await, "exec request failed");
    assert_ok(&harbour.sftp("put file\n").await);
    assert_eq!(fs::metadata(harbour.at_home("file")).unwrap().len(), 1000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_key_and_a_wrong_user_are_refused() {
    let harbour = Harbour::open().await;
    key_pair(harbour.directory.path(), "stranger").await;
    let stranger = run(harbour.client("ssh", "stranger").args(["-o", "BatchMode=yes", LOGIN, "true"]), b"").await;
    assert_fails_saying(&stranger, "Permission denied");
    let pirate = run(harbour.quiet("ssh").args(["pirate@127.0.0.1", "true"]), b"").await;
    assert_fails_saying(&pirate, "Permission denied");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_right_password_opens_and_a_wrong_one_does_not() {
    let password = Some("open sesame".to_owned().into());
    let harbour = Harbour::open_with(|options| Options { password, authorized_key: None, ..options }).await;
    for (password, admitted) in [("open sesame", true), ("open barley", false)] {
        fs::write(harbour.path("ask"), format!("#!/bin/sh\necho '{password}'\n")).unwrap();
        fs::set_permissions(harbour.path("ask"), Permissions::from_mode(0o700)).unwrap();
        let mut ssh = harbour.client("ssh", "key");
        ssh.env("SSH_ASKPASS", harbour.path("ask")).env("SSH_ASKPASS_REQUIRE", "force");
        let output = run(ssh.args(["-o", "NumberOfPasswordPrompts=1", LOGIN, "true"]), b"").await;
        assert_eq!(output.status.success(), admitted, "{output:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_fingerprint_is_the_one_ssh_keygen_shows() {
    let harbour = Harbour::open().await;
    let shown = run(Command::new("ssh-keygen").arg("-lf").arg(harbour.path("known_hosts")), b"").await;
    assert!(text(&shown.stdout).contains(&format!(" {} ", harbour.vessel.host_key_fingerprint())), "{shown:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_dies_with_its_client() {
    let harbour = Harbour::open().await;
    let (mut ssh, pids) = sleeper(&harbour).await;
    ssh.kill().await.unwrap();
    wait_until("the command and its child are gone", || !pids.iter().any(|pid| lives(pid))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn shutdown_ends_sessions_and_leaves_no_child() {
    let harbour = Harbour::open().await;
    let address = harbour.vessel.address();
    let (mut ssh, pids) = sleeper(&harbour).await;
    let mut sftp = harbour.quiet("sftp").arg(LOGIN).spawn().unwrap();
    let mut prompt = sftp.stdin.take().unwrap();
    prompt.write_all(b"mkdir here\n").await.unwrap();
    wait_until("the SFTP session works", || harbour.at_home("here").exists()).await;
    let half_open = std::net::TcpStream::connect(address).unwrap();

    let started = Instant::now();
    harbour.vessel.shutdown().await;
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    assert!(!lives(&pids[1]), "the command is reaped");
    wait_until("the command's child is gone", || !lives(&pids[0])).await;
    assert!(!timeout(DEADLINE, ssh.wait()).await.unwrap().unwrap().success());
    // It notices when it next wants something, if not before.
    let _ = prompt.write_all(b"mkdir more\n").await;
    assert!(!timeout(DEADLINE, sftp.wait()).await.unwrap().unwrap().success());
    assert!(std::net::TcpStream::connect(address).is_err(), "nobody listens any more");
    drop(half_open);
}

#[tokio::test(flavor = "multi_thread")]
async fn shutdown_in_the_middle_of_a_transfer_returns() {
    let harbour = Harbour::open().await;
    let wide = fs::File::create(harbour.path("wide")).unwrap();
    wide.set_len(4 << 30).unwrap();
    let mut sftp = harbour.quiet("sftp").args(["-b", "-", LOGIN]).spawn().unwrap();
    sftp.stdin.as_mut().unwrap().write_all(b"put wide\n").await.unwrap();
    let arriving = || fs::metadata(harbour.at_home("wide")).is_ok_and(|file| file.len() > MIB as u64);
    wait_until("the transfer runs", arriving).await;
    timeout(DEADLINE, harbour.vessel.shutdown()).await.expect("the vessel stops");
    assert!(!timeout(DEADLINE, sftp.wait()).await.unwrap().unwrap().success());
}
