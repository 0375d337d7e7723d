//! What admins see and do: one file per resource.

mod chain;
mod status;

use utoipa_axum::router::OpenApiRouter;

use super::state::AppState;

pub fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().merge(status::routes())
}
