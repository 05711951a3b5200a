//! Connects to vessels: starts SFTP first, and probes the shell concurrently.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::Poll;
use std::time::Duration;

use futures_util::future::{Either, join4, ready};
use tokio_util::task::AbortOnDropHandle;

use super::capabilities::Capabilities;
use super::disk::Disk;
use super::error::{ConnectError, RemoteError};
use super::exec::Shells;
use super::known::{self, Answer, KnownShell};
use super::remote::{Inner, Remote, Ssh};
use super::sftp::may_know_check_file;
use super::sftp_channel::SftpChannel;
use super::ssh::{Admission, Connection, Lead, SshEnvironment, Turn, place};
use crate::names::RemotePath;
use crate::settings::{self, Vessel};

/// A running probe of the shell.
type Asking = AbortOnDropHandle<Answer>;

impl Remote {
    /// Connects, logs in, starts SFTP and determines the vessel's capabilities. Reports the progress to the connections
    /// that follow `lead`. For a target on this host, only opens its directories.
    ///
    /// The shell is probed concurrently. This function waits only briefly for the result; if the shell answers later,
    /// it is used from then on. A shell that is known from an earlier connection is used at once, which saves about 0.5
    /// s if the round-trip time is long. A known shell is still probed, and the connection ends if the shell's
    /// capabilities have changed.
    ///
    /// If the probe ends the connection, this function connects again and uses no shell.
    ///
    /// # Errors
    /// [`ConnectError`], with the reason and the remedy.
    pub async fn connect(
        vessel: &Arc<Vessel>,
        environment: &Arc<SshEnvironment>,
        known: &KnownShell,
        lead: &Lead,
    ) -> Result<Self, ConnectError> {
        let remote = Self::reach(vessel, environment, known, lead).await?;
        let expands = match remote.known_shell() {
            KnownShell::Found(found) => Some(found.decompressor.is_some()),
            KnownShell::Unusable(_) => Some(false),
            KnownShell::Unknown | KnownShell::Slow | KnownShell::Suspect => None,
        };
        if let Some(expands) = expands {
            environment.unexpanding.note(&vessel.name, expands);
        }
        Ok(remote)
    }

    async fn reach(
        vessel: &Arc<Vessel>,
        environment: &Arc<SshEnvironment>,
        known: &KnownShell,
        lead: &Lead,
    ) -> Result<Self, ConnectError> {
        if let Some(target) = &vessel.local {
            let channel = SftpChannel::here(Disk::open(target, vessel.timeout).await?);
            return Ok(Self::new(None, channel, Capabilities::of_this_host(), vessel.timeout, KnownShell::Unknown));
        }
        let (connection, admission) = Connection::open(vessel, environment, Turn::Lead(lead)).await?;
        if vessel.shell == settings::Shell::No {
            let known = KnownShell::Unusable("Shell = no".into());
            return Self::begin(vessel, &connection, admission, known).await.map(|(remote, _)| remote);
        }
        match Self::begin(vessel, &connection, admission, known.clone()).await {
            Ok((remote, true)) => return Ok(remote),
            Ok((_, false)) => {}
            Err(e) if !known.asks() => return Err(e),
            // A server that ends the connection because of the probe may close the SFTP channel long before the
            // connection.
            Err(ConnectError::NoSftp { .. }) => {}
            Err(e) if !known::ended(&connection).await => return Err(e),
            Err(_) => {}
        }
        let ended = connection.why_closed().unwrap_or_else(|| "the connection was closed".into());
        let sure = connection.was_hung_up() || matches!(known, KnownShell::Suspect);
        tracing::debug!(vessel = %vessel.name, "The connection ended when a shell was requested: {ended}");
        let (connection, admission) = Connection::open(vessel, environment, Turn::Lead(lead)).await?;
        let without = KnownShell::Unusable(format!("requesting a shell ended the connection ({ended})"));
        let (remote, _) = Self::begin(vessel, &connection, admission, without).await?;
        if !sure {
            remote.remember(KnownShell::Suspect);
        }
        Ok(remote)
    }

    /// Starts SFTP on a connection, and probes the shell if it is not known. The returned `bool` is `false` if the
    /// probe ended the connection. The login's turn ends when both SFTP and the shell have answered.
    async fn begin(
        vessel: &Arc<Vessel>,
        connection: &Connection,
        admission: Admission,
        known: KnownShell,
    ) -> Result<(Self, bool), ConnectError> {
        let no_answer = |e: RemoteError| ConnectError::Handshake { place: place(vessel), why: e.to_string() };
        let shells = Arc::new(Shells::new(connection.clone()));
        // The SFTP channel is requested first, because a vessel may allow only one channel (`MaxSessions 1`).
        let mut channel = Box::pin(connection.channel());
        let opening = match futures_util::poll!(&mut channel) {
            Poll::Ready(opened) => Either::Left(ready(opened)),
            Poll::Pending => Either::Right(channel),
        };
        let asking =
            known.asks().then(|| AbortOnDropHandle::new(tokio::spawn(known::ask(shells.clone(), connection.clone()))));
        let (channel, mut greeting) = SftpChannel::start(connection, opening, vessel).await?;
        let [root, home] = std::mem::take(&mut greeting.landmarks);
        let may_hash = may_know_check_file(&greeting.extensions);
        let hashing = async { may_hash && channel.knows_check_file().await };
        let (root, home) = (channel.landmark(b"/", root), channel.landmark(b".", home));
        let (limits, root, home, check_file) = join4(channel.find_limits(&mut greeting), root, home, hashing).await;
        let (extensions, limits) = (greeting.extensions, limits.map_err(no_answer)?);
        let landmarks = root.zip(home).map(|(root, home)| [root, home]);
        let basic = Capabilities { extensions, limits, landmarks, check_file, ..Capabilities::default() };
        let slow = matches!(known, KnownShell::Slow);
        let places = [RemotePath::new("."), vessel.temp_dir.parent().unwrap_or_else(|| RemotePath::new("/"))];
        let ssh = Ssh { connection: connection.clone(), shells, places };
        let remote = Self::new(Some(ssh), channel, basic, vessel.timeout, known);
        let Some(mut asking) = asking else {
            remote.has_started(admission);
            remote.take_for_known();
            return Ok((remote, true));
        };
        let patience = if slow { Duration::ZERO } else { known::patience(remote.main_channel()) };
        match tokio::time::timeout(patience, &mut asking).await {
            Ok(Ok(Answer::Ended)) => return Ok((remote, false)),
            Ok(answer) => {
                remote.has_started(admission);
                remote.learn(answer.unwrap_or(Answer::Slow)).await;
            }
            Err(_) => {
                remote.remember(KnownShell::Slow);
                remote.learn_later(asking, admission);
            }
        }
        Ok((remote, true))
    }

