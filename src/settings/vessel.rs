//! `[Vessel y]`: a destination. Its fields, and the rows of its keys (`KEYS`), except those of the
//! [route](super::vessel_route).

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::budget::{self, Budget};
use super::directory::Directory;
use super::hints::nearest;
use super::key::Preset::{Otherwise, Value};
use super::key::Reload::AtOnce;
use super::key::Transport::Ssh;
use super::key::{Filled::Here, PER_DIRECTORY, SectionKind};
use super::link::{self, Assembly, Compression, CongestionControl, Connections, Shell, SmallFiles, Verify};
use super::link_section;
use super::monster::Monster;
use super::network_link::Link;
use super::placeholders::{self, Placeholders};
use super::priority::Priority;
use super::priority_keys;
use super::problems::{Diagnostic, Place};
use super::rate::{self, RateSchedule};
use super::reserve::{self, Reserve};
use super::schedule::{self, Schedule};
use super::section_view::View;
use super::ssh_host::SshHost;
use super::ssh_route;
use super::table::{self, Key, field, key};
use super::values;
use super::vessel_route::{self, RouteKeys};
use super::way::Way;
use super::written_value::Written;
use crate::names::{DirectoryName, RelPath, RemotePath, VesselName};

/// `[Vessel y]`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Vessel {
    /// The `y` of `[Vessel y]`.
    pub name: VesselName,
    /// `Transport = local`: the vessel is this host, without SSH; `None`: the vessel is reached over SSH.
    pub local: Option<LocalTarget>,
    /// `Address`, `Port`, `Username`, keys and host keys, completed from the ssh config.
    pub ssh: SshHost,
    /// `ProxyJump`: the hops on the way to the vessel, the nearest first.
    pub hops: Vec<SshHost>,
    /// The link of [`Self::ssh`]; `None` for a plain `Address`.
    pub link: Option<Arc<Link>>,
    /// All ways to the vessel, the preferred one first; [`Self::ssh`] belongs to one of them. Empty with
    /// `Transport = local`.
    pub ways: Vec<Way>,
    /// `TempDir`: the directory of parts on the vessel.
    pub temp_dir: RemotePath,
    /// `Timeout`: the time limit for connecting, for logging in, and for any answer.
    pub timeout: Duration,
    /// `ReconnectWait`: the longest wait before a reconnect after a connection or its handshake failed.
    pub reconnect_wait: Duration,
    /// `AwayAfter`: how long the vessel may be away before OnTrouble and the webhooks are notified.
    pub away_after: Duration,
    /// `Groups`: the groups of the vessel, in the order of the setting; later groups take precedence.
    pub groups: Vec<String>,
    /// `Dirs`: the only directories for this vessel; `None`: all directories.
    pub dirs: Option<BTreeSet<DirectoryName>>,
    /// `IgnoreDirs`: directories that are not for this vessel.
    pub ignore_dirs: BTreeSet<DirectoryName>,
    /// `RemoteLocation.x`: the location of directory x on this vessel, instead of the directory's own `RemoteLocation`.
    pub remote_locations: BTreeMap<DirectoryName, RemotePath>,
    /// `Connections`: the number of connections to the vessel.
    pub connections: Connections,
    /// `CongestionControl`: the TCP congestion control of the vessel's connections.
    pub congestion_control: CongestionControl,
    /// `Compression`: whether and how the data is compressed.
    pub compression: Compression,
    /// `RateLimit`: the maximum rate of file data to the vessel over all connections together.
    pub rate_limit: RateSchedule,
    /// `Schedule` and `Schedule.tz`: when files may be sent to the vessel.
    pub schedule: Schedule,
    /// `ScheduleExempt`: the priorities to which the schedule does not apply.
    pub schedule_exempt: Vec<Priority>,
    /// `Budget`: the maximum number of bytes on the links to the vessel.
    pub budget: Budget,
    /// `BudgetReserve`: the part of the budget that is kept for files of high priority.
    pub reserve: Option<Reserve>,
    /// `Together`: whether all ways to the vessel are used at once.
    pub together: bool,
    /// `Assembly`: how files of several chunks are assembled on the vessel.
    pub assembly: Assembly,
    /// `Shell`: whether commands are run on the vessel.
    pub shell: Shell,
    /// `SmallFiles`: how files of at most 1 MiB are sent.
    pub small_files: SmallFiles,
    /// `Verify`: how copies are verified.
    pub verify: Verify,
}

