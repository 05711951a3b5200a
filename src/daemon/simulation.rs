//! Simulation: determines which actions the daemon would take, and takes none of them.
//!
//! The shore's workflow runs on a copy of the ledger, which then contains the deliveries. The vessels are not
//! contacted, so files that a vessel already holds without an acknowledgement in the ledger count as files to be sent.

use std::collections::HashSet;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::json;

use super::{Daemon, Surroundings};
use crate::fault::Fault;
use crate::ledger::{Ledger, OriginThere, QueueEnd, Scratch};
use crate::local::PROCESSED;
use crate::names::{DirectoryName, RelPath, RemotePath, VesselName, display_bytes};
use crate::records::{Delivery, Version, VersionKind};
use crate::settings::{KeepProcessed, Settings, Vessel};
use crate::shore;

/// An action that the daemon would take.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Intention {
    /// A file would be sent, in one or more chunks.
    Send {
        /// The receiving vessel.
        vessel: VesselName,
        /// The source.
        from: PathBuf,
        /// The destination.
        to: RemotePath,
        /// The file's size in bytes.
        bytes: u64,
        /// The number of chunks of the file.
        chunks: u64,
    },
    /// A directory would be created, or its mode would be set.
    MakeDirectory {
        /// The vessel on which this would be done.
        vessel: VesselName,
        /// The path of the directory.
        to: RemotePath,
    },
    /// A link would be created.
    MakeLink {
        /// The vessel that would get the link.
        vessel: VesselName,
        /// The path of the link.
        to: RemotePath,
        /// The link's target.
        target: Vec<u8>,
    },
    /// A file or a directory that was moved on the shore would be renamed on the vessel, unless it was changed there.
    Rename {
        /// The vessel that holds the file or directory.
        vessel: VesselName,
        /// The current path on the vessel.
        from: RemotePath,
        /// The new path on the vessel.
        to: RemotePath,
    },
    /// A delivered file would be deleted, unless it was changed on the vessel.
    Delete {
        /// The vessel that holds the file.
        vessel: VesselName,
        /// The path of the file.
        to: RemotePath,
    },
    /// A source would be moved to `processed/` once every vessel has it.
    Move {
        /// The source.
        from: PathBuf,
        /// The destination in `processed/`. If the name is taken, the next free name is used.
        to: PathBuf,
    },
    /// A source would be deleted once every vessel has it, because of `KeepProcessed = no`.
    Discard {
        /// The source.
        from: PathBuf,
    },
    /// A directory, or a part of it, can't be used.
    Trouble {
        /// The directory.
        directory: DirectoryName,
        /// The reason and the remedy.
        what: String,
    },
}

impl Intention {
    /// Returns the action as JSON, with its text.
    pub fn json(&self, text: &str) -> serde_json::Value {
        let local = |path: &PathBuf| display_bytes(path.as_os_str().as_encoded_bytes()).to_string();
        let on = |action: &str, vessel: &VesselName, to: &RemotePath, from: Option<String>| json!({ "action": action, "vessel": vessel.as_str(), "from": from, "to": to.to_string(), "text": text });
        match self {
            Self::Send { vessel, from, to, bytes, .. } => {
                let mut value = on("send", vessel, to, Some(local(from)));
                value["bytes"] = json!(bytes);
                value
            }
            Self::MakeDirectory { vessel, to } => on("make-directory", vessel, to, None),
            Self::MakeLink { vessel, to, target } => {
                on("make-link", vessel, to, Some(display_bytes(target).to_string()))
            }
            Self::Rename { vessel, from, to } => on("rename", vessel, to, Some(from.to_string())),
            Self::Delete { vessel, to } => on("delete", vessel, to, None),
            Self::Move { from, to } => {
                json!({ "action": "move", "from": local(from), "to": local(to), "text": text })
            }
            Self::Discard { from } => json!({ "action": "discard", "from": local(from), "text": text }),
            Self::Trouble { directory, .. } => {
                json!({ "action": "trouble", "directory": directory.as_str(), "text": text })
            }
        }
    }
}

