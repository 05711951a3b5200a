//! The start of SFTP on a channel: sends our greeting (SSH_FXP_INIT) and the early requests, and receives the vessel's
//! greeting.

use std::collections::HashMap;
use std::time::Duration;

use bytes::BytesMut;
use russh::ChannelMsg;
use russh::client::Msg;

use super::SftpError;
use super::wire::{self, Reader, kind};
use crate::transport::excerpt::excerpt;

/// How many bytes of the vessel's error output are kept for the error message.
const MOST_STDERR: usize = 4096;

/// Requests that are sent together with the greeting, which saves a round trip. Each has a type and its fields.
#[derive(Default)]
pub(crate) struct Early {
    pub(crate) requests: Vec<(u8, BytesMut)>,
    /// The round-trip time of the path. It can't be measured by the replies to these requests, because the replies also
    /// wait for the start of the server.
    pub(crate) round_trip: Duration,
}

impl Early {
    /// Returns our greeting, followed by the requests. Their numbers begin with `first_id`.
    pub(super) fn packets(&self, first_id: u32) -> BytesMut {
        let mut packets = BytesMut::from(&[0, 0, 0, 5, kind::INIT][..]);
        packets.extend_from_slice(&3u32.to_be_bytes());
        for (id, (kind, fields)) in (first_id..).zip(&self.requests) {
            let mut head = wire::begin(*kind, id);
            head.extend_from_slice(fields);
            packets.extend_from_slice(&wire::end(head, 0));
        }
        packets
    }
}

/// Sends `packets`, which begin with our greeting, and waits for the vessel's greeting. Returns the extensions that the
/// vessel announced. `arrived` then holds the bytes that arrived after the vessel's greeting.
pub(super) async fn greet(
    reader: &mut russh::ChannelReadHalf,
    writer: &russh::ChannelWriteHalf<Msg>,
    packets: BytesMut,
    arrived: &mut BytesMut,
) -> Result<HashMap<String, String>, SftpError> {
    let mut stderr = Vec::new();
    writer.data_bytes(packets.freeze()).await.map_err(|_| SftpError::Lost("the SFTP channel was closed".into()))?;
    loop {
        match wire::split_packet(arrived) {
            Ok(Some(packet)) => return extensions(Reader(packet)),
            Ok(None) => {}
            Err(wire::Garbled) => return Err(said_instead(arrived)),
        }
        match reader.wait().await {
            Some(ChannelMsg::Data { data }) => arrived.extend_from_slice(&data),
            Some(ChannelMsg::Failure) => {
                return Err(SftpError::Lost("the vessel refused to start the SFTP subsystem".into()));
            }
            Some(ChannelMsg::ExtendedData { data, .. }) if stderr.len() < MOST_STDERR => {
                stderr.extend_from_slice(&data);
            }
            // The error output may arrive after the end of the standard output.
            Some(ChannelMsg::Eof) => {}
            Some(ChannelMsg::Close) | None => return Err(ended_early(arrived, &stderr)),
            Some(_) => {}
        }
    }
}

/// Returns the error for a channel that was closed before SFTP started. It quotes the vessel's error output, or its
/// other output if there is no error output.
fn ended_early(output: &[u8], stderr: &[u8]) -> SftpError {
    let words = if stderr.is_empty() { output } else { stderr };
    let words = excerpt(&String::from_utf8_lossy(words));
    let ended = "the vessel closed the SFTP channel before SFTP began";
    SftpError::Lost(if words.is_empty() { ended.into() } else { format!("{ended}; the vessel says: {words}") })
}

/// Returns an error that quotes text received instead of the SFTP greeting. The text often names the reason, such as a
/// `nologin` shell or a profile that prints a message.
fn said_instead(arrived: &[u8]) -> SftpError {
    const MOST: usize = 200;
    match std::str::from_utf8(&arrived[..arrived.len().min(MOST)]) {
        Ok(text) if text.chars().all(|c| !c.is_control() || c.is_whitespace()) => {
            SftpError::Lost(format!("the vessel sent this text instead of SFTP: \"{}\"", excerpt(text)))
        }
        _ => SftpError::Garbled,
    }
}

/// Parses the SFTP greeting, which consists of the version and the extensions. Returns the extensions by name.
pub(super) fn extensions(mut packet: Reader) -> Result<HashMap<String, String>, SftpError> {
    let (kind, version) = (packet.u8()?, packet.u32()?);
    if kind != kind::VERSION || version < 3 {
        return Err(SftpError::Garbled);
    }
    let mut extensions = HashMap::new();
    while !packet.is_empty() {
        let (name, value) = (packet.string()?, packet.string()?);
        extensions.insert(String::from_utf8_lossy(&name).into_owned(), String::from_utf8_lossy(&value).into_owned());
    }
    Ok(extensions)
}
