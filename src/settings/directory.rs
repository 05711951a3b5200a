//! `[Directory x]`: a replicated directory. Its fields, and a table row for each of its keys.

use std::collections::BTreeSet;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::key::Preset::{Otherwise, Required, Value};
use super::key::Reload::Background;
use super::key::{Filled::Later, SectionKind};
use super::link::{Dedup, Delta};
use super::mirror::{self, Links, MaxDelete, Mode};
use super::monster::Monster;
use super::notifications::{self, Hooks};
use super::patterns::{self, Globs, Patterns};
use super::priority::{Order, Priority};
use super::priority_keys;
use super::problems::Diagnostic;
use super::retention::{self, KeepProcessed};
use super::schedule::{self, Schedule};
use super::section_view::View;
use super::table::{self, Key, field, key};
use super::values;
use super::written_value::Written;
use crate::names::{DirectoryName, RelPath, RemotePath};

/// `[Directory x]`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Directory {
    /// The `x` of `[Directory x]`.
    pub name: DirectoryName,
    /// `Location`: the directory's path on the shore, absolute.
    pub location: PathBuf,
    /// `RemoteLocation`: the directory's path on the vessels; default: the same as on the shore.
    pub remote_location: RemotePath,
    /// `SettleTime`: how long a file must stay unchanged before it retires and, if no close event was seen, before it
    /// is sent.
    pub settle_time: Duration,
    /// `RescanInterval`: how often the whole directory is scanned in addition to the kernel's events.
    pub rescan_interval: Duration,
    /// `IgnoreNames`: file names that are skipped.
    pub ignore_names: Globs,
    /// `Delta`: whether only the changed blocks of a changed file are sent.
    pub delta: Delta,
    /// `Dedup`: whether content that a vessel already has is copied or renamed there instead of being sent.
    pub dedup: Dedup,
    /// `Mode`: whether sources retire or stay.
    pub mode: Mode,
    /// `Recursive`: whether subdirectories are included.
    pub recursive: bool,
    /// `Delete`: whether a mirror's deletions are repeated on the vessels.
    pub delete: bool,
    /// `MaxDelete`: the limit of deletions that are repeated on the vessels within 1 minute.
    pub max_delete: MaxDelete,
    /// `Consumed`: whether a file counts as delivered if the reply to its rename was lost and the vessel has it under
    /// neither its temporary nor its final name.
    pub consumed: bool,
    /// `Links`: how symbolic links are handled.
    pub links: Links,
    /// `Owner`: whether owner and group are set on the vessels.
    pub owner: bool,
    /// `Interval`: the shortest time between two deliveries of changes; zero: each change is sent at once.
    pub interval: Duration,
    /// `Include`: the files to replicate; empty: all.
    pub include: Patterns,
    /// `Exclude`: the files to skip.
    pub exclude: Patterns,
    /// `MinSize`: smallest size of a file, in bytes.
    pub min_size: u64,
    /// `MaxSize`: largest size of a file, in bytes.
    pub max_size: u64,
    /// `MinAge`: shortest time since a file's last change.
    pub min_age: Duration,
    /// `Priority`: the priority of the directory's files; a vessel gets files of the highest priority first.
    pub priority: Priority,
    /// `Order`: the order of the files within the directory.
    pub order: Order,
    /// `Expire`: how long a version may wait for its delivery; `None`: forever.
    pub expire: Option<Duration>,
    /// `Schedule` and `Schedule.tz`: when files may be sent.
    pub schedule: Schedule,
    /// `ScheduleExempt`: the priorities to which the schedule does not apply.
    pub schedule_exempt: Vec<Priority>,
    /// `Shore`: the only shore that serves the directory and the vessels that take it; empty: any shore.
    pub shore: String,
    /// `KeepProcessed`: how long delivered sources are kept.
    pub keep_processed: KeepProcessed,
    /// `OnDelivered`, `OnRetired`, `OnParked`: the commands for events.
    pub hooks: Hooks,
    /// The file's name if `Location` is a single file. `location` is then the directory that contains the file, and
    /// each remote location is the path of the file itself. Set by [`Directory::of_one_file`], because the settings do
    /// not say whether `Location` is a file or a directory.
    pub only: Option<RelPath>,
    /// The program's own files, which are never replicated.
    pub own_files: Arc<OwnFiles>,
}

