//! Deliveries without content: directories, links and deletions.
//!
//! An entry is removed from the vessel only if it was delivered from here. That is decided by the versions that the
//! ledger lists as sent to this vessel and by the attributes that the vessel reports: size and time of a file, target
//! of a link.

use std::time::Instant;

use super::acknowledge::{Outcome, acknowledge, enter};
use super::attributes::{looks_like, seen, set_owner_and_mode, times, tolerate_attribute_error};
use super::publish::{flush_name, publish};
use super::transfers::Transfers;
use crate::fault::{Fault, Pace};
use crate::link::Session;
use crate::names::{OurFile, RemotePath};
use crate::records::{Delivery, DeliveryId, DeliveryState, HeldVersion, Verified, Version, VersionKind};
use crate::rights::{CopyOf, keeping_inherited};
use crate::transport::{Attrs, Renamed};

/// Permissions that a directory's owner needs to create and remove entries in it.
const OWNER_MAY: u32 = 0o700;

/// Result of removing the entry at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cleared {
    /// No entry that was delivered from here exists at the path.
    Nothing,
    /// The entry was removed.
    Removed,
    /// The entry was removed without a check, because the vessel does not allow reading attributes.
    RemovedUnseen,
    /// The entry was kept, for this reason.
    Kept(&'static str),
}

const NOT_OURS: &str = "the entry there differs from the delivered version";

/// Creates a directory, or sets the mode and owner of an existing one.
pub(super) async fn deliver_directory(
    transfers: &Transfers,
    delivery: &Delivery,
    place: &RemotePath,
) -> Result<Outcome, Fault> {
    let session = &transfers.session;
    let started = Instant::now();
    if !enter(transfers, delivery, DeliveryState::Publishing).await? {
        return Ok(Outcome::Superseded);
    }
    let version = &delivery.version;
    let mode = version.mode | OWNER_MAY;
    let Some((there, by_link)) = directory_at(transfers, version, place).await? else {
        make_unseen_directory(session, version, place, mode).await?;
        return acknowledge(transfers, delivery, Verified::Not, started, None).await;
    };
    let is_there = there.is_some_and(|attrs| attrs.is_dir());
    if !is_there {
        if by_link && clear(transfers, version, place).await? != Cleared::Removed {
            let fault =
                Fault::file(format_args!("{place} on the vessel is a symbolic link that does not lead to a directory"));
            return Err(fault.mend("remove the link on the vessel, or set another RemoteLocation for the directory"));
        }
        clear(transfers, version, place).await?;
        session.make_dirs_above(place).await?;
        let made = session.remote.make_dir(place, CopyOf::Directory.plain(mode) & 0o777).await;
        session.explained(made, place, 0).await?;
    }
    let found = there.filter(|_| is_there).and_then(|attrs| attrs.mode).unwrap_or(0);
    let as_it_is = is_there && found & 0o7777 == keeping_inherited(CopyOf::Directory.plain(mode), found);
    // Mode and owner are never changed through a link.
    if !by_link && (!as_it_is || version.owner.is_some()) {
        set_owner_and_mode(session, version, place, CopyOf::Directory, mode, found).await?;
    }
    if !is_there {
        flush_name(session, place).await?;
    }
    acknowledge(transfers, delivery, Verified::ByLook, started, None).await
}

/// Returns the entry at the path of a directory, and whether the path is a link. A link to a directory is accepted if
/// it was created on the vessel. A link that was delivered from here counts as missing, because otherwise later files
/// would be written to its target. Returns `None` if the vessel does not allow reading attributes.
async fn directory_at(
    transfers: &Transfers,
    version: &Version,
    place: &RemotePath,
) -> Result<Option<(Option<Attrs>, bool)>, Fault> {
    let session = &transfers.session;
    let there = match session.remote.look_or_list(place).await {
        Err(e) if e.is_refusal() => return Ok(None),
        there => there.map_err(|e| e.fault())?,
    };
    let Some(link) = there.filter(Attrs::is_link) else { return Ok(Some((there, false))) };
    let before = transfers.ledger.held_before(version.id, &session.link.settings.name).await;
    if is_one_of(session, &before.map_err(|e| e.fault())?, place, &link).await? {
        return Ok(Some((None, false)));
    }
    Ok(Some((session.remote.look_through(place).await.map_err(|e| e.fault())?, true)))
}

/// Creates a directory on a vessel that does not allow reading attributes. If that fails, the directory is assumed to
/// exist; if it doesn't, the deliveries into it will fail.
async fn make_unseen_directory(
    session: &Session,
    version: &Version,
    place: &RemotePath,
    mode: u32,
) -> Result<(), Fault> {
    session.make_dirs_above(place).await?;
    match session.remote.make_dir(place, CopyOf::Directory.plain(mode) & 0o777).await {
        Err(e) if e.is_connection() => return Err(e.fault()),
        Err(e) => {
            let vessel = &session.link.settings.name;
            tracing::debug!(%vessel, "Cannot create the directory; assuming that it exists: {e}");
        }
        Ok(()) => {}
    }
    set_owner_and_mode(session, version, place, CopyOf::Directory, mode, 0).await
}

