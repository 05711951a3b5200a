//! `[Directory x]`: a replicated directory. Its fields, and a table row for each of its keys.

use std::collections::BTreeSet;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::key::Preset::{Otherwise, Required, Value};
use super::key::Reload::Background;
use super::key::SectionKind;
use super::link::Delta;
use super::mirror::{self, Links, MaxDelete, Mode};
use super::monster::Monster;
use super::patterns::{self, Globs, Patterns};
use super::problems::Diagnostic;
use super::retention::{self, KeepProcessed};
use super::table::{self, Key, field, key};
use super::telling::{self, Hooks};
use super::values;
use super::view::{View, Written};
use crate::names::{DirectoryName, RelPath, RemotePath};

/// `[Directory x]`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Directory {
    /// The `x`.
    pub name: DirectoryName,
    /// `Location`: its path on the shore, absolute.
    pub location: PathBuf,
    /// `RemoteLocation`: its path on the vessels; default: the same as on the shore.
    pub remote_location: RemotePath,
    /// `SettleTime`: how long a file must stay unchanged to count as finished, if no close event was seen.
    pub settle_time: Duration,
    /// `RescanInterval`: how often the whole directory is scanned in addition to the kernel's events.
    pub rescan_interval: Duration,
    /// `IgnoreNames`: file names that are skipped.
    pub ignore_names: Globs,
    /// `Delta`: whether only the changes of a changed file are sent.
    pub delta: Delta,
    /// `Mode`: whether sources retire or stay.
    pub mode: Mode,
    /// `Recursive`: whether subdirectories are included.
    pub recursive: bool,
    /// `Delete`: whether a mirror's deletions are repeated on the vessels.
    pub delete: bool,
    /// `MaxDelete`: the limit of deletions that are repeated at once.
    pub max_delete: MaxDelete,
    /// `Consumed`: whether a file counts as delivered if the reply to its rename was lost and it is at neither name.
    pub consumed: bool,
    /// `Links`: how symbolic links are handled.
    pub links: Links,
    /// `Owner`: whether owner and group are set on the vessels.
    pub owner: bool,
    /// `Interval`: the shortest time between two deliveries of changes; zero: they are sent at once.
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
    /// `KeepProcessed`: how long delivered sources are kept.
    pub keep_processed: KeepProcessed,
    /// `OnDelivered`, `OnRetired`, `OnParked`.
    pub hooks: Hooks,
    /// The file's name if `Location` is one file; `location` is then the file's directory, and the remote locations are
    /// paths of the file itself. Only the disk can tell: see [`Directory::of_one_file`].
    pub only: Option<RelPath>,
    /// The program's own files, which are never replicated.
    pub own_files: Arc<OwnFiles>,
}

/// The program's own files, by their absolute paths.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OwnFiles {
    /// Files that people write: the settings, keys and secrets.
    pub fixed: BTreeSet<PathBuf>,
    /// Files that the program creates and removes: the ledger and SQLite's files beside it, its lock, socket and log.
    pub changing: BTreeSet<PathBuf>,
}

impl table::Section for Directory {
    const KIND: SectionKind = SectionKind::Directory;
}

