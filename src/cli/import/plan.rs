//! Plans the directories and vessels for the syncs of a configuration.
//!
//! A directory stands for a source and its options; a vessel for an account on a host. Syncs with the same source and
//! options share a directory, and syncs with the same account share a vessel. The vessel's section contains the
//! directory's location on the vessel.

use super::config::{Config, Sync};
use super::flags::Flags;

/// The sections of the settings to be written.
pub(super) struct Plan {
    pub(super) log: Option<String>,
    pub(super) level: Option<&'static str>,
    /// Whether some syncs are simulated only because that is Poni's documented default.
    pub(super) simulated_by_default: bool,
    /// Whether every sync is simulated.
    pub(super) simulate: bool,
    pub(super) directories: Vec<Directory>,
    pub(super) vessels: Vec<Vessel>,
}

/// The source of a sync, with the sync's options that apply to a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Treatment {
    /// The source's path without a trailing slash.
    pub(super) source: String,
    pub(super) recursive: bool,
    pub(super) links: &'static str,
    pub(super) owner: bool,
    pub(super) interval: u32,
    pub(super) delete: bool,
    pub(super) whole_files: bool,
}

pub(super) struct Directory {
    pub(super) name: String,
    pub(super) treatment: Treatment,
    pub(super) notes: Vec<String>,
}

/// An account on a host, and how to reach it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Account {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) user: Option<String>,
    pub(super) key: Option<String>,
    pub(super) compresses: bool,
}

pub(super) struct Vessel {
    pub(super) name: String,
    pub(super) account: Account,
    /// Whether another vessel uses another account on the same host, so that the two vessels can't share a TempDir.
    pub(super) shares_host: bool,
    pub(super) locations: Vec<Place>,
    pub(super) notes: Vec<String>,
}

/// The location of a directory on a vessel.
pub(super) struct Place {
    /// The directory's name.
    pub(super) name: String,
    pub(super) location: String,
    /// The name of the sync that the location comes from.
    pub(super) sync: String,
    /// Whether this sync is only simulated, while other syncs are not.
    pub(super) simulated: bool,
}

impl Plan {
    pub(super) fn new(config: &Config) -> Self {
        let simulate =
            !config.syncs.is_empty() && config.syncs.iter().all(|sync| is_simulated(sync, &Flags::parse(&sync.flags)));
        let mut plan = Self {
            log: config.log.clone(),
            level: config.level,
            simulated_by_default: config.syncs.iter().any(|sync| sync.by_default.contains(&"simulate")),
            simulate,
            directories: Vec::new(),
            vessels: Vec::new(),
        };
        for sync in &config.syncs {
            let flags = Flags::parse(&sync.flags);
            let vessel = plan.vessel(sync, &flags);
            let directory = plan.directory(sync, &flags, vessel);
            let (name, vessel) = (directory.name.clone(), &mut plan.vessels[vessel]);
            let simulated = !simulate && is_simulated(sync, &flags);
            vessel.locations.push(Place { name, location: remote_location(sync), sync: sync.name.clone(), simulated });
        }
        let accounts: Vec<Account> = plan.vessels.iter().map(|vessel| vessel.account.clone()).collect();
        for vessel in &mut plan.vessels {
            let same_host = |other: &&Account| other.host == vessel.account.host;
            vessel.shares_host = accounts.iter().filter(same_host).any(|other| other.user != vessel.account.user);
        }
        plan
    }

    fn vessel(&mut self, sync: &Sync, flags: &Flags) -> usize {
        let account = Account {
            host: sync.host.clone(),
            port: sync.port,
            user: sync.user.clone(),
            key: sync.key.clone(),
            compresses: flags.compresses,
        };
        if let Some(at) = self.vessels.iter().position(|vessel| vessel.account == account) {
            return at;
        }
        let name = free_name(&sync.host, |name| self.vessels.iter().any(|vessel| vessel.name == name));
        let mut notes = Vec::new();
        if sync.is_local() {
            let note = "Poni runs rsync for this host without SSH, as the user that runs Poni; contentmonster connects \
                        to this host over SSH, so it needs a user, a private key and a known host key";
            notes.push(note.to_owned());
        }
        self.vessels.push(Vessel { name, account, shares_host: false, locations: Vec::new(), notes });
        self.vessels.len() - 1
    }

