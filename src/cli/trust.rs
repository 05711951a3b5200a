//! `trust`: shows a vessel's host key, asks, and records it.

use std::io::{BufRead, Write};
use std::path::Path;
use std::sync::Arc;

use tokio::runtime::Runtime;

use super::{Exit, load, runtime, say, say_error, ssh_environment};
use crate::logging;
use crate::settings::{SshHost, Vessel};
use crate::transport::{Endpoint, HostKeys, SeenKey, SshEnvironment, Standing, see_host_key};

/// Shows the host keys of the hops to the vessel `name`, and then the vessel's own. Records each key if the person
/// agrees, or with `yes` without asking.
pub(super) fn trust(file: &Path, name: &str, yes: bool) -> Exit {
    let settings = match load(file) {
        Ok(settings) => settings,
        Err(exit) => return exit,
    };
    let _ = logging::start(None, None);
    let Some(vessel) = settings.vessels.iter().find(|v| v.name.as_str() == name) else {
        let known: Vec<_> = settings.vessels.iter().map(|v| v.name.as_str()).collect();
        say_error(format_args!(
            "there is no [Vessel {name}] in {}; known vessels: {}",
            file.display(),
            known.join(", ")
        ));
        return Exit::Usage;
    };
    if vessel.local.is_some() {
        say_error(format_args!("[Vessel {name}] is this host (Transport = local): there is no host key to trust"));
        return Exit::Usage;
    }
    let ways = vessel.ways.iter().map(|way| Arc::new(vessel.over(way)));
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(exit) => return exit,
    };
    let environment = Arc::new(ssh_environment(&settings));
    // The vessel has the same key on each of its ways, so one that works is enough.
    for way in ways {
        if let Some(exit) = trust_over(&way, &environment, &runtime, yes) {
            return exit;
        }
    }
    Exit::Unfit
}

/// Asks for the host keys of the hops on one way to a vessel, and of the vessel. Returns `None`, after saying why, if one
/// of them can't be reached.
fn trust_over(vessel: &Arc<Vessel>, environment: &Arc<SshEnvironment>, runtime: &Runtime, yes: bool) -> Option<Exit> {
    for endpoint in Endpoint::all(vessel) {
        match runtime.block_on(see_host_key(&endpoint, environment)) {
            Ok(seen) => match decide(&endpoint, environment, &seen, yes) {
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

/// Returns where a host is, for a message.
fn whereabouts(host: &SshHost) -> String {
    match host.socket() {
        Some(socket) => format!("behind the socket {}", socket.display()),
        None => format!("{}, port {}", host.address, host.port),
    }
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
        say(format_args!("no host key was recorded"));
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
