//! The state that handlers share; each takes the part it needs as `State<Part>`.

use axum::extract::FromRef;
use sqlx::PgPool;

use super::auth::caller_auth::CallerAuth;
use super::auth::stream_auth::StreamAuth;
use super::chain_access::{ChainAccess, MintingStatus};
use super::live_feed::LiveFeed;
use super::operations::operations_state::Operations;
use super::origin::CorsOrigins;
use crate::readings::Intake;

/// Everything that handlers work with. Each part is a handle: clones share one state.
#[derive(Clone, FromRef)]
pub struct AppState {
    pub pool: PgPool,
    pub auth: CallerAuth,
    /// Stores readings.
    pub intake: Intake,
    pub chain: ChainAccess,
    pub minting: MintingStatus,
    pub feed: LiveFeed,
    pub cors_origins: CorsOrigins,
    /// Health and metrics.
    pub operations: Operations,
}

impl FromRef<AppState> for StreamAuth {
    fn from_ref(state: &AppState) -> StreamAuth {
        StreamAuth {
            auth: state.auth.clone(),
            feed: state.feed.clone(),
            cors_origins: state.cors_origins.clone(),
            pool: state.pool.clone(),
        }
    }
}
