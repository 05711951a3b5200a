//! One section at a time, from keys and values to its typed form.
//!
//! A value comes from the section, else from `[DEFAULT]`, else from the table of keys. What concerns several sections
//! is checked elsewhere.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::environment::Environment;
use super::keys;
use super::problems::{Diagnostic, Place, Problems};
use super::secrets::{LISTEN_TOKEN, Sources};
use super::units::{duration, size};
use super::values::{self, Start};
use super::view::{Surroundings, View};
use super::{
    Directory, Hooks, Links, LocalTarget, LogFormat, LogTarget, Logging, Mode, Monster, Vessel, link, local, logging,
    mirror, patterns, rate, retention, ssh_route, telling,
};
use crate::names::{DirectoryName, RemotePath, VesselName};

/// `[MONSTER]`; `None` after a report.
pub(super) fn monster(view: &View<'_>, start: &Start, environment: &Environment) -> Option<Monster> {
    let chunk_size = view.get("ChunkSize", size("64 KiB", "1 GiB"));
    let cache = view.get("Cache", size("8 MiB", "64 GiB"));
    let database = view.get("Database", |text| start.path(text));
    let rate_limit = view.get("RateLimit", rate::schedule);
    let logging = logs(view, start);
    let simulate = view.get("Simulate", link::yes_or_no);
    let listen = view.get("Listen", values::socket_address);
    if listen.is_some_and(|address| !address.ip().is_loopback()) {
        let message =
            "whoever reaches this address sees the names of all files, and a token is sent over it unencrypted";
        let remedy = "listen on 127.0.0.1 and go there through `ssh -L` or a proxy with TLS";
        view.problems.warn(view.place_of("Listen"), Diagnostic::new(message, remedy));
    }
    let secrets = Sources { start, credentials: environment.credentials.as_deref() };
    let listen_token = secrets.secret(view, "contentmonster", &LISTEN_TOKEN);
    let min_free = view.get("MinFree", size("0", "8388607 TiB"));
    let keep_history = view.get("KeepHistory", retention::keep_history);
    let keep_processed = view.get("KeepProcessed", retention::keep_processed);
    let hooks = telling::hooks(view, start, &Hooks::default());
    let telling = telling::telling(view, &secrets);
    Some(Monster {
        chunk_size: chunk_size?,
        cache: cache?,
        database: database?,
        listen,
        listen_token,
        rate_limit: rate_limit?,
        simulate: simulate?,
        logging,
        min_free: min_free?,
        keep_history: keep_history?,
        keep_processed: keep_processed?,
        hooks,
        telling: telling?,
    })
}

fn logs(view: &View<'_>, start: &Start) -> Logging {
    let level = view.get("LogLevel", logging::level);
    let format = view.get("LogFormat", logging::format);
    let target = view.get("LogFile", |text| logging::target(text, start)).unwrap_or(LogTarget::StandardError);
    if format == Some(LogFormat::Journald) && target != LogTarget::StandardError {
        let diagnostic = Diagnostic::new("journald takes no file", "leave LogFile out, or write `LogFormat = text`");
        view.problems.report(view.place_of("LogFile"), diagnostic);
    }
    Logging { level, format, target }
}

/// `[Directory x]`; `None` after a report.
///
/// `monster` holds what goes for all directories; `None` after a report.
pub(super) fn directory(view: &View<'_>, name: &str, start: &Start, monster: Option<&Monster>) -> Option<Directory> {
    let location = view.get("Location", |text| start.path(text));
    let remote_location = view.get("RemoteLocation", values::remote_path);
    let settle_time = view.get("SettleTime", duration("10ms", "1d"));
    let rescan_interval = view.get("RescanInterval", duration("1s", "1d"));
    let ignore_names = view.get("IgnoreNames", patterns::globs);
    let delta = view.get("Delta", link::delta);
    let mode = view.get("Mode", mirror::mode);
    let recursive = view.get("Recursive", link::yes_or_no);
    let delete = view.get("Delete", link::yes_or_no);
    let max_delete = view.get("MaxDelete", mirror::max_delete);
    let links = view.get("Links", mirror::links);
    let consumed = view.get("Consumed", link::yes_or_no);
    let owner = view.get("Owner", link::yes_or_no);
    let interval = view.get("Interval", duration("0", "1d"));
    let include = view.get("Include", patterns::patterns);
    let exclude = view.get("Exclude", patterns::patterns);
    let min_size = view.get("MinSize", size("0", "8388607 TiB"));
    let max_size = view.get("MaxSize", |text| match text {
        "none" => Ok(u64::MAX),
        text => size("0", "8388607 TiB")(text),
    });
    let min_age = view.get("MinAge", duration("0", "1d"));
    let keep_processed = view.get("KeepProcessed", retention::keep_processed);
    let hooks = telling::hooks(view, start, &monster.map(|monster| monster.hooks.clone()).unwrap_or_default());
    let location = location?;
    let directory = Directory {
        name: DirectoryName::new(name),
        remote_location: remote_location.unwrap_or_else(|| RemotePath::from(location.as_path())),
        location,
        settle_time: settle_time?,
        rescan_interval: rescan_interval?,
        ignore_names: ignore_names?,
        delta: delta?,
        mode: mode?,
        recursive: recursive?,
        delete: delete?,
        max_delete: max_delete?,
        links: links?,
        consumed: consumed?,
        owner: owner?,
        interval: interval?,
        include: include?,
        exclude: exclude?,
        sizes: min_size?..=max_size?,
        min_age: min_age?,
        keep_processed: keep_processed.or(monster.map(|monster| monster.keep_processed)).unwrap_or_default(),
        hooks,
        only: None,
        own_files: Arc::default(),
    };
    check_mirror(view, &directory);
    Some(directory)
}

