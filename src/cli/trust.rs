//! `trust`: shows a vessel's host key, asks for confirmation, and records the key.

use std::io::{BufRead, Write};
use std::path::Path;
use std::sync::Arc;

use tokio::runtime::Runtime;

use super::selection::Selection;
use super::{Exit, load, runtime, say, say_error, ssh_environment};
use crate::logging;
use crate::settings::{SshHost, Vessel};
use crate::text::counted;
use crate::transport::{Endpoint, HostKeys, SeenKey, SshEnvironment, Standing, see_host_key};

/// Shows the host keys of the selected vessels; for each vessel, first the keys of the hops to it. Records each key if
/// the person agrees, or with `yes` without asking. With `new`, skips keys that are known.
pub(super) fn trust(file: &Path, selection: &Selection, new: bool, yes: bool) -> Exit {
    let settings = match load(file) {
        Ok(settings) => settings,
        Err(exit) => return exit,
    };
    let _ = logging::start(None, None);
    let known = settings.vessels.iter().map(|vessel| (vessel.name.to_string(), vessel.groups.clone()));
    let names = match selection.pick(known) {
        Ok(names) => names,
        Err(refusal) => return refusal.say(),
    };
    let vessels: Vec<_> =
        settings.vessels.iter().filter(|vessel| names.iter().any(|name| name == vessel.name.as_str())).collect();
    if let ([vessel], Some(name)) = (&vessels[..], &selection.vessel)
        && vessel.local.is_some()
    {
        say_error(format_args!("[Vessel {name}] is this host (Transport = local): there is no host key to trust"));
        return Exit::Usage;
    }
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(exit) => return exit,
    };
    let asker = Asker { environment: Arc::new(ssh_environment(&settings)), runtime, new, yes };
    let (mut worst, mut known) = (Exit::Good, 0_u64);
    // If one vessel can't be reached, the person must still be asked about the others.
    for vessel in vessels.into_iter().filter(|vessel| vessel.local.is_none()) {
        let exit = asker.ask(vessel, &mut known);
        if exit != Exit::Good {
            worst = exit;
        }
    }
    if new {
        say(format_args!("{} known already", counted(known, "host key")));
    }
    worst
}

/// Asks a person whether to trust host keys.
struct Asker {
    environment: Arc<SshEnvironment>,
    runtime: Runtime,
    new: bool,
    yes: bool,
}

impl Asker {
    /// Asks about the host keys of a vessel. The vessel has the same key on each of its ways, so the first way that
    /// works is enough.
    fn ask(&self, vessel: &Vessel, known: &mut u64) -> Exit {
        let ways = vessel.ways.iter().map(|way| Arc::new(vessel.over(way)));
        let mut ways = ways.map(|way| self.ask_over(&way, known));
        ways.find_map(|exit| exit).unwrap_or(Exit::Unfit)
    }

    /// Asks about the host keys of the hops on one way to a vessel, and of the vessel. With `new`, skips the keys that
    /// are already known, and counts them in `known`. If one of the hosts can't be reached, prints the reason and
    /// returns `None`.
    fn ask_over(&self, vessel: &Arc<Vessel>, known: &mut u64) -> Option<Exit> {
        for endpoint in Endpoint::all(vessel) {
            match self.runtime.block_on(see_host_key(&endpoint, &self.environment)) {
                Ok(seen) if self.new && is_known(&endpoint, &self.environment, &seen) => *known += 1,
                Ok(seen) => match decide(&endpoint, &self.environment, &seen, self.yes) {
                    Exit::Good => {}
                    exit => return Some(exit),
                },
                Err(e) => {
                    say_error(format_args!("{}", e.fault()));
                    return None;
                }
            }
        }
        Some(Exit::Good)
    }
}

/// Returns the address of a host as a phrase for a message.
fn whereabouts(host: &SshHost) -> String {
    match host.socket() {
        Some(socket) => format!("behind the socket {}", socket.display()),
        None => format!("{}, port {}", host.address, host.port),
    }
}

fn is_known(endpoint: &Endpoint, environment: &Arc<SshEnvironment>, seen: &SeenKey) -> bool {
    let standing = HostKeys::read(endpoint.clone(), environment.clone()).standing(seen);
    matches!(standing, Standing::Trusted)
}

fn decide(endpoint: &Endpoint, environment: &Arc<SshEnvironment>, seen: &SeenKey, yes: bool) -> Exit {
    let host_keys = HostKeys::read(endpoint.clone(), environment.clone());
    let (host, vessel) = (endpoint.host(), &endpoint.vessel().name);
    let hop = host.hop.as_ref().map(|hop| format!("the hop {hop} on the way to ")).unwrap_or_default();
    say(format_args!("{hop}vessel {vessel} ({}) presents this host key:", whereabouts(host)));
    say(format_args!("  {} {}", seen.algorithm(), seen.fingerprint()));
    match host_keys.standing(seen) {
        Standing::Trusted => {
            say(format_args!("this host key is already trusted"));
            return Exit::Good;
        }
        Standing::Refused(e) => {
            say_error(format_args!("{}", e.fault()));
            return Exit::Unfit;
        }
        Standing::Unknown => {}
    }
    say(format_args!(
        "on that host, `ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub` (or another key file) must show the same \
         fingerprint"
    ));
    if !yes && !agrees() {
        say(format_args!("this host key was not recorded"));
        return Exit::Unfit;
    }
    match host_keys.record(seen) {
        Ok(file) => {
            say(format_args!("host key recorded in {}", file.display()));
            Exit::Good
        }
        Err(e) => {
            say_error(format_args!("cannot write ~/.ssh/known_hosts: {e}"));
            Exit::Unfit
        }
    }
}

/// Asks the person to agree. Only `y` or `yes` agrees; the end of the input doesn't.
fn agrees() -> bool {
    let mut out = std::io::stdout();
    let mut answer = String::new();
    let asked = write!(out, "record this host key as trusted? [y/N] ").and_then(|()| out.flush());
    let read = asked.and_then(|()| std::io::stdin().lock().read_line(&mut answer));
    read.is_ok() && matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes")
}
