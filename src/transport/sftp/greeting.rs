//! The start of an SFTP session: the vessel's SSH_FXP_VERSION, and the requests that are sent right after our
//! SSH_FXP_INIT.

use std::collections::HashMap;
use std::time::Duration;

use bytes::BytesMut;

use super::handshake::Early;
use super::requests::Pending;
use super::space::Limits;
use super::wire::{Attrs, Reader, Reply, kind, put_string};
use super::{SftpError, attrs, unexpected};

/// The extension that reports the server's limits.
pub(super) const LIMITS: &str = "limits@openssh.com";

/// The vessel's greeting.
#[derive(Default)]
pub struct Greeting {
    /// The extensions that the vessel announced, by name.
    pub extensions: HashMap<String, String>,
    /// The reply to an early request for the vessel's limits.
    pub limits: Option<EarlyReply>,
    /// The replies to early requests for the attributes of the root and of the login directory.
    pub landmarks: [Option<EarlyReply>; 2],
}

/// The pending reply to a request that was sent together with our SSH_FXP_INIT.
pub struct EarlyReply(Pending);

/// Returns the requests that are sent together with our SSH_FXP_INIT if the round-trip time is long. A server that does
/// not know the extension for limits rejects the request for limits as unsupported.
pub(super) fn early(round_trip: Duration) -> Early {
    let fields = |text: &[u8]| {
        let mut fields = BytesMut::new();
        put_string(&mut fields, text);
        fields
    };
    let limits = (kind::EXTENDED, fields(LIMITS.as_bytes()));
    Early { requests: vec![limits, (kind::STAT, fields(b"/")), (kind::STAT, fields(b"."))], round_trip }
}

impl Greeting {
    /// Creates a greeting with the replies to the requests of [`early`], if they were sent.
    pub(super) fn new(extensions: HashMap<String, String>, replies: Vec<Pending>) -> Self {
        let mut replies = replies.into_iter().map(EarlyReply);
        Self { extensions, limits: replies.next(), landmarks: [replies.next(), replies.next()] }
    }
}

impl EarlyReply {
    pub(in crate::transport) async fn limits(self) -> Result<Limits, SftpError> {
        limits(self.0.wait().await?)
    }

    pub(in crate::transport) async fn attrs(self) -> Result<Attrs, SftpError> {
        attrs(self.0.wait().await?)
    }
}

pub(super) fn limits(reply: Reply) -> Result<Limits, SftpError> {
    match reply {
        Reply::Extended(body) => {
            let mut body = Reader(body);
            let _largest_packet = body.u64()?;
            let (read, write) = (body.u64()?, body.u64()?);
            // Older servers do not send the limit on open handles.
            Ok(Limits { read, write, handles: body.u64().unwrap_or(0) })
        }
        other => Err(unexpected(other)),
    }
}