/// The program's own files, by their absolute paths.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OwnFiles {
    /// Files that people create: the settings, keys and secrets.
    pub fixed: BTreeSet<PathBuf>,
    /// Files that the program creates and removes: the ledger and SQLite's files beside it, the lock files, the socket
    /// and the log.
    pub changing: BTreeSet<PathBuf>,
    /// The ledger's file; `None` if the ledger is in PostgreSQL. Copies of the ledger from before upgrades are beside
    /// it; their names are the ledger's name, `.schema-` and a number.
    pub ledger: Option<PathBuf>,
}

impl table::Section for Directory {
    const KIND: SectionKind = SectionKind::Directory;
}

#[rustfmt::skip]
pub(super) static KEYS: &[Key<Directory>] = &[
    key("Location", Required, field!(Directory.location, Written::path))
        .value("a path").example("/home/user/replication")
        .doc("Directory on this host whose files are sent. Unless it is a mirror, files that every vessel has \
              acknowledged move to processed/ inside it. Location may also be a single file; RemoteLocation is then \
              the path of the file on the vessels. processed may be a symbolic link to another disk if it belongs to \
              root or to the program's user and no other user may write to Location."),
    key("RemoteLocation", Otherwise("the same path as Location"), field!(Directory.remote_location, |it| values::remote_path(it.text)))
        .value("a path").example("/home/user/replication").filled(Later)
        .doc("Destination directory on the vessels: absolute, or relative to the login directory. `{vessel}`, \
              `{group}` (the vessel's last group), `{directory}` and `{hostname}` (of this host) stand for the names."),
    key("SettleTime", Value("2s"), field!(Directory.settle_time, Written::duration))
        .value("a duration from 10ms to 1d").reload(Background)
        .doc("A file is complete when no process has it open for writing; the kernel reports this, so pauses between \
              writes do not matter. It is sent when it is closed. It retires when it has not changed for SettleTime (if \
              it was closed only once: for SettleTime, but at most 10 s), so that a program that appends to it \
              repeatedly still finds it under its name. A file whose closing was not observed is sent after it has not changed for \
              SettleTime. Where the kernel cannot tell whether the file is open (for example on network file systems), \
              this wait is longer by a quarter of the time during which the file was written, and by 1 s per 16 MiB of \
              its size."),
    key("RescanInterval", Value("60s"), field!(Directory.rescan_interval, Written::duration))
        .value("a duration from 1s to 1d").reload(Background)
        .doc("Interval between full scans of the directory. Changes are also detected at once, without a scan."),
    key("IgnoreNames", Value("*.part, *.partial, *.tmp, *~, .*.sw?, *.crdownload, *.filepart, *.opdownload, *.aria2, *.gstmp, \
                              .*.[0-9A-Za-z][0-9A-Za-z][0-9A-Za-z][0-9A-Za-z][0-9A-Za-z][0-9A-Za-z], .in.*, .pureftpd-upload.*, \
                              .goutputstream-*, *.kate-swp, .~lock.*, ~$*, .#*, [#]*[#], .nfs????????*, .fuse_hidden*"),
        field!(Directory.ignore_names, patterns::read_globs))
        .value("globs, separated by commas, or none").reload(Background)
        .doc("Names of files that are skipped, such as files that are still being written. `none` skips nothing. The \
              default contains the temporary names of browsers (*.part, *.crdownload, *.opdownload), rclone \
              (*.partial), WinSCP (*.filepart), rsync (.NAME.XXXXXX: six letters or digits), aria2, gsutil, lftp and \
              FTP servers (.in.*, .pureftpd-upload.*), Syncthing (*.tmp), editors and office programs (*~, .*.sw?, \
              .goutputstream-*, *.kate-swp, .~lock.*, ~$*, .#*, #*#), NFS and FUSE (.nfs*, .fuse_hidden*). cp, scp and \
              curl write to the final name; see SettleTime."),
    key("Delta", Value("auto"), field!(Directory.delta, |it| it.choice(&[("auto", Delta::Auto), ("yes", Delta::Yes), ("no", Delta::No)])))
        .value("auto, yes or no")
        .doc("Whether only the changed blocks of a changed file are sent; the vessel copies the other blocks from its \
              earlier version or, if the file is larger than `ChunkSize`, from another file of the directory, such as a \
              log that was rotated and then changed. `yes`: from the second version on. Every file of 1 MiB or more is prepared for this, \
              which costs some time. `auto`: like `yes` in a mirror, elsewhere from the third version of a name on. \
              `no`: never."),
    key("Dedup", Value("auto"), field!(Directory.dedup, |it| it.choice(&[("auto", Dedup::Auto), ("no", Dedup::No)])))
        .value("auto or no")
        .doc("Whether content that a vessel has already is used instead of being sent. `auto`: if the vessel received a \
              file of 1 MiB or more with the same content before, from this or another directory, it copies that file, \
              and the copy is verified. In a mirror with `Delete = yes`, a file or directory that was moved here is \
              renamed on the vessel, if it was delivered from here and has not changed there since. `no`: everything is sent."),
    key("Mode", Value("replicate"), field!(Directory.mode, |it| it.choice(&[("replicate", Mode::Replicate), ("mirror", Mode::Mirror)])))
        .value("replicate or mirror")
        .doc("replicate: a file that all vessels have received moves to processed/. mirror: sources stay where they \
              are, and every change to them is sent to the vessels. Several mirrors may have the same Location, with \
              different RemoteLocations."),
    key("Recursive", Value("no"), field!(Directory.recursive, Written::yes_or_no))
        .value("yes or no").reload(Background)
        .doc("yes: files in directories below Location are sent too, and in a mirror the directories themselves, even \
              empty ones. processed/ keeps the paths. A directory on a vessel gets the mode of the directory here plus \
              u+rwx."),
    key("Delete", Value("no"), field!(Directory.delete, Written::yes_or_no))
        .value("yes or no").reload(Background)
        .doc("yes: files, links and directories that are deleted here are deleted on the vessels too. Only in a mirror, \
              and only if they were delivered from here and have not changed on the vessel since. Nothing is deleted \
              when Location vanishes, becomes empty, or is replaced by another directory."),
    key("MaxDelete", Value("100"), field!(Directory.max_delete, |it| it.accept(mirror::max_delete)))
        .value("a number, or 0% to 100%").reload(Background)
        .doc("Maximum number of paths (files, links, directories) that are deleted on the vessels within 1 minute: a \
              number, or a percentage of all paths in the mirror, such as 10%. If deletions that are found \
              together would exceed it, none of them is carried out until the limit allows all of them (a minute has \
              passed, files were restored, or MaxDelete was raised), or until a start with `--allow-deletes`."),
    key("Consumed", Value("yes"), field!(Directory.consumed, Written::yes_or_no))
        .value("yes or no")
        .doc("For vessels where another program removes files as soon as they appear. It applies if a connection \
              breaks while a file is renamed to its final name, and the file has neither its temporary nor its final \
              name afterwards. yes: the file counts as delivered and removed by that program. no: it is sent again, \
              so that the program may receive it twice."),
    key("Links", Value("skip"), field!(Directory.links, |it| it.choice(&[("skip", Links::Skip), ("follow", Links::Follow), ("copy", Links::Copy)])))
        .value("skip, follow or copy")
        .doc("Symbolic links in a mirror: skip ignores them; copy creates the same link on the vessel; follow sends \
              the file or directory that the link points to, wherever that is, so use it only if no other user may \
              write to Location. With skip and copy, the targets of links are never read."),
    key("Owner", Value("no"), field!(Directory.owner, Written::yes_or_no))
        .value("yes or no")
        .doc("yes: the numeric owner and group are set on the vessels too, if the account there may do so (root). Only \
              in a mirror. The set-user-ID and set-group-ID bits of a mode are sent only with `Owner = yes`."),
    key("Interval", Value("0"), field!(Directory.interval, Written::duration))
        .value("a duration from 0 to 1d").reload(Background)
        .doc("Minimum time from one transfer of changes to the next; changes in between are collected and sent \
              together. 0 sends each change at once."),
    key("Include", Value(""), field!(Directory.include, patterns::read_patterns))
        .value("patterns, separated by commas").reload(Background)
        .doc("Paths that are sent, as patterns in the syntax of .gitignore; if empty, all paths. The last pattern that \
              matches decides, and `!` before a pattern reverses its effect. A pattern without a slash, such as \
              `*.log`, is compared with the name; a pattern with a slash is compared with the path below Location: \
              `/build/` (only at the top; `/` at the end matches only directories), `docs/*.pdf`, `docs/**/*.pdf`. For \
              example, `*.pdf, /letters/` sends only PDF files, and everything in the top-level directory letters. \
              With Include, a mirror creates only the directories that its files need, no empty ones."),
    key("Exclude", Value(""), field!(Directory.exclude, patterns::read_patterns))
        .value("patterns, separated by commas").reload(Background)
        .doc("Paths that are skipped, as patterns in the syntax of Include. Exclude takes precedence over Include. \
              Files in an excluded directory cannot be included again. For example, `*.log, !important.log, cache/` \
              skips all logs except important.log, and all directories named cache."),
    key("MinSize", Value("0"), field!(Directory.min_size, Written::size))
        .value("a size such as 64 MiB").reload(Background)
        .doc("Minimum size of the files that are sent."),
    key("MaxSize", Value("none"), field!(Directory.max_size, |it| if it.text == "none" { Ok(u64::MAX) } else { it.size() }))
        .value("a size such as 1 GiB, or none").reload(Background)
        .doc("Maximum size of the files that are sent. `none`: no limit."),
    key("MinAge", Value("0"), field!(Directory.min_age, Written::duration))
        .value("a duration from 0 to 1d").reload(Background)
        .doc("Minimum time since the last change of a file before it is sent."),
    key("Priority", Value("normal"), field!(Directory.priority, priority_keys::priority))
        .value("urgent, high, normal, low or bulk").reload(Background)
        .doc("Order in which a vessel receives files. While files of a higher priority are sent, files of a lower \
              priority pause after their last write and resume there afterwards; 5 % of the link remain for them, so \
              that they always make progress."),
    key("Order", Value("oldest"), field!(Directory.order, |it| it.choice(&[("oldest", Order::Oldest), ("newest", Order::Newest), ("smallest", Order::Smallest), ("name", Order::Name)])))
        .value("oldest, newest, smallest or name").reload(Background)
        .doc("Which file of the directory is sent first: oldest (the one that waits longest), newest (the one with the \
              latest modification time), smallest, or name (by path). One file in twenty is taken from the end of this \
              order. Directories of the same priority that have different orders take turns."),
    key("Expire", Value("none"), field!(Directory.expire, priority_keys::expire))
        .value("none, or a duration from 1s to 36500d").reload(Background)
        .doc("How long after its detection a version of a file may be sent. If a vessel has not received it by then, \
              the delivery to it expires, and the log says so. A file retires when each vessel has it or it expired; \
              if no vessel received it, it moves to expired/ inside Location. Deletions, directories and links of a \
              mirror do not expire."),
    key("Schedule", Value("always"), field!(Directory.schedule.windows, |it| schedule::windows(it.text)))
        .value("always, or windows separated by commas").reload(Background)
        .doc("When files and deletions of this directory are sent: days, a time span, or both, such as `22:00-06:00, \
              Sat, Sun` or `Mon-Fri 12:00-13:00`. A span across midnight belongs to the day on which it begins. \
              Outside of the windows, nothing is sent: a large file in progress stops after its last write, and \
              continues there in the next window."),
    key("Schedule.tz", Value("local"), field!(Directory.schedule.zone, |it| schedule::zone(it.text)))
        .value("local, or the name of a time zone").reload(Background)
        .doc("Time zone of Schedule, such as Europe/Berlin or UTC. Windows follow the wall clock: an hour that daylight \
              saving skips is not open that day, and one that it repeats is open twice."),
    key("ScheduleExempt", Value(""), field!(Directory.schedule_exempt, priority_keys::list))
        .value("priorities, separated by commas").reload(Background)
        .doc("Priorities to which Schedule does not apply. Useful in [DEFAULT], for directories that share a Schedule."),
    key("Shore", Otherwise("any shore"), field!(Directory.shore, |it| values::not_empty(it.text).map(str::to_owned)))
        .value("a ShoreName").example("north").reload(Background)
        .doc("For a Database in PostgreSQL that several shores use: the only shore that scans and retires this \
              directory, because its files are on the disks of that host. This shore also serves the vessels that \
              receive it. Not needed where all shores see the same files."),
    key("KeepProcessed", Otherwise("the value in [MONSTER]"), field!(Directory.keep_processed, retention::keep_processed))
        .value("forever, no, or a duration from 1s to 36500d").example("30d").reload(Background)
        .doc("How long delivered files of this directory stay in processed/."),
    key("OnDelivered", Otherwise("the value in [MONSTER]"), field!(Directory.hooks.on_delivered, notifications::command))
        .value("a command, or none").example("none").reload(Background)
        .doc("Command that runs when a vessel has received a file of this directory."),
    key("OnRetired", Otherwise("the value in [MONSTER]"), field!(Directory.hooks.on_retired, notifications::command))
        .value("a command, or none").example("hooks/retired.sh --tidy").reload(Background)
        .doc("Command that runs when all vessels have received a file of this directory and its source was moved to \
              processed/ or deleted."),
    key("OnParked", Otherwise("the value in [MONSTER]"), field!(Directory.hooks.on_parked, notifications::command))
        .value("a command, or none").example("logger -t contentmonster parked").reload(Background)
        .doc("Command that runs when a file of this directory is parked."),
];

