//! Knowledge about a vessel that one session passes to the next: its host, its shell, and the rate of the path.

use super::Vessel;
use crate::fault::Fault;
use crate::records::{Host, PathRate};
use crate::settings::Shell;
use crate::transport::{KnownShell, Remote};

/// Time in milliseconds after which a shell that was found to be unusable is tried again.
const A_DAY: i64 = 24 * 60 * 60 * 1000;

/// The knowledge from earlier sessions.
pub(super) struct SessionMemory {
    /// The known state of the vessel's shell.
    pub(super) known: KnownShell,
    /// Time (milliseconds since 1970) when the shell was found to be unusable.
    refused_at: i64,
    /// The time of the last measurement of the network path (milliseconds since 1970), and the rate that was measured.
    /// Not used if there are several ways, because each has its own rate.
    path: Option<(i64, PathRate)>,
}

impl SessionMemory {
    /// Reads the recorded knowledge from the ledger.
    pub(super) async fn load(vessel: &Vessel) -> Result<Self, Fault> {
        let name = &vessel.settings.name;
        let refused = vessel.ledger.shell_refusal(name).await.map_err(|e| e.fault())?;
        let (refused_at, known) = match refused {
            Some((at, why)) => (at, KnownShell::Unusable(why)),
            None => (0, KnownShell::Unknown),
        };
        let path = vessel.ledger.path(name).await.map_err(|e| e.fault())?;
        Ok(Self { known, refused_at, path })
    }

    /// Forgets that the shell is unusable if that was found at least 24 h ago, or if the record in the ledger was
    /// cleared.
    pub(super) async fn forget_old_refusal(&mut self, vessel: &Vessel) -> Result<(), Fault> {
        if !matches!(self.known, KnownShell::Unusable(_)) {
            return Ok(());
        }
        let Vessel { settings, ledger, clock, .. } = vessel;
        let is_old = !(0..A_DAY).contains(&(clock.now_ms() - self.refused_at));
        if is_old || ledger.shell_refusal(&settings.name).await.map_err(|e| e.fault())?.is_none() {
            self.known = KnownShell::Unknown;
        }
        Ok(())
    }

    /// Stores the state of the shell that a session has found. An unusable shell is also recorded in the ledger, so
    /// that it is not tried for 24 h even after a restart.
    pub(super) async fn remember_shell(
        &mut self,
        vessel: &Vessel,
        learned: KnownShell,
        progress: bool,
    ) -> Result<(), Fault> {
        let refusal = |known: &KnownShell| match known {
            KnownShell::Unusable(why) => Some(why.clone()),
            _ => None,
        };
        let (before, now) = (refusal(&self.known), refusal(&learned));
        if before != now {
            self.refused_at = vessel.clock.now_ms();
        }
        if before != now && vessel.settings.shell == Shell::Auto {
            let name = &vessel.settings.name;
            vessel.ledger.shell_refused(name, now.as_deref()).await.map_err(|e| e.fault())?;
            if let Some(why) = now {
                tracing::info!(vessel = %name, "The vessel's shell will not be used for the next 24 h: {why}");
            }
        }
        self.known = match learned {
            KnownShell::Found(_) if !progress => KnownShell::Unknown,
            learned => learned,
        };
        Ok(())
    }

    /// Returns the last measured rate of the network path; `None` if the measurement is older than 24 h, or if there
    /// are several ways.
    pub(super) fn recent_path(&self, vessel: &Vessel) -> Option<PathRate> {
        let (at, path) = self.path.filter(|_| vessel.ways.len() == 1)?;
        (0..A_DAY).contains(&(vessel.clock.now_ms() - at)).then_some(path)
    }

    /// Stores the rate that a session has measured on the path, for the next session.
    pub(super) async fn remember_path(&mut self, vessel: &Vessel, carried: Option<PathRate>) -> Result<(), Fault> {
        let Some(path) = carried else { return Ok(()) };
        let Vessel { settings, ledger, clock, .. } = vessel;
        self.path = Some((clock.now_ms(), path));
        ledger.path_carried(&settings.name, path).await.map_err(|e| e.fault())
    }
}

/// Records the vessel's host and account in the ledger. If one of them has changed, all current files are due
/// again.
pub(super) async fn meet(vessel: &Vessel, remote: &Remote) -> Result<(), Fault> {
    let settings = &vessel.settings;
    let host = match &settings.local {
        Some(_) => Host { address: "this host".into(), account: String::new(), key: None },
        None => Host {
            address: match settings.ssh.socket() {
                Some(_) => settings.ssh.at(),
                None => format!("{}:{}", settings.ssh.address, settings.ssh.port),
            },
            account: settings.ssh.username.clone(),
            key: remote.host_key(),
        },
    };
    let due = vessel.ledger.meet(&settings.name, &host).await.map_err(|e| e.fault())?;
    if due > 0 {
        tracing::warn!(
            vessel = %settings.name, address = %host.address, account = %host.account, files = due,
            "The vessel's host or account has changed; delivering all current files to the new host or account"
        );
    }
    Ok(())
}