/// Creates a link. The rename replaces a file or another link at the path.
pub(super) async fn deliver_link(
    transfers: &Transfers,
    delivery: &Delivery,
    place: &RemotePath,
) -> Result<Outcome, Fault> {
    let session = &transfers.session;
    let started = Instant::now();
    if !enter(transfers, delivery, DeliveryState::Publishing).await? {
        return Ok(Outcome::Superseded);
    }
    let (version, mut seen) = (&delivery.version, true);
    if !is_link_to(session, place, &version.target).await? {
        make_way(transfers, version, place).await?;
        session.make_dirs_above(place).await?;
        let assembly = transfers.assembly(delivery)?;
        session.remote.remove(&assembly).await.map_err(|e| e.fault())?;
        let made = session.remote.make_link(&version.target, &assembly).await;
        session.explained(made, &assembly, 0).await?;
        let times = times(&version.stamp);
        if let Err(e) =
            session.remote.set_link(&assembly, Attrs { times, owner: version.owner, ..Attrs::default() }).await
        {
            tolerate_attribute_error(session, version, &e)?;
        }
        transfers.surely_ours().await?;
        seen = !matches!(publish(session, version, &assembly, place).await?, Renamed::Unseen);
    }
    acknowledge(transfers, delivery, if seen { Verified::ByLook } else { Verified::Not }, started, None).await
}

/// Removes the entry that was delivered to a path, unless it was changed on the vessel.
pub(super) async fn deliver_gone(
    transfers: &Transfers,
    delivery: &Delivery,
    place: &RemotePath,
) -> Result<Outcome, Fault> {
    let session = &transfers.session;
    let started = Instant::now();
    if !enter(transfers, delivery, DeliveryState::Publishing).await? {
        return Ok(Outcome::Superseded);
    }
    let (version, vessel) = (&delivery.version, &session.link.settings.name);
    let mut verified = Verified::ByLook;
    match clear(transfers, version, place).await? {
        Cleared::Nothing => {}
        Cleared::Removed => flush_name(session, place).await?,
        Cleared::RemovedUnseen => {
            flush_name(session, place).await?;
            verified = Verified::Not;
        }
        Cleared::Kept(why) => {
            tracing::warn!(%vessel, file = %version.path, "Kept on the vessel: {why}");
            verified = Verified::Kept;
        }
    }
    acknowledge(transfers, delivery, verified, started, None).await
}

/// Removes a directory that was delivered from here and is at the path of a new file or link. Other entries need not be
/// removed, because the rename replaces them.
pub(super) async fn make_way(transfers: &Transfers, version: &Version, place: &RemotePath) -> Result<(), Fault> {
    let session = &transfers.session;
    let there = match session.remote.look(place).await {
        // The entry can't be checked. If it is a directory, the rename will fail.
        Err(e) if e.is_refusal() => return Ok(()),
        there => there.map_err(|e| e.fault())?,
    };
    if !there.is_some_and(|attrs| attrs.is_dir()) || clear(transfers, version, place).await? == Cleared::Removed {
        return Ok(());
    }
    Err(Fault::file(format_args!("cannot replace {place} on the vessel: it is a directory"))
        .mend("rename or remove it on the vessel, or set another RemoteLocation for the directory"))
}

/// Returns whether entries below a directory must still be deleted. Their deletions may be detected and delivered
/// shortly after the deletion of the directory.
async fn is_about_to_empty(transfers: &Transfers, version: &Version) -> Result<bool, Fault> {
    let session = &transfers.session;
    let (ledger, vessel, directory) = (&transfers.ledger, &session.link.settings.name, &version.directory);
    let at = std::slice::from_ref(&version.path);
    let below = ledger.current_below(directory, at).await.map_err(|e| e.fault())?;
    // Open deliveries are queried last, so that deletions that are detected during the query above are found.
    Ok(below.iter().any(|one| one.traits.kind != VersionKind::Gone)
        || ledger.is_open_below(vessel, directory, &version.path).await.map_err(|e| e.fault())?)
}

/// Removes the entry at a path if it is a version that was delivered there before `version`.
async fn clear(transfers: &Transfers, version: &Version, place: &RemotePath) -> Result<Cleared, Fault> {
    let session = &transfers.session;
    let (ledger, vessel) = (&transfers.ledger, &session.link.settings.name);
    let before = ledger.held_before(version.id, vessel).await.map_err(|e| e.fault())?;
    if before.is_empty() {
        return Ok(Cleared::Nothing);
    }
    let there = match session.remote.look_or_list(place).await {
        Err(e) if e.is_refusal() => return clear_unseen(transfers, &before, version, place).await,
        there => there.map_err(|e| e.fault())?,
    };
    let Some(attrs) = there else { return Ok(Cleared::Nothing) };
    transfers.surely_ours().await?;
    if attrs.is_dir() {
        let ours = before.iter().any(|one| one.version.kind == VersionKind::Directory);
        return if ours { remove_directory(transfers, version, place).await } else { Ok(Cleared::Kept(NOT_OURS)) };
    }
    if !is_one_of(session, &before, place, &attrs).await? {
        return Ok(Cleared::Kept(NOT_OURS));
    }
    transfers.surely_ours().await?;
    let removed = session.remote.remove(place).await;
    session.explained(removed, place, 0).await.map(|()| Cleared::Removed)
}

