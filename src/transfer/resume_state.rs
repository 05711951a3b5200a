//! Determines where an upload resumes: queries which data of the file earlier attempts have left on the vessel.

use bytes::Bytes;

use super::ownership::{may_resume, may_resume_listed};
use super::ranges::HeldPart;
use crate::fault::Fault;
use crate::link::{Session, probe_beside};
use crate::names::{OurFile, RemotePath, part_prefix};
use crate::records::{Delivery, DeliveryState};
use crate::transport::{Attrs, takes_name};

/// Data of an unfinished file that the vessel already holds.
#[derive(Default)]
pub(crate) struct ResumeState {
    /// Number of bytes at the start of the file that the assembly holds.
    pub(crate) joined: u64,
    /// The parts that hold ranges of the file.
    pub(super) parts: Vec<HeldPart>,
}

impl HeldPart {
    /// Returns the path of the part.
    pub(super) fn path(&self, session: &Session, delivery: &Delivery) -> RemotePath {
        match self.stream {
            Some((stream, _)) => session.compressed_part(delivery, stream),
            None => session.part(delivery.id, self.range.start),
        }
    }
}

/// The assembly and the files in TempDir, with their sizes.
struct Found {
    /// `None` if there is no assembly; `Some(None)` if it must not be written to; otherwise its number of bytes.
    assembly: Option<Option<u64>>,
    files: Vec<(Bytes, u64)>,
}

/// Queries which data of a file the vessel already holds.
pub(crate) async fn resume_state(
    session: &Session,
    delivery: &Delivery,
    assembly: &RemotePath,
) -> Result<ResumeState, Fault> {
    if delivery.state == DeliveryState::Pending {
        return Ok(ResumeState::default());
    }
    let found = match by_command(session, delivery, assembly).await {
        Some(found) => Some(found),
        None => by_sftp(session, delivery, assembly).await?,
    };
    // If the vessel does not report the assembly's attributes, the file is sent from the start.
    let Some(Found { assembly: found, files }) = found else { return Ok(ResumeState::default()) };
    if found == Some(None) {
        session.remote.remove(assembly).await.map_err(|e| e.fault())?;
    }
    let assembled = found.flatten().unwrap_or_default();
    let mut parts = Vec::new();
    for (name, size) in files {
        match OurFile::parse(session.link.instance, &name) {
            Some(OurFile::Part { delivery: of, start }) if of == delivery.id.0 => {
                parts.push(HeldPart::plain(start..start.saturating_add(size)));
            }
            Some(OurFile::Compressed { delivery: of, stream }) if of == delivery.id.0 => {
                parts.push(HeldPart::compressed(stream, size));
            }
            _ => {}
        }
    }
    // If the assembly ends within a part, an append of this part was interrupted, and the whole part is appended again.
    let torn = parts.iter().map(|part| &part.range).find(|it| it.start < assembled && assembled < it.end);
    let joined = torn.map_or(assembled, |it| it.start).min(delivery.version.stamp.size);
    if joined != assembled {
        let cut = session.remote.set(assembly, Attrs { size: Some(joined), ..Attrs::default() }).await;
        session.explained(cut, assembly, 0).await?;
    }
    Ok(ResumeState { joined, parts })
}

/// Queries everything by one command, on a network path where round trips cost more than processes. `None` on other
/// paths, or if the command fails or can't be used.
async fn by_command(session: &Session, delivery: &Delivery, assembly: &RemotePath) -> Option<Found> {
    let (remote, temp_dir) = (&session.remote, &session.link.settings.temp_dir);
    // A line break in a name would look like the end of a line of the command's output.
    let are_lines = takes_name(assembly) && takes_name(temp_dir);
    if !session.is_far() || !remote.capabilities().shell || !are_lines {
        return None;
    }
    let prefix = part_prefix(session.link.instance, delivery.id.0);
    let probe = probe_beside(assembly);
    let leftovers = remote.find_leftovers(assembly, &probe, temp_dir, &prefix).await;
    let leftovers = leftovers.inspect_err(|e| tracing::debug!(vessel = %session.link.settings.name, "{e}")).ok()?;
    let found = leftovers.assembly.map(|it| may_resume_listed(&delivery.version, &it, &leftovers).then_some(it.size));
    Some(Found { assembly: found, files: leftovers.parts })
}

/// Queries everything over SFTP. `None` if the vessel does not allow that.
async fn by_sftp(session: &Session, delivery: &Delivery, assembly: &RemotePath) -> Result<Option<Found>, Fault> {
    let temp_dir = &session.link.settings.temp_dir;
    let (assembled, listed) = tokio::join!(session.remote.look(assembly), session.remote.list(temp_dir));
    let assembled = match assembled {
        Err(e) if e.is_refusal() => return Ok(None),
        assembled => assembled.map_err(|e| e.fault())?,
    };
    let assembled = match assembled {
        Some(attrs) => {
            let may = may_resume(session, &delivery.version, assembly, &attrs).await.map_err(|e| e.fault())?;
            Some(may.then(|| attrs.size.unwrap_or(0)))
        }
        None => None,
    };
    let listed = match listed {
        Err(e) if e.is_refusal() => Vec::new(),
        listed => listed.map_err(|e| e.fault())?,
    };
    let files = listed.into_iter().map(|(name, attrs)| (name, attrs.size.unwrap_or(0))).collect();
    Ok(Some(Found { assembly: assembled, files }))
}
