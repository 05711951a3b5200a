//! A mirror to which everything happens at once: its tree is churned, disks below it come, go and are covered, directories turn
//! into links, the clock jumps, sections get other names, files other places, and the program ends or is killed meanwhile.
//! Nothing that the shore still has is deleted, and when the dust settles the trees are equal.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rstest::rstest;

use crate::churn::{Churn, GIVE_UP, how_long};
use crate::fleet::Fleet;
use crate::fleet::clocked::SetClock;
use crate::fleet::daemon::Daemon;
use crate::fleet::namespace::Mounts;
use crate::fleet::tree::{Leaf, Tree, differences, tree};
use crate::fleet::wait::wait_until;
use crate::mirror::mirror;
use crate::mounts::among_mounts_of;

/// How many disks are mounted below the mirror.
const DISKS: usize = 3;

/// The directories on the vessel that files may go to; the first one is where they go at first.
const PLACES: [&str; 2] = ["in", "elsewhere"];

/// A disk that is out of state.
struct Away {
    /// Where on the vessel the files were that were on it when that began, and which.
    there: PathBuf,
    files: Vec<PathBuf>,
}

struct Mishaps<'a> {
    fleet: &'a Fleet,
    /// Keeps the mounts.
    mounts: &'a Daemon,
    clock: SetClock,
    daemon: Option<Daemon>,
    churn: Churn,
    away: BTreeMap<usize, Away>,
    /// What the sections are called, and where on the vessel files go.
    directory: String,
    vessel: String,
    place: &'static str,
    /// What was at a place when files began to go there, or the directory got another name: nobody knows then that it was
    /// delivered from here, so it stays, also in the way of something of another kind.
    strange: Tree,
    /// How often each of it happened.
    counts: BTreeMap<&'static str, usize>,
}