impl fmt::Display for Intention {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |path: &PathBuf| display_bytes(path.as_os_str().as_encoded_bytes());
        match self {
            Self::Send { vessel, from, to, bytes, chunks: 0 | 1 } => {
                write!(f, "send to {vessel}: {} as {to} ({bytes} bytes)", shown(from))
            }
            Self::Send { vessel, from, to, bytes, chunks } => {
                write!(f, "send to {vessel}: {} as {to} ({bytes} bytes, assembled from {chunks} chunks)", shown(from))
            }
            Self::MakeDirectory { vessel, to } => write!(f, "create on {vessel}: directory {to}"),
            Self::MakeLink { vessel, to, target } => {
                write!(f, "create on {vessel}: link {to} that points to {}", display_bytes(target))
            }
            Self::Rename { vessel, from, to } => write!(f, "rename on {vessel}: {from} to {to}"),
            Self::Delete { vessel, to } => write!(f, "delete on {vessel}: {to}"),
            Self::Move { from, to } => write!(f, "move: {} to {}", shown(from), shown(to)),
            Self::Discard { from } => write!(f, "delete on this host, once every vessel has it: {}", shown(from)),
            Self::Trouble { directory, what } => write!(f, "directory {directory}: {what}"),
        }
    }
}

/// Returns the actions that the daemon would take now.
///
/// # Errors
/// A [`Fault`] when the ledger can't be read or copied.
pub async fn simulate(settings: Settings, surroundings: Surroundings) -> Result<Vec<Intention>, Fault> {
    let scratch = Scratch::of_ledger(&settings.monster.database, surroundings.clock.clone()).await;
    simulate_with(scratch.map_err(|e| e.fault())?.ledger(), settings, surroundings).await
}

async fn simulate_with(
    ledger: Ledger,
    settings: Settings,
    surroundings: Surroundings,
) -> Result<Vec<Intention>, Fault> {
    let daemon = Daemon::new(settings, ledger, surroundings, true).await?;
    let mut intentions = Vec::new();
    for directory in daemon.directories() {
        let (name, trouble) = (directory.settings.name.clone(), directory.trouble.subscribe());
        shore::dry_run(directory).await?;
        let troubles = trouble.borrow();
        let trouble = |what: &str| Intention::Trouble { directory: name.clone(), what: what.to_owned() };
        intentions.extend(troubles.texts().map(trouble));
    }
    let mut shown = HashSet::new();
    for vessel in &daemon.settings.vessels {
        daemon.ledger.hurry(&vessel.name).await.map_err(|e| e.fault())?;
        // The ledger returns deliveries that wait for a move only after the move counts as done or as failed, so the
        // queries are repeated.
        for large in [true, false].into_iter().cycle() {
            let due = daemon.ledger.next_due(&vessel.name, large, u32::MAX).await.map_err(|e| e.fault())?;
            let mut due = due;
            for directory in daemon.settings.directories.iter().filter(|directory| directory.has_own_queue()) {
                let (name, front) = (&directory.name, QueueEnd::Front);
                let own = daemon.ledger.next_due_in(&vessel.name, name, large, u32::MAX, front).await;
                due.extend(own.map_err(|e| e.fault())?);
            }
            let mut moves = 0;
            for delivery in &due {
                let renamed = match &delivery.origin {
                    Some(origin) => {
                        moves += 1;
                        daemon.rename(vessel, delivery, &origin.path).await?
                    }
                    None => None,
                };
                if renamed.is_some() || delivery.origin.is_some() || !shown.contains(&delivery.id) {
                    shown.insert(delivery.id);
                    intentions.extend(renamed.or_else(|| daemon.intention(vessel, delivery)));
                }
            }
            if !large && moves == 0 {
                break;
            }
        }
    }
    for directory in daemon.directories() {
        intentions.extend(daemon.retirements(&directory).await?);
    }
    Ok(intentions)
}

