//! The route to a vessel: the SSH server and the hops before it, from the vessel's section and the ssh config.
//!
//! Values in the section, its groups or `[DEFAULT]` take precedence over those of the ssh config. Defaults apply to
//! keys that neither sets.

use std::path::PathBuf;
use std::time::Duration;

use super::problems::{Diagnostic, Place};
use super::section_view::View;
use super::ssh_config::{self, Advice, Asked, Hop, Jump, Source, Trouble};
use super::ssh_host::{ALIVE, HostKeyPolicy, SshHost};
use super::values::{self, SOCKET};
use super::vessel_route::{Address, RouteKeys, SshConfig};
use super::way::Way;

/// Maximum number of hops. A longer chain is probably a cycle.
const MOST_HOPS: usize = 8;

/// Returns the ways to a vessel, the preferred one first, or `None` after reporting an error. The hops of each way are
/// sorted, the nearest to this host first. `timeout` is the vessel's `Timeout`. For a vessel that is this host, the ssh
/// config isn't read.
pub(super) fn ways(view: &View<'_>, keys: &RouteKeys, timeout: Duration) -> Option<Vec<Way>> {
    let sources = if view.is_local { Vec::new() } else { sources(view, &keys.ssh_config) };
    let guide = Guide { view, sources };
    let plain = keys.addresses.iter().map(|address| (None, address));
    let over_links = keys.link_addresses.iter().map(|(link, address)| (Some(link.clone()), address));
    let mut ways = Vec::new();
    for (link, address) in plain.chain(over_links) {
        let (ssh, hops) = to(&guide, keys, address, timeout)?;
        ways.push(Way { link, ssh, hops });
    }
    // All ways lead to the same host, so its key is looked up in `known_hosts` under the name of the first address.
    let first = ways.first().map(|way| way.ssh.known_name())?;
    ways.iter_mut().skip(1).for_each(|way| way.ssh.known_as = Some(first.clone()));
    ways.sort_by_key(Way::rank);
    Some(ways)
}

/// Returns the SSH server at an address of a vessel, and the hops before it.
fn to(
    guide: &Guide<'_>,
    keys: &RouteKeys,
    (address, port): &Address,
    timeout: Duration,
) -> Option<(SshHost, Vec<SshHost>)> {
    let (view, keys, address) = (guide.view, keys.clone(), address.clone());
    let port = port.or(keys.port);
    let advice = guide.ask(&address, keys.username.as_deref(), port)?;
    let connect_timeout = advice.connect_timeout.filter(|_| !view.sets("Timeout")).unwrap_or(timeout);
    let is_socket = address.starts_with(SOCKET);
    let overruling = Overruling { port: port.is_some() || is_socket, timeout: view.sets("Timeout"), is_socket };
    let from_ssh_config = left_of(&advice, &keys, &overruling);
    let host_key_alias = alias(view, &keys, &advice, is_socket);
    let username = match keys.username.or_else(|| advice.user.clone()) {
        None if view.is_local => view.environment.user.clone().unwrap_or_default(),
        None => guide.local_user()?,
        Some(username) => username,
    };

    let host = SshHost {
        hop: None,
        port: port.or(advice.port).unwrap_or(22),
        username,
        identity_files: keys.identity_files.unwrap_or_else(|| advice.identity_files.clone()),
        certificate_files: keys.certificate_files.unwrap_or_else(|| advice.certificate_files.clone()),
        passphrase: keys.passphrase,
        password: keys.password,
        host_key_alias,
        host_keys: keys.host_keys,
        host_key_policy: keys.host_key_policy,
        connect_timeout,
        from_ssh_config,
        // A `HostName` of the ssh config must not replace a socket.
        address: if is_socket { address.clone() } else { advice.address.clone().unwrap_or_else(|| address.clone()) },
        ..base(address, &advice)
    };
    let hops = if is_socket { Vec::new() } else { guide.hops(&host, keys.jump, &advice)? };
    Some((host, hops))
}

/// Returns the name to look up in `known_hosts` instead of the vessel's address; `None`: the address. A socket has no
/// address to look up, so the name of the vessel's section is used.
fn alias(view: &View<'_>, keys: &RouteKeys, advice: &Advice, is_socket: bool) -> Option<String> {
    let set = keys.host_key_alias.clone().or_else(|| advice.host_key_alias.clone());
    if set.is_some() || !is_socket {
        return set;
    }
    if !values::is_alias(view.name) && keys.host_keys.is_empty() {
        let message = format!(
            "the vessel's name `{}` is not a valid host name, but is looked up in known_hosts, because the address is \
             a socket",
            view.name
        );
        view.problems
            .report(view.place_of("Address"), Diagnostic::new(message, "write `HostKeyAlias = …` or `HostKey = …`"));
    }
    Some(view.name.to_owned())
}

