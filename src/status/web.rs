//! The HTTP service and its routes. docs/src/operations.md lists the paths.

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{Query, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, StatusCode};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use futures_util::Stream;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::access::{Access, guard};
use super::changes::changes;
use super::doors::{self, Pages};
use super::queue::{QueueError, QueueQuestion};
use super::receipts::DeliveriesQuestion;
use super::socket::Socket;
use super::{Gatherer, metrics, page};
use crate::ledger::LedgerError;
use crate::orders::{Order, Orders};
use crate::text::visible_json;

/// Time between two documents of `/api/events`.
const BEAT: Duration = Duration::from_millis(500);
/// Maximum time that responses in progress may still take when the program stops.
const GRACE: Duration = Duration::from_secs(1);

/// The resources of the HTTP service. Cheap to clone.
#[derive(Clone)]
pub struct Web {
    /// The assembler of documents; replaced when the settings change.
    pub gatherer: watch::Receiver<Arc<Gatherer>>,
    /// The executor of orders.
    pub orders: Orders,
    /// The token that stops the service.
    pub stop: CancellationToken,
}

impl Web {
    fn gatherer(&self) -> Arc<Gatherer> {
        self.gatherer.borrow().clone()
    }
}

/// A listening socket of the HTTP service.
pub enum Listening {
    /// The Unix socket, which only the user that runs this program can open.
    Socket(Socket),
    /// A TCP port, which other users and hosts may reach. Orders require the token; without a token they are refused.
    Port(TcpListener, Option<SecretString>),
}

/// Listens on a TCP address.
///
/// # Errors
/// When the address is in use, or not local.
pub async fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(address).await
}

/// Serves HTTP until [`Web::stop`] is cancelled.
///
/// # Errors
/// When the listener fails.
pub async fn serve(web: Web, listening: Listening) -> io::Result<()> {
    let stop = web.stop.clone();
    let serving = async {
        match listening {
            Listening::Socket(mut socket) => {
                let Some(listener) = socket.take() else { return Ok(()) };
                let pages = Pages::default();
                let app = |from| router(web.clone(), Access::Trusted, pages.clone(), from);
                doors::attend(listener, app, stop.clone()).await
            }
            Listening::Port(listener, token) => {
                let pages = Pages::default();
                let app = |from| router(web.clone(), Access::Public(token.clone()), pages.clone(), from);
                doors::attend(listener, app, stop.clone()).await
            }
        }
    };
    let out_of_time = async {
        stop.cancelled().await;
        tokio::time::sleep(GRACE).await;
    };
    tokio::select! {
        served = serving => served,
        () = out_of_time => Ok(()),
    }
}

#[derive(Clone)]
struct App {
    web: Web,
    access: Access,
    pages: Pages,
    /// The remote address of the connection; `None` for the Unix socket.
    from: Option<IpAddr>,
}

fn router(web: Web, access: Access, pages: Pages, from: Option<IpAddr>) -> Router {
    let app = App { web, access: access.clone(), pages, from };
    Router::new()
        .route("/api/status", get(status))
        .route("/api/throughput", get(throughput))
        .route("/api/queue", get(queue))
        .route("/api/deliveries", get(deliveries))
        .route("/api/changes", get(changes_of))
        .route("/api/events", get(events))
        .route("/api/access", get(access_of))
        .route("/api/orders", post(order))
        .route("/metrics", get(metrics_text))
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(readiness))
        .with_state(app)
        .merge(page::router())
        .layer(axum::middleware::from_fn_with_state(access, guard))
        .layer(axum::middleware::from_fn(doors::in_time))
}

/// The response when the ledger can't be read: status 503.
struct Failed(LedgerError);

impl From<LedgerError> for Failed {
    fn from(error: LedgerError) -> Self {
        Self(error)
    }
}

impl IntoResponse for Failed {
    fn into_response(self) -> Response {
        (StatusCode::SERVICE_UNAVAILABLE, format!("{}\n", self.0.fault())).into_response()
    }
}

async fn status(State(app): State<App>) -> Result<Response, Failed> {
    let document = app.web.gatherer().document().await?;
    let Ok(json) = serde_json::to_string(&*document) else {
        return Ok(StatusCode::INTERNAL_SERVER_ERROR.into_response());
    };
    Ok(([(CONTENT_TYPE, "application/json")], visible_json(&json).into_owned()).into_response())
}

async fn queue(
    State(app): State<App>,
    question: Result<Query<QueueQuestion>, QueryRejection>,
) -> Result<Response, Failed> {
    let question = match question {
        Ok(Query(question)) => question,
        Err(rejection) => return Ok((StatusCode::BAD_REQUEST, format!("{rejection}\n")).into_response()),
    };
    answered(app.web.gatherer().queue(&question).await)
}

async fn deliveries(
    State(app): State<App>,
    question: Result<Query<DeliveriesQuestion>, QueryRejection>,
) -> Result<Response, Failed> {
    let question = match question {
        Ok(Query(question)) => question,
        Err(rejection) => return Ok((StatusCode::BAD_REQUEST, format!("{rejection}\n")).into_response()),
    };
    answered(app.web.gatherer().deliveries(&question).await)
}

/// Makes the response to a request for a part of a list.
fn answered(answer: Result<impl Serialize, QueueError>) -> Result<Response, Failed> {
    let answer = match answer {
        Ok(answer) => answer,
        Err(QueueError::Invalid(why)) => return Ok((StatusCode::BAD_REQUEST, format!("{why}\n")).into_response()),
        Err(QueueError::Ledger(e)) => return Err(e.into()),
    };
    let Ok(json) = serde_json::to_string(&answer) else {
        return Ok(StatusCode::INTERNAL_SERVER_ERROR.into_response());
    };
    Ok(([(CONTENT_TYPE, "application/json")], visible_json(&json).into_owned()).into_response())
}

