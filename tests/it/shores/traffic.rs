//! Traffic for several shores, and the watcher that looks at the vessels throughout: no file is lost, mixed, published old
//! over new, deleted or retired early.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use crate::fleet::content::content;
use crate::fleet::wait::wait_until;
use crate::fleet::{Fleet, names_in};

/// Number of charts, and of those that are deleted now and then.
const CHARTS: u64 = 12;
const DELETED: u64 = 3;

/// Number of large files that retire: each vessel keeps them until the test ends.
const LARGE_FILES: usize = 30;

/// The bytes of one version of a file: its number, then bytes and a length that follow from it.
fn version(number: u64) -> Vec<u8> {
    let length = if is_large(number) { 2_500_000 } else { 100 + number * 37 % 5000 };
    let length = usize::try_from(length).expect("it is small");
    [format!("{number:012}\n").into_bytes(), content(number, length)].concat()
}

fn is_large(number: u64) -> bool {
    number.is_multiple_of(7)
}

/// The number of a version, if the bytes are exactly one.
fn number_of(bytes: &[u8]) -> Option<u64> {
    let number = std::str::from_utf8(bytes.get(..12)?).ok()?.parse().ok()?;
    (version(number) == bytes).then_some(number)
}

/// What the traffic has written so far.
#[derive(Default)]
struct Written {
    /// The newest version of each chart; `None`: it was deleted.
    charts: BTreeMap<u64, Option<u64>>,
    files: Vec<(String, u64)>,
    large_files: usize,
    next: u64,
}

/// The directories of one vessel.
struct Held {
    vessel: String,
    charts: PathBuf,
    files: PathBuf,
}

/// The directories of the shore and of the vessels, and the versions that were written.
pub(super) struct Traffic {
    shore: PathBuf,
    staged: PathBuf,
    vessels: Vec<Held>,
    written: Mutex<Written>,
}

impl Traffic {
    pub(super) fn new(fleet: &Fleet, vessels: &[String]) -> Self {
        let held = |vessel: &String| {
            let at = fleet.vessel(vessel);
            Held { vessel: vessel.clone(), charts: at.path("charts"), files: at.path("in") }
        };
        Self {
            shore: fleet.path("shore"),
            staged: fleet.path("staging/traffic"),
            vessels: vessels.iter().map(held).collect(),
            written: Mutex::default(),
        }
    }

    /// Writes and deletes until `quiet`; the more vessels, the more slowly.
    pub(super) fn write_until(&self, quiet: &AtomicBool, mut random: fastrand::Rng) {
        let slowness = self.vessels.len() as u64;
        while !quiet.load(Ordering::Relaxed) {
            self.write(&mut random);
            std::thread::sleep(Duration::from_millis(random.u64(3..30) * slowness));
        }
    }

    fn put(&self, below: String, number: u64) {
        fs::write(&self.staged, version(number)).unwrap();
        fs::rename(&self.staged, self.shore.join(below)).unwrap();
    }

    fn write(&self, random: &mut fastrand::Rng) {
        let mut written = self.written.lock().unwrap();
        written.next += 1;
        let number = written.next;
        let what = random.u8(0..10);
        match what {
            0..3 if !is_large(number) || written.large_files < LARGE_FILES => {
                let name = format!("file {number}");
                self.put(format!("in/{name}"), number);
                written.large_files += usize::from(is_large(number));
                written.files.push((name, number));
            }
            3 => {
                let chart = random.u64(0..DELETED);
                if written.charts.get(&chart).copied().flatten().is_some() {
                    written.charts.insert(chart, None);
                    fs::remove_file(self.shore.join(format!("charts/{chart}"))).unwrap();
                }
            }
            _ => {
                let chart = random.u64(0..CHARTS);
                self.put(format!("charts/{chart}"), number);
                written.charts.insert(chart, Some(number));
            }
        }
    }

