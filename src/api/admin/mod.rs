//! What admins see and do: one file per resource.

mod batches;
mod chain;
mod log;
mod log_level;
mod readings;
mod settings;
mod status;
mod transactions;
mod trigger;

use utoipa_axum::router::OpenApiRouter;

use crate::api::state::AppState;

pub(super) use trigger::{TRIGGER_PATH, WAIT_SECS_MAX};

pub fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .merge(status::routes())
        .merge(batches::routes())
        .merge(trigger::routes())
        .merge(settings::routes())
        .merge(readings::routes())
        .merge(transactions::routes())
        .merge(log::routes())
        .merge(log_level::routes())
}
