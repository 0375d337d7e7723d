//! What admins see and do: one file per resource.

mod chain;
mod log;
mod readings;
mod settings;
mod status;
mod transactions;

use utoipa_axum::router::OpenApiRouter;

use super::state::AppState;

pub fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .merge(status::routes())
        .merge(settings::routes())
        .merge(readings::routes())
        .merge(transactions::routes())
        .merge(log::routes())
}
