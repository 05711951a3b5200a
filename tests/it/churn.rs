//! A mirror under churn, and beside `rsync`: when the dust settles, the trees are equal.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rstest::rstest;

use crate::fleet::content::content;
use crate::fleet::tree::{Leaf, Tree, differences, tree};
use crate::fleet::wait::wait_until;
use crate::fleet::{Fleet, at_second};
use crate::mirror::{mirror, wait_until_equal};

/// How long it goes on: `CHURN_SECONDS`, or 6.
pub(crate) fn how_long() -> Duration {
    let seconds = std::env::var("CHURN_SECONDS").ok().and_then(|seconds| seconds.parse().ok());
    Duration::from_secs(seconds.unwrap_or(6))
}

/// How long the trees may differ after it: a busy machine gets more.
pub(crate) const SETTLED: Duration = Duration::from_secs(10);
/// How long a test waits until the trees are equal before it fails. A loaded machine may need many times what a quiet one
/// does.
pub(crate) const GIVE_UP: Duration = Duration::from_secs(150);

/// Random work on a tree.
pub(crate) struct Churn {
    /// Directories that stay where they are: a mount point that is moved, from without its namespace, loses its mount.
    pub(crate) fixed: Vec<PathBuf>,
    pub(crate) random: fastrand::Rng,
    /// Directories and files, as far as this has made them.
    pub(crate) directories: Vec<PathBuf>,
    pub(crate) files: Vec<PathBuf>,
}

impl Churn {
    pub(crate) fn new(root: PathBuf, seed: u64) -> Self {
        let random = fastrand::Rng::with_seed(seed);
        Self { directories: vec![root.clone()], fixed: vec![root], random, files: Vec::new() }
    }

    pub(crate) fn directory(&mut self) -> PathBuf {
        let at = self.random.usize(..self.directories.len());
        self.directories[at].clone()
    }

    fn new_name(&mut self) -> PathBuf {
        let name = format!("{}", self.random.u32(..40));
        self.directory().join(name)
    }

    fn bytes(&mut self) -> Vec<u8> {
        let len = if self.random.u8(..20) == 0 { 300_000 } else { self.random.usize(..3000) };
        content(self.random.u64(..), len)
    }

    /// One change; what is in its way makes it none.
    pub(crate) fn change(&mut self) {
        match self.random.u8(..100) {
            0..35 => {
                let (path, bytes) = (self.new_name(), self.bytes());
                if fs::write(&path, bytes).is_ok() {
                    self.files.push(path);
                }
            }
            35..50 => {
                if let Some(path) = self.a_file() {
                    let _ = fs::OpenOptions::new().append(true).open(path).map(|mut file| {
                        let bytes = self.bytes();
                        std::io::Write::write_all(&mut file, &bytes)
                    });
                }
            }
            50..60 => self.move_file(),
            60..75 => {
                if let Some(path) = self.a_file() {
                    let _ = fs::remove_file(path);
                }
            }
            75..90 => {
                let path = self.new_name();
                if fs::create_dir(&path).is_ok() {
                    self.directories.push(path);
                }
            }
            90..95 => self.move_directory(),
            95..97 => {
                let at = self.directory();
                if !self.fixed.contains(&at) {
                    let _ = fs::remove_dir_all(&at);
                    self.directories.retain(|directory| !directory.starts_with(&at));
                }
            }
            _ => {
                if let Some(path) = self.a_file() {
                    // The path may be a directory's by now, which gets u+rwx on the vessel whatever it has here.
                    let mode = 0o700 | self.random.u32(..0o100);
                    let _ = fs::set_permissions(path, fs::Permissions::from_mode(mode));
                }
            }
        }
    }

    fn a_file(&mut self) -> Option<PathBuf> {
        let at = (!self.files.is_empty()).then(|| self.random.usize(..self.files.len()))?;
        Some(self.files[at].clone())
    }

    pub(crate) fn move_file(&mut self) {
        if let Some(from) = self.a_file() {
            let to = self.new_name();
            if fs::rename(&from, &to).is_ok() {
                self.files.push(to);
            }
        }
    }

    pub(crate) fn move_directory(&mut self) {
        let (from, to) = (self.directory(), self.new_name());
        if !self.fixed.contains(&from) && fs::rename(&from, &to).is_ok() {
            for path in self.directories.iter_mut().chain(&mut self.files) {
                if let Ok(below) = path.strip_prefix(&from) {
                    *path = if below.as_os_str().is_empty() { to.clone() } else { to.join(below) };
                }
            }
        }
    }
}

