//! Reports to the log, the monitor and the ledger whether a vessel is connected or away, and why.

use std::time::Duration;

use super::Vessel;
use crate::fault::Fault;
use crate::monitor::Event;
use crate::settings::CongestionControl;
use crate::transport::Remote;

/// The last logged state, so that an unchanged state is logged only once.
#[derive(Default)]
pub(super) struct Announcements {
    /// The reason why the vessel is away, without its digits.
    reason: Option<String>,
    /// The parameters of the connection.
    parameters: Option<String>,
}

impl Announcements {
    /// Announces a connection. `way` is the name of its way and why that way is used, if there are several ways.
    pub(super) async fn connected(
        &mut self,
        vessel: &Vessel,
        remote: &Remote,
        way: Option<&(String, String)>,
    ) -> Result<(), Fault> {
        let name = &vessel.settings.name;
        let (cipher, compression, congestion_control) = (remote.cipher(), remote.compresses(), remote.congestion());
        let offers = remote.capabilities().to_string();
        let parameters = format!("{cipher} {compression} {congestion_control} {offers}");
        let on = way.map(|(way, _)| way);
        if self.parameters.as_ref() == Some(&parameters) {
            tracing::info!(vessel = %name, way = on, "Connected again");
        } else {
            tracing::info!(vessel = %name, way = on, cipher, compression, congestion_control, %offers, "Connected");
            self.parameters = Some(parameters);
        }
        if let (CongestionControl::Named(_), Some(why)) =
            (&vessel.settings.congestion_control, remote.congestion_refused())
        {
            tracing::warn!(vessel = %name, "CongestionControl: {why}");
        }
        let way = way.map(|(way, why)| (&**way, &**why));
        vessel.monitor.notice(&Event::Connected { vessel: name, way });
        vessel.ledger.away(name, None).await.map_err(|e| e.fault())
    }

    /// Announces that the vessel is away.
    pub(super) async fn away(
        &mut self,
        vessel: &Vessel,
        fault: &Fault,
        again_in: Option<Duration>,
    ) -> Result<(), Fault> {
        let (name, reason) = (&vessel.settings.name, fault.to_string());
        vessel.monitor.notice(&Event::Away { vessel: name, reason: &reason, cause: fault.cause, again_in });
        vessel.ledger.away(name, Some(&reason)).await.map_err(|e| e.fault())?;
        // A reason that differs only in its numbers (free space) counts as unchanged.
        let gist: String = reason.chars().filter(|c| !c.is_ascii_digit()).collect();
        if self.reason.as_ref() == Some(&gist) {
            tracing::debug!(vessel = %name, "Still away: {reason}");
        } else {
            tracing::warn!(vessel = %name, "Away: {reason}");
            self.reason = Some(gist);
        }
        Ok(())
    }

    /// Forgets the last reason, so that the next one is logged even if it is the same.
    pub(super) fn forget_reason(&mut self) {
        self.reason = None;
    }
}

/// Announces that the vessel's schedule is closed.
pub(super) async fn closed(vessel: &Vessel) -> Result<(), Fault> {
    let name = &vessel.settings.name;
    tracing::info!(vessel = %name, "The window of the vessel is closed");
    vessel.monitor.notice(&Event::Closed { vessel: name });
    vessel.ledger.away(name, None).await.map_err(|e| e.fault())
}
