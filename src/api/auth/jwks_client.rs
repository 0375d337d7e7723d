//! Fetches the key set of the identity provider.

use std::error::Error as _;
use std::fmt;
use std::time::Duration;

use thiserror::Error;

use super::published_keys::PublishedKeys;

/// Limit of one fetch; the start waits for it.
pub(super) const FETCH_LIMIT: Duration = Duration::from_secs(5);

/// A key set has a few keys of some kilobytes.
const DOCUMENT_BYTES_MAX: usize = 256 * 1024;

/// A fetch that brought no keys.
#[derive(Debug, Error)]
pub(super) enum FetchError {
    #[error("{}", WithCauses(.0))]
    Request(reqwest::Error),
    #[error("the answer is longer than {DOCUMENT_BYTES_MAX} bytes")]
    TooLong,
    #[error("no key set: {0}")]
    NoKeySet(#[from] serde_json::Error),
    #[error("the answer holds no RSA or P-256 signing key")]
    NoSigningKey,
}

/// Without the URL, which may hold a password.
impl From<reqwest::Error> for FetchError {
    fn from(error: reqwest::Error) -> FetchError {
        FetchError::Request(error.without_url())
    }
}

/// An error and its causes, which reqwest keeps out of its sentence.
struct WithCauses<'a>(&'a reqwest::Error);

impl fmt::Display for WithCauses<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(formatter, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

/// The client for the URL of one key set.
pub(super) struct JwksClient {
    url: String,
    http: reqwest::Client,
}

impl JwksClient {
    pub fn new(url: String) -> Result<JwksClient, reqwest::Error> {
        let http = reqwest::Client::builder()
            .timeout(FETCH_LIMIT)
            .redirect(reqwest::redirect::Policy::none())
            .build()?;
        Ok(JwksClient { url, http })
    }

    /// One key at least.
    pub async fn fetch(&self) -> Result<PublishedKeys, FetchError> {
        let response = self.http.get(&self.url).send().await?;
        let mut response = response.error_for_status()?;
        let mut document = Vec::new();
        while let Some(chunk) = response.chunk().await? {
            if document.len() + chunk.len() > DOCUMENT_BYTES_MAX {
                return Err(FetchError::TooLong);
            }
            document.extend_from_slice(&chunk);
        }
        let keys = PublishedKeys::parse(&document)?;
        if keys.is_empty() {
            return Err(FetchError::NoSigningKey);
        }
        Ok(keys)
    }
}
