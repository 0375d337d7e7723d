//! All routes, and what lies around them.

use axum::Router;
use axum::http::{HeaderName, HeaderValue, Method, header};
use axum::middleware;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::cors::{AllowOrigin, CorsLayer};
use utoipa_axum::router::OpenApiRouter;

use super::state::AppState;
use super::{
    admin, console, edge, events, meters, openapi, operations, queue_console, readings, websocket,
};
use crate::telemetry::traces::{TRACEPARENT, TRACERESPONSE};

/// The whole service over HTTP.
pub fn router(state: AppState) -> Router {
    let (routes, document) = documented_routes().split_for_parts();
    let routes = routes
        .merge(openapi::routes(document))
        .merge(console::routes())
        .merge(queue_console::routes(&state));
    inside_the_edge(routes, state)
}

/// Puts around routes what every request passes.
pub(super) fn inside_the_edge(routes: Router<AppState>, state: AppState) -> Router {
    let cors = cors(&state.cors_origins);
    routes
        .with_state(state)
        .layer(CatchPanicLayer::custom(edge::answer_to_panic))
        .layer(cors)
        .layer(middleware::from_fn(edge::edge))
}

/// The same around a door that no page of another origin calls.
pub(super) fn around(routes: Router) -> Router {
    routes
        .layer(CatchPanicLayer::custom(edge::answer_to_panic))
        .layer(middleware::from_fn(edge::edge))
}

/// Everything that OpenAPI tells about.
pub(super) fn documented_routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::with_openapi(openapi::head())
        .merge(meters::routes())
        .merge(readings::routes())
        .merge(events::routes())
        .merge(websocket::routes())
        .merge(admin::routes())
        .merge(operations::routes())
}

/// Which pages of other origins may call this service from a browser. Tokens travel in a header that a page must set
/// itself, so no credentials mode is needed.
fn cors(origins: &[HeaderValue]) -> CorsLayer {
    CorsLayer::new()
        .allow_origin(AllowOrigin::list(origins.iter().cloned()))
        .allow_methods([Method::GET, Method::POST])
        .allow_headers([
            header::AUTHORIZATION,
            header::CONTENT_TYPE,
            HeaderName::from_static("last-event-id"),
            edge::REQUEST_ID,
            TRACEPARENT,
        ])
        .expose_headers([
            edge::REQUEST_ID,
            TRACERESPONSE,
            header::RETRY_AFTER,
            header::LOCATION,
        ])
}
