//! Lists the keys and certificates of the SSH agent, and signs with them.
//!
//! The SSH library can also list the keys, but it returns none of them if it fails to parse one.

use std::path::Path;

use russh::keys::agent::AgentIdentity;
use russh::keys::agent::client::AgentClient;
use russh::keys::ssh_encoding::{Decode, Reader};
use russh::keys::ssh_key::{Certificate, PublicKey};
use russh::keys::{HashAlg, key};
use russh::{AgentAuthError, Signer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

/// The message types of the request for all identities and of its answer (draft-miller-ssh-agent, section 5.1).
const REQUEST_IDENTITIES: u8 = 11;
const IDENTITIES_ANSWER: u8 = 12;

/// The maximum length of an answer in bytes. No agent sends longer answers.
const LONGEST: usize = 256 << 10;

/// Connects to an agent and lists its keys and certificates. Skips the keys and certificates that can't be parsed.
pub(super) async fn ask(socket: &Path) -> std::io::Result<(AgentClient<UnixStream>, Vec<AgentIdentity>)> {
    let mut stream = UnixStream::connect(socket).await?;
    stream.write_all(&[0, 0, 0, 1, REQUEST_IDENTITIES]).await?;
    let length = usize::try_from(stream.read_u32().await?).unwrap_or(usize::MAX);
    if length > LONGEST {
        return Err(std::io::Error::other("the agent's answer is too long"));
    }
    let mut answer = vec![0; length];
    stream.read_exact(&mut answer).await?;
    let held = held_in(&answer).ok_or_else(|| std::io::Error::other("the agent's answer is invalid"))?;
    Ok((AgentClient::connect(stream), held))
}

fn held_in(answer: &[u8]) -> Option<Vec<AgentIdentity>> {
    let (&IDENTITIES_ANSWER, mut rest) = answer.split_first()? else { return None };
    let count = u32::decode(&mut rest).ok()?;
    let mut held = Vec::new();
    for _ in 0..count {
        let blob = Vec::<u8>::decode(&mut rest).ok()?;
        let comment = Vec::<u8>::decode(&mut rest).ok()?;
        let comment = String::from_utf8_lossy(&comment).into_owned();
        held.extend(identity(&blob, comment));
    }
    rest.is_finished().then_some(held)
}

fn identity(blob: &[u8], comment: String) -> Option<AgentIdentity> {
    // `parse_public_key` must be called first, because it rejects certificates that are nested too deeply for the other
    // parsers.
    let key = key::parse_public_key(blob).ok()?;
    let name = Vec::<u8>::decode(&mut &blob[..]).ok()?;
    if name.ends_with(b"-cert-v01@openssh.com") {
        let certificate = Certificate::from_bytes(blob).ok()?;
        return Some(AgentIdentity::Certificate { certificate, comment });
    }
    Some(AgentIdentity::PublicKey { key, comment })
}

/// A signer for a certificate that was read from a file and whose private key is in the agent.
pub(super) struct Holder<'a> {
    pub(super) agent: &'a mut AgentClient<UnixStream>,
    pub(super) key: &'a PublicKey,
}

impl Signer for Holder<'_> {
    type Error = AgentAuthError;

    async fn auth_sign(
        &mut self,
        _: &AgentIdentity,
        hash: Option<HashAlg>,
        to_sign: Vec<u8>,
    ) -> Result<Vec<u8>, Self::Error> {
        let key = AgentIdentity::from(self.key.clone());
        Ok(self.agent.sign_request(&key, hash, to_sign).await?)
    }
}
