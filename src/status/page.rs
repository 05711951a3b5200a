//! The status page: HTML, script and style files embedded in the program.

use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;

/// Returns the page's routes. Scripts and styles are separate files, so that the content security policy can forbid
/// inline scripts and styles.
pub(super) fn router() -> Router {
    let file =
        |kind: &'static str, text: &'static str| get(async move || ([(CONTENT_TYPE, kind)], text).into_response());
    Router::new()
        .route("/", file("text/html; charset=utf-8", include_str!("page/index.html")))
        .route("/page.css", file("text/css; charset=utf-8", include_str!("page/page.css")))
        .route("/page.js", file("text/javascript; charset=utf-8", include_str!("page/page.js")))
        .route("/words.js", file("text/javascript; charset=utf-8", include_str!("page/words.js")))
        .route("/table.js", file("text/javascript; charset=utf-8", include_str!("page/table.js")))
        .route("/vessel.js", file("text/javascript; charset=utf-8", include_str!("page/vessel.js")))
        .route("/queue.js", file("text/javascript; charset=utf-8", include_str!("page/queue.js")))
        .route("/orders.js", file("text/javascript; charset=utf-8", include_str!("page/orders.js")))
        .route("/chart.js", file("text/javascript; charset=utf-8", include_str!("page/chart.js")))
        .route("/icon.svg", file("image/svg+xml", include_str!("page/icon.svg")))
}
