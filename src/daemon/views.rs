//! Starts the views: the status services on the socket beside the ledger and, if `Listen` is set, at its address.

use std::sync::Arc;

use tokio::task::JoinSet;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::Daemon;
use super::sections::DirectoryAtWork;
use crate::fault::Fault;
use crate::ledger::Work;
use crate::names::DirectoryName;
use crate::status::{self, Gatherer, Listening, Place, Running, Socket, Web};

/// The running status services: one on the Unix socket, and one at the address in `Listen` if it is set.
pub(super) struct Views {
    tasks: JoinSet<()>,
    stop: DropGuard,
}

impl Views {
    /// Stops the views, and waits until they have ended.
    pub(super) async fn end(mut self) {
        drop(self.stop);
        while self.tasks.join_next().await.is_some() {}
    }
}

impl Daemon {
    /// Starts the views, which continue while the workflows are being stopped.
    ///
    /// # Errors
    /// When the status page can't be served at the configured address. A socket that can't be used only causes a
    /// warning, because deliveries don't depend on the socket.
    pub(super) async fn start_views(&self) -> Result<Views, Fault> {
        let stop = CancellationToken::new();
        let (web, mut tasks) = (self.web(stop.clone()), JoinSet::new());
        let path = self.settings.monster.socket.clone();
        match Socket::listen(&path) {
            Ok(socket) => drop(tasks.spawn(serve(web.clone(), Listening::Socket(socket)))),
            Err(e) => tracing::warn!(
                socket = %path.display(),
                "Cannot listen on the socket: {e}; orders are not accepted, and `status` shows only the data in the \
                 ledger. Choose another Socket in [MONSTER]"
            ),
        }
        if let Some(address) = self.settings.monster.listen {
            // A run with `--once` also works without its status page: a running program with another ledger may use the
            // port.
            let listener = match status::listen(address).await {
                Err(e) if self.once => {
                    tracing::warn!("Cannot listen on {address}: {e}; this run has no status page");
                    return Ok(Views { tasks, stop: stop.drop_guard() });
                }
                listener => listener,
            };
            let unusable = |e: std::io::Error| {
                Fault::daemon(format_args!("cannot listen on {address}: {e}"))
                    .mend("choose another Listen in [MONSTER], or stop the program that listens there")
            };
            let listener = listener.map_err(unusable)?;
            let address = listener.local_addr().map_err(unusable)?;
            tracing::info!("The status page is at http://{address}/");
            let token = self.settings.monster.listen_token.as_deref().cloned();
            tasks.spawn(serve(web, Listening::Port(listener, token)));
        }
        Ok(Views { tasks, stop: stop.drop_guard() })
    }

    /// Makes the views show the current directories and vessels.
    pub(super) fn show(&self) {
        self.gatherer.send_replace(Arc::new(self.gather()));
    }

    fn gather(&self) -> Gatherer {
        // This shore does not know the state of the directories that other shores serve.
        let held = || self.directories.iter().filter(|(name, _)| self.holds(&Work::Directory((*name).clone())));
        let taken_in = held().map(|(_, directory)| directory.taken_in.subscribe()).collect();
        let trouble = |(name, one): (&DirectoryName, &DirectoryAtWork)| (name.clone(), one.trouble.subscribe());
        let troubles = held().map(trouble).collect();
        let gatherer = Gatherer::idle(Place::of(&self.settings), self.ledger.view(), self.surroundings.clock.clone())
            .with_rooms(self.free_spaces.clone());
        gatherer.running(Running {
            live: self.live.clone(),
            meters: self.ssh.meters.clone(),
            usage: self.usage.clone(),
            taken_in,
            troubles,
            reload: self.reloaded.clone(),
            hooks: self.hooks.clone(),
            log: self.surroundings.log.clone(),
        })
    }

    fn web(&self, stop: CancellationToken) -> Web {
        Web { gatherer: self.gatherer.subscribe(), orders: self.orders.clone(), stop }
    }
}

async fn serve(web: Web, listening: Listening) {
    if let Err(e) = status::serve(web, listening).await {
        tracing::error!("The status service failed: {e}");
    }
}