/// A query that may name a vessel.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct OfVessel {
    vessel: Option<String>,
}

async fn throughput(State(app): State<App>, Query(only): Query<OfVessel>) -> Response {
    Json(app.web.gatherer().throughput(only.vessel.as_deref())).into_response()
}

/// Maximum average rate of updates in bytes per second: `FLEET_BYTES` for the whole fleet, `VESSEL_BYTES` for one
/// vessel. A status page may receive both kinds of updates at the same time.
const FLEET_BYTES: u64 = 10 << 10;
const VESSEL_BYTES: u64 = 4 << 10;

/// Streams the changes of the fleet, or of one vessel, to a status page as server-sent events.
async fn changes_of(State(app): State<App>, Query(only): Query<OfVessel>) -> Response {
    let Some(seat) = app.pages.open(app.from) else {
        return (StatusCode::SERVICE_UNAVAILABLE, "too many status pages are open\n").into_response();
    };
    let (stop, web) = (app.web.stop.clone(), app.web);
    let bytes_per_second = if only.vessel.is_some() { VESSEL_BYTES } else { FLEET_BYTES };
    let changes = changes(bytes_per_second, move || {
        // The slot is occupied as long as the stream exists.
        let _ = &seat;
        let (gatherer, vessel) = (web.gatherer(), only.vessel.clone());
        async move {
            match vessel {
                Some(vessel) => gatherer.vessel_in_full(&vessel).await,
                None => gatherer.fleet().await,
            }
        }
    });
    Sse::new(until(changes, stop)).keep_alive(KeepAlive::default()).into_response()
}

async fn metrics_text(State(app): State<App>) -> Result<Response, Failed> {
    let document = app.web.gatherer().document().await?;
    Ok(match metrics::text(document) {
        Ok(text) => ([(CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    })
}

/// Responds whether the program is ready: the ledger responds and holds all files that were present at the start.
async fn readiness(State(app): State<App>) -> Result<Response, Failed> {
    let document = app.web.gatherer().document().await?;
    if let Some(trouble) = &document.ledger.trouble {
        return Ok((StatusCode::SERVICE_UNAVAILABLE, format!("{trouble}\n")).into_response());
    }
    Ok(match document.daemon.as_ref().is_some_and(|daemon| daemon.ready) {
        true => "ready\n".into_response(),
        false => (StatusCode::SERVICE_UNAVAILABLE, "the initial directory scan is not complete\n").into_response(),
    })
}

/// Responds whether this socket accepts any orders, and whether it accepts them from this client.
async fn access_of(State(app): State<App>, headers: HeaderMap) -> Response {
    let (orders, granted) = (app.access.takes_orders(), app.access.may_order(&headers));
    Json(serde_json::json!({ "orders": orders, "granted": granted })).into_response()
}

/// Streams the status document to a status page as server-sent events.
async fn events(State(app): State<App>) -> Response {
    let Some(seat) = app.pages.open(app.from) else {
        return (StatusCode::SERVICE_UNAVAILABLE, "too many status pages are open\n").into_response();
    };
    let stop = app.web.stop.clone();
    let documents = futures_util::stream::unfold((app, seat, None), async |(app, seat, last)| {
        // The first document is sent at once.
        if last.is_some() {
            tokio::time::sleep(BEAT).await;
        }
        let event = match app.web.gatherer().document().await {
            Ok(document) => {
                let json = serde_json::to_string(&*document).ok()?;
                Event::default().event("status").data(visible_json(&json))
            }
            Err(e) => Event::default().event("trouble").data(e.fault().to_string().replace(['\r', '\n'], " ")),
        };
        Some((Ok::<_, Infallible>(event), (app, seat, Some(()))))
    });
    Sse::new(until(documents, stop)).keep_alive(KeepAlive::default()).into_response()
}

fn until<S: Stream>(stream: S, stop: CancellationToken) -> impl Stream<Item = S::Item> {
    use futures_util::StreamExt;
    stream.take_until(stop.cancelled_owned())
}

async fn order(
    State(app): State<App>,
    headers: HeaderMap,
    order: Result<Json<Order>, JsonRejection>,
) -> Result<Response, Failed> {
    if !app.access.may_order(&headers) {
        let why = match app.access.takes_orders() {
            true => "the token is wrong or missing\n",
            false => "orders are not accepted here: ListenToken is not set\n",
        };
        return Ok((StatusCode::FORBIDDEN, why).into_response());
    }
    let order = match order {
        Ok(Json(order)) => order,
        Err(rejection) => return Ok(rejection.into_response()),
    };
    if let Order::Pause { vessel, .. }
    | Order::Resume { vessel }
    | Order::Retry { vessel, .. }
    | Order::AskShell { vessel }
    | Order::Resend { vessel, .. } = &order
        && !app.web.orders.reach(vessel)
    {
        return Ok((StatusCode::NOT_FOUND, format!("there is no [Vessel {vessel}]\n")).into_response());
    }
    if let Order::PauseDirectory { directory, .. } = &order
        && !app.web.orders.knows_directory(directory)
    {
        return Ok((StatusCode::NOT_FOUND, format!("there is no [Directory {directory}]\n")).into_response());
    }
    tracing::info!(?order, "Order received");
    let done = app.web.orders.carry_out(&order).await?;
    app.web.gatherer().refresh().await;
    Ok(Json(serde_json::json!({ "done": done > 0, "count": done })).into_response())
}
