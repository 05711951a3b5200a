//! One connection to the embedded vessel: authentication, and the start of channels.
//!
//! This module implements the callbacks of russh's server. Other modules handle commands and SFTP.

use std::collections::{HashMap, HashSet};
use std::net::Shutdown;
use std::sync::Arc;

use russh::keys::PublicKey;
use russh::server::{Auth, ChannelOpenHandle, Config, Handler, Msg, PublicKeyOffer, Session, VerifiedPublicKey};
use russh::{Channel, ChannelId, ChannelOpenFailure, Pty};
use secrecy::ExposeSecret;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use super::fault_injection::{InjectedFault, Request};
use super::files::Files;
use super::{House, Options, shell, wire};

/// Serves one connection until the client or the server ends it, or `stop` is cancelled and cuts it.
pub(super) async fn serve(mut socket: TcpStream, config: Arc<Config>, visitor: Visitor, stop: CancellationToken) {
    if !visitor.serves(Request::Connection).await {
        return;
    }
    if socket.write_all(&visitor.house.options.quirks.greeting).await.is_err() {
        return;
    }
    let Ok((socket, scissors)) = with_scissors(socket) else { return };
    let session = async {
        match russh::server::run_stream(config, socket, visitor).await {
            Ok(running) => running.await,
            Err(error) => Err(error),
        }
    };
    tokio::pin!(session);
    let ended = tokio::select! {
        ended = &mut session => ended,
        () = stop.cancelled() => {
            // A regular disconnect would wait for the client's answer. An error of `shutdown` means that the client has
            // already disconnected.
            let _ = scissors.shutdown(Shutdown::Both);
            session.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "Embedded vessel: connection ended");
    }
}

/// Returns the socket for russh, and a second handle that can shut the socket down while russh owns the first.
fn with_scissors(socket: TcpStream) -> std::io::Result<(TcpStream, std::net::TcpStream)> {
    socket.set_nodelay(true)?;
    let socket = socket.into_std()?;
    let scissors = socket.try_clone()?;
    Ok((TcpStream::from_std(socket)?, scissors))
}

/// The callbacks of one connection.
pub(super) struct Visitor {
    house: Arc<House>,
    /// The token that cuts the connection.
    cut: CancellationToken,
    /// Open channels on which no command or subsystem was started.
    idle: HashMap<ChannelId, Channel<Msg>>,
    /// All open channels.
    channels: HashSet<ChannelId>,
}

impl Visitor {
    pub(super) fn new(house: Arc<House>, cut: CancellationToken) -> Self {
        Self { house, cut, idle: HashMap::new(), channels: HashSet::new() }
    }

    /// Returns whether a request without data is served, after applying the injected fault.
    async fn serves(&self, request: Request<'_>) -> bool {
        let fault = self.house.options.faults.as_ref().map_or(InjectedFault::Serve, |faults| faults.decide(request));
        self.grants(&fault).await
    }

    async fn grants(&self, fault: &InjectedFault) -> bool {
        match fault {
            InjectedFault::Serve | InjectedFault::Change(_) => return true,
            InjectedFault::Delay(time) => {
                tokio::time::sleep(*time).await;
                return true;
            }
            InjectedFault::Answer(_) | InjectedFault::ServeAndAnswer(_) => {}
            InjectedFault::CutBefore | InjectedFault::CutAfter => self.cut.cancel(),
            InjectedFault::Stall => self.cut.cancelled().await,
        }
        false
    }

    fn admits_key(&self, user: &str, key: &PublicKey) -> Auth {
        let options = &self.house.options;
        let ours = options.authorized_key.as_ref().is_some_and(|ours| ours.key_data() == key.key_data());
        verdict(ours && user == options.user)
    }
}

fn verdict(admitted: bool) -> Auth {
    if admitted { Auth::Accept } else { Auth::reject() }
}

impl Handler for Visitor {
    type Error = russh::Error;

    async fn auth_password(&mut self, user: &str, password: &str) -> Result<Auth, Self::Error> {
        let options = &self.house.options;
        let right = options.password.as_ref().is_some_and(|ours| ours.expose_secret() == password);
        Ok(verdict(right && user == options.user && self.serves(Request::Login).await))
    }

    async fn auth_publickey_offered(&mut self, user: &str, offer: PublicKeyOffer<'_>) -> Result<Auth, Self::Error> {
        Ok(self.admits_key(user, offer.public_key))
    }

    async fn auth_publickey(&mut self, user: &str, key: VerifiedPublicKey<'_>) -> Result<Auth, Self::Error> {
        if !self.serves(Request::Login).await {
            return Ok(Auth::reject());
        }
        Ok(self.admits_key(user, key.public_key))
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        if self.house.options.quirks.max_sessions.is_some_and(|most| self.channels.len() >= most) {
            reply.reject(ChannelOpenFailure::AdministrativelyProhibited).await;
            return Ok(());
        }
        self.channels.insert(channel.id());
        self.idle.insert(channel.id(), channel);
        reply.accept().await;
        Ok(())
    }

    async fn channel_close(&mut self, channel: ChannelId, _session: &mut Session) -> Result<(), Self::Error> {
        self.channels.remove(&channel);
        self.idle.remove(&channel);
        Ok(())
    }

    async fn exec_request(&mut self, id: ChannelId, command: &[u8], session: &mut Session) -> Result<(), Self::Error> {
        let fault =
            self.house.options.faults.as_ref().map_or(InjectedFault::Serve, |faults| faults.decide(Request::Command));
        // The request is never answered; other channels continue.
        if fault == InjectedFault::Stall {
            return Ok(());
        }
        let granted = self.house.options.exec && self.grants(&fault).await;
        let channel = if granted { self.idle.remove(&id) } else { None };
        let Some(channel) = channel else { return session.channel_failure(id) };
        session.channel_success(id)?;
        let command = if let InjectedFault::Change(other) = &fault { &other[..] } else { command };
        let house = &self.house;
        let Options { home, quirks, faults, .. } = &house.options;
        let seat = shell::Seat { home: home.clone(), programs: quirks.programs.clone(), faults: faults.clone() };
        house.tasks.spawn(shell::run(channel, command.to_vec(), seat, self.cut.clone()));
        Ok(())
    }

    async fn subsystem_request(&mut self, id: ChannelId, name: &str, session: &mut Session) -> Result<(), Self::Error> {
        let granted = name == "sftp" && self.serves(Request::Sftp).await;
        let channel = if granted { self.idle.remove(&id) } else { None };
        let Some(channel) = channel else { return session.channel_failure(id) };
        session.channel_success(id)?;
        let house = &self.house;
        let files = Files::new(&house.options, house.next_handle.clone(), house.tasks.token());
        house.tasks.spawn(wire::carry(channel, files, house.options.faults.clone(), self.cut.clone()));
        Ok(())
    }

    async fn shell_request(&mut self, id: ChannelId, session: &mut Session) -> Result<(), Self::Error> {
        session.channel_failure(id)
    }

    async fn pty_request(
        &mut self,
        id: ChannelId,
        _term: &str,
        _columns: u32,
        _rows: u32,
        _width: u32,
        _height: u32,
        _modes: &[(Pty, u32)],
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        session.channel_failure(id)
    }

    async fn env_request(
        &mut self,
        id: ChannelId,
        _name: &str,
        _value: &str,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        session.channel_failure(id)
    }
}