/// Reads `[Directory x]`; returns `None` after reporting an error.
///
/// `monster` holds the defaults for all directories; `None` if it has errors.
pub(super) fn read(view: &View<'_>, monster: Option<&Monster>) -> Option<Directory> {
    let mut directory = Directory {
        name: DirectoryName::new(view.name),
        hooks: monster.map(|monster| monster.hooks.clone()).unwrap_or_default(),
        keep_processed: monster.map(|monster| monster.keep_processed).unwrap_or_default(),
        ..Directory::default()
    };
    let sound = table::read(KEYS, view, &mut directory);
    if !view.sets("RemoteLocation") {
        directory.remote_location = RemotePath::from(directory.location.as_path());
    }
    if !sound {
        return None;
    }
    check_mirror(view, &directory);
    priority_keys::check_schedule(view);
    Some(directory)
}

/// Reports keys that only a mirror may have.
fn check_mirror(view: &View<'_>, directory: &Directory) {
    let refuse = |key, remedy: &str| {
        view.problems.report(view.place_of(key), Diagnostic::new("only possible in a mirror", remedy));
    };
    if directory.is_mirror() {
        return;
    }
    if directory.delete {
        refuse("Delete", "write `Mode = mirror`, or leave Delete out: delivered files move to processed/");
    }
    if directory.links != Links::Skip {
        refuse("Links", "write `Mode = mirror`, or leave Links out");
    }
    if directory.owner {
        refuse("Owner", "write `Mode = mirror`, or leave Owner out");
    }
}

impl Directory {
    /// Returns whether sources stay where they are.
    pub fn is_mirror(&self) -> bool {
        self.mode == Mode::Mirror
    }

    /// Converts the directory to one with a single file. Called if `Location` is a file on the disk.
    #[must_use]
    pub fn of_one_file(self) -> Self {
        let name = self.location.file_name().and_then(|name| RelPath::new(name.as_bytes()).ok());
        match (name, self.location.parent()) {
            (Some(name), Some(parent)) => {
                Self { only: Some(name), location: parent.to_owned(), recursive: false, ..self }
            }
            _ => self,
        }
    }
}
