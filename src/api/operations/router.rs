//! The routes of health and metrics, in every process.

use axum::Router;
use axum::extract::FromRef;
use utoipa_axum::router::OpenApiRouter;

use super::operations_state::Operations;
use super::{health, metrics};
use crate::api::problem::Problem;
use crate::api::problem_kind::ProblemKind;
use crate::api::server::layers::with_middleware_without_cors;

/// `/health/*` and `/metrics`.
pub fn routes<S>() -> OpenApiRouter<S>
where
    S: Clone + Send + Sync + 'static,
    Operations: FromRef<S>,
{
    OpenApiRouter::new()
        .merge(health::routes())
        .merge(metrics::routes())
}

/// All routes of a process that serves no API.
pub fn operations_router(operations: Operations) -> Router {
    let (routes, _) = routes::<Operations>().split_for_parts();
    with_middleware_without_cors(routes.fallback(not_served).with_state(operations))
}

async fn not_served() -> Problem {
    Problem::new(
        ProblemKind::NotFound,
        "this process is a worker (GRIDTOKENX_ROLE=worker): it answers /health/live, /health/ready and /metrics; \
         other processes serve the API",
    )
}
