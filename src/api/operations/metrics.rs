//! `GET /metrics`.

use axum::extract::{FromRef, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use metrics::gauge;
use sqlx::PgPool;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::operations_state::Operations;
use crate::telemetry::{self, names};

const TEXT_FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";

pub(super) fn routes<S>() -> OpenApiRouter<S>
where
    S: Clone + Send + Sync + 'static,
    Operations: FromRef<S>,
{
    OpenApiRouter::new().routes(routes!(scrape))
}

/// Metrics in the Prometheus text format.
#[utoipa::path(
    get,
    path = "/metrics",
    tag = "operations",
    responses((status = 200, description = "All metrics", body = String, content_type = "text/plain"))
)]
async fn scrape(State(state): State<Operations>) -> Response {
    state
        .figures
        .refresh(&state.pool, state.fee_budget.view())
        .await;
    telemetry::update_process_metrics();
    show_pool(&state.pool);
    (
        [(header::CONTENT_TYPE, TEXT_FORMAT)],
        state.metrics.render(),
    )
        .into_response()
}

fn show_pool(pool: &PgPool) {
    let open = pool.size();
    // A pool has at most some hundreds of connections.
    let idle = u32::try_from(pool.num_idle()).unwrap_or(u32::MAX);
    for (state, connections) in [
        // The two figures are read one after the other while connections open and close.
        ("in_use", open.saturating_sub(idle)),
        ("idle", idle),
        ("limit", pool.options().get_max_connections()),
    ] {
        gauge!(names::DATABASE_CONNECTIONS, "state" => state).set(f64::from(connections));
    }
}