impl Mishaps<'_> {
    fn disk(&self, number: usize) -> PathBuf {
        self.fleet.path(format!("disk{number}"))
    }

    fn point(&self, number: usize) -> PathBuf {
        self.fleet.source(format!("m{number}"))
    }

    /// Where files go on the vessel.
    fn there(&self) -> PathBuf {
        self.fleet.vessel("open").path(self.place)
    }

    fn mount(&self, command: &[&str]) {
        among_mounts_of(self.mounts, command);
    }

    fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    fn act(&mut self, everything: bool) {
        match self.churn.random.u8(..60) {
            0 => self.lose_a_disk(),
            1 | 2 => self.bring_one_back(),
            3 => self.swap_for_a_link(),
            4 if everything => {
                self.clock.jump(&mut self.churn.random);
                self.count("jumps of the clock");
            }
            5 if everything => self.change_settings(),
            6 if everything => self.restart(),
            _ => self.churn.change(),
        }
        for (number, away) in &self.away {
            let lost: Vec<_> =
                away.files.iter().filter(|file| away.there.join(file).symlink_metadata().is_err()).collect();
            assert!(lost.is_empty(), "deleted, and still on disk {number}, which is not mounted: {lost:?}");
        }
    }

    fn lose_a_disk(&mut self) {
        let number = self.churn.random.usize(..DISKS);
        if self.away.contains_key(&number) {
            return;
        }
        let (point, seen) = (self.point(number), self.mounts.seen(&self.point(number)));
        let point = point.to_str().unwrap();
        if self.churn.random.bool() {
            self.mount(&["umount", "-l", point]);
        } else {
            self.mount(&["mount", "-t", "tmpfs", "tmpfs", point]);
        }
        self.churn.directories.retain(|directory| !directory.starts_with(&seen));
        self.churn.files.retain(|file| !file.starts_with(&seen));
        let there = self.there().join(format!("m{number}"));
        let (held, here) = (tree(&there), tree(&self.disk(number)));
        // An earlier file of that name, or a directory, may just be deleted because it was deleted here before.
        let is_held =
            |(path, leaf): &(PathBuf, Leaf)| !matches!(leaf, Leaf::Directory(_)) && held.get(path) == Some(leaf);
        let files = here.into_iter().filter(is_held).map(|(path, _)| path).collect();
        self.away.insert(number, Away { there, files });
        self.count("disks lost");
    }

    fn bring_one_back(&mut self) {
        let Some((number, _)) = self.away.pop_first() else { return };
        let (point, disk) = (self.point(number), self.disk(number));
        let (point, disk) = (point.to_str().unwrap(), disk.to_str().unwrap());
        self.mount(&["sh", "-c", &format!("! mountpoint -q '{point}' || umount -l '{point}'")]);
        self.mount(&["sh", "-c", &format!("mountpoint -q '{point}' || mount --bind '{disk}' '{point}'")]);
        self.churn.directories.push(self.mounts.seen(&self.point(number)));
    }

    /// For a moment, a directory is a link that leads elsewhere.
    fn swap_for_a_link(&mut self) {
        let directory = self.churn.directory();
        let aside = self.mounts.seen(&self.fleet.path("staging")).join("aside");
        if !self.churn.fixed.contains(&directory) && fs::rename(&directory, &aside).is_ok() {
            symlink(self.fleet.path("secret"), &directory).unwrap();
            std::thread::sleep(Duration::from_millis(self.churn.random.u64(..100)));
            fs::remove_file(&directory).unwrap();
            fs::rename(&aside, &directory).unwrap();
            self.count("directories swapped for links");
        }
    }

    fn restart(&mut self) {
        if let Some(daemon) = self.daemon.take() {
            if self.churn.random.bool() { daemon.kill9() } else { daemon.terminate() }
        }
        self.daemon = Some(self.fleet.run_clocked(self.mounts, &self.clock));
        self.count("restarts");
    }

    /// A section gets another name, or files another place; the program hears of it by a reload or a restart.
    fn change_settings(&mut self) {
        let (before, name) = (fs::read_to_string(self.fleet.settings()).unwrap(), self.churn.random.u32(..));
        let (vessel, new) = (self.fleet.vessel("open"), format!("name {name}"));
        let text = match self.churn.random.u8(..3) {
            0 => {
                let after = before.replace(&format!("[Directory {}]", self.directory), &format!("[Directory {new}]"));
                let after =
                    after.replace(&format!("RemoteLocation.{} =", self.directory), &format!("RemoteLocation.{new} ="));
                self.directory = new;
                after
            }
            1 => {
                let after = before.replace(&format!("[Vessel {}]", self.vessel), &format!("[Vessel {new}]"));
                self.vessel = new;
                after
            }
            _ => {
                self.place = PLACES[self.churn.random.usize(..PLACES.len())];
                let key = format!("RemoteLocation.{} =", self.directory);
                let line = |line: &str| match line.starts_with(&key) {
                    true => format!("{key} {}\n", vessel.remote(self.place)),
                    false => format!("{line}\n"),
                };
                before.lines().map(line).collect()
            }
        };
        // In one step: a program that starts meanwhile reads the settings of before or these.
        let new_file = self.fleet.path("settings.new");
        fs::write(&new_file, text).unwrap();
        fs::set_permissions(&new_file, fs::Permissions::from_mode(0o600)).unwrap();
        fs::rename(new_file, self.fleet.settings()).unwrap();
        self.count("changes of the settings");
        match &self.daemon {
            Some(daemon) if self.churn.random.bool() => {
                let reloads = || daemon.log().iter().filter(|line| line.contains("Settings reloaded")).count();
                let before = reloads();
                daemon.reload();
                wait_until("the reload", || reloads() > before);
            }
            _ => self.restart(),
        }
        // Only now: until then what was there before was known.
        self.strange.append(&mut tree(&self.there()));
    }

    /// What differs from the shore on the vessel and should not.
    fn differences(&self, root: &Path) -> Vec<String> {
        let (mut wanted, mut found) = (tree(root), tree(&self.there()));
        // What was begun for a section under another name, or for another place, stays: see DESIGN.md.
        let is_unfinished = |path: &PathBuf| path.to_string_lossy().contains(".contentmonster-");
        found.retain(|path, _| self.strange.is_empty() || !is_unfinished(path));
        let is_directory = |leaf: &Leaf| matches!(leaf, Leaf::Directory(_));
        // What was there before, as another kind or where nothing should be.
        let in_the_way: Vec<PathBuf> = self
            .strange
            .iter()
            .filter(|(path, leaf)| {
                found.get(*path).is_some_and(|now| {
                    wanted.get(*path).is_none_or(|wanted| is_directory(wanted) != is_directory(now))
                        && is_directory(now) == is_directory(leaf)
                })
            })
            .map(|(path, _)| path.clone())
            .collect();
        let strange = |path: &PathBuf| in_the_way.iter().any(|one| path == one || path.starts_with(one));
        found.retain(|path, _| !strange(path) || wanted.contains_key(path));
        let blocked: Vec<PathBuf> = in_the_way.iter().filter(|path| wanted.contains_key(*path)).cloned().collect();
        let is_blocked = |path: &Path| blocked.iter().any(|one| path.starts_with(one));
        wanted.retain(|path, _| !is_blocked(path));
        found.retain(|path, _| !is_blocked(path));
        differences(&wanted, &found)
    }
}