/// A target on this host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LocalTarget {
    /// `MountPoint`: the directory that must be a mount point before files are written; `None`: no check.
    pub mount_point: Option<PathBuf>,
    /// The locations of the directories that this vessel takes.
    pub places: Vec<LocalPlace>,
    /// The `Location`s of all directories, even of those that this vessel doesn't take: directories or single files.
    pub sources: Vec<PathBuf>,
}

/// The location of one directory on this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalPlace {
    /// The directory.
    pub directory: DirectoryName,
    /// The directory's `RemoteLocation` on this vessel, absolute.
    pub path: PathBuf,
    /// Whether `path` is the path of a single file.
    pub is_file: bool,
}

impl LocalPlace {
    /// Returns the directory that must exist before files are written, because it is never created.
    pub fn base(&self) -> &Path {
        if self.is_file { self.path.parent().unwrap_or(&self.path) } else { &self.path }
    }
}

impl table::Section for Vessel {
    const KIND: SectionKind = SectionKind::Vessel;
}

#[rustfmt::skip]
pub(super) static KEYS: &[Key<Vessel>] = &[
    key("Groups", Value(""), field!(Vessel.groups, groups))
        .value("names, separated by commas").reload(AtOnce)
        .doc("Groups of the vessel: each [Group z] sets keys for all vessels that name it. The keys of later groups take \
              precedence over those of earlier ones, and the keys in the vessel's own section over both."),
    key("TempDir", Value("/tmp/.ContentMonster"), field!(Vessel.temp_dir, |it| values::remote_path(it.text)))
        .value("a path").transport(Ssh).filled(Here)
        .doc("Directory on the vessel for parts until they are joined: absolute, or relative to the login directory. \
              It is created with mode 0700. Two vessels that are the same account on the same host need different \
              directories."),
    key("Timeout", Value("10s"), field!(Vessel.timeout, Written::duration))
        .value("a duration from 1s to 1h")
        .doc("Timeout for connecting, for logging in, and for any answer. It is six times as long for starting SFTP, \
              and for closing, renaming or flushing a file."),
    key("AwayAfter", Value("1h"), field!(Vessel.away_after, Written::duration))
        .value("a duration from 1s to 365d").reload(AtOnce)
        .doc("How long the vessel may be away before OnTrouble and the webhooks are notified; they are notified again \
              when it is connected again."),
    key("ReconnectWait", Value("60s"), field!(Vessel.reconnect_wait, Written::duration))
        .value("a duration from 1s to 1d")
        .doc("Maximum wait before a reconnect after a connection or its handshake failed. The first wait is at most \
              1 s; the limit doubles with each further failure up to this value, and is 1 s again after a connection \
              that has sent file data. Regardless of this value, a vessel that cannot be reached is retried after at \
              most 3 s, one whose host key is not trusted after at most 30 s, and one that rejects the login or \
              offers no SFTP after at most 15 min."),
    key("Connections", Value("auto"), field!(Vessel.connections, |it| it.accept(link::connections)))
        .value("auto, or a number from 1 to 8").transport(Ssh)
        .doc("Number of connections to the vessel: auto (as many as increase the throughput), or a fixed number."),
    key("CongestionControl", Value("auto"), field!(Vessel.congestion_control, |it| it.accept(link::congestion_control)))
        .value("auto, system, or a name that `sysctl net.ipv4.tcp_available_congestion_control` shows, such as bbr").transport(Ssh)
        .doc("TCP congestion control of this host: auto (BBR if the kernel allows it to this program, which makes \
              lossy links many times faster, else the system's default), system (the system's default), or the \
              kernel's name of an algorithm, such as bbr, cubic or reno."),
    key("Compression", Value("no"), field!(Vessel.compression, compression))
        .value("no, yes or auto").transport(Ssh)
        .doc("Compression on slow links: no, yes (SSH compresses everything if the vessel offers zlib@openssh.com), or \
              auto (each file of several chunks that shrinks to less than 90 % is sent compressed while the link is \
              slower than the compressor, and `zstd -d` or `gzip -d` in the vessel's shell expands it; SSH compresses \
              only on connections to a vessel that has neither, or whose shell is not used). RateLimit then counts the \
              compressed bytes."),
    key("RateLimit", Value("none"), field!(Vessel.rate_limit, |it| rate::schedule(it.text)))
        .value("rates from 1 KiB/s to 1 TiB/s, or none").reload(AtOnce)
        .doc("Maximum rate of file data to the vessel, over all its connections. It may depend on the time of day: \
              `08:00-18:00 2 MiB/s, 10 MiB/s`, or `22:00-06:00 none, 1 MiB/s`. Times are local; the first span that \
              contains the current time applies, else the rate without a span. If neither exists, and with `none`, \
              there is no limit."),
    key("Budget", Value("none"), field!(Vessel.budget, |it| budget::budget(it.text)))
        .value("amounts for each day or month, such as 50 MB/day, 1 GB/month, or none").transport(Ssh)
        .doc("Maximum number of bytes on the link to the vessel, over all its ways, in both directions and with headers. \
              Days and months are those of UTC. When the budget is spent, files wait until the next day or month."),
    key("BudgetReserve", Value("none"), field!(Vessel.reserve, |it| reserve::reserve(it.text)))
        .value("a part from 1% to 99% and a priority, such as 20% high, or none").transport(Ssh)
        .doc("Part of each limit of the Budget that is reserved for files of this priority and higher ones. When only \
              the reserve is left, files of lower priorities wait until the next day or month."),
    key("Together", Value("no"), field!(Vessel.together, Written::yes_or_no))
        .value("yes or no").transport(Ssh)
        .doc("Whether large files go over all ways to the vessel at once: yes (each way has connections of its own and \
              carries as many parts of a file as it can), or no (one way is used, the others are on standby)."),
    key("Assembly", Value("cat"), field!(Vessel.assembly, |it| it.choice(&[("cat", Assembly::Cat), ("direct", Assembly::Direct)])))
        .value("cat or direct").transport(Ssh)
        .doc("How files of several chunks are assembled on the vessel: cat (chunks that are sent over several \
              connections at once are stored as parts in TempDir, then joined), or direct (one connection writes each \
              file in order, beside its destination)."),
    key("Shell", Value("auto"), field!(Vessel.shell, |it| it.choice(&[("auto", Shell::Auto), ("no", Shell::No)])))
        .value("auto or no").transport(Ssh)
        .doc("Whether the vessel's shell is used in addition to SFTP, for joining, hashing and flushing files: auto \
              (if it works), or no (only SFTP: files are written in place, and verified as Verify says). A server that \
              closes the connection or does not answer when a shell is requested is recorded as having no shell, and \
              asked again after 1 day."),
    key("SmallFiles", Value("auto"), field!(Vessel.small_files, |it| it.choice(&[
        ("auto", SmallFiles::Auto), ("shell", SmallFiles::Shell), ("sftp", SmallFiles::Sftp),
    ])))
        .value("auto, shell or sftp").transport(Ssh)
        .doc("How files of at most 1 MiB are sent: shell (a command that runs on the vessel during the connection \
              receives, verifies, flushes and renames each file, in one round trip instead of six; files that it \
              cannot receive go over SFTP; larger files are sent over SFTP, and one command verifies, flushes and \
              renames each of them), sftp, or auto (shell on paths with a round-trip time of 20 ms and more)."),
    key("Verify", Value("hash"), field!(Vessel.verify, |it| it.choice(&[("hash", Verify::Hash), ("read-back", Verify::ReadBack), ("size", Verify::Size)])))
        .value("hash, read-back or size").transport(Ssh)
        .doc("How a copy is verified before its name appears: hash (the vessel hashes its copy, in its shell or by SFTP's \
              check-file; if it can do neither, the shore reads the copy back, which costs its size once more on the \
              link), read-back (the shore always reads the copy back, for those who do not trust the vessel's \
              programs), or size (as hash, but if the vessel can't hash, only the size is compared: nothing is read \
              back, and a damaged copy of the right size counts as delivered)."),
    key("Schedule", Value("always"), field!(Vessel.schedule.windows, |it| schedule::windows(it.text)))
        .value("always, or windows separated by commas")
        .doc("When files and deletions are sent to this vessel, as in [Directory x]. Outside of the windows, no \
              connection to the vessel is kept. If the directory has a Schedule too, both must be open."),
    key("Schedule.tz", Value("local"), field!(Vessel.schedule.zone, |it| schedule::zone(it.text)))
        .value("local, or the name of a time zone")
        .doc("Time zone of Schedule, such as Europe/Berlin or UTC."),
    key("ScheduleExempt", Value(""), field!(Vessel.schedule_exempt, priority_keys::list))
        .value("priorities, separated by commas")
        .doc("Priorities that are sent to this vessel outside of its Schedule too, such as urgent."),
    key("Dirs", Otherwise("all directories"), field!(Vessel.dirs, dirs))
        .value("names, separated by commas").example("sampledir")
        .doc("The only directories that are sent to this vessel."),
    key("IgnoreDirs", Value(""), field!(Vessel.ignore_dirs, ignore_dirs))
        .value("names, separated by commas")
        .doc("Directories that are not sent to this vessel."),
    key("RemoteLocation.x", Otherwise("the RemoteLocation of the directory"), field!(Vessel.remote_locations, remote_locations))
        .value("a path").example("/srv/replication")
        .doc("Destination of the directory x on this vessel: absolute, or relative to the login directory."),
];