/// Reports keys of the vessel's own section that have no effect because all its addresses are sockets.
pub(super) fn check_socket(view: &View<'_>, keys: &RouteKeys) {
    let mut all = all_addresses(keys).peekable();
    if all.peek().is_none() || !all.all(|(address, _)| address.starts_with(SOCKET)) {
        return;
    }
    for key in ["Port", "ProxyJump"] {
        if let Some((section, entry)) = view.own.and_then(|own| Some((own, own.entry(key)?)))
            && !(key == "ProxyJump" && entry.value == "none")
        {
            let message = "has no effect on a socket of this host, through which the vessel dials in";
            view.problems.report(section.place_of(entry), Diagnostic::new(message, "remove the line"));
        }
    }
}

/// Creates a host from the values of the ssh config alone.
fn base(written: String, advice: &Advice) -> SshHost {
    SshHost {
        hop: None,
        address: advice.address.clone().unwrap_or(written),
        port: advice.port.unwrap_or(22),
        username: advice.user.clone().unwrap_or_default(),
        identity_files: advice.identity_files.clone(),
        certificate_files: advice.certificate_files.clone(),
        identities_only: advice.identities_only.unwrap_or_default(),
        agent: advice.agent.clone().unwrap_or_default(),
        passphrase: None,
        password: None,
        host_keys: Vec::new(),
        host_key_policy: HostKeyPolicy::Strict,
        host_key_alias: advice.host_key_alias.clone(),
        known_as: None,
        known_hosts: advice.known_hosts.clone(),
        global_known_hosts: advice.global_known_hosts.clone(),
        connect_timeout: advice.connect_timeout.unwrap_or_default(),
        alive: (advice.alive_interval.unwrap_or(ALIVE.0), advice.alive_count.unwrap_or(ALIVE.1)),
        from_ssh_config: advice.said.iter().map(|(_, said)| said.clone()).collect(),
        unheeded: advice.unheeded.clone(),
    }
}

/// Tells whether the port, the timeout and a socket address override the ssh config; `RouteKeys` alone doesn't tell.
struct Overruling {
    port: bool,
    timeout: bool,
    is_socket: bool,
}

/// Returns the values of the ssh config that the section doesn't override.
fn left_of(advice: &Advice, keys: &RouteKeys, overruling: &Overruling) -> Vec<String> {
    let overruled = |keyword: &str| match keyword {
        "User" => keys.username.is_some(),
        "Port" => overruling.port,
        "IdentityFile" => keys.identity_files.is_some(),
        "CertificateFile" => keys.certificate_files.is_some(),
        "ConnectTimeout" => overruling.timeout,
        "ProxyJump" => keys.jump.is_some() || overruling.is_socket,
        "HostName" => overruling.is_socket,
        "HostKeyAlias" => keys.host_key_alias.is_some(),
        _ => false,
    };
    advice.said.iter().filter(|(keyword, _)| !overruled(keyword)).map(|(_, said)| said.clone()).collect()
}

/// The sources of the route: the vessel's section, whose view also collects the problems, and the ssh config files.
struct Guide<'a> {
    view: &'a View<'a>,
    sources: Vec<Source>,
}

