//! The keys of `[Vessel y]` for the route to it, with a table row each. The ssh config supplies missing values.

use std::path::PathBuf;

use super::key::Preset::{Otherwise, Required, Value};
use super::key::Transport::{Local, Ssh};
use super::key::{Secrecy, SectionKind};
use super::problems::Diagnostic;
use super::secrets::{self, Secret};
use super::ssh_config::{self, Jump};
use super::ssh_host::HostKeyPolicy;
use super::table::{self, Field, Key, field, key};
use super::values;
use super::view::Written;

/// A vessel's own settings for the route to it; `None` for missing values.
#[derive(Clone, Default)]
pub(super) struct RouteKeys {
    pub(super) is_local: bool,
    pub(super) mount_point: Option<PathBuf>,
    /// Host name or address, and the port if one follows it.
    pub(super) address: (String, Option<u16>),
    pub(super) port: Option<u16>,
    pub(super) username: Option<String>,
    pub(super) ssh_config: SshConfig,
    pub(super) jump: Option<Jump>,
    pub(super) password: Option<Secret>,
    pub(super) identity_files: Option<Vec<PathBuf>>,
    pub(super) certificate_files: Option<Vec<PathBuf>>,
    pub(super) passphrase: Option<Secret>,
    pub(super) host_keys: Vec<String>,
    pub(super) host_key_policy: HostKeyPolicy,
}

/// `SSHConfig`.
#[derive(Clone, Default)]
pub(super) enum SshConfig {
    /// The user's and the system's.
    #[default]
    Usual,
    /// None.
    No,
    /// This file.
    At(PathBuf),
}

impl table::Section for RouteKeys {
    const KIND: SectionKind = SectionKind::Vessel;
}

