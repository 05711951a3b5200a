//! The keys of `[Vessel y]` for the route to the vessel, with a table row for each. The ssh config supplies missing
//! values.

use std::path::PathBuf;
use std::sync::Arc;

use super::hints::nearest;
use super::key::Preset::{Otherwise, Required, Value};
use super::key::Transport::{Local, Ssh};
use super::key::{Filled::Here, PER_LINK, Secrecy, SectionKind};
use super::network_link::Link;
use super::problems::Diagnostic;
use super::secrets::{self, Secret};
use super::ssh_config::{self, Jump};
use super::ssh_host::HostKeyPolicy;
use super::table::{self, Field, Key, field, key};
use super::values;
use super::written_value::Written;

/// The route settings in a vessel's section, its groups and `[DEFAULT]`; `None` for missing values.
#[derive(Clone, Default)]
pub(super) struct RouteKeys {
    pub(super) is_local: bool,
    pub(super) mount_point: Option<PathBuf>,
    /// `Address`: the addresses that belong to no link.
    pub(super) addresses: Vec<Address>,
    /// `Address.x`: the address over each link, in the order of the lines.
    pub(super) link_addresses: Vec<(Arc<Link>, Address)>,
    pub(super) port: Option<u16>,
    pub(super) username: Option<String>,
    pub(super) ssh_config: SshConfig,
    pub(super) jump: Option<Jump>,
    pub(super) password: Option<Secret>,
    pub(super) identity_files: Option<Vec<PathBuf>>,
    pub(super) certificate_files: Option<Vec<PathBuf>>,
    pub(super) passphrase: Option<Secret>,
    pub(super) host_keys: Vec<String>,
    pub(super) host_key_alias: Option<String>,
    pub(super) host_key_policy: HostKeyPolicy,
}

/// A host name, IP address or socket, and the port if one is written with it.
pub(super) type Address = (String, Option<u16>);

/// `SSHConfig`.
#[derive(Clone, Default)]
pub(super) enum SshConfig {
    /// The user's and the system-wide ssh config.
    #[default]
    Usual,
    /// No ssh config.
    No,
    /// The ssh config at this path.
    At(PathBuf),
}

impl table::Section for RouteKeys {
    const KIND: SectionKind = SectionKind::Vessel;
}