    /// Returns the directory for a sync: an existing one with the same source and options that the vessel doesn't take
    /// yet, or a new one.
    fn directory(&mut self, sync: &Sync, flags: &Flags, vessel: usize) -> &Directory {
        let treatment = treatment(sync, flags);
        let taken: Vec<&String> = self.vessels[vessel].locations.iter().map(|place| &place.name).collect();
        let found = self.directories.iter().position(|d| d.treatment == treatment && !taken.contains(&&d.name));
        let at = found.unwrap_or_else(|| {
            let basename = treatment.source.rsplit('/').next().unwrap_or_default();
            let name = free_name(basename, |name| self.directories.iter().any(|directory| directory.name == name));
            self.directories.push(Directory { name, treatment, notes: Vec::new() });
            self.directories.len() - 1
        });
        let directory = &mut self.directories[at];
        for note in notes(sync, flags) {
            if !directory.notes.contains(&note) {
                directory.notes.push(note);
            }
        }
        directory
    }
}

fn is_simulated(sync: &Sync, flags: &Flags) -> bool {
    sync.simulate || flags.dry_run
}

fn treatment(sync: &Sync, flags: &Flags) -> Treatment {
    Treatment {
        source: without_slash(&sync.source).to_owned(),
        recursive: flags.recursive,
        links: match (flags.follows_links, flags.copies_links) {
            (true, _) => "follow",
            (false, true) => "copy",
            (false, false) => "skip",
        },
        owner: flags.owner,
        interval: sync.interval,
        delete: sync.delete,
        whole_files: flags.whole_files,
    }
}

/// Lists differences between Poni and contentmonster for this sync, and options without an equivalent.
fn notes(sync: &Sync, flags: &Flags) -> Vec<String> {
    let mut notes: Vec<String> = flags.notes.iter().map(|note| format!("rsync_opts {}: {note}", sync.flags)).collect();
    if sync.by_default.contains(&"interval") {
        notes.push("interval is not set: Poni's documentation says both 10 s and 3 s, its code waits 10 s".to_owned());
    }
    match (sync.recurse, flags.recursive) {
        (false, true) => notes.push(
            "recurse: false. Poni sees only changes at the top level, but then copies everything below it; \
             contentmonster sees changes everywhere"
                .to_owned(),
        ),
        (_, false) => notes.push(
            "without `r` or `a` rsync skips directories: if the source is a directory, Poni copies nothing of it; \
             contentmonster sends its files, but not its subdirectories"
                .to_owned(),
        ),
        (true, true) => {}
    }
    notes
}

/// Returns the directory that `rsync` fills: a directory of the source's name in the target, or the target itself if
/// the source ends with a slash.
fn remote_location(sync: &Sync) -> String {
    // Poni prefixes every path on an SSH host with a slash.
    let path = if sync.is_local() { sync.path.clone() } else { format!("/{}", sync.path) };
    let mut below: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    if !sync.source.ends_with('/') {
        below.extend(without_slash(&sync.source).rsplit('/').next().filter(|name| !name.is_empty()));
    }
    let root = if path.starts_with('/') { "/" } else { "" };
    format!("{root}{}", below.join("/"))
}

fn without_slash(path: &str) -> &str {
    match path.trim_end_matches('/') {
        "" => "/",
        path => path,
    }
}

/// Returns a section name made from a path or host, with a number if `is_taken` returns true for the name.
fn free_name(wanted: &str, is_taken: impl Fn(&str) -> bool) -> String {
    let plain = |c: char| if c.is_alphanumeric() || matches!(c, '-' | '_' | '.') { c } else { '_' };
    let name: String = match wanted.chars().map(plain).collect::<String>() {
        empty if empty.is_empty() => "root".to_owned(),
        name => name,
    };
    let numbered = (2..).map(|number| format!("{name}-{number}"));
    std::iter::once(name.clone()).chain(numbered).find(|name| !is_taken(name)).expect("numbers don't end")
}
