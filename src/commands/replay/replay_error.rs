//! The errors that end a replay early.

use std::time::Duration;

use thiserror::Error;

use super::api_client::ApiError;
use super::data_file::DataFileError;

/// The replay ended before its last reading was final.
#[derive(Debug, Error)]
pub enum ReplayError {
    #[error(transparent)]
    DataFile(#[from] DataFileError),
    #[error("meter {meter} cannot be registered: {source}")]
    Register { meter: String, source: ApiError },
    #[error(transparent)]
    Api(#[from] ApiError),
    #[error(
        "{open} of {accepted} accepted readings are not final and nothing has changed for {} minutes; see `GET /api/readings/{{id}}/timeline` for what they wait for", .limit.as_secs() / 60
    )]
    Stalled {
        open: u64,
        accepted: u64,
        limit: Duration,
    },
}
