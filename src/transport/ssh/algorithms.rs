//! Algorithms that are offered in addition to the SSH library's defaults, and the error message if both sides have no
//! algorithm in common.

use russh::{Preferred, kex};

use crate::transport::excerpt::excerpt;

/// Returns the key exchanges that are offered: the SSH library's defaults and those on NIST curves, because some
/// appliances support no others.
pub(super) fn key_exchanges() -> Vec<kex::Name> {
    let nist = [kex::ECDH_SHA2_NISTP256, kex::ECDH_SHA2_NISTP384, kex::ECDH_SHA2_NISTP521];
    let mut all = Preferred::DEFAULT.kex.to_vec();
    let after = all.iter().position(|name| *name == kex::DH_GEX_SHA256).unwrap_or(0);
    all.splice(after..after, nist);
    all
}

/// Returns the message for an error of the SSH library. If there is no common algorithm, the message also names the
/// remedy.
pub(super) fn in_words(error: &russh::Error) -> String {
    match error {
        russh::Error::NoCommonAlgo { kind, ours, theirs } => {
            let names = |names: &[String]| excerpt(&names.join(", "));
            let what = format!("{kind:?}").to_ascii_lowercase();
            let (ours, theirs) = (names(ours), names(theirs));
            format!(
                "the server offers only these {what} algorithms, which contentmonster rejects: {theirs}. Enable one of \
                 these on the server: {ours}"
            )
        }
        error => error.to_string(),
    }
}
