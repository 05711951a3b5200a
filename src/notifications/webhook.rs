//! Posts events to one URL, in order and in batches. A failed post is retried until the URL accepts the events or they
//! are older than 1 day.
//!
//! The format of a post has a version number; fields may be added under the same number.

use std::time::Duration;

use hmac::{Hmac, KeyInit, Mac};
use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;
use sha2::Sha256;

use super::Desk;
use super::facts::Facts;
use super::http::Client;
use super::log_once::LogOnce;
use crate::backoff::Backoff;
use crate::bell::Bell;
use crate::clock::WaryClock;
use crate::digest::Digest;
use crate::ledger::{LedgerError, Notice, NoticeId};
use crate::settings::WebAddress;
use crate::text::counted;

/// The version of the format of a post.
const FORM: u32 = 1;
/// Maximum number of events in one post.
const AT_ONCE: u32 = 100;
/// Age after which an event is dropped, in milliseconds: 1 day.
const OLDEST: i64 = 24 * 3600 * 1000;
/// The delays between attempts to post.
const WAITS: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(600));
/// Longest time between two queries to the ledger, in case the bell is not rung.
const ANYWAY: Duration = Duration::from_secs(60);

/// The body of a post.
#[derive(Serialize)]
struct Post<E> {
    version: u32,
    shore: String,
    events: Vec<E>,
}

/// Posts one event to an address, without retrying.
pub(super) async fn post_once<E: Serialize>(
    desk: &Desk,
    client: &Client,
    address: &WebAddress,
    event: E,
) -> Result<(), String> {
    post_events(desk, client, address, vec![event]).await
}

async fn post_events<E: Serialize>(
    desk: &Desk,
    client: &Client,
    address: &WebAddress,
    events: Vec<E>,
) -> Result<(), String> {
    let now = Timestamp::from_millisecond(desk.clock.now_ms()).unwrap_or(Timestamp::UNIX_EPOCH);
    let post = Post { version: FORM, shore: desk.ledger.instance().to_string(), events };
    let body = serde_json::to_vec(&post).map_err(|e| e.to_string())?;
    let mut headers = vec![("x-contentmonster-timestamp", now.as_second().to_string())];
    if let Some(secret) = &desk.settings.monster.notifications.webhook_secret {
        headers.push(("x-contentmonster-signature", signature(secret, now.as_second(), &body)));
    }
    let posted = desk.stop.run_until_cancelled(client.post(address.url(), &headers, body)).await;
    let Some(posted) = posted else { return Err("contentmonster is stopping".to_owned()) };
    let result = posted.as_ref().copied().map_err(String::as_str);
    desk.hooks.note(&format!("webhook {address}"), desk.clock.now_ms(), result);
    posted
}

/// Returns the name of the address's channel in the ledger: a hash, because the address may be a secret.
pub(super) fn channel(address: &WebAddress) -> String {
    format!("webhook {}", &Digest::of(address.url().as_str().as_bytes()).to_string()[..16])
}

/// Posts events until `desk.stop` is cancelled. Once `desk.finish` is cancelled, ends as soon as no event is left or
/// the URL does not accept the events.
pub(super) async fn post(desk: Desk, client: Client, address: WebAddress, channel: String, bell: Bell) {
    let wary = WaryClock::new(desk.clock.clone());
    let mut poster = Poster { wary, desk, client, address, channel, logged: LogOnce::default() };
    let mut failures = 0;
    loop {
        let what = format!("Webhook at {}", poster.address);
        let wait = match poster.post_some().await {
            Ok(true) => {
                failures = 0;
                poster.logged.is_over(&what);
                Duration::ZERO
            }
            Ok(false) if poster.desk.finish.is_cancelled() => return,
            Ok(false) => ANYWAY,
            Err(_) if poster.desk.stop.is_cancelled() => return,
            Err(why) => {
                poster.logged.about(&what, &format!("{why}; events are kept for 1 day and retried"));
                if poster.desk.finish.is_cancelled() {
                    return;
                }
                failures += 1;
                WAITS.wait(failures, fastrand::f64())
            }
        };
        let rung = async {
            // A new event must not shorten the delay after a failure.
            if failures > 0 { std::future::pending().await } else { bell.rung().await }
        };
        tokio::select! {
            () = rung => {}
            () = tokio::time::sleep(wait) => {}
            () = poster.desk.finish.cancelled() => {}
            () = poster.desk.stop.cancelled() => return,
        }
    }
}

struct Poster {
    desk: Desk,
    client: Client,
    address: WebAddress,
    channel: String,
    logged: LogOnce,
    /// The clock that determines the age of events.
    wary: WaryClock,
}

impl Poster {
    /// Posts one batch of pending events. Returns `false` when no events are pending.
    async fn post_some(&self) -> Result<bool, String> {
        let notices = self.waiting().await.map_err(|e| e.to_string())?;
        if notices.is_empty() {
            return Ok(false);
        }
        let events = notices.iter().map(|notice| Facts::of(notice, &self.desk.settings).json()).collect();
        post_events(&self.desk, &self.client, &self.address, events).await?;
        let ids: Vec<NoticeId> = notices.iter().map(|notice| notice.id).collect();
        self.desk.ledger.told(&ids).await.map_err(|e| e.to_string())?;
        Ok(true)
    }

    /// Returns the next pending events, after dropping those that are older than 1 day.
    async fn waiting(&self) -> Result<Vec<Notice>, LedgerError> {
        loop {
            let mut notices = self.desk.ledger.notices(&self.channel, NoticeId(0), AT_ONCE).await?;
            let too_old = self.wary.now_ms().saturating_sub(OLDEST);
            let old: Vec<NoticeId> =
                notices.extract_if(.., |notice| notice.at < too_old).map(|notice| notice.id).collect();
            if old.is_empty() {
                return Ok(notices);
            }
            tracing::warn!(
                "Dropped {} that the webhook at {} did not accept for 1 day",
                counted(old.len(), "event"),
                self.address
            );
            self.desk.ledger.told(&old).await?;
        }
    }
}

/// Returns the signature of a post: `sha256=` and the HMAC of the timestamp, a dot and the body, in hexadecimal.
fn signature(secret: &SecretString, timestamp: i64, body: &[u8]) -> String {
    let mut mac =
        Hmac::<Sha256>::new_from_slice(secret.expose_secret().as_bytes()).expect("HMAC accepts keys of any length");
    mac.update(format!("{timestamp}.").as_bytes());
    mac.update(body);
    let hex: String = mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256={hex}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_what_openssl_makes_of_it() {
        // printf '1700000000.{"a":1}' | openssl dgst -sha256 -hmac open-sesame
        let secret = SecretString::from("open-sesame");
        let openssl = "sha256=fe178b8b4871d0c3cea950fa350f158cb993504744ee5fd8af6694ddc680f5b7";
        assert_eq!(signature(&secret, 1_700_000_000, br#"{"a":1}"#), openssl);
    }
}