#[rustfmt::skip]
pub(super) static KEYS: &[Key<Directory>] = &[
    key("Location", Required, field!(Directory.location, Written::path))
        .value("a path").example("/home/user/replication")
        .doc("Where it lies on this host. What every vessel has acknowledged moves to processed/ inside it, unless it is a \
              mirror. May be one file, too: RemoteLocation is then the file's path on the vessels. processed may be a link to \
              another disk, if it is root's or the program's user's and nobody else may write here."),
    key("RemoteLocation", Otherwise("the same path as Location"), field!(Directory.remote_location, |it| values::remote_path(it.text)))
        .value("a path").example("/home/user/replication")
        .doc("Where its files go on the vessels: absolute, or relative to the login directory."),
    key("SettleTime", Value("2s"), field!(Directory.settle_time, Written::duration))
        .value("a duration from 10ms to 1d").reload(Background)
        .doc("A file is finished when nobody has it open for writing, however quiet it is; the kernel tells. It is sent when it \
              is closed, and retires when it has been left alone for SettleTime (10 s at the most, if it was closed but once), \
              so that a program that appends to it again and again finds it under its name. A file that nobody was seen to \
              close is sent when it has been unchanged for SettleTime; where nobody can tell whether it is open (on network \
              file systems, for instance), a fourth of the time that it was being written for is added, and 1 s for each 16 MiB \
              of it."),
    key("RescanInterval", Value("60s"), field!(Directory.rescan_interval, Written::duration))
        .value("a duration from 1s to 1d").reload(Background)
        .doc("How often the whole directory is looked through, although changes are reported at once."),
    key("IgnoreNames", Value("*.part, *.partial, *.tmp, *~, .*.sw?, *.crdownload, *.filepart, *.opdownload, *.aria2, *.gstmp, \
                              .*.[0-9A-Za-z][0-9A-Za-z][0-9A-Za-z][0-9A-Za-z][0-9A-Za-z][0-9A-Za-z], .in.*, .pureftpd-upload.*, \
                              .goutputstream-*, *.kate-swp, .~lock.*, ~$*, .#*, [#]*[#], .nfs????????*, .fuse_hidden*"),
        field!(Directory.ignore_names, |it| patterns::globs(it.text)))
        .value("globs, separated by commas, or none").reload(Background)
        .doc("File names that are left alone, such as those of files that are still being written. `none` leaves nothing alone. \
              The default has the temporary names of browsers (*.part, *.crdownload, *.opdownload), rclone (*.partial), WinSCP \
              (*.filepart), rsync (.NAME.XXXXXX: six letters or digits), aria2, gsutil, lftp and FTP servers (.in.*, \
              .pureftpd-upload.*), Syncthing (*.tmp), editors and offices (*~, .*.sw?, .goutputstream-*, *.kate-swp, .~lock.*, \
              ~$*, .#*, #*#), NFS and FUSE (.nfs*, .fuse_hidden*). cp, scp and curl write under the final name; see SettleTime."),
    key("Delta", Value("auto"), field!(Directory.delta, |it| it.choice(&[("auto", Delta::Auto), ("yes", Delta::Yes), ("no", Delta::No)])))
        .value("auto, yes or no")
        .doc("Whether of a changed file only the changes are sent: what a vessel has of it already is copied there. `yes`: from \
              the second version on, for which every file of 1 MiB or more is prepared, at some cost of time. `auto`: so in a \
              mirror; elsewhere from the third version of a name on. `no`: never."),
    key("Mode", Value("replicate"), field!(Directory.mode, |it| it.choice(&[("replicate", Mode::Replicate), ("mirror", Mode::Mirror)])))
        .value("replicate or mirror")
        .doc("replicate: a file that all vessels have moves to processed/. mirror: sources stay where they are, and every change \
              of them goes to the vessels. Several mirrors may have the same Location, with different RemoteLocations."),
    key("Recursive", Value("no"), field!(Directory.recursive, Written::yes_or_no))
        .value("yes or no").reload(Background)
        .doc("yes: what lies in directories below Location is taken too, and in a mirror the directories themselves, empty ones \
              as well. processed/ keeps the paths. Directories get u+rwx on the vessels besides the mode that they have here."),
    key("Delete", Value("no"), field!(Directory.delete, Written::yes_or_no))
        .value("yes or no").reload(Background)
        .doc("yes: what is deleted here is deleted on the vessels. Only in a mirror, and only what was delivered from here and \
              still looks as it was delivered. Nothing is deleted when Location vanishes, becomes empty, or another directory \
              takes its place."),
    key("MaxDelete", Value("100"), field!(Directory.max_delete, |it| it.accept(mirror::max_delete)))
        .value("a number, or 0% to 100%").reload(Background)
        .doc("How many paths (files, links, directories) are deleted on the vessels within a minute: a number, or a percentage \
              of all that the mirror holds, such as 10%. Where more are gone, nothing is deleted until there are fewer, or \
              `--allow-deletes` is given."),
    key("Consumed", Value("yes"), field!(Directory.consumed, Written::yes_or_no))
        .value("yes or no")
        .doc("Where something on a vessel takes files as soon as they appear: a connection broke while a file got its final \
              name, and afterwards it is at neither of its names. yes: it was delivered and taken. no: it is sent again, so \
              that what takes files there may get one twice."),
    key("Links", Value("skip"), field!(Directory.links, |it| it.choice(&[("skip", Links::Skip), ("follow", Links::Follow), ("copy", Links::Copy)])))
        .value("skip, follow or copy")
        .doc("Symbolic links in a mirror: skip leaves them alone, copy makes the same link. follow sends what they lead to in \
              their place, wherever that is: only where nobody else may write to Location. Nothing behind a link is looked at \
              otherwise."),
    key("Owner", Value("no"), field!(Directory.owner, Written::yes_or_no))
        .value("yes or no")
        .doc("yes: owner and group numbers are set on the vessels as well, where the account there may do so (root). Only in a \
              mirror. Set-user-id and set-group-id bits of a mode travel only with them."),
    key("Interval", Value("0"), field!(Directory.interval, Written::duration))
        .value("a duration from 0 to 1d").reload(Background)
        .doc("How often changes go out at the most: they collect, and leave together. 0 sends at once."),
    key("Include", Value(""), field!(Directory.include, |it| patterns::patterns(it.text)))
        .value("patterns, separated by commas").reload(Background)
        .doc("Which paths are taken, in the manner of .gitignore; nothing takes all. The last pattern that matches decides, and \
              `!` before it takes back what others say. `*.log` is compared with the name alone; a pattern with a slash with \
              the path below Location: `/build/` (only at the top, `/` at the end for directories only), `docs/*.pdf`, \
              `docs/**/*.pdf`. To include `*.pdf, /letters/` sends only PDF files, and everything in letters at the top. With \
              Include, a mirror makes the directories that its files need, and no empty ones."),
    key("Exclude", Value(""), field!(Directory.exclude, |it| patterns::patterns(it.text)))
        .value("patterns, separated by commas").reload(Background)
        .doc("Which paths are left alone, by patterns like those of Include, over which it wins. What lies in a directory that \
              is excluded can't come back. To exclude `*.log, !important.log, cache/` keeps all logs here but important.log, \
              and all directories called cache."),
    key("MinSize", Value("0"), field!(Directory.min_size, Written::size))
        .value("a size such as 64 MiB").reload(Background)
        .doc("The size of the smallest file that is taken."),
    key("MaxSize", Value("none"), field!(Directory.max_size, |it| if it.text == "none" { Ok(u64::MAX) } else { it.size() }))
        .value("a size such as 1 GiB, or none").reload(Background)
        .doc("The size of the largest file that is taken. `none` is any."),
    key("MinAge", Value("0"), field!(Directory.min_age, Written::duration))
        .value("a duration from 0 to 1d").reload(Background)
        .doc("How long ago a file must have changed last to be taken."),
    key("KeepProcessed", Otherwise("that of [MONSTER]"), field!(Directory.keep_processed, retention::keep_processed))
        .value("forever, no, or a duration from 1s to 36500d").example("30d").reload(Background)
        .doc("How long delivered files of this directory stay in processed/."),
    key("OnDelivered", Otherwise("that of [MONSTER]"), field!(Directory.hooks.on_delivered, telling::command))
        .value("a command, or none").example("none").reload(Background)
        .doc("A command that is run when a vessel has a file of this directory."),
    key("OnRetired", Otherwise("that of [MONSTER]"), field!(Directory.hooks.on_retired, telling::command))
        .value("a command, or none").example("hooks/retired.sh --tidy").reload(Background)
        .doc("A command that is run when all vessels have a file of this directory, and its source is out of the way."),
    key("OnParked", Otherwise("that of [MONSTER]"), field!(Directory.hooks.on_parked, telling::command))
        .value("a command, or none").example("logger -t contentmonster parked").reload(Background)
        .doc("A command that is run when a file of this directory is set aside for a reason."),
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
    Some(directory)
}

/// Reports keys that only a mirror may have.
fn check_mirror(view: &View<'_>, directory: &Directory) {
    let refuse = |key, remedy: &str| {
        view.problems.report(view.place_of(key), Diagnostic::new("only a mirror takes this", remedy));
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

    /// Converts the directory if its `Location` is a file on the disk.
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
