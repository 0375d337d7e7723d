//! What health and metrics need, and nothing else: all that the door of a worker has.

use std::ops::Deref;
use std::sync::Arc;

use axum::Router;
use axum::extract::FromRef;
use sqlx::PgPool;
use utoipa_axum::router::OpenApiRouter;

use crate::api::operations::health::{self, DatabaseProbe};
use crate::api::operations::metrics::{self, Figures};
use crate::api::problem::{Problem, ProblemKind};
use crate::api::router::with_operations_middleware;
use crate::api::state::AppState;
use crate::chain::FeeBudget;
use crate::telemetry::{Health, Metrics};

/// A clone is the same.
#[derive(Clone)]
pub struct Operations(Arc<Parts>);

pub struct Parts {
    pub pool: PgPool,
    pub health: Health,
    pub metrics: Metrics,
    pub fee_budget: FeeBudget,
    pub(super) database_probe: DatabaseProbe,
    pub(super) figures: Figures,
}

impl Operations {
    pub fn new(
        pool: PgPool,
        health: Health,
        metrics: Metrics,
        fee_budget: FeeBudget,
    ) -> Operations {
        Operations(Arc::new(Parts {
            pool,
            health,
            metrics,
            fee_budget,
            database_probe: DatabaseProbe::default(),
            figures: Figures::default(),
        }))
    }
}

impl Deref for Operations {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}

impl FromRef<AppState> for Operations {
    fn from_ref(state: &AppState) -> Operations {
        state.operations().clone()
    }
}

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

/// The door of a process that serves no API.
pub fn operations_router(operations: Operations) -> Router {
    let (routes, _) = routes::<Operations>().split_for_parts();
    with_operations_middleware(routes.fallback(elsewhere).with_state(operations))
}

async fn elsewhere() -> Problem {
    Problem::new(
        ProblemKind::NotFound,
        "this process is a worker (GRIDTOKENX_ROLE=worker): it answers /health/live, /health/ready and /metrics; \
         the API is served by others",
    )
}
