//! The system that is replayed against.

use std::sync::Arc;
use std::time::Duration;

use super::api_client::ApiClient;
use crate::commands::tokens::TokenSource;

/// How long nothing may change before the replay counts as stalled: an answer of the chain takes seconds, proof that a
/// transaction is dead two minutes.
pub const STALL_LIMIT: Duration = Duration::from_secs(15 * 60);

/// The system that is replayed against, and the patience with it.
pub struct Target {
    pub api: ApiClient,
    pub ws_url: String,
    pub tokens: Arc<TokenSource>,
    /// End the replay when nothing changes for this long; `None`: report it and keep waiting.
    pub give_up_after: Option<Duration>,
}