#[rustfmt::skip]
pub(super) static KEYS: &[Key<RouteKeys>] = &[
    key("Address", Required, field!(RouteKeys.address, |it| values::address(it.text)))
        .value("host name, IP address, or a host of the ssh config").example("example.com")
        .doc("Where the vessel is. A port may follow it (example.com:2222, [::1]:2222) instead of Port. An IPv6 address may name \
              its interface: fe80::1%eth0."),
    key("Transport", Value("ssh"), field!(RouteKeys.is_local, |it| it.choice(&[("ssh", false), ("local", true)])))
        .value("ssh or local")
        .doc("How files get there. `local` copies to a directory on this host or on a disk that is mounted here, without SSH: \
              then `Address = localhost`. Every RemoteLocation must exist then, and is never made: while it is missing, such as \
              that of a disk that is not mounted, the vessel is away, and it is looked for every few seconds. Keys of SSH are \
              errors; TempDir is not used; `Delta = auto` sends whole files."),
    key("MountPoint", Otherwise("none"), field!(RouteKeys.mount_point, |it| it.path().map(Some)))
        .value("a path").example("/mnt/backup").transport(Local)
        .doc("With `Transport = local`, where something must be mounted before anything is written. For a RemoteLocation that \
              exists without its disk too, such as the mount point itself."),
    key("Port", Otherwise("what the ssh config says, else 22"), field!(RouteKeys.port, |it| values::port(it.text).map(Some)))
        .value("a number from 1 to 65535").example("22").transport(Ssh)
        .doc("Port of the SSH server."),
    key("Username", Otherwise("what the ssh config says, else who runs contentmonster"), field!(RouteKeys.username, |it| values::username(it.text).map(Some)))
        .value("a name").example("replication").transport(Ssh)
        .doc("User to log in as."),
    key("SSHConfig", Otherwise("~/.ssh/config and /etc/ssh/ssh_config, where they exist"), field!(RouteKeys.ssh_config, ssh_config))
        .value("a path, or no").example("no").transport(Ssh)
        .doc("The ssh config that is read for what isn't set here, or `no` for none. Heeded are HostName, User, Port, \
              IdentityFile, CertificateFile, IdentityAgent, IdentitiesOnly, UserKnownHostsFile, GlobalKnownHostsFile, \
              HostKeyAlias, ProxyJump, ServerAliveInterval, ServerAliveCountMax and ConnectTimeout, in Host, Match and Include; \
              `check` shows what comes from where."),
    key("ProxyJump", Otherwise("what the ssh config says, else none"), field!(RouteKeys.jump, |it| ssh_config::jump(it.text).map(Some)))
        .value("[user@]host[:port], separated by commas, or none").example("gate@bastion.example.com:2222").transport(Ssh)
        .doc("Hosts to go through, the nearest first; each may be a host of the ssh config. Unless that says otherwise, they are \
              logged in to with the Username and keys from here, but never with the Password. Each has its own host key, which \
              `trust` shows too. `none` goes straight on."),
    key("Password", Otherwise("none, log in with a key"), field!(RouteKeys.password, |it| Ok(secrets::read(it, "password"))))
        .value("text").example("verysecret").transport(Ssh).secrecy(Secrecy::Secret)
        .doc("Logging in is tried as ssh does it: the agent, then private keys, then this password. A file that holds secrets \
              should be readable by its owner alone (chmod 600), this one too."),
    key("PasswordFile", Otherwise("none"), Field::NONE)
        .value("a path").example("samplevessel.password").transport(Ssh)
        .doc("A file whose first line is the password, in place of Password. With systemd's LoadCredential= a PasswordFile or \
              PassphraseFile that doesn't exist here is looked for among the credentials. Where no key is set, the credentials \
              samplevessel.password and samplevessel.passphrase are used."),
    key("IdentityFile", Otherwise("what the ssh config says, else the usual ones in ~/.ssh"), field!(RouteKeys.identity_files, |it| it.paths().map(Some)))
        .value("paths, separated by commas").example("~/.ssh/id_ed25519").transport(Ssh)
        .doc("Private keys. Keys in hardware (sk-) go by the agent."),
    key("CertificateFile", Otherwise("what the ssh config says, else none"), field!(RouteKeys.certificate_files, |it| it.paths().map(Some)))
        .value("paths, separated by commas").example("~/.ssh/signed-cert.pub").transport(Ssh)
        .doc("OpenSSH certificates of these keys or of the agent's. One that lies beside its key, as id_ed25519-cert.pub, needs \
              no mention."),
    key("Passphrase", Otherwise("none"), field!(RouteKeys.passphrase, |it| Ok(secrets::read(it, "passphrase"))))
        .value("text").example("moresecret").transport(Ssh).secrecy(Secrecy::Secret)
        .doc("Passphrase of the private keys."),
    key("PassphraseFile", Otherwise("none"), Field::NONE)
        .value("a path").example("samplevessel.passphrase").transport(Ssh)
        .doc("A file whose first line is the passphrase, in place of Passphrase."),
    key("HostKey", Otherwise("~/.ssh/known_hosts and /etc/ssh/ssh_known_hosts decide"), field!(RouteKeys.host_keys, |it| values::host_keys(it.text)))
        .value("SHA256 fingerprints, separated by commas").example("SHA256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU").transport(Ssh)
        .doc("The only host keys taken from this vessel, as `ssh-keygen -lf` shows them. With @cert-authority in known_hosts they \
              name who may sign host keys."),
    key("HostKeyPolicy", Value("strict"), field!(RouteKeys.host_key_policy, |it| it.choice(&[("strict", HostKeyPolicy::Strict), ("accept-new", HostKeyPolicy::AcceptNew)])))
        .value("strict or accept-new").transport(Ssh)
        .doc("A host that is not known yet: `strict` refuses it (see `contentmonster trust`), `accept-new` takes its key and \
              records it. A changed key is always refused."),
];

fn ssh_config(written: &Written<'_>) -> Result<SshConfig, Diagnostic> {
    if written.text == "no" { Ok(SshConfig::No) } else { written.path().map(SshConfig::At) }
}
