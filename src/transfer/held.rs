//! Data of a file that unfinished attempts have left on the vessel.

use super::ownership::may_resume;
use super::ranges::HeldPart;
use crate::fault::Fault;
use crate::link::Session;
use crate::names::{OurFile, RemotePath};
use crate::records::{Delivery, DeliveryState};
use crate::transport::Attrs;

/// Data of an unfinished file that the vessel already holds.
#[derive(Default)]
pub(crate) struct Held {
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
            None => session.part(delivery, self.range.start),
        }
    }
}

/// Finds out which data the vessel holds of a file.
pub(crate) async fn held(session: &Session, delivery: &Delivery, assembly: &RemotePath) -> Result<Held, Fault> {
    if delivery.state == DeliveryState::Pending {
        return Ok(Held::default());
    }
    let temp_dir = &session.link.settings.temp_dir;
    let (assembled, listed) = tokio::join!(session.remote.look(assembly), session.remote.list(temp_dir));
    let assembled = match assembled {
        // The vessel does not report the assembly's size, so the file is sent from the start.
        Err(e) if e.is_refusal() => return Ok(Held::default()),
        assembled => assembled.map_err(|e| e.fault())?,
    };
    let assembled = match assembled {
        Some(attrs) if may_resume(session, &delivery.version, assembly, &attrs).await.map_err(|e| e.fault())? => {
            attrs.size.unwrap_or(0)
        }
        Some(_) => {
            session.remote.remove(assembly).await.map_err(|e| e.fault())?;
            0
        }
        None => 0,
    };
    let mut parts = Vec::new();
    let listed = match listed {
        Err(e) if e.is_refusal() => Vec::new(),
        listed => listed.map_err(|e| e.fault())?,
    };
    for (name, attrs) in listed {
        let size = attrs.size.unwrap_or(0);
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
    // The assembly ends within a part, so an append of this part was interrupted. The whole part is appended again.
    let torn = parts.iter().map(|part| &part.range).find(|it| it.start < assembled && assembled < it.end);
    let joined = torn.map_or(assembled, |it| it.start).min(delivery.version.stamp.size);
    if joined != assembled {
        let cut = session.remote.set(assembly, Attrs { size: Some(joined), ..Attrs::default() }).await;
        session.explained(cut, assembly, 0).await?;
    }
    Ok(Held { joined, parts })
}
