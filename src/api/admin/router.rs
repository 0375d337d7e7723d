//! The routes of the admin API.

use utoipa_axum::router::OpenApiRouter;

use super::{auto_mint, batches, log, log_level, reading_retry, status, transactions, trigger};
use crate::api::state::AppState;

pub fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .merge(status::routes())
        .merge(batches::routes())
        .merge(trigger::routes())
        .merge(auto_mint::routes())
        .merge(reading_retry::routes())
        .merge(transactions::routes())
        .merge(log::routes())
        .merge(log_level::routes())
}
