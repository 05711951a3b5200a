//! The values of the ssh config for a host, converted into their types.

use std::path::PathBuf;
use std::time::Duration;

use super::asked::{Asked, Spot, Trouble};
use super::reader::{Found, Gathered};
use super::words::{self, Jump, expand};
use crate::settings::problems::Diagnostic;
use crate::settings::ssh_host::AgentChoice;
use crate::settings::values;

/// The values of the ssh config files for a host; `None` for missing values.
#[derive(Clone, Debug, Default)]
pub(in crate::settings) struct Advice {
    pub(in crate::settings) address: Option<String>,
    pub(in crate::settings) user: Option<String>,
    pub(in crate::settings) port: Option<u16>,
    pub(in crate::settings) identity_files: Vec<PathBuf>,
    pub(in crate::settings) certificate_files: Vec<PathBuf>,
    pub(in crate::settings) identities_only: Option<bool>,
    pub(in crate::settings) agent: Option<AgentChoice>,
    pub(in crate::settings) known_hosts: Option<Vec<PathBuf>>,
    pub(in crate::settings) global_known_hosts: Option<Vec<PathBuf>>,
    pub(in crate::settings) host_key_alias: Option<String>,
    pub(in crate::settings) jump: Option<(Jump, Spot)>,
    /// The place of a `ProxyCommand`; `None` without one.
    pub(in crate::settings) command: Option<Spot>,
    pub(in crate::settings) alive_interval: Option<Duration>,
    pub(in crate::settings) alive_count: Option<usize>,
    pub(in crate::settings) connect_timeout: Option<Duration>,
    /// The keyword and the description of each value, such as `Port 2222 (/home/ann/.ssh/config:3)`.
    pub(in crate::settings) said: Vec<(&'static str, String)>,
    pub(in crate::settings) unheeded: Vec<String>,
}

/// Converts the gathered values into their types.
pub(super) fn of(gathered: Gathered, asked: &Asked<'_>) -> Result<Advice, Trouble> {
    let mut said = Said { gathered: &gathered, said: Vec::new() };
    let address = said.one("HostName", |text| host_name(text, asked))?;
    let user = said.one("User", values::username)?;
    let port = said.one("Port", values::port)?;
    let host_key_alias = said.one("HostKeyAlias", |text| values::not_empty(text).map(str::to_owned))?;
    let jump_spot = gathered.first("ProxyJump").map(|found| found.spot.clone());
    let here = Here::new(asked, address.as_deref(), user.as_deref(), port, host_key_alias.as_deref());
    let jump = said.one("ProxyJump", |text| words::jump(&expand(text, &here.tokens)?))?;
    let advice = Advice {
        identity_files: said.every("IdentityFile", |text| here.path(text))?,
        certificate_files: said.every("CertificateFile", |text| here.path(text))?,
        identities_only: said.one("IdentitiesOnly", words::yes_or_no)?,
        agent: said.one("IdentityAgent", |text| here.agent(text))?,
        known_hosts: said.list("UserKnownHostsFile", |text| here.path(text))?,
        global_known_hosts: said.list("GlobalKnownHostsFile", |text| here.path(text))?,
        jump: jump.zip(jump_spot),
        command: gathered.first("ProxyCommand").filter(|found| found.words[0] != "none").map(|f| f.spot.clone()),
        alive_interval: said.one("ServerAliveInterval", words::time)?.filter(|time| !time.is_zero()),
        alive_count: said.one("ServerAliveCountMax", count)?,
        connect_timeout: said.one("ConnectTimeout", none_or_time)?.flatten(),
        said: said.said,
        unheeded: gathered.unheeded.clone(),
        address,
        user,
        port,
        host_key_alias,
    };
    Ok(advice)
}

/// Reads gathered values, and records their descriptions.
struct Said<'a> {
    gathered: &'a Gathered,
    said: Vec<(&'static str, String)>,
}

impl Said<'_> {
    fn one<T>(
        &mut self,
        keyword: &'static str,
        read: impl FnOnce(&str) -> Result<T, Diagnostic>,
    ) -> Result<Option<T>, Trouble> {
        let Some(found) = self.gathered.first(keyword) else { return Ok(None) };
        let value = read(&found.words[0]).map_err(|diagnostic| trouble(keyword, found, diagnostic))?;
        self.note(keyword, found);
        Ok(Some(value))
    }

    /// Reads the first word of each line with this keyword; `none` adds no value.
    fn every(
        &mut self,
        keyword: &'static str,
        read: impl Fn(&str) -> Result<PathBuf, Diagnostic>,
    ) -> Result<Vec<PathBuf>, Trouble> {
        let mut values = Vec::new();
        for found in self.gathered.all(keyword) {
            if found.words[0] != "none" {
                values.push(read(&found.words[0]).map_err(|diagnostic| trouble(keyword, found, diagnostic))?);
            }
            self.note(keyword, found);
        }
        Ok(values)
    }

