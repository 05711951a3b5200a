//! Calls to a directory's disk, which may block for hours: a mount whose server is unreachable does not answer calls.
//!
//! Each call runs on a separate thread, so that a call that blocks delays only the tasks of its own directory. If the
//! disk does not respond, the directory reports a trouble.

use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use super::Directory;
use super::troubles::Concern;
use crate::fault::Fault;
use crate::local::{self, Mounts};

/// How long a call may take before the disk is probed.
const LONG: Duration = Duration::from_secs(4);

impl Directory {
    /// Runs work that may block. While a file system of the directory does not respond, reports this as a trouble of
    /// the directory, and sets `taken_in`, so that a single run (`--once`) doesn't wait for the directory's files.
    pub(super) async fn on_disk<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Fault> {
        let mut working = tokio::task::spawn_blocking(work);
        let (mut asked, mut said): (Option<oneshot::Receiver<()>>, bool) = (None, false);
        let done = loop {
            tokio::select! {
                done = &mut working => break done,
                () = tokio::time::sleep(LONG) => {}
            }
            match asked.as_mut().map(oneshot::Receiver::try_recv) {
                // Either there was no probe yet, or the disk has answered the last probe and the work itself takes
                // long. Probes the disk again.
                None | Some(Ok(())) => asked = probe(self.settings.location.clone()),
                Some(Err(_)) => {
                    said = true;
                    self.say_silent();
                }
            }
        };
        if said {
            self.mended(|concern| *concern == Concern::Unresponsive);
            // Deliveries that were postponed because the disk did not respond are retried now.
            for (vessel, bell) in &self.vessels {
                self.ledger.hurry(vessel).await.map_err(|e| e.fault())?;
                bell.ring();
            }
        }
        done.map_err(|e| Fault::daemon(format_args!("a disk task failed: {e}")))
    }

    fn say_silent(&self) {
        let text = format!(
            "{} does not answer: a file system there hangs, for example because its server is unreachable. Its files \
             wait, other directories continue; restore the server, or unmount the file system (umount -l)",
            self.settings.location.display()
        );
        self.trouble_with(Concern::Unresponsive, &text);
        if !self.taken_in.send_replace(true) {
            self.ring_vessels();
        }
    }
}

/// Probes the location and all file systems mounted below it, on a separate thread.
fn probe(location: PathBuf) -> Option<oneshot::Receiver<()>> {
    let (answer, answered) = oneshot::channel();
    let look = move || {
        let _ = local::is_file(&location);
        // Errors don't matter here, because any answer shows that the disk responds.
        let _ = Mounts::look(&location, [], &[]);
        let _ = answer.send(());
    };
    std::thread::Builder::new().name("disk probe".into()).spawn(look).ok().map(|_| answered)
}

/// Kind of entry at a location.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AtLocation {
    /// A file.
    File,
    /// The path does not exist.
    Nothing,
    /// A directory, or an entry that can't be used.
    Other,
}

/// Returns the kind of entry at each location; `None` for a location whose disk does not respond within 1 s.
pub async fn at_locations(locations: impl IntoIterator<Item = PathBuf>) -> Vec<Option<AtLocation>> {
    const MOMENT: Duration = Duration::from_secs(1);
    let ask = |location: PathBuf| {
        let (answer, answered) = oneshot::channel();
        let look = move || {
            let found = match () {
                () if local::is_file(&location) => AtLocation::File,
                () if local::is_missing(&location) => AtLocation::Nothing,
                () => AtLocation::Other,
            };
            // The receiver may already have given up.
            let _ = answer.send(found);
        };
        std::thread::Builder::new().name("disk probe".into()).spawn(look).ok().map(|_| answered)
    };
    let (asked, until) = (locations.into_iter().map(ask).collect::<Vec<_>>(), Instant::now() + MOMENT);
    let mut found = Vec::with_capacity(asked.len());
    for answered in asked {
        found.push(match answered {
            Some(answered) => timeout_at(until, answered).await.ok().and_then(Result::ok),
            None => None,
        });
    }
    found
}