/// Reads `[Vessel y]`; returns `None` after reporting an error.
///
/// `directories` are all directories without errors. If the `RemoteLocation` of a directory contains `{vessel}` or
/// `{group}`, its location on this vessel is added to the vessel's `remote_locations`.
pub(super) fn read(view: &View<'_>, monster: Option<&Monster>, directories: &[(Directory, Place)]) -> Option<Vessel> {
    let view = &View { is_local: view.find("Transport").is_some_and(|(_, entry)| entry.value == "local"), ..*view };
    let (mut route, mut vessel) =
        (RouteKeys::default(), Vessel { name: VesselName::new(view.name), ..Vessel::default() });
    let sound = table::read(vessel_route::KEYS, view, &mut route) & table::read(KEYS, view, &mut vessel);
    ssh_route::check_port(view, &route);
    priority_keys::check_schedule(view);
    ssh_route::check_socket(view, &route);
    if view.is_local {
        check_local(view, &route);
    } else if view.own.is_some_and(|own| own.entry("MountPoint").is_some()) {
        let diagnostic = Diagnostic::new("has no effect without Transport = local", "remove the line");
        view.problems.warn(view.place_of("MountPoint"), diagnostic);
    }
    if !sound {
        return None;
    }
    let chunk_size = monster.map_or(0, |monster| monster.chunk_size);
    link_section::check_budget(view, &vessel.budget, chunk_size);
    priority_keys::check_reserve(view, &vessel.budget, vessel.reserve, chunk_size);
    let mount_point = route.mount_point.take();
    let mut ways = ssh_route::ways(view, &route, vessel.timeout)?;
    if vessel.together && ways.len() < 2 && view.own.is_some_and(|own| own.entry("Together").is_some()) {
        let message = "has no effect, because the vessel has only one address";
        let diagnostic = Diagnostic::new(message, "add another address, or remove the line");
        view.problems.warn(view.place_of("Together"), diagnostic);
    }
    let Way { link, ssh, hops } = ways.first()?.clone();
    let local = view.is_local.then(|| LocalTarget { mount_point, ..LocalTarget::default() });
    if local.is_some() {
        ways.clear();
    }
    let mut vessel = Vessel { local, link, ssh, hops, ways, ..vessel };
    let sound = fill_locations(view, directories, &mut vessel);
    sound.then_some(vessel)
}

