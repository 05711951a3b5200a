//! The algorithms that are offered beyond the library's own choice, and what is said where none is common.

use russh::{Preferred, kex};

use crate::transport::excerpt::excerpt;

/// The library's own, and those on NIST's curves, which some appliances have nothing beside.
pub(super) fn key_exchanges() -> Vec<kex::Name> {
    let nist = [kex::ECDH_SHA2_NISTP256, kex::ECDH_SHA2_NISTP384, kex::ECDH_SHA2_NISTP521];
    let mut all = Preferred::DEFAULT.kex.to_vec();
    let after = all.iter().position(|name| *name == kex::DH_GEX_SHA256).unwrap_or(0);
    all.splice(after..after, nist);
    all
}

/// What the library says of a failure; of algorithms, what a person can do.
pub(super) fn in_words(error: &russh::Error) -> String {
    match error {
        russh::Error::NoCommonAlgo { kind, ours, theirs } => {
            let names = |names: &[String]| excerpt(&names.join(", "));
            let what = format!("{kind:?}").to_ascii_lowercase();
            let (ours, theirs) = (names(ours), names(theirs));
            format!(
                "it offers only these {what} algorithms, which contentmonster rejects: {theirs}. Enable one of \
                 these there: {ours}"
            )
        }
        error => error.to_string(),
    }
}
