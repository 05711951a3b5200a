//! Logging in, as `ssh` does it: keys from the agent and from files, then the password.
//!
//! One difference: keys named by `IdentityFile` are offered before the agent's other keys, because a server ends the
//! connection after a few (`MaxAuthTries`), and nobody is there to see it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use russh::client::{AuthResult, Handle, KeyboardInteractiveAuthResponse};
use russh::keys::PrivateKeyWithHashAlg;
use russh::keys::agent::AgentIdentity;
use russh::keys::agent::client::AgentClient;
use russh::keys::ssh_key::{HashAlg, PublicKey};
use russh::{MethodKind, MethodSet};
use secrecy::{ExposeSecret, SecretString};
use tokio::net::UnixStream;

use super::SshEnvironment;
use super::doorkeeper::Doorkeeper;
use super::key_file::{Unusable, load, public_half};
use crate::settings::Vessel;

/// The keys in `~/.ssh` that are tried when none is named, in the order of `ssh`.
const DEFAULT_KEYS: [&str; 3] = ["id_rsa", "id_ecdsa", "id_ed25519"];

/// Why nobody was let in.
pub(super) enum Refused {
    /// The vessel said no.
    Login { why: String, remedy: String },
    /// The connection broke before there was an answer.
    Broken(String),
}

/// One login under way.
pub(super) struct Login<'a> {
    handle: &'a mut Handle<Doorkeeper>,
    vessel: &'a Vessel,
    environment: &'a SshEnvironment,
    /// What was tried, for the message.
    tried: Vec<String>,
    /// What could not be tried, and why.
    problems: Vec<String>,
    /// Whether a key could not be tried for want of its passphrase.
    locked: bool,
    offered: MethodSet,
    /// How often the vessel said that this was right, but that it wants more.
    steps: usize,
}

impl<'a> Login<'a> {
    pub(super) fn new(handle: &'a mut Handle<Doorkeeper>, vessel: &'a Vessel, environment: &'a SshEnvironment) -> Self {
        Self {
            handle,
            vessel,
            environment,
            tried: Vec::new(),
            problems: Vec::new(),
            locked: false,
            offered: MethodSet::empty(),
            steps: 0,
        }
    }

    /// Logs in, or says why not.
    pub(super) async fn run(mut self) -> Result<(), Refused> {
        match self.try_all().await {
            Ok(true) => Ok(()),
            Ok(false) => Err(self.refused()),
            Err(e) => Err(Refused::Broken(e.to_string())),
        }
    }

    async fn try_all(&mut self) -> Result<bool, russh::Error> {
        let first = self.handle.authenticate_none(&self.vessel.username).await?;
        if self.is_in(first)? {
            return Ok(true);
        }
        // A vessel may want several things, in an order of its own: each that is right can open the way to another.
        loop {
            let steps = self.steps;
            if self.try_offered().await? {
                return Ok(true);
            }
            if self.steps == steps {
                return Ok(false);
            }
        }
    }

    async fn try_offered(&mut self) -> Result<bool, russh::Error> {
        if self.offers(MethodKind::PublicKey) && self.try_keys().await? {
            return Ok(true);
        }
        let Some(password) = self.vessel.password.clone() else { return Ok(false) };
        if self.offers(MethodKind::Password) && self.try_password(&password).await? {
            return Ok(true);
        }
        Ok(self.offers(MethodKind::KeyboardInteractive) && self.try_questions(&password).await?)
    }

    fn offers(&self, method: MethodKind) -> bool {
        self.offered.contains(&method)
    }

    /// Takes note of an answer. A refusal on a connection that has gone is no refusal: the library can't tell.
    fn is_in(&mut self, result: AuthResult) -> Result<bool, russh::Error> {
        match result {
            AuthResult::Success => Ok(true),
            AuthResult::Failure { .. } if self.handle.is_closed() => Err(russh::Error::Disconnect),
            AuthResult::Failure { remaining_methods, partial_success } => {
                self.offered = remaining_methods;
                self.steps += usize::from(partial_success);
                Ok(false)
            }
        }
    }

    /// Whether this was not tried yet; takes note that it is now. What was refused once is refused again, and counts.
    fn is_new(&mut self, what: &str) -> bool {
        let new = self.tried.iter().all(|tried| tried != what);
        if new {
            self.tried.push(what.to_owned());
        }
        new
    }

    fn note_problem(&mut self, problem: String) {
        if !self.problems.contains(&problem) {
            self.problems.push(problem);
        }
    }

    async fn try_keys(&mut self) -> Result<bool, russh::Error> {
        let files = self.key_files();
        let (mut agent, held) = self.agent().await.unzip();
        let held = held.unwrap_or_default();
        let named: Vec<PublicKey> = if self.vessel.identity_files.is_empty() {
            Vec::new()
        } else {
            files.iter().filter_map(|f| public_half(f)).collect()
        };
        let (first, later): (Vec<_>, Vec<_>) =
            held.into_iter().partition(|key| named.is_empty() || named.iter().any(|n| n.key_data() == key.key_data()));
        if let Some(agent) = &mut agent
            && self.try_agent(agent, first).await?
        {
            return Ok(true);
        }
        for file in &files {
            if self.offers(MethodKind::PublicKey) && self.try_key_file(file).await? {
                return Ok(true);
            }
        }
        match &mut agent {
            Some(agent) => self.try_agent(agent, later).await,
            None => Ok(false),
        }
    }

    /// The key files to try: those that are named, all of which should exist, or those of the default ones that do.
    fn key_files(&self) -> Vec<PathBuf> {
        if !self.vessel.identity_files.is_empty() {
            return self.vessel.identity_files.clone();
        }
        let Some(home) = &self.environment.home else { return Vec::new() };
        DEFAULT_KEYS.iter().map(|name| home.join(".ssh").join(name)).filter(|file| file.exists()).collect()
    }

