//! Logs in the way `ssh` does: keys and certificates from the agent and from files, then the password.
//!
//! In contrast to `ssh`, keys named by `IdentityFile` are offered before the other keys of the agent. A server ends the
//! connection after a few rejected keys (`MaxAuthTries`), and a daemon has no user who would notice.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use russh::client::{AuthResult, Handle, KeyboardInteractiveAuthResponse};
use russh::keys::PrivateKeyWithHashAlg;
use russh::keys::agent::AgentIdentity;
use russh::keys::agent::client::AgentClient;
use russh::keys::ssh_key::{HashAlg, PublicKey};
use russh::keys::{Certificate, PrivateKey};
use russh::{AgentAuthError, MethodKind, MethodSet, Signer};
use secrecy::{ExposeSecret, SecretString};
use tokio::net::UnixStream;

use super::certificate::{UserCertificate, beside, flaw};
use super::client_handler::ClientHandler;
use super::endpoint::Endpoint;
use super::key_file::{Unusable, load, public_half};
use super::{SshEnvironment, agent, certificate};
use crate::settings::AgentChoice;

/// The keys in `~/.ssh` that are tried if no key is configured, in the order of `ssh`.
const DEFAULT_KEYS: [&str; 3] = ["id_rsa", "id_ecdsa", "id_ed25519"];

/// The reason why a login failed.
pub(super) enum Refused {
    /// The vessel rejected the login.
    Login { why: String, remedy: String },
    /// The connection broke before the vessel answered.
    Broken(String),
}

/// A login in progress.
pub(super) struct Login<'a> {
    handle: &'a mut Handle<ClientHandler>,
    endpoint: &'a Endpoint,
    environment: &'a SshEnvironment,
    /// The credentials that were tried, for the error message.
    tried: Vec<String>,
    /// The credentials that could not be tried, each with the reason.
    problems: Vec<String>,
    /// Whether a key could not be tried because its passphrase is missing or wrong.
    locked: bool,
    offered: MethodSet,
    /// How often the vessel accepted a credential and required another one.
    steps: usize,
}

impl<'a> Login<'a> {
    pub(super) fn new(
        handle: &'a mut Handle<ClientHandler>,
        endpoint: &'a Endpoint,
        environment: &'a SshEnvironment,
    ) -> Self {
        Self {
            handle,
            endpoint,
            environment,
            tried: Vec::new(),
            problems: Vec::new(),
            locked: false,
            offered: MethodSet::empty(),
            steps: 0,
        }
    }

    /// Logs in, or returns why the login failed.
    pub(super) async fn run(mut self) -> Result<(), Refused> {
        match self.try_all().await {
            Ok(true) => Ok(()),
            Ok(false) => Err(self.refused()),
            Err(e) => Err(Refused::Broken(e.to_string())),
        }
    }

    async fn try_all(&mut self) -> Result<bool, russh::Error> {
        // Assumes that the server accepts keys, as almost every server does. Requesting the accepted methods first
        // would cost a round trip.
        self.offered = MethodSet::from(&[MethodKind::PublicKey][..]);
        if self.try_keys().await? {
            return Ok(true);
        }
        if !self.offers(MethodKind::PublicKey) && self.steps == 0 {
            // The vessel does not accept keys now. The keys count as untried, because the vessel may accept one after a
            // password.
            self.tried.clear();
        }
        if self.tried.is_empty() && self.try_nothing().await? {
            return Ok(true);
        }
        // A vessel may require several methods in its own order, and each success can enable another method.
        loop {
            let steps = self.steps;
            if self.try_offered().await? {
                return Ok(true);
            }
            if self.steps == steps {
                return self.try_nothing().await;
            }
        }
    }

    /// Requests a login without credentials, so that the vessel's rejection lists the methods that it accepts. Returns
    /// whether the login succeeded.
    async fn try_nothing(&mut self) -> Result<bool, russh::Error> {
        let answer = self.handle.authenticate_none(self.user()).await?;
        self.is_in(answer)
    }

    async fn try_offered(&mut self) -> Result<bool, russh::Error> {
        if self.offers(MethodKind::PublicKey) && self.try_keys().await? {
            return Ok(true);
        }
        let Some(password) = self.endpoint.host().password.clone() else { return Ok(false) };
        if self.offers(MethodKind::Password) && self.try_password(&password).await? {
            return Ok(true);
        }
        Ok(self.offers(MethodKind::KeyboardInteractive) && self.try_questions(&password).await?)
    }

    fn offers(&self, method: MethodKind) -> bool {
        self.offered.contains(&method)
    }

    /// Records the result of a login attempt, and returns whether the login succeeded. The SSH library reports a closed
    /// connection as a rejected attempt; this function returns an error for it.
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

    /// Returns whether the credential `what` is tried for the first time, and records it as tried. A rejected
    /// credential would be rejected again, and each attempt counts towards `MaxAuthTries`.
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

