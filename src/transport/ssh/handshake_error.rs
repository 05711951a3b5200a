//! Errors of the SSH handshake and the login, with the text that the server sent.

use super::client_handler::SharedNotes;
use super::endpoint::Endpoint;
use crate::transport::ConnectError;

/// Explains a failed handshake with a server that sent the text `said` instead of an SSH version.
pub(super) fn no_version(endpoint: &Endpoint, said: &str, why: &str) -> String {
    // An SSH server sends these texts if it has too many connections.
    let is_busy = ["Exceeded MaxStartups", "Not allowed at this time"].iter().any(|text| said.starts_with(text));
    if is_busy {
        return format!("the server rejects connections for now: it sent `{said}` instead of an SSH version ({why})");
    }
    format!(
        "the server sent `{said}` instead of an SSH version, so it is not an SSH server; check {}",
        endpoint.key_setting("Address and Port")
    )
}

pub(super) fn login_refused(endpoint: &Endpoint, why: String, remedy: String) -> ConnectError {
    ConnectError::Login { place: endpoint.place(), user: endpoint.host().username.clone(), why, remedy }
}

pub(super) fn handshake(endpoint: &Endpoint, why: String) -> ConnectError {
    ConnectError::Handshake { place: endpoint.place(), why }
}

/// Appends the banner that the server sent before the login to an error text, if there is a banner.
pub(super) fn with_banner(why: String, notes: &SharedNotes) -> String {
    match &notes.lock().banner {
        Some(banner) => format!("{why}; the server says: {banner}"),
        None => why,
    }
}

/// Appends the reason why the connection ended to an error text, if the reason is known. The SSH library reports this
/// reason only to its handler.
pub(super) fn with_note(why: String, notes: &SharedNotes) -> String {
    let note = notes.lock().ended.clone();
    match note {
        Some(note) if note != why => format!("{why}; {note}"),
        _ => why,
    }
}
