//! The way to a vessel: its SSH server and the hops before it, from its section and the ssh config.
//!
//! What the section (or `[DEFAULT]`) says counts before what the ssh config says, and that before what holds without either.

use std::path::PathBuf;
use std::time::Duration;

use super::keys;
use super::problems::{Diagnostic, Place};
use super::secrets::{PASSPHRASE, PASSWORD, Sources};
use super::ssh_config::{self, Advice, Asked, Hop, Jump, Source, Trouble};
use super::ssh_host::{ALIVE, SshHost};
use super::values;
use super::view::{Surroundings, View};

/// More hops than anybody has: a chain that is longer leads back to where it began.
const MOST_HOPS: usize = 8;

/// A vessel's SSH server and the hops before it, the nearest first.
pub(super) struct SshRoute {
    pub(super) host: SshHost,
    pub(super) hops: Vec<SshHost>,
}

/// The way to the vessel of this name; `None` after a report. `timeout` is its deadline for answers. To one that is this
/// host (`local`) nothing leads, and no ssh config says anything of it.
pub(super) fn to(
    name: &str,
    view: &View<'_>,
    surroundings: &Surroundings<'_>,
    timeout: Option<Duration>,
    local: bool,
) -> Option<SshRoute> {
    let at = address_and_port(view);
    let username = view.find("Username").map(|_| view.get("Username", values::username));
    let host_keys = view.get("HostKey", values::host_keys);
    let host_key_policy = view.get("HostKeyPolicy", values::host_key_policy);
    let identity_files = view.get("IdentityFile", |text| surroundings.start.paths(text));
    let certificate_files = view.get("CertificateFile", |text| surroundings.start.paths(text));
    let jump = view.get("ProxyJump", ssh_config::jump);
    let secrets = Sources { start: surroundings.start, credentials: surroundings.environment.credentials.as_deref() };
    let password = secrets.secret(view, name, &PASSWORD);
    let passphrase = secrets.secret(view, name, &PASSPHRASE);
    let sources = if local { Vec::new() } else { sources(view, surroundings)? };
    let (address, port) = at?;
    let guide = Guide { view, surroundings, sources };
    let advice = guide.ask(&address, username.as_ref().and_then(Option::as_deref), port)?;
    let username = match username {
        Some(own) => own,
        None => advice.user.clone().or_else(|| guide.local_user()),
    };
    let connect_timeout = match view.find("Timeout") {
        Some(_) => timeout,
        None => advice.connect_timeout.or(timeout),
    };
    let own = Own {
        username: view.find("Username").is_some(),
        port: port.is_some(),
        identity_files: identity_files.is_some(),
        certificate_files: certificate_files.is_some(),
        timeout: view.find("Timeout").is_some(),
        jump: jump.is_some(),
    };
    let host = SshHost {
        hop: None,
        port: port.or(advice.port).unwrap_or(22),
        username: username?,
        identity_files: identity_files.unwrap_or_else(|| advice.identity_files.clone()),
        certificate_files: certificate_files.unwrap_or_else(|| advice.certificate_files.clone()),
        passphrase,
        password,
        host_keys: host_keys.unwrap_or_default(),
        host_key_policy: host_key_policy?,
        connect_timeout: connect_timeout?,
        from_ssh_config: own.left_of(&advice),
        ..base(address, &advice)
    };
    let hops = guide.hops(&host, jump, &advice)?;
    Some(SshRoute { host, hops })
}

/// What an ssh config's advice makes of a host, without any settings.
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
        host_key_policy: super::HostKeyPolicy::Strict,
        host_key_alias: advice.host_key_alias.clone(),
        known_hosts: advice.known_hosts.clone(),
        global_known_hosts: advice.global_known_hosts.clone(),
        connect_timeout: advice.connect_timeout.unwrap_or_default(),
        alive: (advice.alive_interval.unwrap_or(ALIVE.0), advice.alive_count.unwrap_or(ALIVE.1)),
        from_ssh_config: advice.said.iter().map(|(_, said)| said.clone()).collect(),
        unheeded: advice.unheeded.clone(),
    }
}

/// What the section says itself, so that the ssh config has no say.
struct Own {
    username: bool,
    port: bool,
    identity_files: bool,
    certificate_files: bool,
    timeout: bool,
    jump: bool,
}

