//! `GET /health/live` and `GET /health/ready`.

use std::time::Duration;

use axum::Json;
use axum::extract::{FromRef, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;
use sqlx::PgPool;
use tokio::sync::Mutex;
use tokio::time::Instant;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::operations::Operations;
use crate::telemetry::Readiness;

/// Probes of load balancers expect an answer within seconds, and an answer after two is worth no more than none.
const PROBE_LIMIT: Duration = Duration::from_millis(1_800);

/// Many probes in a second ask the database once.
const PROBE_AGE_MAX: Duration = Duration::from_secs(1);

const DATABASE: &str = "database";

pub fn routes<S>() -> OpenApiRouter<S>
where
    S: Clone + Send + Sync + 'static,
    Operations: FromRef<S>,
{
    OpenApiRouter::new()
        .routes(routes!(live))
        .routes(routes!(ready))
}

/// Whether the process runs.
///
/// Always 200 while it does. Says nothing about the database or the chain: restarting this process would not cure them.
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

/// Whether readings can be accepted.
///
/// 200 with `ok`, or with `degraded` when the chain, the ledger breaker or the workers need attention while readings are
/// accepted all the same; 503 with `unavailable` when readings cannot be accepted. Answers within two seconds.
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
    // A draining process says so whatever the database does.
    if !state.health.is_draining() {
        match state.database_probe.check(&state.pool).await {
            Ok(()) => state.health.ok(DATABASE),
            Err(reason) => state.health.unavailable(DATABASE, reason),
        }
    }
    let readiness = state.health.readiness();
    let status = match readiness.status {
        crate::telemetry::Status::Ok | crate::telemetry::Status::Degraded => StatusCode::OK,
        crate::telemetry::Status::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
    };
    let headers = [(header::CACHE_CONTROL, "no-store")];
    (status, headers, Json(readiness)).into_response()
}

/// Asks the database whether a reading and its job could be stored now, at most once a second.
#[derive(Default)]
pub struct DatabaseProbe(Mutex<Option<(Instant, Result<(), String>)>>);

impl DatabaseProbe {
    async fn check(&self, pool: &PgPool) -> Result<(), String> {
        let limited = tokio::time::timeout(PROBE_LIMIT, self.check_or_recall(pool)).await;
        limited.unwrap_or_else(|_| Err(no_answer()))
    }

    /// Probes wait here for the one that asks: each waits within its own limit.
    async fn check_or_recall(&self, pool: &PgPool) -> Result<(), String> {
        let mut last = self.0.lock().await;
        if let Some((moment, answer)) = &*last
            && moment.elapsed() < PROBE_AGE_MAX
        {
            return answer.clone();
        }
        let answer = match tokio::time::timeout(PROBE_LIMIT, ask(pool)).await {
            Ok(answer) => answer,
            Err(_) => Err(no_answer()),
        };
        *last = Some((Instant::now(), answer.clone()));
        answer
    }
}

fn no_answer() -> String {
    format!("no answer within {} s", PROBE_LIMIT.as_secs_f64())
}

async fn ask(pool: &PgPool) -> Result<(), String> {
    let answer: Result<(bool, bool), sqlx::Error> = sqlx::query_as(
        "SELECT current_setting('transaction_read_only')::BOOLEAN,
                has_table_privilege('apalis.jobs', 'INSERT')
                AND has_table_privilege('readings', 'INSERT')",
    )
    .fetch_one(pool)
    .await;
    match answer {
        Ok((false, true)) => Ok(()),
        Ok((true, _)) => Err("the database is read-only (a standby?)".to_owned()),
        Ok((false, false)) => {
            Err("the database does not let us insert readings or jobs".to_owned())
        }
        Err(error) => {
            // The text may name hosts and users, which a public probe does not show.
            tracing::warn!(%error, "the database probe failed");
            Err("the database refuses or breaks off; the log says how".to_owned())
        }
    }
}