#[rstest]
fn whatever_is_mounted_unmounted_or_swapped_nothing_that_the_shore_still_has_is_deleted(#[values(1, 2)] seed: u64) {
    run(seed, false);
}

#[rstest]
fn whatever_happens_at_once_nothing_that_the_shore_still_has_is_deleted(#[values(1, 2)] seed: u64) {
    run(seed, true);
}

/// `CONTENTMONSTER_SEED=n` adds to the seed.
fn run(seed: u64, everything: bool) {
    let plan = mirror().key("Recursive", "yes").key("Delete", "yes").key("MaxDelete", "1000000");
    let Some(fleet) = plan.key("RescanInterval", "1s").openssh("open").key("ReconnectWait", "1s").start() else {
        return;
    };
    let seed = seed + std::env::var("CONTENTMONSTER_SEED").map_or(0, |seed| seed.parse().expect("a number"));
    let vessel = fleet.vessel("open");
    let text = fs::read_to_string(fleet.settings()).unwrap();
    let text = text.lines().filter(|line| !line.starts_with("RemoteLocation.in")).map(|line| format!("{line}\n"));
    let section = format!("[Vessel open]\nRemoteLocation.in = {}", vessel.remote(PLACES[0]));
    fleet.write_settings(&text.collect::<String>().replace("[Vessel open]", &section));
    fleet.put("keeper", b"so that it is never empty");
    fs::create_dir(fleet.path("secret")).unwrap();
    fs::write(fleet.path("secret/secret"), "secret").unwrap();
    let mut mounts = Mounts::default();
    for number in 0..DISKS {
        let (disk, point) = (fleet.path(format!("disk{number}")), fleet.source(format!("m{number}")));
        [&disk, &point].into_iter().for_each(|directory| fs::create_dir(directory).unwrap());
        mounts = mounts.bind(&disk, &point);
    }
    let mounts = fleet.keep_mounts(&mounts);
    wait_until("the mounts", || {
        let made = fs::read_to_string(format!("/proc/{}/mounts", mounts.pid())).unwrap_or_default();
        made.contains(fleet.source("m2").to_str().unwrap())
    });
    let clock = SetClock::new(fleet.path("clock"));
    let daemon = fleet.run_clocked(&mounts, &clock);
    wait_until("the mirror", || vessel.path("in/m2").exists());
    let root = mounts.seen(&fleet.path("shore/in"));
    let mut churn = Churn::new(root.clone(), seed);
    let points = (0..DISKS).map(|number| root.join(format!("m{number}")));
    churn.fixed.extend(points);
    churn.directories.clone_from(&churn.fixed);
    let mut mishaps = Mishaps {
        fleet: &fleet,
        mounts: &mounts,
        clock,
        daemon: Some(daemon),
        churn,
        away: BTreeMap::new(),
        directory: "in".to_owned(),
        vessel: "open".to_owned(),
        place: PLACES[0],
        strange: Tree::new(),
        counts: BTreeMap::new(),
    };
    let start = Instant::now();
    while start.elapsed() < how_long() * 2 {
        mishaps.act(everything);
        std::thread::sleep(Duration::from_millis(mishaps.churn.random.u64(..20)));
    }
    while !mishaps.away.is_empty() {
        mishaps.bring_one_back();
    }
    println!("seed {seed}: {:?}", mishaps.counts);
    let stopped = Instant::now();
    loop {
        let different = mishaps.differences(&root);
        if different.is_empty() {
            break;
        }
        assert!(stopped.elapsed() < GIVE_UP, "seed {seed}, still different:\n{}", different.join("\n"));
        std::thread::sleep(Duration::from_millis(50));
    }
    for place in PLACES {
        let held = tree(&vessel.path(place));
        assert!(!held.keys().any(|path| path.ends_with("secret")), "what is behind a link was sent");
    }
    mishaps.daemon.take().unwrap().terminate();
    if !everything {
        fleet.assert_tidy("open");
    }
}