/// Logs the actions that the daemon would take, and repeatedly logs new ones, until it is stopped.
///
/// # Errors
/// The errors of [`simulate`].
pub async fn simulate_on(settings: Settings, surroundings: impl Fn() -> Surroundings) -> Result<(), Fault> {
    let pause = settings.directories.iter().map(|directory| directory.rescan_interval).min();
    let pause = pause.unwrap_or(Duration::from_secs(60));
    let mut said = HashSet::new();
    let Surroundings { stop, clock, .. } = surroundings();
    let mut scratch = Scratch::of_ledger(&settings.monster.database, clock).await.map_err(|e| e.fault())?;
    loop {
        let intentions = simulate_with(scratch.ledger(), settings.clone(), surroundings()).await?;
        let intentions: HashSet<_> = intentions.into_iter().collect();
        for intention in intentions.difference(&said) {
            tracing::info!("Simulation: {intention}");
        }
        said = intentions;
        if stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
            return Ok(());
        }
        scratch.refresh().await.map_err(|e| e.fault())?;
    }
}

impl Daemon {
    /// Returns the action for a delivery; `None` if its directory is no longer configured or its version is skipped.
    fn intention(&self, vessel: &Vessel, delivery: &Delivery) -> Option<Intention> {
        let version = &delivery.version;
        let directory = &self.directories.get(&version.directory)?.settings;
        let to = vessel.destination(directory, &version.path);
        let name = vessel.name.clone();
        Some(match version.kind {
            VersionKind::File => Intention::Send {
                vessel: name,
                from: directory.location.join(version.path.as_path()),
                to,
                bytes: version.stamp.size,
                chunks: version.plan().count(),
            },
            VersionKind::Directory => Intention::MakeDirectory { vessel: name, to },
            VersionKind::Link => Intention::MakeLink { vessel: name, to, target: version.target.clone() },
            VersionKind::Gone => Intention::Delete { vessel: name, to },
            VersionKind::Skipped => return None,
        })
    }

    /// Returns the rename of a moved entry on a vessel, and acknowledges the deliveries of the entry and of everything
    /// in it. If the vessel would not rename the entry, returns `None` and records the move as failed.
    async fn rename(&self, vessel: &Vessel, delivery: &Delivery, origin: &RelPath) -> Result<Option<Intention>, Fault> {
        let version = &delivery.version;
        let there = self.ledger.origin_there(&vessel.name, delivery).await.map_err(|e| e.fault())?;
        let directory = self.directories.get(&version.directory).map(|directory| &directory.settings);
        let is_same = |held: &Version| held.kind != VersionKind::File || held.stamp == version.stamp;
        let may_move = |there: OriginThere| there.is_free && is_same(&there.held.version);
        let Some(directory) = directory.filter(|_| there.is_some_and(may_move)) else {
            self.ledger.put_off(delivery.id, "", i64::MAX, false).await.map_err(|e| e.fault())?;
            return Ok(None);
        };
        let moved = self.ledger.moved_tree(&vessel.name, delivery).await.map_err(|e| e.fault())?;
        let done: Vec<_> = moved.iter().flat_map(|entry| [Some(entry.delivery), entry.gone]).flatten().collect();
        self.ledger.acknowledge_moved(&done).await.map_err(|e| e.fault())?;
        Ok(Some(Intention::Rename {
            vessel: vessel.name.clone(),
            from: vessel.destination(directory, origin),
            to: vessel.destination(directory, &version.path),
        }))
    }

    /// Returns what would be done with the sources once every vessel has them: moves to `processed/`, or deletions.
    async fn retirements(&self, directory: &shore::Directory) -> Result<Vec<Intention>, Fault> {
        let settings = &directory.settings;
        if settings.is_mirror() || directory.vessels.is_empty() {
            return Ok(Vec::new());
        }
        let current = self.ledger.current(&settings.name).await.map_err(|e| e.fault())?;
        let files = current.into_iter().filter(|version| version.traits.kind == VersionKind::File);
        let intend = |path: PathBuf| {
            let from = settings.location.join(&path);
            match settings.keep_processed {
                KeepProcessed::No => Intention::Discard { from },
                _ => Intention::Move { from, to: settings.location.join(PROCESSED).join(path) },
            }
        };
        Ok(files.map(|version| intend(version.path.as_path().to_owned())).collect())
    }
}
