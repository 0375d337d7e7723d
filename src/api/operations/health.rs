//! `GET /health/live` and `GET /health/ready`.

use axum::Json;
use axum::extract::{FromRef, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::operations_state::Operations;
use crate::telemetry::{Readiness, Status};

pub(super) fn routes<S>() -> OpenApiRouter<S>
where
    S: Clone + Send + Sync + 'static,
    Operations: FromRef<S>,
{
    OpenApiRouter::new()
        .routes(routes!(live))
        .routes(routes!(ready))
}

/// Reports that the process runs.
///
/// Always 200 while it does. Says nothing about the database or the chain, because a restart of this process would not repair
/// them.
#[utoipa::path(
    get,
    path = "/health/live",
    tag = "operations",
    responses((status = 200, description = "The process runs", body = Object, example = json!({"status": "ok"})))
)]
async fn live() -> Response {
    let headers = [(header::CACHE_CONTROL, "no-store")];
    (headers, Json(json!({"status": "ok"}))).into_response()
}

/// Reports whether readings can be accepted.
///
/// 200 with `ok`, or with `degraded` when the chain, the ledger breaker, the workers or the keys of tokens need attention
/// while readings are still accepted; 503 with `unavailable` when readings cannot be accepted. Answers within two seconds.
#[utoipa::path(
    get,
    path = "/health/ready",
    tag = "operations",
    responses(
        (status = 200, description = "Readings can be accepted", body = Readiness, example = json!({
            "status": "ok",
            "checks": {
                "database": {"status": "ok", "since": "2026-11-25T04:00:00.000Z"},
                "chain": {"status": "ok", "since": "2026-11-25T04:00:00.000Z"},
            },
        })),
        (status = 503, description = "Readings cannot be accepted", body = Readiness, example = json!({
            "status": "unavailable",
            "checks": {
                "database": {
                    "status": "unavailable",
                    "reason": "no answer within 1.8 s",
                    "since": "2026-11-25T04:00:00.000Z",
                },
            },
        })),
    )
)]
async fn ready(State(state): State<Operations>) -> Response {
    // A draining process is unavailable whatever the database reports.
    if !state.health.is_draining() {
        let findings = state.database_probe.check(&state.pool).await;
        findings.report(&state.health);
    }
    let readiness = state.health.readiness();
    let status = match readiness.status {
        Status::Ok | Status::Degraded => StatusCode::OK,
        Status::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
    };
    let headers = [(header::CACHE_CONTROL, "no-store")];
    (status, headers, Json(readiness)).into_response()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use axum::http::StatusCode;
    use serde_json::json;

    use crate::api::router::router;
    use crate::api::test_support::{NO_DATABASE, call, request, test_state};

    #[tokio::test]
    async fn readiness_answers_within_two_seconds_whatever_hangs() {
        // Accepts connections and never answers.
        let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let database = format!("postgres://nobody@{}/none", silent.local_addr().unwrap());
        let router = router(test_state(&database, 100));
        let started = std::time::Instant::now();
        let probe = || call(&router, request("GET", "/health/ready"));
        let (first, second) = tokio::join!(probe(), probe());
        assert!(started.elapsed() < Duration::from_secs(2));
        for answer in [first, second] {
            assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
            let document = answer.json();
            assert_eq!(document["status"], "unavailable");
            assert_eq!(document["checks"]["database"]["status"], "unavailable");
            for part in ["migrations", "queue"] {
                let check = &document["checks"][part];
                assert_eq!(check["status"], "unavailable");
                assert!(check["reason"].as_str().unwrap().starts_with("not known"));
            }
        }
        let live = call(&router, request("GET", "/health/live")).await;
        assert_eq!(live.json(), json!({"status": "ok"}));
        // A scrape returns what the process knows, and reports that the rest is stale.
        let metrics = call(&router, request("GET", "/metrics")).await;
        assert_eq!(metrics.status, StatusCode::OK);
        assert!(
            metrics
                .body
                .contains("\ngridtokenx_unminted_readings_count ")
        );
        assert!(started.elapsed() < Duration::from_secs(5));
    }

    #[tokio::test]
    async fn a_draining_process_is_not_ready() {
        let state = test_state(NO_DATABASE, 100);
        let router = router(state.clone());
        state.operations.health.start_draining();
        let answer = call(&router, request("GET", "/health/ready")).await;
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(
            answer.json()["checks"]["shutdown"]["reason"],
            "this process is draining"
        );
    }
}
