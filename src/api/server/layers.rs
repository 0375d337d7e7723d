//! The layers around all routes.

use axum::Router;
use axum::http::{HeaderName, Method, header};
use axum::middleware::from_fn;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::cors::{AllowOrigin, CorsLayer};

use super::middleware::{REQUEST_ID, answer_to_panic, request_context};
use crate::api::origin::CorsOrigins;
use crate::telemetry::traces::{TRACEPARENT, TRACERESPONSE};

/// Around the API.
pub fn with_middleware(routes: Router, cors_origins: &CorsOrigins) -> Router {
    routes
        .layer(CatchPanicLayer::custom(answer_to_panic))
        .layer(cors(cors_origins))
        .layer(from_fn(request_context))
}

/// Around a server that pages of other origins do not call.
pub fn with_middleware_without_cors(routes: Router) -> Router {
    routes
        .layer(CatchPanicLayer::custom(answer_to_panic))
        .layer(from_fn(request_context))
}

/// Lets pages of the configured origins call this service from a browser. Tokens are sent in a header that a page must set
/// itself, so no credentials mode is needed.
fn cors(origins: &CorsOrigins) -> CorsLayer {
    CorsLayer::new()
        .allow_origin(AllowOrigin::list(origins.iter().cloned()))
        .allow_methods([Method::GET, Method::POST])
        .allow_headers([
            header::AUTHORIZATION,
            header::CONTENT_TYPE,
            HeaderName::from_static("last-event-id"),
            REQUEST_ID,
            TRACEPARENT,
        ])
        .expose_headers([
            REQUEST_ID,
            TRACERESPONSE,
            header::RETRY_AFTER,
            header::LOCATION,
        ])
}
