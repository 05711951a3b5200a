//! Compares places (the directories on a vessel to which configured directories are delivered) that can't be compared
//! with the settings alone: a relative place with an absolute one, because only the vessel knows the login directory,
//! and the places of two vessels that turn out to be the same host.
//!
//! The same host key and account do not prove that two vessels are the same host, because hosts may be cloned from one
//! image. So if places of two such vessels would clash, a file is created over one connection and looked up over the
//! other.

use std::fmt;
use std::sync::Arc;

use super::transfers::Transfers;
use crate::fault::Fault;
use crate::link::open_new;
use crate::names::{RemotePath, assembly_name};
use crate::settings::{self, Directory};
use crate::transport::{Remote, RemoteError};

/// A directory and its absolute place on the vessel.
type Located = (Arc<Directory>, RemotePath);

/// Finds directories whose places clash with the places of other directories on the same host, and blocks their
/// deliveries on this connection.
pub(crate) async fn compare_places(transfers: &Arc<Transfers>) {
    transfers.compare_places().await;
}

impl Transfers {
    /// Finds directories whose places clash with the places of other directories on the same host, and blocks their
    /// deliveries on this connection.
    async fn compare_places(self: &Arc<Self>) {
        if self.session.remote.is_this_host() {
            return;
        }
        let others = self.directories.sessions.join(self);
        let twins: Vec<_> = others.into_iter().filter(|other| self.has_account_of(other)).collect();
        let settings = &self.session.link.settings;
        let served = self.served();
        if twins.is_empty() && (served.len() < 2 || served.iter().all(|one| is_absolute(settings, one))) {
            return;
        }
        let ours = self.located(served).await;
        for (directory, fault) in clashes(settings, &ours) {
            self.refuse_place(directory, fault);
        }
        for twin in twins {
            self.compare_with(&twin, &ours).await;
        }
    }

    /// Returns whether another session seems to use the same account on the same host, judging by the host key.
    fn has_account_of(&self, other: &Self) -> bool {
        let account = |one: &Self| (one.session.remote.host_key(), one.session.link.settings.ssh.username.clone());
        account(self) == account(other) && self.session.remote.host_key().is_some()
    }

    /// Returns the directories that this vessel takes, sorted by name.
    fn served(&self) -> Vec<Arc<Directory>> {
        let names = self.directories.names().into_iter();
        let taken = names.filter(|name| self.session.link.settings.takes(name));
        let mut taken: Vec<_> = taken.filter_map(|name| Some(self.directories.get(&name)?.0)).collect();
        taken.sort_by(|one, other| one.name.as_str().cmp(other.name.as_str()));
        taken
    }

    /// Returns these directories with their absolute places. Asks the vessel for the login directory at most once,
    /// because each further session with the same account calls this again.
    async fn located(&self, directories: Vec<Arc<Directory>>) -> Vec<Located> {
        let settings = &self.session.link.settings;
        let home = match directories.iter().all(|directory| is_absolute(settings, directory)) {
            true => None,
            false => self.home.get_or_try_init(|| home(&self.session.remote)).await.ok(),
        };
        at_home(settings, home, directories)
    }

    async fn compare_with(&self, twin: &Self, ours: &[Located]) {
        let theirs = twin.located(twin.served()).await;
        for (directory, place) in ours {
            for (other, other_place) in &theirs {
                let Some(how) = settings::clash((other, other_place), (directory, place)) else { continue };
                if !self.is_seen_by(twin, directory, place).await {
                    continue;
                }
                // The place on the vessel with the alphabetically later name is always refused, whichever vessel
                // connected first.
                let (name, twins_name) = (&self.session.link.settings.name, &twin.session.link.settings.name);
                if name.as_str() > twins_name.as_str() {
                    let why =
                        format_args!("{how} on [Vessel {twins_name}], which is the same account on the same host");
                    self.refuse_place(directory, fault(&self.session.link.settings, directory, why));
                } else if let Some(how) = settings::clash((directory, place), (other, other_place)) {
                    let why = format_args!("{how} on [Vessel {name}], which is the same account on the same host");
                    twin.refuse_place(other, fault(&twin.session.link.settings, other, why));
                }
            }
        }
    }

    /// Returns whether a file that is created at a place over this connection is visible over the twin's connection.
    async fn is_seen_by(&self, twin: &Self, directory: &Directory, place: &RemotePath) -> bool {
        let beside = directory.only.as_ref().and_then(|_| place.parent());
        let place = beside.as_ref().unwrap_or(place);
        let probe = place.join(assembly_name(self.session.link.instance, 0, Some(fastrand::u64(..))));
        if self.session.make_dirs(place).await.is_err() {
            return false;
        }
        let Ok(made) = open_new(&self.session.remote, self.session.remote.main_channel(), &probe).await else {
            return false;
        };
        let closed = made.close().await;
        let seen = closed.is_ok() && matches!(twin.session.remote.look(&probe).await, Ok(Some(_)));
        let _ = self.session.remote.remove(&probe).await;
        seen
    }

    fn refuse_place(&self, directory: &Directory, fault: Fault) {
        let (vessel, settings) = (&self.session.link.settings.name, &self.session.link.settings);
        tracing::warn!(%vessel, directory = %directory.name, "{fault}");
        self.own_places.set(&directory.name, settings.remote_location(directory), Some(fault));
    }
}

/// Returns these directories with their absolute places, except directories whose place can't be determined.
pub(crate) async fn located(
    remote: &Remote,
    vessel: &settings::Vessel,
    directories: Vec<Arc<Directory>>,
) -> Vec<Located> {
    at_home(vessel, home(remote).await.ok().as_ref(), directories)
}

/// Returns the login directory.
async fn home(remote: &Remote) -> Result<RemotePath, RemoteError> {
    remote.real_path(&RemotePath::new(".")).await
}

fn is_absolute(vessel: &settings::Vessel, directory: &Directory) -> bool {
    vessel.remote_location(directory).as_bytes().starts_with(b"/")
}

/// Returns these directories with their absolute places; leaves out relative places if the login directory is unknown.
fn at_home(vessel: &settings::Vessel, home: Option<&RemotePath>, directories: Vec<Arc<Directory>>) -> Vec<Located> {
    let place = |directory: Arc<Directory>| {
        let place = vessel.remote_location(&directory).clone();
        let place = match is_absolute(vessel, &directory) {
            true => place,
            false => home?.join(place.as_bytes()),
        };
        Some((directory, place))
    };
    directories.into_iter().filter_map(place).collect()
}

/// Returns the directories whose places clash with the place of an earlier directory in the list, each with its fault.
pub(crate) fn clashes<'a>(vessel: &settings::Vessel, located: &'a [Located]) -> Vec<(&'a Arc<Directory>, Fault)> {
    let mut found = Vec::new();
    for (number, (directory, place)) in located.iter().enumerate() {
        let before = located[..number].iter();
        if let Some(how) = before.filter_map(|(one, at)| settings::clash((one, at), (directory, place))).next() {
            found.push((directory, fault(vessel, directory, format_args!("{how} on [Vessel {}]", vessel.name))));
        }
    }
    found
}

fn fault(vessel: &settings::Vessel, directory: &Directory, why: fmt::Arguments<'_>) -> Fault {
    let (name, place) = (&directory.name, vessel.remote_location(directory));
    let remedy = format_args!(
        "set `RemoteLocation.{name}` in [Vessel {}] to a path that no other directory uses there",
        vessel.name
    );
    Fault::file(format_args!("{place} {why}")).mend(remedy)
}