    /// Looks at the vessels until `over`: what they hold is whole, never older than before, and never missing. Returns the
    /// number of looks.
    pub(super) fn watch(&self, over: &AtomicBool) -> u64 {
        let mut newest: BTreeMap<(&str, u64), u64> = BTreeMap::new();
        let (mut read, mut retired, mut looks) = (Readings::default(), BTreeSet::new(), 0);
        while !over.load(Ordering::Relaxed) {
            for Held { vessel, charts, .. } in &self.vessels {
                for chart in 0..CHARTS {
                    let before = newest.get(&(vessel, chart)).copied();
                    match read.number_at(&charts.join(chart.to_string())) {
                        Some(number) => {
                            let number = number.unwrap_or_else(|| panic!("{vessel} holds a mixed chart {chart}"));
                            assert!(
                                before.is_none_or(|it| it <= number),
                                "{vessel}: chart {chart}: {number} replaced {before:?}"
                            );
                            newest.insert((vessel, chart), number);
                        }
                        None => assert!(chart < DELETED || before.is_none(), "{vessel} lost chart {chart}"),
                    }
                }
            }
            for name in names_in(&self.shore.join("in/processed")) {
                let Some(number) = name.to_str().and_then(|name| name.strip_prefix("file ")) else { continue };
                if !retired.contains(&name) {
                    let number = number.parse().expect("a number");
                    for Held { vessel, files, .. } in &self.vessels {
                        let held = fs::read(files.join(&name)).ok();
                        let held = held.unwrap_or_else(|| panic!("{name:?} was retired before {vessel} had it"));
                        assert!(number_of(&held) == Some(number), "{vessel} holds a mixed file {name:?}");
                    }
                    retired.insert(name);
                }
            }
            looks += 1;
            std::thread::sleep(Duration::from_millis(30));
        }
        looks
    }

    /// The published files of vessels, without temporary ones, and the retired files. Only steps that need the lease change
    /// them.
    pub(super) fn published(&self, vessels: &[String], with_retired: bool) -> BTreeSet<(PathBuf, u64)> {
        let of_vessels = self.vessels.iter().filter(|held| vessels.contains(&held.vessel));
        let mut places: Vec<PathBuf> = of_vessels.flat_map(|held| [held.charts.clone(), held.files.clone()]).collect();
        places.extend(with_retired.then(|| self.shore.join("in/processed")));
        let visible = |place: PathBuf| {
            let names = names_in(&place).into_iter().filter(|name| !name.as_encoded_bytes().starts_with(b"."));
            names
                .filter_map(|name| {
                    let path = place.join(name);
                    let inode = fs::metadata(&path).ok()?.ino();
                    Some((path, inode))
                })
                .collect::<Vec<_>>()
        };
        places.into_iter().flat_map(visible).collect()
    }

    /// Waits until all files have retired and all vessels hold what was written last.
    pub(super) fn wait_until_delivered(&self, fleet: &Fleet) {
        let written = self.written.lock().unwrap();
        for (name, number) in &written.files {
            fleet.wait_until_retired(name);
            self.vessels.iter().for_each(|held| fleet.assert_equal(&held.vessel, name, &version(*number)));
        }
        for (chart, number) in &written.charts {
            for Held { vessel, charts, .. } in &self.vessels {
                let held = || fs::read(charts.join(chart.to_string())).ok().and_then(|bytes| number_of(&bytes));
                wait_until(&format!("chart {chart} on {vessel} to be {number:?}"), || held() == *number);
            }
        }
        println!("{} files, {} charts, {} writes", written.files.len(), written.charts.len(), written.next);
    }
}

/// The versions that were read, so that a file is read again only if it may have changed.
#[derive(Default)]
struct Readings {
    known: BTreeMap<PathBuf, ([u64; 4], u64)>,
}

impl Readings {
    /// The number of the version at a path. `None`: there is no file; `Some(None)`: it is mixed.
    fn number_at(&mut self, path: &Path) -> Option<Option<u64>> {
        let mut file = File::open(path).ok()?;
        let metadata = file.metadata().unwrap();
        let changed = [metadata.ctime(), metadata.ctime_nsec()].map(i64::cast_unsigned);
        let stamp = [metadata.ino(), metadata.len(), changed[0], changed[1]];
        if let Some((known, number)) = self.known.get(path)
            && *known == stamp
        {
            return Some(Some(*number));
        }
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).unwrap();
        let number = number_of(&bytes);
        // Another change at the same moment would leave the stamp as it is.
        let is_old = SystemTime::UNIX_EPOCH + Duration::from_secs(changed[0] + 2) < SystemTime::now();
        if let Some(number) = number.filter(|_| is_old) {
            self.known.insert(path.to_owned(), (stamp, number));
        }
        Some(number)
    }
}
