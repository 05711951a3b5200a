//! Notifications of events and of the program's health: commands, webhooks, and a heartbeat.

use std::fmt;
use std::time::Duration;

use url::Url;

use super::placeholders;
use super::problems::Diagnostic;
use super::secrets::Secret;
use super::values::{self, Start};
use super::written_value::Written;
use crate::records::EventKind;

/// `Webhook`, `WebhookSecret`, `Heartbeat`, `HeartbeatInterval`, `OnBudget`, `OnTrouble`, `HookTimeout`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Notifications {
    /// `Webhook`: addresses that all events are posted to.
    pub webhooks: Vec<WebAddress>,
    /// `WebhookSecret` or `WebhookSecretFile`: the key that signs the webhook requests.
    pub webhook_secret: Option<Secret>,
    /// `Heartbeat`: the address that is requested while the program is healthy.
    pub heartbeat: Option<WebAddress>,
    /// `HeartbeatInterval`: the interval between two heartbeat requests.
    pub heartbeat_interval: Duration,
    /// `OnBudget`: the command that runs when a budget is nearly or wholly spent; empty: none.
    pub on_budget: Vec<String>,
    /// `OnTrouble`: the command that runs when a trouble begins or ends; empty: none.
    pub on_trouble: Vec<String>,
    /// `HookTimeout`: the time limit of each command for an event.
    pub hook_timeout: Duration,
}

/// `OnDelivered`, `OnRetired`, `OnParked`: commands. First the program, then its arguments; empty: none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hooks {
    /// `OnDelivered`: runs when a vessel has acknowledged a file.
    pub on_delivered: Vec<String>,
    /// `OnRetired`: runs when a source that every vessel has was moved to `processed/` or deleted.
    pub on_retired: Vec<String>,
    /// `OnParked`: runs when a delivery was parked.
    pub on_parked: Vec<String>,
}

impl Hooks {
    /// Returns the command for a kind of event; empty: none.
    pub fn on(&self, kind: EventKind) -> &[String] {
        match kind {
            EventKind::Delivered => &self.on_delivered,
            EventKind::Retired => &self.on_retired,
            EventKind::Parked => &self.on_parked,
        }
    }
}

/// A web address. Displayed without its path, which may be a secret.
#[derive(Clone, PartialEq, Eq)]
pub struct WebAddress(Url);

impl WebAddress {
    /// Returns the whole address.
    pub fn url(&self) -> &Url {
        &self.0
    }

    /// Returns whether data sent to the address is protected from third parties, by TLS or because it stays on this
    /// host.
    pub(super) fn is_private(&self) -> bool {
        self.0.scheme() != "http" || is_this_host(&self.0)
    }
}

impl fmt::Display for WebAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.origin().ascii_serialization())
    }
}

impl fmt::Debug for WebAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Parses a command into words; `none` yields no words. If the program contains a `/`, it is resolved like other paths
/// in the settings.
pub(super) fn command(written: &Written<'_>) -> Result<Vec<String>, Diagnostic> {
    placeholders::check_spelling(written.text)?;
    let of_one_vessel = ["{vessel}", "{group}"].into_iter().find(|word| written.text.contains(word));
    if let Some(word) = of_one_vessel.filter(|_| written.key.name == "OnRetired") {
        let message = format!("`{word}` has no value here, because OnRetired runs once for all vessels");
        return Err(Diagnostic::new(message, "remove it, or use OnDelivered"));
    }
    words(written.text, written.view.start)
}

fn words(text: &str, start: &Start) -> Result<Vec<String>, Diagnostic> {
    if text == "none" {
        return Ok(Vec::new());
    }
    let diagnostic = |message| {
        Diagnostic::new(message, "write a program and its arguments, quoted as for a shell; no shell is used")
    };
    let mut words = shell_words::split(values::not_empty(text)?).map_err(|_| diagnostic("a quote is not closed"))?;
    if words.first().is_none_or(String::is_empty) {
        return Err(diagnostic("the command is empty"));
    }
    if words[0].contains('/') {
        let path = start.path(&words[0])?;
        words[0] = path.to_str().map(str::to_owned).ok_or_else(|| {
            Diagnostic::new("the program's path is not UTF-8 text", "write the path in full, or move the program")
        })?;
    }
    Ok(words)
}

/// Parses web addresses, separated by commas.
pub(super) fn web_addresses(written: &Written<'_>) -> Result<Vec<WebAddress>, Diagnostic> {
    values::list(written.text).map(web_address).collect()
}

/// Parses an address with `http://` or `https://`. Diagnostics don't repeat the address, because it may contain a
/// password.
pub(super) fn web_address(text: &str) -> Result<WebAddress, Diagnostic> {
    let remedy = "expected one such as https://example.com/hook";
    let url = Url::parse(values::not_empty(text)?)
        .map_err(|e| Diagnostic::new(format!("invalid web address: {e}"), remedy))?;
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        return Err(Diagnostic::new("the address is neither http:// nor https://", remedy));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(Diagnostic::new("the address contains a user or a password", "put a token into the path instead"));
    }
    Ok(WebAddress(url))
}

fn is_this_host(url: &Url) -> bool {
    match url.host() {
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        Some(url::Host::Domain(name)) => name == "localhost",
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_split_as_a_shell_does_and_run_by_none() {
        let start = Start { beside: "/etc/cm".into(), home: Some("/home/ann".into()) };
        let split = |text| words(text, &start).unwrap();
        assert_eq!(split("logger -t 'content monster' $PATH"), ["logger", "-t", "content monster", "$PATH"]);
        assert_eq!(split("hooks/told.sh a"), ["/etc/cm/hooks/told.sh", "a"]);
        assert_eq!(split("~/told"), ["/home/ann/told"]);
        assert_eq!(split("none"), Vec::<String>::new());
        for bad in ["", "a 'b", "''", "# nothing"] {
            assert!(words(bad, &start).is_err(), "{bad}");
        }
    }

    #[test]
    fn web_addresses_are_shown_without_what_may_be_a_secret() {
        let address = web_address("https://hooks.example.com:8443/T0K3N?x=1").unwrap();
        assert_eq!(
            (address.to_string(), format!("{address:?}").contains("T0K3N")),
            ("https://hooks.example.com:8443".into(), false)
        );
        for bad in ["", "example.com", "ftp://example.com/", "https://", "https://ann:hunter2@example.com/", "http:/x"]
        {
            let refused = web_address(bad).map(drop);
            assert!(bad == "http:/x" || refused.is_err(), "{bad}");
            assert!(!format!("{refused:?}").contains("hunter2"));
        }
    }
}
