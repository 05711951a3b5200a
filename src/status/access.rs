//! Access control for the HTTP service: checks the `Host` header and the token for orders, and adds response headers
//! that protect browsers from attacks through the service.

use std::net::IpAddr;

use axum::extract::{Request, State};
use axum::http::header::{self, HeaderName, HeaderValue};
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use secrecy::{ExposeSecret, SecretString};

use crate::digest::Digest;

/// The access rules of a listening socket.
#[derive(Clone)]
pub(super) enum Access {
    /// No check is needed: only the user that runs this program can open the socket.
    Trusted,
    /// Every request requires a `Host` that names this machine. Orders also require this token; without a configured
    /// token, all orders are refused.
    Public(Option<SecretString>),
}

impl Access {
    /// Returns whether the sender of these headers may give orders.
    pub(super) fn may_order(&self, headers: &HeaderMap) -> bool {
        let Self::Public(token) = self else { return true };
        let (Some(token), Some(given)) = (token, bearer(headers)) else { return false };
        // Compares the digests, so that the duration of the comparison reveals nothing about the token.
        Digest::of(token.expose_secret().as_bytes()) == Digest::of(given)
    }

    /// Returns whether orders are accepted at all.
    pub(super) fn takes_orders(&self) -> bool {
        !matches!(self, Self::Public(None))
    }
}

fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    headers.get(header::AUTHORIZATION)?.as_bytes().strip_prefix(b"Bearer ")
}

/// Rejects requests whose `Host` does not name this machine: a hostile web page can make a browser send them (DNS
/// rebinding). Adds [`HEADERS`] to all responses.
pub(super) async fn guard(State(access): State<Access>, request: Request, next: Next) -> Response {
    let honest = match access {
        Access::Trusted => true,
        Access::Public(_) => is_ours(request.headers().get(header::HOST)),
    };
    let mut response = if honest {
        next.run(request).await
    } else {
        let advice = "unknown host name in the request: open this page by its IP address, or as localhost (a proxy must set the Host \
                      header to one of them)\n";
        (StatusCode::MISDIRECTED_REQUEST, advice).into_response()
    };
    for (name, value) in HEADERS {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

/// Response headers: a browser may load scripts, styles and images only from this service and send requests only to it,
/// and no page may show it in a frame.
const HEADERS: [(HeaderName, &str); 6] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; base-uri 'none'; \
         form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'",
    ),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::CACHE_CONTROL, "no-store"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
];

/// Returns whether `host` may name this machine: it is any IP address, `localhost`, or this machine's own host name.
fn is_ours(host: Option<&HeaderValue>) -> bool {
    let Some(host) = host.and_then(|host| host.to_str().ok()) else { return false };
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    let own = rustix::system::uname();
    name.parse::<IpAddr>().is_ok()
        || name.eq_ignore_ascii_case("localhost")
        || own.nodename().to_str().is_ok_and(|own| name.eq_ignore_ascii_case(own))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_nobody_else_can_give_us_are_taken() {
        for (host, taken) in [
            ("127.0.0.1:8022", true),
            ("192.0.2.7", true),
            ("[::1]:8022", true),
            ("localhost:8022", true),
            ("LOCALHOST", true),
            ("evil.example:8022", false),
            ("127.0.0.1.evil.example", false),
            ("localhost.evil.example", false),
            ("", false),
        ] {
            assert_eq!(is_ours(Some(&HeaderValue::from_static(host))), taken, "{host}");
        }
        assert!(!is_ours(None));
    }

    #[test]
    fn an_order_needs_the_whole_token_and_without_one_there_are_no_orders() {
        let headers =
            |value: &'static str| HeaderMap::from_iter([(header::AUTHORIZATION, HeaderValue::from_static(value))]);
        let access = Access::Public(Some(SecretString::from("seven seas")));
        assert!(access.may_order(&headers("Bearer seven seas")));
        for wrong in ["Bearer seven sea", "Bearer seven seas ", "seven seas", "Bearer "] {
            assert!(!access.may_order(&headers(wrong)), "{wrong}");
        }
        assert!(!access.may_order(&HeaderMap::new()));
        assert!(!Access::Public(None).may_order(&headers("Bearer ")));
        assert!(Access::Trusted.may_order(&HeaderMap::new()));
    }
}