    /// The agent and the keys it holds. One that doesn't answer is no reason not to try the rest.
    async fn agent(&mut self) -> Option<(AgentClient<UnixStream>, Vec<PublicKey>)> {
        let socket = self.environment.agent.as_ref()?;
        // A part of the time that the whole login has.
        let why = match tokio::time::timeout(self.vessel.timeout / 2, ask_agent(socket)).await {
            Ok(Ok(answer)) => return Some(answer),
            Ok(Err(e)) => e.to_string(),
            Err(_) => "it is silent".into(),
        };
        self.note_problem(format!("the agent at {} does not answer: {why}", socket.display()));
        None
    }

    async fn try_agent(
        &mut self,
        agent: &mut AgentClient<UnixStream>,
        keys: Vec<PublicKey>,
    ) -> Result<bool, russh::Error> {
        for key in keys {
            if !self.offers(MethodKind::PublicKey) {
                break;
            }
            if !self.is_new(&format!("agent key {}", key.fingerprint(HashAlg::Sha256))) {
                continue;
            }
            let hash = self.rsa_hash(&key).await?;
            let user = self.vessel.username.clone();
            match self.handle.authenticate_publickey_with(user, key, hash, agent).await {
                Ok(result) => {
                    if self.is_in(result)? {
                        return Ok(true);
                    }
                }
                Err(e) => self.note_problem(format!("the agent did not sign: {e}")),
            }
        }
        Ok(false)
    }

    async fn try_key_file(&mut self, file: &Path) -> Result<bool, russh::Error> {
        let key = match load(file.to_owned(), self.vessel.passphrase.as_deref().cloned()).await {
            Ok(key) => Arc::new(key),
            Err(problem) => {
                self.locked |= matches!(problem, Unusable::Locked(_));
                self.note_problem(format!("{}: {problem}", file.display()));
                return Ok(false);
            }
        };
        if !self.is_new(&format!("key {}", file.display())) {
            return Ok(false);
        }
        let hash = self.rsa_hash(key.public_key()).await?;
        let key = PrivateKeyWithHashAlg::new(key, hash);
        let result = self.handle.authenticate_publickey(&self.vessel.username, key).await?;
        self.is_in(result)
    }

    /// SHA-1 signatures are never made: where a vessel doesn't say what it takes, SHA-512 is tried.
    async fn rsa_hash(&self, key: &PublicKey) -> Result<Option<HashAlg>, russh::Error> {
        if !key.algorithm().is_rsa() {
            return Ok(None);
        }
        Ok(self.handle.best_supported_rsa_hash().await?.flatten().or(Some(HashAlg::Sha512)))
    }

    async fn try_password(&mut self, password: &SecretString) -> Result<bool, russh::Error> {
        if !self.is_new("password") {
            return Ok(false);
        }
        let result = self.handle.authenticate_password(&self.vessel.username, password.expose_secret()).await?;
        self.is_in(result)
    }

    /// Keyboard-interactive: every question is answered with the password. An empty list of questions is usual at the
    /// end and wants an empty answer.
    async fn try_questions(&mut self, password: &SecretString) -> Result<bool, russh::Error> {
        const MOST_ROUNDS: usize = 8;
        if !self.is_new("keyboard-interactive") {
            return Ok(false);
        }
        let user = self.vessel.username.clone();
        let mut response = self.handle.authenticate_keyboard_interactive_start(user, None).await?;
        for _ in 0..MOST_ROUNDS {
            let prompts = match response {
                KeyboardInteractiveAuthResponse::Success => return Ok(true),
                KeyboardInteractiveAuthResponse::Failure { remaining_methods, partial_success } => {
                    return self.is_in(AuthResult::Failure { remaining_methods, partial_success });
                }
                KeyboardInteractiveAuthResponse::InfoRequest { prompts, .. } => prompts,
            };
            let answers = prompts.iter().map(|_| password.expose_secret().to_string()).collect();
            response = self.handle.authenticate_keyboard_interactive_respond(answers).await?;
        }
        Ok(false)
    }

    fn refused(&self) -> Refused {
        let tried = if self.tried.is_empty() {
            "there is nothing to log in with".to_string()
        } else {
            format!("tried {}", self.tried.join(", "))
        };
        let mut parts = vec![tried];
        parts.extend(self.problems.iter().cloned());
        let methods: Vec<&str> = self.offered.iter().map(Into::into).collect();
        if !methods.is_empty() {
            parts.push(format!("it takes {}", methods.join(", ")));
        }
        Refused::Login { why: parts.join("; "), remedy: self.remedy() }
    }

    fn remedy(&self) -> String {
        let section = format!("[Vessel {}]", self.vessel.name);
        if self.tried.is_empty() && self.locked {
            format!("check Passphrase of {section}")
        } else if self.locked {
            format!(
                "check Username, Password, IdentityFile and Passphrase of {section}, and authorized_keys on the vessel"
            )
        } else if self.tried.is_empty() {
            format!("set IdentityFile or Password in {section}, or put a key into ~/.ssh")
        } else {
            format!("check Username, Password and IdentityFile of {section}, and authorized_keys on the vessel")
        }
    }
}

/// Connects to an agent and has it name its keys.
async fn ask_agent(socket: &Path) -> Result<(AgentClient<UnixStream>, Vec<PublicKey>), russh::keys::Error> {
    let plain_key = |identity| match identity {
        AgentIdentity::PublicKey { key, .. } => Some(key),
        AgentIdentity::Certificate { .. } => None,
    };
    let mut agent = AgentClient::connect_uds(socket).await?;
    let keys = agent.request_identities().await?.into_iter().filter_map(plain_key).collect();
    Ok((agent, keys))
}
