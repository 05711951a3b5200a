//! Work on a directory's disk, which may hang: a mount whose server is gone answers no call, for hours.
//!
//! Each call has a thread of its own. The directory waits for it and says so; nobody else does.

use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use super::Directory;
use super::troubles::Concern;
use crate::fault::Fault;
use crate::local::{self, Mounts};

/// How long a call is waited for before it is asked whether the disk answers at all.
const LONG: Duration = Duration::from_secs(4);

impl Directory {
    /// Does work that may block. While a file system of the directory does not answer, that is among its troubles, and a single
    /// run counts what is there as taken in.
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
                // It answers; what takes long is the work.
                None | Some(Ok(())) => asked = probe(self.settings.location.clone()),
                Some(Err(_)) => {
                    said = true;
                    self.say_silent();
                }
            }
        };
        if said {
            self.mended(|concern| *concern == Concern::Silence);
            // What was put off because nothing came from the disk has its next chance.
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
             wait, other directories continue; bring the server back, or unmount it (umount -l)",
            self.settings.location.display()
        );
        self.trouble_with(Concern::Silence, &text);
        if !self.taken_in.send_replace(true) {
            self.ring_vessels();
        }
    }
}

/// Asks the location, and all that is mounted below it, for a sign of life, on a thread of its own.
fn probe(location: PathBuf) -> Option<oneshot::Receiver<()>> {
    let (answer, answered) = oneshot::channel();
    let look = move || {
        let _ = local::is_file(&location);
        // What is wrong with it is found out by whoever uses it: any answer is one.
        let _ = Mounts::look(&location, [], &[]);
        let _ = answer.send(());
    };
    std::thread::Builder::new().name("disk probe".into()).spawn(look).ok().map(|_| answered)
}

/// What is at a location.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AtLocation {
    /// One file.
    File,
    /// Nothing.
    Nothing,
    /// A directory, or something that can't be used.
    Other,
}

/// What is at each of these locations; `None` where the disk does not say so within a moment.
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
            // Whoever asked may have stopped waiting.
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