/// Adds the location on this vessel of each directory whose RemoteLocation depends on the vessel. Returns `false` after
/// reporting an error.
fn fill_locations(view: &View<'_>, directories: &[(Directory, Place)], vessel: &mut Vessel) -> bool {
    let mut sound = true;
    for (directory, place) in directories {
        let text = String::from_utf8_lossy(directory.remote_location.as_bytes());
        let depends = placeholders::has_any(&text) && vessel.takes(&directory.name);
        if !depends || vessel.remote_locations.contains_key(&directory.name) {
            continue;
        }
        let filling = Placeholders { directory: Some(directory.name.as_str()), ..view.placeholders };
        match filling.fill(&text).and_then(|text| values::remote_path(&text)) {
            Ok(path) => drop(vessel.remote_locations.insert(directory.name.clone(), path)),
            Err(Diagnostic { message, remedy }) => {
                let message = format!("on [Vessel {}]: {message}", vessel.name);
                view.problems.report(place.clone().at_key("RemoteLocation"), Diagnostic { message, remedy });
                sound = false;
            }
        }
    }
    sound
}

fn groups(written: &Written<'_>) -> Result<Vec<String>, Diagnostic> {
    Ok(values::list(written.text).map(str::to_owned).collect())
}

/// Reports the keys for SSH in the section of a vessel that is this host. Such keys in groups and in `[DEFAULT]` are
/// not reported, because they are meant for other vessels.
fn check_local(view: &View<'_>, route: &RouteKeys) {
    let of_ssh = |name: &str| {
        let of_route = vessel_route::KEYS.iter().map(|key| &key.known);
        of_route.chain(KEYS.iter().map(|key| &key.known)).any(|key| key.is_named(name) && key.transport == Ssh)
    };
    let entries = view.own.into_iter().flat_map(|own| own.entries.iter().map(move |entry| (own, entry)));
    for (section, entry) in entries.filter(|(_, entry)| of_ssh(&entry.key)) {
        let place = section.place_of(entry);
        if entry.key == "TempDir" {
            let message = "is not used with Transport = local: files are assembled beside their destinations";
            view.problems.warn(place, Diagnostic::new(message, "remove the line"));
        } else {
            let message = "has no effect with Transport = local, which uses no SSH";
            view.problems.report(place, Diagnostic::new(message, "remove the line"));
        }
    }
    if route.addresses.iter().any(|(address, _)| address != "localhost") || route.addresses.len() > 1 {
        let diagnostic = Diagnostic::new(
            "with Transport = local, files are copied on this host, so no other address can be used",
            "write `Address = localhost`",
        );
        view.problems.report(view.place_of("Address"), diagnostic);
    }
}

