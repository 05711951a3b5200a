//! Checks whether a host certificate of a trusted CA is valid for a host and time.

use std::time::{SystemTime, UNIX_EPOCH};

use russh::keys::ssh_key::certificate::CertType;
use russh::keys::{Algorithm, Certificate, HashAlg};

use crate::names::host_pattern;

/// Checks whether a host certificate is valid for `host` at the time `now`. The error is the reason why the certificate
/// is not valid. Does not check that its CA is trusted.
pub(super) fn acceptable(certificate: &Certificate, host: &str, now: SystemTime) -> Result<(), String> {
    let host = host.to_ascii_lowercase();
    let now = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    if certificate.cert_type() != CertType::Host {
        return Err("this is a user's certificate, not a host's".into());
    }
    if matches!(certificate.signature().algorithm(), Algorithm::Dsa | Algorithm::Rsa { hash: None }) {
        return Err("the CA signed the certificate with an algorithm that is no longer safe".into());
    }
    if !certificate.valid_principals().iter().any(|name| host_pattern::matches(&name.to_ascii_lowercase(), &host)) {
        return Err(format!("the certificate is for {}, not for {host}", listed(certificate.valid_principals())));
    }
    if let Some((option, _)) = certificate.critical_options().iter().next() {
        return Err(format!("the certificate has the critical option {option:?}, which is not allowed for hosts"));
    }
    if now < certificate.valid_after() {
        return Err("the certificate is not valid yet; is the clock right?".into());
    }
    if now >= certificate.valid_before() {
        return Err("the certificate has expired; is the clock right?".into());
    }
    let authority = certificate.signature_key().fingerprint(HashAlg::Sha256);
    certificate.validate_at(now, [&authority]).map_err(|_| "the certificate's signature is invalid".into())
}

fn listed(principals: &[String]) -> String {
    if principals.is_empty() { "no host at all".into() } else { format!("{:?}", principals.join(", ")) }
}