#[rustfmt::skip]
pub(super) static KEYS: &[Key<RouteKeys>] = &[
    key("Address", Required, field!(RouteKeys.addresses, addresses))
        .value("host name, IP address, a host of the ssh config, or unix: and a path; several, separated by commas").filled(Here).example("example.com")
        .doc("Host name or address of the vessel. `{vessel}` stands for its name, also in Username, TempDir, \
              IdentityFile, CertificateFile, MountPoint and RemoteLocation, as do `{group}` for its last group and \
              `{hostname}` for the name of this host. The address may include a port (example.com:2222, [::1]:2222) \
              instead of Port. An IPv6 address may include its interface: fe80::1%eth0. For a vessel that dials in \
              with `ssh -R`, the socket or the port that its tunnel opens on this host: \
              unix:/run/contentmonster/aurora.sock, or localhost:2201. The vessel is away while nothing listens there, \
              and is connected within 1 s after something listens again. Of several addresses, the first one that is \
              up is used."),
    key("Address.x", Otherwise("none"), field!(RouteKeys.link_addresses, link_addresses))
        .value("an address, as for Address").example("192.0.2.7").transport(Ssh)
        .doc("Address of the vessel over the link x, which has a section [Link x]. It may be the same as another one, if \
              the links lead to it over different interfaces. With such addresses, Address is optional. All addresses \
              are those of one host with one host key, which known_hosts has under the name of the first one."),
    key("Transport", Value("ssh"), field!(RouteKeys.is_local, |it| it.choice(&[("ssh", false), ("local", true)])))
        .value("ssh or local")
        .doc("How files are transferred. `local` copies them to a directory on this host or on a disk mounted here, \
              without SSH, and needs `Address = localhost`. Every RemoteLocation must exist and is never created: \
              while one is missing, for example because its disk is not mounted, the vessel is away, and the path is \
              checked every few seconds. Settings for SSH are errors; TempDir is not used; `Delta = auto` sends whole \
              files."),
    key("MountPoint", Otherwise("none"), field!(RouteKeys.mount_point, |it| it.path().map(Some)))
        .value("a path").example("/mnt/backup").filled(Here).transport(Local)
        .doc("With `Transport = local`, a path where something must be mounted before anything is written. Needed if a \
              RemoteLocation exists even without its disk, for example because it is the mount point itself."),
    key("Port", Otherwise("from the ssh config, else 22"), field!(RouteKeys.port, |it| values::port(it.text).map(Some)))
        .value("a number from 1 to 65535").example("22").transport(Ssh)
        .doc("Port of the SSH server."),
    key("Username", Otherwise("from the ssh config, else the user who runs contentmonster"), field!(RouteKeys.username, |it| values::username(it.text).map(Some)))
        .value("a name").filled(Here).example("replication").transport(Ssh)
        .doc("User to log in as."),
    key("SSHConfig", Otherwise("~/.ssh/config and /etc/ssh/ssh_config, if they exist"), field!(RouteKeys.ssh_config, ssh_config))
        .value("a path, or no").example("no").transport(Ssh)
        .doc("The ssh config that supplies the values of keys that are not set here, or `no` for none. Supported are \
              HostName, User, Port, IdentityFile, CertificateFile, IdentityAgent, IdentitiesOnly, UserKnownHostsFile, \
              GlobalKnownHostsFile, HostKeyAlias, ProxyJump, ServerAliveInterval, ServerAliveCountMax and \
              ConnectTimeout, also with Host, Match and Include; `check` shows the source of each value."),
    key("ProxyJump", Otherwise("from the ssh config, else none"), field!(RouteKeys.jump, |it| ssh_config::jump(it.text).map(Some)))
        .value("[user@]host[:port], separated by commas, or none").example("gate@bastion.example.com:2222").transport(Ssh)
        .doc("Hops (jump hosts) on the way to the vessel, the nearest first; each may be a host of the ssh config. Unless \
              the ssh config says otherwise, the login there uses the Username and keys of this vessel, but never its \
              Password. Each hop has its own host key, which `trust` shows too. `none` connects directly."),
    key("Password", Otherwise("none, login with a key"), field!(RouteKeys.password, |it| Ok(secrets::read(it, "password"))))
        .value("text").example("verysecret").transport(Ssh).secrecy(Secrecy::Secret)
        .doc("Password for the login. Credentials are tried in the order of ssh: the agent, then private keys, then \
              this password. A file that contains secrets, such as the settings file, should be readable only by its \
              owner (chmod 600)."),
    key("PasswordFile", Otherwise("none"), Field::NONE)
        .value("a path").example("samplevessel.password").transport(Ssh)
        .doc("File whose first line is the password, instead of Password. With systemd's LoadCredential=, a \
              PasswordFile or PassphraseFile that does not exist is looked up among the credentials. Without \
              Password and PasswordFile, the credential samplevessel.password is used; without Passphrase and \
              PassphraseFile, samplevessel.passphrase."),
    key("IdentityFile", Otherwise("from the ssh config, else the default files in ~/.ssh"), field!(RouteKeys.identity_files, |it| it.paths().map(Some)))
        .value("paths, separated by commas").example("~/.ssh/id_ed25519").filled(Here).transport(Ssh)
        .doc("Private keys. Hardware keys (sk-) are used through the agent."),
    key("CertificateFile", Otherwise("from the ssh config, else none"), field!(RouteKeys.certificate_files, |it| it.paths().map(Some)))
        .value("paths, separated by commas").example("~/.ssh/signed-cert.pub").filled(Here).transport(Ssh)
        .doc("OpenSSH certificates of the keys in IdentityFile or of the agent's keys. A certificate beside its key, \
              such as id_ed25519-cert.pub, is found automatically."),
    key("Passphrase", Otherwise("none"), field!(RouteKeys.passphrase, |it| Ok(secrets::read(it, "passphrase"))))
        .value("text").example("moresecret").transport(Ssh).secrecy(Secrecy::Secret)
        .doc("Passphrase of the private keys."),
    key("PassphraseFile", Otherwise("none"), Field::NONE)
        .value("a path").example("samplevessel.passphrase").transport(Ssh)
        .doc("File whose first line is the passphrase, instead of Passphrase."),
    key("HostKey", Otherwise("the entries in ~/.ssh/known_hosts and /etc/ssh/ssh_known_hosts"), field!(RouteKeys.host_keys, |it| values::host_keys(it.text)))
        .value("SHA256 fingerprints, separated by commas").example("SHA256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU").transport(Ssh)
        .doc("The only host keys that are accepted from this vessel, as `ssh-keygen -lf` shows them. If \
              @cert-authority in known_hosts is used, the fingerprints are those of the accepted authorities."),
    key("HostKeyAlias", Otherwise("from the ssh config, else the address; for a socket, the name of the section"), field!(RouteKeys.host_key_alias, |it| values::host_key_alias(it.text).map(Some)))
        .value("a name").example("samplevessel").transport(Ssh)
        .doc("Name of the vessel in known_hosts and in host certificates, instead of its address and port. With it, a \
              vessel that dials in is known by its own key, whichever socket or port it uses."),
    key("HostKeyPolicy", Value("strict"), field!(RouteKeys.host_key_policy, |it| it.choice(&[("strict", HostKeyPolicy::Strict), ("accept-new", HostKeyPolicy::AcceptNew)])))
        .value("strict or accept-new").transport(Ssh)
        .doc("What happens if the host key is unknown: `strict` rejects it (see `contentmonster trust`), `accept-new` \
              accepts and records it. A changed key is always rejected."),
];