    /// Reads all words of the first line with this keyword; the word `none` adds no value.
    fn list(
        &mut self,
        keyword: &'static str,
        read: impl Fn(&str) -> Result<PathBuf, Diagnostic>,
    ) -> Result<Option<Vec<PathBuf>>, Trouble> {
        let Some(found) = self.gathered.first(keyword) else { return Ok(None) };
        self.note(keyword, found);
        let words = found.words.iter().filter(|word| *word != "none");
        let values = words.map(|word| read(word)).collect::<Result<_, _>>();
        values.map(Some).map_err(|diagnostic| trouble(keyword, found, diagnostic))
    }

    fn note(&mut self, keyword: &'static str, found: &Found) {
        self.said.push((keyword, format!("{keyword} {} ({})", found.words.join(" "), found.spot)));
    }
}

fn trouble(keyword: &str, found: &Found, diagnostic: Diagnostic) -> Trouble {
    Trouble { spot: found.spot.clone(), keyword: keyword.to_owned(), diagnostic }
}

fn host_name(text: &str, asked: &Asked<'_>) -> Result<String, Diagnostic> {
    let name = expand(text, &[('h', asked.host.to_owned())])?;
    match values::address(&name)? {
        (host, None) => Ok(host),
        (_, Some(_)) => Err(Diagnostic::new("the host name contains a port", "write the port as Port")),
    }
}

fn count(text: &str) -> Result<usize, Diagnostic> {
    let count = text.parse().ok().filter(|count| *count > 0);
    count.ok_or_else(|| Diagnostic::new(format!("invalid count `{text}`"), "expected 1 or more"))
}

fn none_or_time(text: &str) -> Result<Option<Duration>, Diagnostic> {
    if text == "none" { Ok(None) } else { words::time(text).map(|time| Some(time).filter(|time| !time.is_zero())) }
}

/// The values that replace `%` tokens and `~` for the host of this query.
struct Here<'a> {
    asked: &'a Asked<'a>,
    tokens: Vec<(char, String)>,
}

impl<'a> Here<'a> {
    fn new(
        asked: &'a Asked<'a>,
        address: Option<&str>,
        user: Option<&str>,
        port: Option<u16>,
        alias: Option<&str>,
    ) -> Self {
        let local = asked.local_user.unwrap_or_default();
        let system = rustix::system::uname();
        let node = system.nodename().to_string_lossy();
        let tokens = vec![
            ('h', address.unwrap_or(asked.host).to_owned()),
            ('n', asked.host.to_owned()),
            ('k', alias.unwrap_or(asked.host).to_owned()),
            ('p', asked.port.or(port).unwrap_or(22).to_string()),
            ('r', asked.user.or(user).unwrap_or(local).to_owned()),
            ('u', local.to_owned()),
            ('i', rustix::process::getuid().as_raw().to_string()),
            ('d', asked.home.map(|home| home.display().to_string()).unwrap_or_default()),
            ('L', node.split('.').next().unwrap_or_default().to_owned()),
            ('l', node.into_owned()),
        ];
        Self { asked, tokens }
    }

    fn path(&self, text: &str) -> Result<PathBuf, Diagnostic> {
        if text.contains("${") {
            return Err(Diagnostic::new("environment variables are not expanded here", "write the path in full"));
        }
        let path = expand(text, &self.tokens)?;
        match (path.strip_prefix('~'), self.asked.home) {
            (None, _) => Ok(path.into()),
            (Some(below), Some(home)) if below.is_empty() || below.starts_with('/') => {
                Ok(home.join(below.trim_start_matches('/')))
            }
            (Some(below), None) if below.starts_with('/') => {
                Err(Diagnostic::new("cannot expand `~`: the home directory is unknown", "write the path in full"))
            }
            (Some(_), _) => Err(Diagnostic::new("cannot expand another user's `~`", "write the path in full")),
        }
    }

    fn agent(&self, text: &str) -> Result<AgentChoice, Diagnostic> {
        match text {
            "none" => Ok(AgentChoice::Nobody),
            "SSH_AUTH_SOCK" | "$SSH_AUTH_SOCK" | "${SSH_AUTH_SOCK}" => Ok(AgentChoice::Usual),
            text if text.starts_with('$') => Err(Diagnostic::new(
                "only the variable SSH_AUTH_SOCK is expanded here",
                "write the path of the agent's socket",
            )),
            text => self.path(text).map(AgentChoice::At),
        }
    }
}
