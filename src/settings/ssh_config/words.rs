//! Single values of an ssh config: hops, times, tokens.

use std::time::Duration;

use crate::settings::problems::Diagnostic;
use crate::settings::values;

/// One hop as written: `[user@]host[:port]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::settings) struct Hop {
    pub(in crate::settings) user: Option<String>,
    pub(in crate::settings) host: String,
    pub(in crate::settings) port: Option<u16>,
}

/// A `ProxyJump`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::settings) enum Jump {
    /// A direct connection, even if the ssh config names hops.
    None,
    /// Through these hops, the nearest first.
    Through(Vec<Hop>),
}

/// Parses `none`, or hops separated by commas.
pub(in crate::settings) fn jump(text: &str) -> Result<Jump, Diagnostic> {
    if text.eq_ignore_ascii_case("none") || text == "no" {
        return Ok(Jump::None);
    }
    let hops: Vec<Hop> = values::list(text).map(hop).collect::<Result<_, _>>()?;
    values::not_empty(text).map(|_| Jump::Through(hops))
}

fn hop(text: &str) -> Result<Hop, Diagnostic> {
    let plain = text.strip_prefix("ssh://").unwrap_or(text);
    let (user, place) = plain.rsplit_once('@').map_or((None, plain), |(user, place)| (Some(user), place));
    let no_hop =
        || Diagnostic::new("invalid hop", "expected [user@]host[:port], several of them separated by commas, or none");
    // The diagnostic does not repeat the text, because it may contain a misplaced password.
    if user.is_some_and(|user| user.is_empty() || user.contains(':')) {
        return Err(no_hop());
    }
    let (host, port) = values::address(place).map_err(|_| no_hop())?;
    Ok(Hop { user: user.map(str::to_owned), host, port })
}

/// Parses OpenSSH's times: `15`, `90s`, `1h30m`.
pub(super) fn time(text: &str) -> Result<Duration, Diagnostic> {
    let diagnostic =
        || Diagnostic::new(format!("invalid time `{text}`"), "expected seconds, or a time such as 90s or 1m30s");
    let mut seconds: u64 = 0;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let number: u64 = rest[..digits].parse().map_err(|_| diagnostic())?;
        let mut behind = rest[digits..].chars();
        let unit = match behind.next().map(|c| c.to_ascii_lowercase()) {
            None | Some('s') => 1,
            Some('m') => 60,
            Some('h') => 3600,
            Some('d') => 86_400,
            Some('w') => 7 * 86_400,
            Some(_) => return Err(diagnostic()),
        };
        seconds = number.checked_mul(unit).and_then(|more| seconds.checked_add(more)).ok_or_else(diagnostic)?;
        rest = behind.as_str();
    }
    if text.is_empty() { Err(diagnostic()) } else { Ok(Duration::from_secs(seconds)) }
}

/// Parses `yes` or `no`, with OpenSSH's synonyms.
pub(super) fn yes_or_no(text: &str) -> Result<bool, Diagnostic> {
    match text.to_ascii_lowercase().as_str() {
        "yes" | "true" => Ok(true),
        "no" | "false" => Ok(false),
        _ => Err(Diagnostic::new(format!("invalid value `{text}`"), "expected yes or no")),
    }
}

/// Replaces tokens, which consist of `%` and a letter, with their values. `%%` stands for `%`.
pub(super) fn expand(text: &str, tokens: &[(char, String)]) -> Result<String, Diagnostic> {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        match chars.next() {
            Some('%') => out.push('%'),
            token => match tokens.iter().find(|(name, _)| Some(*name) == token) {
                Some((_, value)) => out.push_str(value),
                None => {
                    let token = token.map(String::from).unwrap_or_default();
                    let known: Vec<_> = tokens.iter().map(|(name, _)| format!("%{name}")).collect();
                    let remedy = format!("known are %% and {}", known.join(", "));
                    return Err(Diagnostic::new(format!("unknown token `%{token}`"), remedy));
                }
            },
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[test]
    fn hops_are_taken_apart() {
        let hop = |user: Option<&str>, host: &str, port| Hop { user: user.map(str::to_owned), host: host.into(), port };
        let through = |text: &str| match jump(text).unwrap() {
            Jump::Through(hops) => hops,
            Jump::None => panic!("{text}"),
        };
        assert_eq!(through("bastion"), [hop(None, "bastion", None)]);
        assert_eq!(through("ann@a.example:2222, b"), [hop(Some("ann"), "a.example", Some(2222)), hop(None, "b", None)]);
        assert_eq!(through("ssh://ann@[::1]:22"), [hop(Some("ann"), "::1", Some(22))]);
        assert_eq!(through("a@b@c"), [hop(Some("a@b"), "c", None)]);
        assert_eq!(jump("none"), Ok(Jump::None));
        for bad in ["", "@a", "ann:hunter2@a", "a:0", "a b", "a:b:c"] {
            assert!(jump(bad).is_err_and(|c| !c.message.contains("hunter2")), "{bad}");
        }
    }

    #[rstest]
    #[case("15", 15)]
    #[case("90s", 90)]
    #[case("1m30", 90)]
    #[case("1H30M", 5400)]
    fn times_add_up(#[case] text: &str, #[case] seconds: u64) {
        assert_eq!(time(text), Ok(Duration::from_secs(seconds)));
    }

    #[rstest]
    fn what_is_no_time_is_refused(#[values("", "s", "1x", "-1", "1.5", "99999999999999999999")] text: &str) {
        assert!(time(text).is_err());
    }

    #[test]
    fn tokens_are_replaced_and_strange_ones_told() {
        let tokens = [('h', "a.example".to_owned()), ('r', "ann".to_owned())];
        assert_eq!(expand("%r@%h:100%%", &tokens).unwrap(), "ann@a.example:100%");
        assert!(expand("%C", &tokens).unwrap_err().remedy.contains("%h, %r"));
        assert!(expand("%", &tokens).is_err());
    }
}
