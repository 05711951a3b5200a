//! Private keys in files: OpenSSH's own format and the older ones, encrypted or not.
//!
//! This module does not depend on logins: the caller passes the file and the passphrase.

use std::fmt;
use std::path::{Path, PathBuf};

use russh::keys::PrivateKey;
use russh::keys::ssh_key::PublicKey;
use secrecy::{ExposeSecret, SecretString};

/// Returns the public key of a key file, or `None` if the public key can't be read without a passphrase. The public key
/// is read from the `.pub` file, or from the key file itself, in which OpenSSH's own format leaves the public key
/// unencrypted.
pub(super) fn public_half(file: &Path) -> Option<PublicKey> {
    let mut public = file.as_os_str().to_owned();
    public.push(".pub");
    let beside = russh::keys::load_public_key(PathBuf::from(public)).ok();
    beside.or_else(|| PrivateKey::read_openssh_file(file).ok().map(|key| key.public_key().clone()))
}

/// The reason why a key file is unusable. The text is the end of a sentence about the file.
pub(super) enum Unusable {
    /// The key is encrypted, and the passphrase is missing or wrong.
    Locked(String),
    /// There is another reason, for example an unreadable file.
    Other(String),
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Locked(why) | Self::Other(why)) = self;
        f.write_str(why)
    }
}

/// Reads a private key. Decrypting a key takes tens of milliseconds by design, so the work runs on a blocking thread.
pub(super) async fn load(file: PathBuf, passphrase: Option<SecretString>) -> Result<PrivateKey, Unusable> {
    let work = move || {
        let text = std::fs::read_to_string(&file).map_err(|e| Unusable::Other(e.to_string()))?;
        open(&SecretString::from(text), passphrase.as_ref())
    };
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|e| Err(Unusable::Other(e.to_string())))
}

fn open(text: &SecretString, passphrase: Option<&SecretString>) -> Result<PrivateKey, Unusable> {
    let text = text.expose_secret();
    // For encrypted keys in the older formats, the SSH library reports only that the decrypted data is not a key, so
    // the header shows whether the key is encrypted.
    let old_lock = text.lines().any(|l| l.starts_with("Proc-Type: 4,ENCRYPTED") || l.contains("BEGIN ENCRYPTED"));
    let opened = russh::keys::decode_secret_key(text, passphrase.map(ExposeSecret::expose_secret));
    // Some formats reject a passphrase if the key is not encrypted, so the key is also decoded without one.
    let opened = opened.or_else(|e| russh::keys::decode_secret_key(text, None).map_err(|_| e));
    opened.map_err(|e| match (e, passphrase) {
        (russh::keys::Error::KeyIsEncrypted, _) => Unusable::Locked("is encrypted; set Passphrase".into()),
        (_, None) if old_lock => Unusable::Locked("is encrypted; set Passphrase".into()),
        (russh::keys::Error::SshKey(russh::keys::ssh_key::Error::Crypto), Some(_)) => {
            Unusable::Locked("can't be opened with this Passphrase".into())
        }
        (_, Some(_)) if old_lock => Unusable::Locked(
            "can't be opened with this Passphrase (if it is right, rewrite the key with `ssh-keygen -p`)".into(),
        ),
        // The SSH library (ssh-key 0.7) can't read a P-256 key in OpenSSH's format if the private number starts with a
        // zero byte (1 of 256 keys). Other formats work.
        (russh::keys::Error::SshKey(e), _) if text.contains("BEGIN OPENSSH") => {
            Unusable::Other(format!("can't be used: {e} (rewrite the key with `ssh-keygen -p -m PKCS8`)"))
        }
        (e, _) => Unusable::Other(format!("can't be used: {e}")),
    })
}