#[rstest]
fn after_churn_the_trees_are_equal(#[values(1, 2, 3)] seed: u64) {
    let plan = mirror().key("Recursive", "yes").key("Delete", "yes").key("MaxDelete", "1000000");
    let Some(fleet) = plan.openssh("open").start() else { return };
    fleet.put("keeper", b"so that it is never empty");
    let daemon = fleet.run();
    wait_until_equal(&fleet, "open");
    let mut churn = Churn::new(fleet.path("shore/in"), seed);
    let start = Instant::now();
    let mut changes = 0;
    while start.elapsed() < how_long() {
        churn.change();
        changes += 1;
        std::thread::sleep(Duration::from_millis(churn.random.u64(..20)));
    }
    let (stopped, there) = (Instant::now(), fleet.vessel("open").path("in"));
    let equal_after = loop {
        let different = differences(&tree(&fleet.path("shore/in")), &tree(&there));
        if different.is_empty() {
            break stopped.elapsed();
        }
        assert!(stopped.elapsed() < SETTLED * 3, "still different:\n{}", different.join("\n"));
        std::thread::sleep(Duration::from_millis(50));
    };
    println!("seed {seed}: {changes} changes, equal {equal_after:?} after the last");
    daemon.terminate();
    assert!(equal_after < SETTLED * 2, "it took {equal_after:?}");
    fleet.assert_tidy("open");
}

/// A tree with what `rsync` users have: nested and empty directories, odd names, modes, old times, a link, a larger file.
fn fill(root: &Path) {
    for directory in ["sub/deep", "sub/empty", "with space"] {
        fs::create_dir_all(root.join(directory)).unwrap();
    }
    let file = |name: &str, bytes: &[u8], mode: u32, time: u64| {
        let path = root.join(name);
        fs::write(&path, bytes).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        fs::File::options().read(true).open(&path).unwrap().set_modified(at_second(time)).unwrap();
    };
    file("plain.txt", b"plain", 0o644, 1_500_000_000);
    file("sub/script", b"#!/bin/sh\n", 0o755, 1_400_000_001);
    file("sub/deep/large.bin", &content(5, 3_000_000), 0o600, 1_600_000_000);
    file("with space/new\nline", b"odd", 0o640, 1_600_000_001);
    file("empty", b"", 0o444, 1_600_000_002);
    symlink("plain.txt", root.join("link")).unwrap();
    fs::set_permissions(root.join("sub/empty"), fs::Permissions::from_mode(0o711)).unwrap();
}

/// What `rsync` makes of a source.
#[track_caller]
fn rsynced(fleet: &Fleet, options: &[&str], source: &str) -> Tree {
    let target = fleet.path("rsynced");
    fs::create_dir_all(&target).unwrap();
    let status =
        Command::new("rsync").args(options).arg(source).arg(format!("{}/", target.display())).status().unwrap();
    assert!(status.success(), "rsync {options:?} {source}: {status}");
    let made = tree(&target);
    fs::remove_dir_all(target).unwrap();
    made
}

#[rstest]
#[case::recursive("yes", "copy", &["-rlpt"])]
#[case::flat("no", "copy", &["-dlpt", "--no-r", "-f", "- */"])]
#[case::without_links("yes", "skip", &["-rpt"])]
#[case::through_links("yes", "follow", &["-rLpt"])]
fn a_mirror_is_what_rsync_makes(#[case] recursive: &str, #[case] links: &str, #[case] options: &[&str]) {
    let plan = mirror().key("Recursive", recursive).key("Links", links);
    let Some(fleet) = plan.openssh("one").dropbear("two").sftp_only("three").start() else { return };
    fill(&fleet.path("shore/in"));
    let wanted = rsynced(&fleet, options, &format!("{}/", fleet.path("shore/in").display()));
    let ended = fleet.once();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    for vessel in ["one", "two", "three"] {
        let different = differences(&wanted, &tree(&fleet.vessel(vessel).path("in")));
        assert!(different.is_empty(), "{vessel}: {}", different.join("\n"));
    }
}

#[test]
fn a_single_file_is_what_rsync_makes() {
    let place = tempfile::tempdir().unwrap();
    let source = place.path().join("settings.conf");
    let plan = mirror().key("Location", source.to_str().unwrap()).key("SettleTime", "100ms");
    let Some(fleet) = plan.openssh("one").start() else { return };
    fill(place.path());
    fs::write(&source, b"one").unwrap();
    let remote = fleet.vessel("one").remote("in/renamed.conf");
    let text = fs::read_to_string(fleet.settings()).unwrap();
    fleet.write_settings(&text.replace("[Vessel one]", &format!("[Vessel one]\nRemoteLocation.in = {remote}")));
    let daemon = fleet.run();
    let there = fleet.vessel("one").path("in");
    for bytes in [&b"one"[..], b"and another"] {
        fs::write(&source, bytes).unwrap();
        let wanted = rsynced(&fleet, &["-pt"], source.to_str().unwrap());
        let wanted: Vec<Leaf> = wanted.into_values().collect();
        wait_until("the file", || {
            let found = tree(&there);
            found.get(Path::new("renamed.conf")) == wanted.first() && found.len() == 1
        });
    }
    daemon.terminate();
}