fn compression(written: &Written<'_>) -> Result<Compression, Diagnostic> {
    written.choice(&[("no", Compression::No), ("yes", Compression::Yes), ("auto", Compression::Auto)])
}

fn dirs(written: &Written<'_>) -> Result<Option<BTreeSet<DirectoryName>>, Diagnostic> {
    let names = values::list(values::not_empty(written.text)?);
    Ok(Some(names.map(|name| directory_name(written, written.view.place_of("Dirs"), name)).collect()))
}

fn ignore_dirs(written: &Written<'_>) -> Result<BTreeSet<DirectoryName>, Diagnostic> {
    let name = |name: &str| {
        // An unknown name is an error, because with a misspelt name a directory would be sent to a vessel that should
        // not get it. The name `anotherdir` causes only a warning: the sample settings of the original Python program,
        // from which many settings files were made, list this name in IgnoreDirs without defining it.
        if name == "anotherdir" && !written.view.directories.contains(&name) {
            let message = format!("there is no [Directory {name}], so IgnoreDirs need not name it");
            let diagnostic = Diagnostic::new(message, "name a configured directory, or remove the name");
            written.view.problems.warn(written.view.place_of("IgnoreDirs"), diagnostic);
            return DirectoryName::new(name);
        }
        directory_name(written, written.view.place_of("IgnoreDirs"), name)
    };
    Ok(values::list(written.text).map(name).collect())
}

