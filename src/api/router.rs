//! All routes, and what lies around them.

use axum::Router;
use axum::http::{HeaderName, HeaderValue, Method, header};
use axum::middleware;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::cors::{AllowOrigin, CorsLayer};
use utoipa_axum::router::OpenApiRouter;

use super::operations::state as operations;
use super::resources::{events, meters, readings, websocket};
use super::server::middleware as request;
use super::{admin, console, openapi, queue_console};
use crate::api::state::AppState;
use crate::telemetry::traces::{TRACEPARENT, TRACERESPONSE};

/// The whole service over HTTP.
pub fn router(state: AppState) -> Router {
    let (routes, document) = documented_routes().split_for_parts();
    let routes = routes
        .merge(openapi::routes(document))
        .merge(console::routes())
        .merge(queue_console::routes(&state));
    with_middleware(routes, state)
}

/// Puts around routes what every request passes.
pub(super) fn with_middleware(routes: Router<AppState>, state: AppState) -> Router {
    let cors = cors(&state.cors_origins);
    routes
        .with_state(state)
        .layer(CatchPanicLayer::custom(request::answer_to_panic))
        .layer(cors)
        .layer(middleware::from_fn(request::request_context))
}

/// The same around a door that no page of another origin calls.
pub(super) fn with_operations_middleware(routes: Router) -> Router {
    routes
        .layer(CatchPanicLayer::custom(request::answer_to_panic))
        .layer(middleware::from_fn(request::request_context))
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
            request::REQUEST_ID,
            TRACEPARENT,
        ])
        .expose_headers([
            request::REQUEST_ID,
            TRACERESPONSE,
            header::RETRY_AFTER,
            header::LOCATION,
        ])
}
