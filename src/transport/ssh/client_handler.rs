//! Handles the SSH library's callbacks: checks the host key and rejects channels that the vessel opens.

use std::sync::{Arc, Mutex, MutexGuard};

use russh::client::{ChannelOpenHandle, DisconnectReason, Handler, Msg, Session};
use russh::compression::Compression;
use russh::keys::PublicKeyOrCertificate;
use russh::keys::ssh_key::PublicKey;

use super::congestion::Congestion;
use super::host_key::{HostKeys, SeenKey};
use super::link_meter::Counted;
use crate::transport::ConnectError;
use crate::transport::excerpt::excerpt;
use crate::transport::known_hosts;

/// Facts about a connection, for messages and the log.
#[derive(Default)]
pub(super) struct Notes {
    /// Why the host key was rejected.
    pub(super) refused: Option<ConnectError>,
    /// The host key that the vessel showed.
    pub(super) seen: Option<SeenKey>,
    /// Algorithm and fingerprint of the vessel's host key, or of the key inside its host certificate.
    pub(super) host_key: Option<(String, String)>,
    /// Why the connection ended.
    pub(super) ended: Option<String>,
    /// Whether the vessel ended the connection with a disconnect message.
    pub(super) hung_up: bool,
    /// The banner that the vessel sent before the login.
    pub(super) banner: Option<String>,
    /// The line with the SSH version that the server sent.
    pub(super) server: Vec<u8>,
    /// The cipher in use.
    pub(super) cipher: Option<String>,
    /// Whether sent data is compressed.
    pub(super) compression: bool,
    /// The congestion control in use.
    pub(super) congestion: Congestion,
    /// The socket. It is used to count the connection's bytes and to cut the connection off.
    pub(super) socket: Option<Counted>,
}

/// [`Notes`], shared between the library's task and the connection's creator.
#[derive(Clone, Default)]
pub(super) struct SharedNotes(Arc<Mutex<Notes>>);

impl SharedNotes {
    pub(super) fn lock(&self) -> MutexGuard<'_, Notes> {
        self.0.lock().expect("no code panics while it holds this lock")
    }
}

/// The handler of the SSH library's callbacks. It checks the host key, rejects channels that the vessel opens, and
/// records notes.
pub(super) struct ClientHandler {
    /// The accepted host keys; `None` if the caller only wants to see the host key.
    pub(super) host_keys: Option<HostKeys>,
    pub(super) notes: SharedNotes,
}

/// Implements callbacks that reject channels opened by a vessel. By default, the SSH library accepts channels of these
/// kinds. Dropping `reply` rejects the channel.
macro_rules! refuse_channel {
    ($($name:ident($($extra:ty),*);)*) => {$(
        async fn $name(
            &mut self,
            _: russh::Channel<Msg>,
            $(_: $extra,)*
            reply: ChannelOpenHandle,
            _: &mut Session,
        ) -> Result<(), Self::Error> {
            drop(reply);
            Ok(())
        }
    )*};
}

fn key_id(key: &PublicKey) -> (String, String) {
    (key.algorithm().to_string(), known_hosts::fingerprint(key))
}

impl Handler for ClientHandler {
    type Error = russh::Error;

    async fn check_server_key(&mut self, shown: &PublicKeyOrCertificate) -> Result<bool, Self::Error> {
        if let PublicKeyOrCertificate::PublicKey { key, .. } = shown {
            self.notes.lock().seen = Some(SeenKey { key: key.clone() });
        }
        self.notes.lock().host_key = Some(match shown {
            PublicKeyOrCertificate::PublicKey { key, .. } => key_id(key),
            PublicKeyOrCertificate::Certificate(certificate) => key_id(&certificate.public_key().clone().into()),
        });
        let Some(host_keys) = &self.host_keys else { return Ok(false) };
        let checked = host_keys.check(shown);
        let welcome = checked.is_ok();
        self.notes.lock().refused = checked.err();
        Ok(welcome)
    }

    async fn kex_done(
        &mut self,
        _: Option<&[u8]>,
        names: &russh::Names,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        let mut notes = self.notes.lock();
        notes.server = session.remote_sshid().to_vec();
        notes.cipher = Some(names.cipher.as_ref().to_string());
        notes.compression = !matches!(names.client_compression, Compression::None);
        Ok(())
    }

    async fn auth_banner(&mut self, banner: &str, _: &mut Session) -> Result<(), Self::Error> {
        self.notes.lock().banner = Some(excerpt(banner)).filter(|text| !text.is_empty());
        Ok(())
    }

    async fn disconnected(&mut self, reason: DisconnectReason<Self::Error>) -> Result<(), Self::Error> {
        self.notes.lock().hung_up = matches!(reason, DisconnectReason::ReceivedDisconnect(_));
        let (why, outcome) = match reason {
            DisconnectReason::ReceivedDisconnect(info) => {
                (format!("the server closed the connection: {}", excerpt(&info.message)), Ok(()))
            }
            DisconnectReason::Error(e) => (e.to_string(), Err(e)),
        };
        self.notes.lock().ended = Some(why);
        outcome
    }

    refuse_channel! {
        server_channel_open_forwarded_tcpip(&str, u32, &str, u32);
        server_channel_open_forwarded_streamlocal(&str);
        server_channel_open_agent_forward();
        server_channel_open_session();
        server_channel_open_direct_tcpip(&str, u32, &str, u32);
        server_channel_open_direct_streamlocal(&str);
        server_channel_open_x11(&str, u32);
    }
}