    fn user(&self) -> &'a str {
        &self.endpoint.host().username
    }

    async fn try_keys(&mut self) -> Result<bool, russh::Error> {
        let files = self.key_files();
        let certificates = self.certificates(&files);
        let (mut agent, held) = self.agent().await.unzip();
        let held = held.unwrap_or_default();
        let (first, later) = self.sorted(held, &files, &certificates);
        if let Some(agent) = &mut agent
            && self.try_agent(agent, first, &certificates).await?
        {
            return Ok(true);
        }
        for file in &files {
            if self.offers(MethodKind::PublicKey) && self.try_key_file(file, &certificates).await? {
                return Ok(true);
            }
        }
        match &mut agent {
            Some(agent) => self.try_agent(agent, later, &certificates).await,
            None => Ok(false),
        }
    }

    /// Splits the agent's identities into those to try before the keys in files and those to try after them.
    fn sorted(
        &self,
        held: Vec<AgentIdentity>,
        files: &[PathBuf],
        certificates: &[UserCertificate],
    ) -> (Vec<AgentIdentity>, Vec<AgentIdentity>) {
        let host = self.endpoint.host();
        if !host.identities_only && host.identity_files.is_empty() {
            return (held, Vec::new());
        }
        let keys: Vec<PublicKey> = files.iter().filter_map(|file| public_half(file)).collect();
        let named = |held: &AgentIdentity| {
            let held = held.public_key();
            keys.iter().any(|key| key.key_data() == held.key_data())
                || certificates.iter().any(|found| found.certificate.public_key() == held.key_data())
        };
        let (first, later) = held.into_iter().partition(named);
        (first, if host.identities_only { Vec::new() } else { later })
    }

    /// Returns the key files to try. If files are configured, returns all of them, so that a missing one is reported.
    /// Otherwise returns the default files that exist.
    fn key_files(&self) -> Vec<PathBuf> {
        let named = &self.endpoint.host().identity_files;
        if !named.is_empty() {
            return named.clone();
        }
        let Some(home) = &self.environment.home else { return Vec::new() };
        DEFAULT_KEYS.iter().map(|name| home.join(".ssh").join(name)).filter(|file| file.exists()).collect()
    }

    /// Reads the configured certificates and the existing certificates next to the keys. A missing certificate is
    /// reported only if it is configured.
    fn certificates(&mut self, keys: &[PathBuf]) -> Vec<UserCertificate> {
        let beside_keys = keys.iter().map(|key| beside(key)).filter(|file| file.exists());
        let files: Vec<_> = self.endpoint.host().certificate_files.iter().cloned().chain(beside_keys).collect();
        let mut found: Vec<UserCertificate> = Vec::new();
        for file in files {
            match certificate::read(&file) {
                Ok(read) if found.iter().all(|other| other.certificate != read.certificate) => found.push(read),
                Ok(_) => {}
                Err(why) => self.note_problem(format!("{}: {why}", file.display())),
            }
        }
        found
    }

    /// Returns the agent and its identities, or `None` if no agent is used or the agent does not answer. The other
    /// credentials are tried in any case.
    async fn agent(&mut self) -> Option<(AgentClient<UnixStream>, Vec<AgentIdentity>)> {
        let socket = match &self.endpoint.host().agent {
            AgentChoice::Usual => self.environment.agent.as_ref()?,
            AgentChoice::At(socket) => socket,
            AgentChoice::Nobody => return None,
        };
        // The agent gets only a part of the time that the whole login may take.
        let why = match tokio::time::timeout(self.endpoint.vessel().timeout / 2, agent::ask(socket)).await {
            Ok(Ok(answer)) => return Some(answer),
            Ok(Err(e)) => e.to_string(),
            Err(_) => "the request timed out".into(),
        };
        self.note_problem(format!("cannot use the agent at {}: {why}", socket.display()));
        None
    }

    /// Tries the identities `held` by the agent. Before each key, tries the certificates from files that belong to the
    /// key.
    async fn try_agent(
        &mut self,
        agent: &mut AgentClient<UnixStream>,
        held: Vec<AgentIdentity>,
        certificates: &[UserCertificate],
    ) -> Result<bool, russh::Error> {
        for identity in held {
            let let_in = match identity {
                AgentIdentity::Certificate { certificate, .. } => {
                    let what = format!("agent certificate {:?}", certificate.key_id());
                    self.try_certificate(certificate, what, agent).await?
                }
                AgentIdentity::PublicKey { key, .. } => self.try_agent_key(agent, key, certificates).await?,
            };
            if let_in {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn try_agent_key(
        &mut self,
        agent: &mut AgentClient<UnixStream>,
        key: PublicKey,
        certificates: &[UserCertificate],
    ) -> Result<bool, russh::Error> {
        for UserCertificate { file, certificate } in certificates {
            if certificate.public_key() == key.key_data() {
                let holder = &mut agent::Holder { agent, key: &key };
                let what = format!("certificate {} with the agent's key", file.display());
                if self.try_certificate(certificate.clone(), what, holder).await? {
                    return Ok(true);
                }
            }
        }
        let what = format!("agent key {}", key.fingerprint(HashAlg::Sha256));
        if !self.offers(MethodKind::PublicKey) || !self.is_new(&what) {
            return Ok(false);
        }
        let hash = self.rsa_hash(&key).await?;
        let result = self.handle.authenticate_publickey_with(self.endpoint.host().username.clone(), key, hash, agent);
        let result = result.await;
        self.answered(result)
    }

    async fn try_certificate(
        &mut self,
        certificate: Certificate,
        what: String,
        signer: &mut impl Signer<Error = AgentAuthError>,
    ) -> Result<bool, russh::Error> {
        if !self.offers(MethodKind::PublicKey) || !self.is_new(&what) {
            return Ok(false);
        }
        let hash = self.rsa_hash(&PublicKey::from(certificate.public_key().clone())).await?;
        let flaw = flaw(&certificate, self.user());
        let user = self.user();
        let result = self.handle.authenticate_certificate_with(user, certificate, hash, signer).await;
        let let_in = self.answered(result)?;
        if let Some(flaw) = flaw.filter(|_| !let_in) {
            self.note_problem(format!("the {what} {flaw}"));
        }
        Ok(let_in)
    }

    /// Records the result of a login attempt that required a signature, and returns whether the login succeeded.
    fn answered(&mut self, result: Result<AuthResult, AgentAuthError>) -> Result<bool, russh::Error> {
        match result {
            Ok(result) => self.is_in(result),
            Err(e) => {
                self.note_problem(format!("signing failed: {e}"));
                Ok(false)
            }
        }
    }

    async fn try_key_file(&mut self, file: &Path, certificates: &[UserCertificate]) -> Result<bool, russh::Error> {
        let key = match load(file.to_owned(), self.endpoint.host().passphrase.as_deref().cloned()).await {
            Ok(key) => Arc::new(key),
            Err(problem) => {
                self.locked |= matches!(problem, Unusable::Locked(_));
                self.note_problem(format!("{}: {problem}", file.display()));
                return Ok(false);
            }
        };
        for UserCertificate { file, certificate } in certificates {
            if certificate.public_key() == key.public_key().key_data() {
                let holder = &mut certificate::Holder(Arc::<PrivateKey>::clone(&key));
                let what = format!("certificate {}", file.display());
                if self.try_certificate(certificate.clone(), what, holder).await? {
                    return Ok(true);
                }
            }
        }
        if !self.offers(MethodKind::PublicKey) || !self.is_new(&format!("key {}", file.display())) {
            return Ok(false);
        }
        let hash = self.rsa_hash(key.public_key()).await?;
        let key = PrivateKeyWithHashAlg::new(key, hash);
        let result = self.handle.authenticate_publickey(self.user(), key).await?;
        self.is_in(result)
    }

    /// Selects the hash for signatures with an RSA key; `None` for other keys. SHA-1 is never used; if a vessel does
    /// not announce its hashes, SHA-512 is tried.
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
        let result = self.handle.authenticate_password(self.user(), password.expose_secret()).await?;
        self.is_in(result)
    }

    /// Logs in by keyboard-interactive and answers every prompt with the password. Servers often send an empty list of
    /// prompts at the end, which requires an empty response.
    async fn try_questions(&mut self, password: &SecretString) -> Result<bool, russh::Error> {
        const MOST_ROUNDS: usize = 8;
        if !self.is_new("keyboard-interactive") {
            return Ok(false);
        }
        let user = self.user();
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
            "there is no key or password to log in with".to_string()
        } else {
            format!("tried {}", self.tried.join(", "))
        };
        let mut parts = vec![tried];
        parts.extend(self.problems.iter().cloned());
        let methods: Vec<&str> = self.offered.iter().map(Into::into).collect();
        if !methods.is_empty() {
            parts.push(format!("the server accepts {}", methods.join(", ")));
        }
        Refused::Login { why: parts.join("; "), remedy: self.remedy() }
    }

    fn remedy(&self) -> String {
        let setting = |keys: &str| self.endpoint.key_setting(keys);
        let there = format!("and authorized_keys on the {}", self.endpoint.noun());
        let password = if self.endpoint.host().hop.is_none() { "Password, " } else { "" };
        if self.tried.is_empty() && self.locked {
            format!("check {}", setting("Passphrase"))
        } else if self.locked {
            format!("check {}, {there}", setting(&format!("Username, {password}IdentityFile and Passphrase")))
        } else if self.tried.is_empty() && password.is_empty() {
            format!("set {}, or put a key into ~/.ssh", setting("IdentityFile"))
        } else if self.tried.is_empty() {
            format!(
                "set IdentityFile or Password in [Vessel {}], or put a key into ~/.ssh",
                self.endpoint.vessel().name
            )
        } else {
            let keys =
                if password.is_empty() { "Username and IdentityFile" } else { "Username, Password and IdentityFile" };
            format!("check {}, {there}", setting(keys))
        }
    }
}
