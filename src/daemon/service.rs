//! What a service manager is told (`sd_notify`): ready, alive, stopping. Silent where there is none.

use sd_notify::NotifyState;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::settings::Settings;

/// Tells systemd that the daemon is up, and that it is alive for as long as the returned handle lives.
pub(super) fn announce(settings: &Settings, stop: CancellationToken) -> AbortOnDropHandle<()> {
    let status = format!("{} directories, {} vessels", settings.directories.len(), settings.vessels.len());
    tell(&[NotifyState::Ready, NotifyState::Status(&status)]);
    let watchdog = sd_notify::watchdog_enabled();
    AbortOnDropHandle::new(tokio::spawn(async move {
        let Some(limit) = watchdog else {
            stop.cancelled().await;
            return tell(&[NotifyState::Stopping]);
        };
        let mut beat = tokio::time::interval(limit / 3);
        let mut stopping = false;
        loop {
            tokio::select! {
                _ = beat.tick() => tell(&[NotifyState::Watchdog]),
                () = stop.cancelled(), if !stopping => {
                    stopping = true;
                    tell(&[NotifyState::Stopping]);
                }
            }
        }
    }))
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(e) = sd_notify::notify(states) {
        tracing::debug!("the service manager does not listen: {e}");
    }
}