/// Removes the entry at a path to which the versions `before` were delivered, without a check, because the vessel does
/// not allow reading attributes. A new version would replace the entry unchecked, too. A directory is removed only if
/// it is empty.
async fn clear_unseen(
    transfers: &Transfers,
    before: &[HeldVersion],
    version: &Version,
    place: &RemotePath,
) -> Result<Cleared, Fault> {
    let session = &transfers.session;
    transfers.surely_ours().await?;
    let was = |kinds: &[VersionKind]| before.iter().any(|one| kinds.contains(&one.version.kind));
    if was(&[VersionKind::File, VersionKind::Link]) {
        match session.remote.remove(place).await {
            Ok(()) if !was(&[VersionKind::Directory]) => return Ok(Cleared::RemovedUnseen),
            // If a directory was delivered to this path, too, the error may only mean that the entry is a directory.
            Err(e) if e.is_connection() || !was(&[VersionKind::Directory]) => {
                return session.explained(Err(e), place, 0).await;
            }
            _ => {}
        }
    }
    match remove_directory(transfers, version, place).await? {
        Cleared::Removed => Ok(Cleared::RemovedUnseen),
        cleared => Ok(cleared),
    }
}

/// Returns whether the entry at a path is one of these versions, judging by a link's target or a file's size and time.
async fn is_one_of(
    session: &Session,
    versions: &[HeldVersion],
    place: &RemotePath,
    attrs: &Attrs,
) -> Result<bool, Fault> {
    if attrs.is_link() {
        let target = session.remote.read_link(place).await.map_err(|e| e.fault())?;
        let mut links = versions.iter().filter(|one| one.version.kind == VersionKind::Link);
        return Ok(links.any(|one| Some(&one.version.target[..]) == target.as_deref()));
    }
    let mut files = versions.iter().filter(|one| one.version.kind == VersionKind::File);
    Ok(files.any(|one| match one.seen {
        Some(before) => Some(before) == seen(attrs),
        None => looks_like(&one.version.stamp, attrs),
    }))
}

async fn is_link_to(session: &Session, place: &RemotePath, target: &[u8]) -> Result<bool, Fault> {
    let (unseen, may_be) = match session.remote.look(place).await {
        Err(e) if e.is_refusal() => (true, true),
        there => (false, there.map_err(|e| e.fault())?.is_some_and(|attrs| attrs.is_link())),
    };
    if !may_be {
        return Ok(false);
    }
    match session.remote.read_link(place).await {
        Err(e) if unseen && !e.is_connection() => Ok(false),
        read => Ok(read.map_err(|e| e.fault())?.as_deref() == Some(target)),
    }
}

/// Removes a directory that was delivered from here, if it is empty or contains only assemblies of deliveries that are
/// no longer open.
async fn remove_directory(transfers: &Transfers, version: &Version, place: &RemotePath) -> Result<Cleared, Fault> {
    let session = &transfers.session;
    session.forget_dirs(place).await;
    if session.remote.remove_dir(place).await.is_ok() {
        return Ok(Cleared::Removed);
    }
    let listed = match session.remote.list(place).await {
        Err(e) if e.is_refusal() => Vec::new(),
        listed => listed.map_err(|e| e.fault())?,
    };
    for (name, _) in listed {
        if let Some(OurFile::Assembly { delivery }) = OurFile::parse(session.link.instance, &name)
            && !transfers.ledger.is_open(DeliveryId(delivery)).await.map_err(|e| e.fault())?
        {
            session.remote.remove(&place.join(&name)).await.map_err(|e| e.fault())?;
        }
    }
    let Err(error) = session.remote.remove_dir(place).await else { return Ok(Cleared::Removed) };
    if error.is_connection() {
        return Err(error.fault());
    }
    if is_about_to_empty(transfers, version).await? {
        let reason = format_args!("cannot remove {place} yet: files in it are still waiting to be deleted");
        return Err(Fault::attempt(reason).at(Pace::AtOnce));
    }
    // The last entry may have been removed since the attempt above.
    match session.remote.remove_dir(place).await {
        Ok(()) => Ok(Cleared::Removed),
        Err(e) if e.is_connection() => Err(e.fault()),
        Err(_) => Ok(Cleared::Kept("the directory is not empty there")),
    }
}
