//! A small HTTP client: one request per connection, with TLS for `https`. Redirects are not followed.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Method, Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use url::{Host, Url};

use crate::settings::WebAddress;
use crate::text::duration;

/// Timeout for a whole request and its response.
const LIMIT: Duration = Duration::from_secs(30);
/// Maximum number of bytes that are read of a response's body; only the status is used.
const ANSWER: usize = 64 << 10;

/// The HTTP client. Cheap to clone.
#[derive(Clone)]
pub(super) struct Client {
    /// The connector for `https` addresses, or the reason why there is none.
    tls: Result<TlsConnector, String>,
}

impl Client {
    /// Creates a client for these addresses. The system's certificates are read only if an address needs TLS.
    pub(super) async fn new(addresses: impl Iterator<Item = &WebAddress>) -> Self {
        let mut addresses = addresses;
        if !addresses.any(|address| address.url().scheme() == "https") {
            return Self { tls: Err("no address needs it".to_owned()) };
        }
        let tls = tokio::task::spawn_blocking(tls).await.unwrap_or_else(|e| Err(e.to_string()));
        Self { tls: tls.map(|config| TlsConnector::from(Arc::new(config))) }
    }

    /// Sends a GET request.
    ///
    /// # Errors
    /// A message for a person, if the response's status is not a success or there is no response.
    pub(super) async fn get(&self, url: &Url) -> Result<(), String> {
        self.ask(url, Method::GET, &[], Vec::new()).await
    }

    /// Posts JSON to a URL.
    ///
    /// # Errors
    /// As for [`get`](Self::get).
    pub(super) async fn post(&self, url: &Url, headers: &[(&str, String)], body: Vec<u8>) -> Result<(), String> {
        self.ask(url, Method::POST, headers, body).await
    }

    async fn ask(&self, url: &Url, method: Method, headers: &[(&str, String)], body: Vec<u8>) -> Result<(), String> {
        let asking = self.exchange(url, method, headers, body);
        let status = tokio::time::timeout(LIMIT, asking)
            .await
            .map_err(|_| format!("no answer within {}", duration(LIMIT)))??;
        if status.is_success() {
            return Ok(());
        }
        let advice = if status.is_redirection() { "; redirects are not followed: set the final address" } else { "" };
        Err(format!("the answer was {status}{advice}"))
    }

    async fn exchange(
        &self,
        url: &Url,
        method: Method,
        headers: &[(&str, String)],
        body: Vec<u8>,
    ) -> Result<StatusCode, String> {
        let (host, name) = match url.host() {
            Some(Host::Domain(name)) => (name.to_owned(), ServerName::try_from(name.to_owned()).ok()),
            Some(Host::Ipv4(address)) => (address.to_string(), Some(ServerName::from(std::net::IpAddr::from(address)))),
            Some(Host::Ipv6(address)) => (address.to_string(), Some(ServerName::from(std::net::IpAddr::from(address)))),
            None => return Err("the address has no host".to_owned()),
        };
        let port = url.port_or_known_default().unwrap_or(80);
        let mut request = Request::builder()
            .method(method)
            .uri(&url[url::Position::BeforePath..url::Position::AfterQuery])
            .header(header::HOST, &url[url::Position::BeforeHost..url::Position::AfterPort])
            .header(header::USER_AGENT, concat!("contentmonster/", env!("CARGO_PKG_VERSION")))
            .header(header::CONNECTION, "close");
        if !body.is_empty() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        let request = request.body(Full::from(body)).map_err(|e| e.to_string())?;
        let stream = TcpStream::connect((host, port)).await.map_err(|e| format!("cannot connect: {e}"))?;
        if url.scheme() != "https" {
            return send(stream, request).await;
        }
        let tls = self.tls.as_ref().map_err(|why| format!("TLS is not available: {why}"))?;
        let name = name.ok_or("the host name is not valid in a certificate")?;
        let stream = tls.connect(name, stream).await.map_err(|e| format!("TLS failed: {e}"))?;
        send(stream, request).await
    }
}

async fn send(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Full<Bytes>>,
) -> Result<StatusCode, String> {
    let failed = |e: hyper::Error| format!("the connection failed: {e}");
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
    let asking = async {
        let answer = sender.send_request(request).await.map_err(failed)?;
        let status = answer.status();
        // A response that is too long to be read completely still counts, because its status is known.
        Limited::new(answer.into_body(), ANSWER).collect().await.ok();
        Ok(status)
    };
    tokio::pin!(asking);
    tokio::select! {
        answer = &mut asking => answer,
        // The connection may end before the response was read completely, so the rest of the response is read here.
        _ = connection => asking.await,
    }
}

/// Returns a TLS configuration with the certificates that this system trusts.
fn tls() -> Result<ClientConfig, String> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    let (usable, _) = roots.add_parsable_certificates(found.certs);
    if usable == 0 {
        let why = found.errors.first().map(|e| format!(": {e}")).unwrap_or_default();
        return Err(format!("this system has no CA certificates (Debian: install ca-certificates){why}"));
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    Ok(config.map_err(|e| e.to_string())?.with_root_certificates(roots).with_no_client_auth())
}