impl Guide<'_> {
    fn ask(&self, host: &str, user: Option<&str>, port: Option<u16>) -> Option<Advice> {
        let environment = self.view.environment;
        let (local_user, home) = (environment.user.as_deref(), environment.home.as_deref());
        let asked = Asked { host, user, port, local_user, home };
        ssh_config::ask(&self.sources, &asked).map_err(|trouble| self.report(trouble)).ok()
    }

    fn report(&self, Trouble { spot, keyword, diagnostic }: Trouble) {
        let place = Place { file: Some(spot.file.to_path_buf()), line: Some(spot.line), ..Place::default() };
        let place = if keyword.is_empty() { place } else { place.at_key(&keyword) };
        self.view.problems.report(place, diagnostic);
    }

    fn local_user(&self) -> Option<String> {
        let user = self.view.environment.user.clone();
        if user.is_none() {
            let diagnostic = Diagnostic::new("missing, and the current user is unknown", "write `Username = …`");
            self.view.problems.report(self.view.place_of("Username"), diagnostic);
        }
        user
    }

    /// Returns the hops before a vessel: those in the settings, or else those in the ssh config. `None` after reporting
    /// a problem.
    fn hops(&self, vessel: &SshHost, own: Option<Jump>, advice: &Advice) -> Option<Vec<SshHost>> {
        let (jump, place) = match own {
            Some(jump) => (jump, self.view.place_of("ProxyJump")),
            None if advice.command.is_some() => return self.no_program(vessel, advice),
            None => match &advice.jump {
                Some((jump, spot)) => (jump.clone(), self.spot_place("ProxyJump", spot)),
                None => return Some(Vec::new()),
            },
        };
        let Jump::Through(mut wanted) = jump else { return Some(Vec::new()) };
        let mut hops: Vec<SshHost> = Vec::new();
        // As with `ssh -J a,b`, the `ProxyJump` in the ssh config applies to `a`, but not to `b`.
        while let Some(last) = wanted.pop() {
            if hops.len() == MOST_HOPS {
                let diagnostic = Diagnostic::new(
                    format!(
                        "more than {MOST_HOPS} hops: a hop probably goes through itself, or through an earlier hop"
                    ),
                    "exclude the hop from the pattern with `Host * !hop`, or put `Host hop` with `ProxyJump none` \
                     above that pattern",
                );
                self.view.problems.report(place, diagnostic);
                return None;
            }
            let (hop, advice) = self.hop(vessel, &last)?;
            if wanted.is_empty() {
                if advice.command.is_some() {
                    return self.no_program(&hop, &advice);
                }
                if let Some((Jump::Through(before), _)) = advice.jump {
                    wanted = before;
                }
            }
            hops.insert(0, hop);
        }
        Some(hops)
    }

    /// Creates a hop from the ssh config. Uses the vessel's user and keys if the hop has none of its own, but never the
    /// vessel's password.
    fn hop(&self, vessel: &SshHost, written: &Hop) -> Option<(SshHost, Advice)> {
        let Hop { user, host, port } = written;
        let advice = self.ask(host, user.as_deref(), *port)?;
        let base = base(host.clone(), &advice);
        let keys_of_its_own = !base.identity_files.is_empty();
        let or_vessels = |own: &Vec<PathBuf>, vessels: &Vec<PathBuf>| {
            if keys_of_its_own || !own.is_empty() { own.clone() } else { vessels.clone() }
        };
        let hop = SshHost {
            hop: Some(host.clone()),
            port: port.unwrap_or(base.port),
            username: user.clone().or_else(|| advice.user.clone()).unwrap_or_else(|| vessel.username.clone()),
            identity_files: or_vessels(&base.identity_files, &vessel.identity_files),
            certificate_files: or_vessels(&base.certificate_files, &vessel.certificate_files),
            agent: advice.agent.clone().unwrap_or_else(|| vessel.agent.clone()),
            identities_only: advice.identities_only.unwrap_or(vessel.identities_only),
            passphrase: vessel.passphrase.clone(),
            host_key_policy: vessel.host_key_policy,
            connect_timeout: advice.connect_timeout.unwrap_or(vessel.connect_timeout),
            ..base
        };
        Some((hop, advice))
    }

    fn no_program(&self, host: &SshHost, advice: &Advice) -> Option<Vec<SshHost>> {
        let spot = advice.command.as_ref()?;
        let section = self.view.place_of("Address").section.unwrap_or_default();
        let whom =
            host.hop.as_ref().map_or_else(|| format!("[{section}]"), |hop| format!("the hop {hop} of [{section}]"));
        let diagnostic = Diagnostic::new(
            format!("the ssh config connects to {whom} through a program, which contentmonster does not support"),
            format!("write `ProxyJump = host`, or `ProxyJump = none`, in [{section}], or `SSHConfig = no`"),
        );
        self.view.problems.report(self.spot_place("ProxyCommand", spot), diagnostic);
        None
    }

    fn spot_place(&self, keyword: &str, spot: &ssh_config::Spot) -> Place {
        Place { file: Some(spot.file.to_path_buf()), line: Some(spot.line), ..Place::default() }.at_key(keyword)
    }
}

/// Returns the files that `SSHConfig` selects.
fn sources(view: &View<'_>, named: &SshConfig) -> Vec<Source> {
    let environment = view.environment;
    let dot_ssh = environment.home.as_ref().map(|home| home.join(".ssh"));
    let users = |file: PathBuf, required: bool| Source {
        beside: dot_ssh.clone().unwrap_or_default(),
        file,
        required,
        guarded: !required,
    };
    match named {
        SshConfig::No => return Vec::new(),
        SshConfig::At(file) => return vec![users(file.clone(), true)],
        SshConfig::Usual => {}
    }
    let own = dot_ssh.as_ref().map(|dot_ssh| users(dot_ssh.join("config"), false));
    let system = environment.system_ssh_config.clone().map(|file| Source {
        beside: file.parent().map(PathBuf::from).unwrap_or_default(),
        file,
        required: false,
        guarded: false,
    });
    own.into_iter().chain(system).collect()
}

fn all_addresses(keys: &RouteKeys) -> impl Iterator<Item = &Address> {
    keys.addresses.iter().chain(keys.link_addresses.iter().map(|(_, address)| address))
}

/// Reports a `Port` that has no effect because every address, except for sockets, includes a port.
pub(super) fn check_port(view: &View<'_>, keys: &RouteKeys) {
    let own = view.own.and_then(|own| Some((own, own.entry("Port")?)));
    let mut all = all_addresses(keys).filter(|(address, _)| !address.starts_with(SOCKET)).peekable();
    if let (true, true, Some((section, entry))) = (all.peek().is_some(), all.all(|(_, port)| port.is_some()), own) {
        let diagnostic = Diagnostic::new("the port is already part of Address", "keep one of the two");
        view.problems.report(section.place_of(entry), diagnostic);
    }
}
