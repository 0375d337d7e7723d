//! All routes of the API.

use axum::Router;
use utoipa_axum::router::OpenApiRouter;

use super::auth::ticket;
use super::operations::router as operations;
use super::resources::{event_stream, events, meters, readings, submissions, websocket};
use super::server::layers::with_middleware;
use super::state::AppState;
use super::{admin, console, openapi, queue_console};

/// The whole service over HTTP.
pub fn router(state: AppState) -> Router {
    let (routes, document) = documented_routes().split_for_parts();
    let routes = routes
        .merge(openapi::routes(document))
        .merge(console::routes())
        .merge(queue_console::router::routes(&state));
    let cors_origins = state.cors_origins.clone();
    with_middleware(routes.with_state(state), &cors_origins)
}

/// Everything that the OpenAPI document describes.
pub fn documented_routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::with_openapi(openapi::head())
        .merge(meters::routes())
        .merge(submissions::routes())
        .merge(readings::routes())
        .merge(events::routes())
        .merge(event_stream::routes())
        .merge(websocket::routes())
        .merge(ticket::routes())
        .merge(admin::router::routes())
        .merge(operations::routes())
}

#[cfg(test)]
mod tests {
    use crate::api::test_support::{NO_DATABASE, call, request, test_state};
    use axum::body::Body;
    use axum::http::Request;

    use super::*;

    #[tokio::test]
    async fn an_unknown_path_is_a_problem() {
        let router = router(test_state(NO_DATABASE, 100));
        for path in ["/nothing", "/api/nothing", "/docs/nothing.js", "//"] {
            let answer = call(&router, request("GET", path)).await;
            assert!(answer.problem(404, "not-found").contains("GET /docs"));
        }
    }

    #[tokio::test]
    async fn a_method_that_is_not_allowed_lists_those_that_are() {
        let router = router(test_state(NO_DATABASE, 100));
        for path in ["/health/live", "/", "/api/openapi.json", "/metrics"] {
            let answer = call(&router, request("DELETE", path)).await;
            let sentence = answer.problem(405, "method-not-allowed");
            assert_eq!(
                sentence,
                "DELETE is not allowed here; the header `Allow` lists what is"
            );
            assert_eq!(answer.header("allow"), "GET,HEAD");
        }
    }

    #[tokio::test]
    async fn only_configured_origins_may_call_from_a_browser() {
        let router = router(test_state(NO_DATABASE, 100));
        let preflight = |origin: &str| {
            Request::builder()
                .method("OPTIONS")
                .uri("/api/admin/tokenization/status")
                .header("origin", origin)
                .header("access-control-request-method", "GET")
                .header("access-control-request-headers", "authorization")
                .body(Body::empty())
                .unwrap()
        };
        let allowed = call(&router, preflight("https://grid.example")).await;
        assert_eq!(
            allowed.header("access-control-allow-origin"),
            "https://grid.example"
        );
        let other = call(&router, preflight("https://elsewhere.example")).await;
        assert!(!other.headers.contains_key("access-control-allow-origin"));
    }
}
