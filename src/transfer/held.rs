//! Data of a file that unfinished attempts have left on the vessel.

use std::ops::Range;

use super::ownership::may_resume;
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
    /// Ranges of the file that existing parts hold.
    pub(super) parts: Vec<Range<u64>>,
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
        if let Some(OurFile::Part { delivery: of, start }) = OurFile::parse(session.link.instance, &name)
            && of == delivery.id.0
        {
            parts.push(start..start.saturating_add(attrs.size.unwrap_or(0)));
        }
    }
    // The assembly ends within a part, so an append of this part was interrupted. The whole part is appended again.
    let torn = parts.iter().find(|part| part.start < assembled && assembled < part.end);
    let joined = torn.map_or(assembled, |part| part.start).min(delivery.version.stamp.size);
    if joined != assembled {
        let cut = session.remote.set(assembly, Attrs { size: Some(joined), ..Attrs::default() }).await;
        session.explained(cut, assembly, 0).await?;
    }
    Ok(Held { joined, parts })
}