/// Parses the addresses that belong to no link. There may be none if the vessel has addresses over links.
fn addresses(written: &Written<'_>) -> Result<Vec<Address>, Diagnostic> {
    let has_others = written.view.layers().any(|section| section.entries.iter().any(|it| it.key.starts_with(PER_LINK)));
    if written.text.is_empty() && has_others {
        return Ok(Vec::new());
    }
    values::not_empty(written.text.trim_matches([',', ' ']))?;
    let addresses: Vec<Address> = values::list(written.text).map(values::address).collect::<Result<_, _>>()?;
    match addresses.iter().enumerate().find(|(at, address)| addresses[..*at].contains(address)) {
        Some((_, (address, _))) => {
            Err(Diagnostic::new(format!("the address `{address}` is there twice"), "keep one of the two"))
        }
        None => Ok(addresses),
    }
}

fn link_addresses(written: &Written<'_>) -> Result<Vec<(Arc<Link>, Address)>, Diagnostic> {
    let mut found: Vec<(Arc<Link>, Address)> = Vec::new();
    for section in written.view.layers() {
        for entry in &section.entries {
            let Some(name) = entry.key.strip_prefix(PER_LINK) else { continue };
            let problem = |diagnostic| written.view.problems.report(section.place_of(entry), diagnostic);
            let links = written.view.links;
            match (links.iter().find(|link| link.name.as_str() == name), values::address(&entry.value)) {
                // The link's section may be one of those that were reported as invalid.
                (None, _) if written.view.lacks_links => {}
                (None, _) => {
                    let remedy = match nearest(name, links.iter().map(|link| link.name.as_str())) {
                        Some(near) => format!("did you mean {PER_LINK}{near}?"),
                        None => format!("add a section [Link {name}]"),
                    };
                    problem(Diagnostic::new(format!("there is no [Link {name}]"), remedy));
                }
                (Some(_), Err(diagnostic)) => problem(diagnostic),
                // The first value applies: the vessel's own section comes before its groups and `[DEFAULT]`.
                (Some(link), Ok(_)) if found.iter().any(|(other, _)| other.name == link.name) => {}
                (Some(link), Ok(address)) => found.push((link.clone(), address)),
            }
        }
    }
    Ok(found)
}

fn ssh_config(written: &Written<'_>) -> Result<SshConfig, Diagnostic> {
    if written.text == "no" { Ok(SshConfig::No) } else { written.path().map(SshConfig::At) }
}