fn remote_locations(written: &Written<'_>) -> Result<BTreeMap<DirectoryName, RemotePath>, Diagnostic> {
    let mut locations = BTreeMap::new();
    for section in written.view.layers() {
        for entry in &section.entries {
            let Some(name) = entry.key.strip_prefix(PER_DIRECTORY) else { continue };
            let name = directory_name(written, section.place_of(entry), name);
            let filling = Placeholders { directory: Some(name.as_str()), ..written.view.placeholders };
            match filling.fill(&entry.value).and_then(|text| values::remote_path(&text)) {
                // The first value applies: the vessel's own section comes before its groups and `[DEFAULT]`.
                Ok(path) => drop(locations.entry(name).or_insert(path)),
                Err(diagnostic) => written.view.problems.report(section.place_of(entry), diagnostic),
            }
        }
    }
    Ok(locations)
}

/// Returns the name of a directory; reports an error if there is no such directory.
fn directory_name(written: &Written<'_>, place: Place, name: &str) -> DirectoryName {
    let View { problems, directories, .. } = written.view;
    if name.is_empty() {
        let diagnostic = Diagnostic::new("the name of the directory is missing", "write it after `RemoteLocation.`");
        problems.report(place, diagnostic);
    } else if !directories.contains(&name) {
        let remedy = match nearest(name, directories.iter().copied()) {
            Some(near) => format!("did you mean {near}?"),
            None => "name a configured directory".to_owned(),
        };
        problems.report(place, Diagnostic::new(format!("there is no [Directory {name}]"), remedy));
    }
    DirectoryName::new(name)
}

impl Vessel {
    /// Returns the vessel's settings for connections over one of its ways.
    pub fn over(&self, way: &Way) -> Self {
        let Way { link, ssh, hops } = way.clone();
        Self { link, ssh, hops, ..self.clone() }
    }

    /// Returns whether the vessel has several ways, or one way over a configured link, whose limits apply.
    pub fn has_ways(&self) -> bool {
        self.ways.len() > 1 || self.link.is_some()
    }

    /// Returns the name of the way over which the vessel is reached; `None` if the settings have only one address,
    /// without a link.
    pub fn way(&self) -> Option<String> {
        self.has_ways().then(|| Way { link: self.link.clone(), ssh: self.ssh.clone(), hops: Vec::new() }.name())
    }

    /// Returns whether a shore may serve the vessel: whether each directory that the vessel takes has this shore, or no
    /// shore, as its `Shore`.
    pub fn may_be_served_by(&self, shore: &str, directories: &[Directory]) -> bool {
        let mut taken = directories.iter().filter(|directory| self.takes(&directory.name));
        taken.all(|directory| directory.shore.is_empty() || directory.shore == shore)
    }

    /// Returns whether files of a directory go to this vessel.
    pub fn takes(&self, directory: &DirectoryName) -> bool {
        !self.ignore_dirs.contains(directory) && self.dirs.as_ref().is_none_or(|dirs| dirs.contains(directory))
    }

    /// Returns the location of a directory on this vessel.
    pub fn remote_location<'a>(&'a self, directory: &'a Directory) -> &'a RemotePath {
        self.remote_locations.get(&directory.name).unwrap_or(&directory.remote_location)
    }

    /// Returns the path of a directory's file on this vessel.
    pub fn destination(&self, directory: &Directory, path: &RelPath) -> RemotePath {
        let location = self.remote_location(directory);
        if directory.only.is_some() { location.clone() } else { location.join_rel(path) }
    }
}