/// What only a mirror may do.
fn check_mirror(view: &View<'_>, directory: &Directory) {
    let refuse = |key, remedy: &str| {
        view.problems.report(view.place_of(key), Diagnostic::new("only a mirror has that", remedy));
    };
    if directory.mode == Mode::Mirror {
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

impl Surroundings<'_> {
    /// `[Vessel y]`; `None` after a report.
    pub(super) fn vessel(&self, view: &View<'_>, name: &str) -> Option<Vessel> {
        let local = local_target(view, self.start);
        // What [DEFAULT] says of SSH is meant for other vessels.
        let ssh = View { defaults: view.defaults.filter(|_| local.is_none()), ..*view };
        let temp_dir = view.get("TempDir", values::remote_path);
        let timeout = view.get("Timeout", duration("1s", "1h"));
        let reconnect_wait = view.get("ReconnectWait", duration("1s", "1d"));
        let connections = ssh.get("Connections", link::connections);
        let congestion_control = ssh.get("CongestionControl", link::congestion_control);
        let compression = ssh.get("Compression", link::yes_or_no);
        let rate_limit = view.get("RateLimit", rate::schedule);
        let assembly = ssh.get("Assembly", link::assembly);
        let shell = ssh.get("Shell", link::shell);
        let route = ssh_route::to(name, view, self, timeout, local.is_some());
        if let (Some(_), Some(route)) = (&local, &route) {
            local::check_keys(view, &route.host.address);
        }
        let dirs = self.dirs(view);
        let ignore_dirs = self.ignore_dirs(view);
        let remote_locations = self.remote_locations(view);
        let route = route?;
        Some(Vessel {
            name: VesselName::new(name),
            local,
            ssh: route.host,
            hops: route.hops,
            temp_dir: temp_dir?,
            timeout: timeout?,
            reconnect_wait: reconnect_wait?,
            dirs,
            ignore_dirs,
            remote_locations,
            connections: connections?,
            congestion_control: congestion_control?,
            compression: compression?,
            rate_limit: rate_limit?,
            assembly: assembly?,
            shell: shell?,
        })
    }

    fn dirs(&self, view: &View<'_>) -> Option<BTreeSet<DirectoryName>> {
        let names = view.get("Dirs", |text| {
            values::not_empty(text).map(|text| values::list(text).map(str::to_owned).collect::<Vec<_>>())
        })?;
        names.iter().for_each(|name| self.check_directory(view.problems, view.place_of("Dirs"), name));
        Some(names.iter().map(|name| DirectoryName::new(name)).collect())
    }

    fn ignore_dirs(&self, view: &View<'_>) -> BTreeSet<DirectoryName> {
        let names = view.get("IgnoreDirs", |text| Ok(values::list(text).map(str::to_owned).collect::<Vec<_>>()));
        let names = names.unwrap_or_default();
        for name in &names {
            let place = view.place_of("IgnoreDirs");
            // A misspelt name has a vessel get what it must not get. The sample of the Python original, from which many files
            // were written, ignores this one without having it.
            if name == "anotherdir" && !self.directories.contains(&name.as_str()) {
                let message = format!("there is no [Directory {name}], which is as good as ignored");
                view.problems.warn(place, Diagnostic::new(message, "name a configured directory, or leave it out"));
            } else {
                self.check_directory(view.problems, place, name);
            }
        }
        names.iter().map(|name| DirectoryName::new(name)).collect()
    }

    fn remote_locations(&self, view: &View<'_>) -> BTreeMap<DirectoryName, RemotePath> {
        let mut locations = BTreeMap::new();
        for section in view.layers() {
            for entry in &section.entries {
                let Some(name) = entry.key.strip_prefix(keys::PER_DIRECTORY) else { continue };
                self.check_directory(view.problems, section.place_of(entry), name);
                match values::remote_path(&entry.value) {
                    // The section's own came first and stays.
                    Ok(path) => drop(locations.entry(DirectoryName::new(name)).or_insert(path)),
                    Err(diagnostic) => view.problems.report(section.place_of(entry), diagnostic),
                }
            }
        }
        locations
    }

    fn near(&self, name: &str) -> Option<&str> {
        keys::nearest(name, self.directories.iter().copied())
    }

    fn check_directory(&self, problems: &Problems, place: Place, name: &str) {
        if self.directories.contains(&name) {
            return;
        }
        if name.is_empty() {
            let diagnostic = Diagnostic::new("names no directory", "write the name of one behind `RemoteLocation.`");
            return problems.report(place, diagnostic);
        }
        let remedy = match self.near(name) {
            Some(near) => format!("did you mean {near}?"),
            None => "name a configured directory".to_owned(),
        };
        problems.report(place, Diagnostic::new(format!("there is no [Directory {name}]"), remedy));
    }
}

/// What `Transport = local` says, where it is given.
fn local_target(view: &View<'_>, start: &Start) -> Option<LocalTarget> {
    let is_local = view.get("Transport", local::is_local)?;
    let mount_point = view.get("MountPoint", |text| start.path(text));
    if !is_local && view.own.is_some_and(|own| own.entry("MountPoint").is_some()) {
        let diagnostic = Diagnostic::new("does nothing without Transport = local", "remove the line");
        view.problems.warn(view.place_of("MountPoint"), diagnostic);
    }
    is_local.then(|| LocalTarget { mount_point, ..LocalTarget::default() })
}