    fn new(ssh: Option<Ssh>, channel: SftpChannel, basic: Capabilities, timeout: Duration, known: KnownShell) -> Self {
        let (full, known, refuses_check_file) = (OnceLock::new(), Mutex::new(known), AtomicBool::new(false));
        Self(Arc::new(Inner { ssh, channel, basic, full, timeout, known, refuses_check_file }))
    }

    /// Ends the login's turn in the login limit, because all programs that the login starts on the vessel are running.
    /// Later shells wait for their own turns.
    fn has_started(&self, admission: Admission) {
        if let Some(ssh) = &self.0.ssh {
            ssh.shells.begin_in_turn(admission.ready());
        }
    }

    fn remember(&self, known: KnownShell) {
        *self.0.known.lock().unwrap_or_else(PoisonError::into_inner) = known;
    }

    /// Uses the capabilities of the shell that an earlier connection found, and starts a probe that detects changes.
    fn take_for_known(&self) {
        if let KnownShell::Found(found) = self.known_shell() {
            self.gain(*found);
            tokio::spawn(self.clone().look_again());
        }
    }

    /// Adds the capabilities of the shell to those of SFTP.
    fn gain(&self, found: Capabilities) {
        let Capabilities { extensions, limits, landmarks, check_file, .. } = self.0.basic.clone();
        let full = Capabilities { extensions, limits, landmarks, check_file, ..found };
        self.remember(KnownShell::Found(Box::new(full.clone())));
        // `set` fails only if the value is already set, but each connection sets it only once.
        let _ = self.0.full.set(full);
    }

    /// Determines where the shell finds SFTP's files, and returns the shell's capabilities with this mapping. Returns
    /// `None` if the shell does not find the files. No probe file is needed if SFTP and the shell report the same
    /// attributes for the root and the login directory.
    async fn compare_trees(&self, found: &Capabilities) -> Option<Capabilities> {
        let ssh = self.0.ssh.as_ref()?;
        let is_alike = self.0.basic.landmarks.zip(found.landmarks).is_some_and(|(sftp, shell)| sftp == shell);
        if is_alike {
            return Some(found.clone());
        }
        match self.find_tree(&ssh.shells, &ssh.places).await {
            Ok(tree) => Some(Capabilities { tree: Some(tree?), ..found.clone() }),
            Err(e) => {
                tracing::debug!("Cannot tell whether SFTP and the shell show the same files: {e}");
                None
            }
        }
    }

    async fn learn(&self, answer: Answer) {
        match answer {
            Answer::Found(found) if found.shell => match self.compare_trees(&found).await {
                Some(found) => self.gain(found),
                None if self.is_lost() => {}
                None => {
                    let why = "it does not find the files that SFTP shows";
                    self.remember(KnownShell::Unusable(why.into()));
                }
            },
            Answer::Found(found) => self.gain(found),
            Answer::Slow => self.remember(KnownShell::Slow),
            Answer::Unusable(why) => self.remember(KnownShell::Unusable(why)),
            Answer::Ended => {
                let sure = self.connection().is_some_and(Connection::was_hung_up);
                let why = format!("requesting a shell ended the connection ({})", self.why_lost());
                self.remember(if sure { KnownShell::Unusable(why) } else { KnownShell::Suspect });
            }
        }
    }

    /// Waits in the background for the result of the probe, as long as the connection lasts.
    fn learn_later(&self, asking: Asking, admission: Admission) {
        let remote = Arc::downgrade(&self.0);
        let over = self.0.channel.clone();
        tokio::spawn(async move {
            let answer = tokio::select! {
                answer = asking => answer.unwrap_or(Answer::Slow),
                () = over.files().over() => Answer::Ended,
            };
            drop(over);
            if let Some(remote) = remote.upgrade() {
                let remote = Self(remote);
                remote.has_started(admission);
                remote.learn(answer).await;
            }
        });
    }

    /// Probes a known shell again, and closes the connection if the shell's capabilities have changed.
    async fn look_again(self) {
        let Some(ssh) = &self.0.ssh else { return };
        let _turn = ssh.shells.turn().await;
        if let Ok(found) = Capabilities::probe_shell(&ssh.shells, known::DEADLINE, false).await
            && !found.has_same_shell(self.capabilities())
            && !self.is_lost()
        {
            tracing::debug!(
                was = %self.capabilities(), is = %found,
                "The capabilities of the vessel's shell have changed; reconnecting"
            );
            self.remember(KnownShell::Unknown);
            self.hang_up().await;
        }
    }

    /// Returns the facts about the shell that the next connection can reuse.
    pub fn known_shell(&self) -> KnownShell {
        self.0.known.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