impl Own {
    /// What was taken from the ssh config all the same.
    fn left_of(&self, advice: &Advice) -> Vec<String> {
        let overruled = |keyword: &str| match keyword {
            "User" => self.username,
            "Port" => self.port,
            "IdentityFile" => self.identity_files,
            "CertificateFile" => self.certificate_files,
            "ConnectTimeout" => self.timeout,
            "ProxyJump" => self.jump,
            _ => false,
        };
        advice.said.iter().filter(|(keyword, _)| !overruled(keyword)).map(|(_, said)| said.clone()).collect()
    }
}

/// Whom to ask for the way, and where to report what is wrong with it.
struct Guide<'a> {
    view: &'a View<'a>,
    surroundings: &'a Surroundings<'a>,
    sources: Vec<Source>,
}

impl Guide<'_> {
    fn ask(&self, host: &str, user: Option<&str>, port: Option<u16>) -> Option<Advice> {
        let environment = self.surroundings.environment;
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
        let user = self.surroundings.environment.user.clone();
        if user.is_none() {
            let diagnostic = Diagnostic::new("missing, and who runs this is unknown", "write `Username = …`");
            self.view.problems.report(self.view.place_of("Username"), diagnostic);
        }
        user
    }

    /// The hops before a vessel: those of the settings, else those of the ssh config.
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
        // As with `ssh -J a,b`: what comes before `a` its own `ProxyJump` says, for `b` that is settled.
        while let Some(last) = wanted.pop() {
            if hops.len() == MOST_HOPS {
                let diagnostic = Diagnostic::new(
                    format!("there are more than {MOST_HOPS} hops: a hop is its own way, or one leads back to another"),
                    "take the hop out of the pattern with `Host * !hop`, or give it `ProxyJump none` before",
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

    /// A hop logs in with what the ssh config says of it, else with the vessel's user and keys; never with its password.
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
            format!("the ssh config has a program make the connection to {whom}, and no program is run here"),
            format!("write `ProxyJump = host`, or `ProxyJump = none`, in [{section}], or `SSHConfig = no`"),
        );
        self.view.problems.report(self.spot_place("ProxyCommand", spot), diagnostic);
        None
    }

    fn spot_place(&self, keyword: &str, spot: &ssh_config::Spot) -> Place {
        Place { file: Some(spot.file.to_path_buf()), line: Some(spot.line), ..Place::default() }.at_key(keyword)
    }
}

/// The files that `SSHConfig` names; `None` after a report.
fn sources(view: &View<'_>, surroundings: &Surroundings<'_>) -> Option<Vec<Source>> {
    let environment = surroundings.environment;
    let dot_ssh = environment.home.as_ref().map(|home| home.join(".ssh"));
    let users = |file: PathBuf, required: bool| Source {
        beside: dot_ssh.clone().unwrap_or_default(),
        file,
        required,
        guarded: !required,
    };
    if let Some((_, entry)) = view.find("SSHConfig") {
        if entry.value == "no" {
            return Some(Vec::new());
        }
        let file = view.get(keys::SSH_CONFIG, |text| surroundings.start.path(text))?;
        return Some(vec![users(file, true)]);
    }
    let own = dot_ssh.as_ref().map(|dot_ssh| users(dot_ssh.join("config"), false));
    let system = environment.system_ssh_config.clone().map(|file| Source {
        beside: file.parent().map(PathBuf::from).unwrap_or_default(),
        file,
        required: false,
        guarded: false,
    });
    Some(own.into_iter().chain(system).collect())
}

/// The address without its port, and the port where one is set: in it, in the section, or in `[DEFAULT]`.
fn address_and_port(view: &View<'_>) -> Option<(String, Option<u16>)> {
    let address = view.get("Address", values::address);
    let own_port = view.own.and_then(|own| Some((own, own.entry("Port")?)));
    if let (Some((_, Some(_))), Some((section, entry))) = (&address, own_port) {
        let diagnostic = Diagnostic::new("the port is already part of Address", "keep one of the two");
        view.problems.report(section.place_of(entry), diagnostic);
    }
    match address {
        Some((host, Some(port))) => Some((host, Some(port))),
        other => {
            let set = view.find("Port").is_some();
            let port = if set { Some(view.get("Port", values::port)?) } else { None };
            Some((other?.0, port))
        }
    }
}
