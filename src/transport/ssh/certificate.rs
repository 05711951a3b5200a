//! User certificates in files: finds them next to their keys, checks them, and signs with their keys.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use russh::keys::agent::AgentIdentity;
use russh::keys::signature;
use russh::keys::ssh_encoding::Encode;
use russh::keys::ssh_key::certificate::CertType;
use russh::keys::ssh_key::private::KeypairData;
use russh::keys::ssh_key::{Certificate, Signature};
use russh::keys::{HashAlg, PrivateKey};
use russh::{AgentAuthError, Signer};

/// A certificate and its file.
#[derive(Clone)]
pub(super) struct UserCertificate {
    pub(super) file: PathBuf,
    pub(super) certificate: Certificate,
}

/// Returns the file in which `ssh` expects the certificate of a key.
pub(super) fn beside(key: &Path) -> PathBuf {
    let mut name = key.as_os_str().to_owned();
    name.push("-cert.pub");
    name.into()
}

/// Reads a certificate. The error text is the end of a sentence about the file.
pub(super) fn read(file: &Path) -> Result<UserCertificate, String> {
    let certificate = russh::keys::load_openssh_certificate(file).map_err(|e| format!("can't be used: {e}"))?;
    Ok(UserCertificate { file: file.to_owned(), certificate })
}

/// Returns a likely reason why a vessel rejects the certificate, or `None` if no flaw is found. The text is the end of
/// a sentence about the certificate.
pub(super) fn flaw(certificate: &Certificate, user: &str) -> Option<String> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    if certificate.cert_type() != CertType::User {
        return Some("is a host's certificate, not a user's".into());
    }
    if now < certificate.valid_after() {
        return Some("is not valid yet; is the clock right?".into());
    }
    if now >= certificate.valid_before() {
        return Some("has expired; have it signed again".into());
    }
    let principals = certificate.valid_principals();
    // This reason is not certain, because a vessel with `AuthorizedPrincipalsFile` may accept other principals.
    (!principals.is_empty() && principals.iter().all(|name| name != user))
        .then(|| format!("is for {:?}, not for {user:?}", principals.join(", ")))
}

/// A signer for a certificate whose private key is in memory.
pub(super) struct Holder(pub(super) Arc<PrivateKey>);

impl Signer for Holder {
    type Error = AgentAuthError;

    async fn auth_sign(
        &mut self,
        _: &AgentIdentity,
        hash: Option<HashAlg>,
        mut to_sign: Vec<u8>,
    ) -> Result<Vec<u8>, Self::Error> {
        let failed = |e: signature::Error| russh::keys::Error::from(russh::keys::ssh_key::Error::from(e));
        let signature: Signature = match self.0.key_data() {
            KeypairData::Rsa(pair) => signature::Signer::try_sign(&(pair, hash), &to_sign).map_err(failed)?,
            other => signature::Signer::try_sign(other, &to_sign).map_err(failed)?,
        };
        let blob = signature.encode_vec().map_err(russh::keys::Error::from)?;
        blob.encode(&mut to_sign).map_err(russh::keys::Error::from)?;
        Ok(to_sign)
    }
}
