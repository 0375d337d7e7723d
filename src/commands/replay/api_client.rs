//! The service as its clients see it: REST with a token, and retries.
//!
//! Every call here is idempotent: a meter that is registered again and a reading that is submitted again get the answer of the
//! first time. So every failure on the way is retried, and only a refusal ends a call.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use rand::Rng;
use reqwest::{Client, RequestBuilder, Response, StatusCode, header};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use thiserror::Error;
use tokio::time::sleep;
use uuid::Uuid;

use super::reading_tracker::Acceptance;
use super::schedule::INTERVAL_MINUTES;
use crate::commands::tokens::TokenSource;
use crate::domain::{Backoff, BaseUnits, Jitter, ReadingState, Retries, rfc3339_secs};

/// Above the service's own limit for one request, so that its answer comes first.
const REQUEST_LIMIT: Duration = Duration::from_secs(90);
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
const CALL_BACKOFF: Backoff = Backoff::doubling(Duration::from_millis(100), Duration::from_secs(5))
    .with_jitter(Jitter::HALF_TO_FULL);
/// A service that requests a longer pause than its rate limit's minute is called again after this.
const RETRY_AFTER_LIMIT: Duration = Duration::from_secs(60);
/// Clients that received the same Retry-After do not all return in the same second.
const RETRY_AFTER_SCATTER_MS: u64 = 500;
/// Readings per page when states are polled.
const PAGE_SIZE: usize = 1000;

/// A call ended without an answer.
#[derive(Debug, Error)]
pub enum ApiError {
    /// A retry would be refused again.
    #[error("{reason} ({status})")]
    Refused { status: StatusCode, reason: String },
    #[error("the service's answer is not understood: {0}")]
    Malformed(reqwest::Error),
    #[error("no HTTP client can be made: {0}")]
    Client(reqwest::Error),
}

/// A client of the REST API.
#[derive(Clone)]
pub struct ApiClient {
    http: Client,
    api_url: String,
    tokens: Arc<TokenSource>,
}

/// One reading as the API accepts it.
#[derive(Clone, Debug)]
pub struct Submission {
    pub meter: String,
    pub kwh: String,
    pub start: DateTime<Utc>,
    pub end: DateTime<Utc>,
}

#[derive(Deserialize)]
struct SubmitAnswer {
    reading_id: Uuid,
    duplicate: bool,
    state: ReadingState,
    base_units: BaseUnits,
}

/// A page of readings and the cursor of the next one.
#[derive(Deserialize)]
pub struct ReadingPage {
    pub readings: Vec<ReadingLine>,
    pub next: Option<String>,
}

/// A reading in a page of `GET /api/readings`.
#[derive(Deserialize)]
pub struct ReadingLine {
    pub reading_id: Uuid,
    pub state: ReadingState,
}

#[derive(Deserialize)]
struct Problem {
    error: String,
}

impl ApiClient {
    /// `api_url` without a slash at the end.
    pub fn new(api_url: &str, tokens: Arc<TokenSource>) -> Result<ApiClient, ApiError> {
        let http = Client::builder()
            .connect_timeout(CONNECT_LIMIT)
            .timeout(REQUEST_LIMIT)
            // The service runs on this machine, so a proxy that the environment names is not used.
            .no_proxy()
            .build()
            .map_err(ApiError::Client)?;
        Ok(ApiClient {
            http,
            api_url: api_url.to_owned(),
            tokens,
        })
    }

    /// Registers a meter of the token's subject.
    pub async fn register(&self, meter: &str, wallet: &str) -> Result<(), ApiError> {
        let body = json!({
            "meter_id": meter,
            "wallet_address": wallet,
            "interval_minutes": INTERVAL_MINUTES,
        });
        let (_, _): (serde_json::Value, _) = self
            .call(|http| {
                http.post(format!("{}/api/meters", self.api_url))
                    .json(&body)
            })
            .await?;
        Ok(())
    }

    /// Submits one reading, until it is accepted or refused permanently.
    pub async fn submit(&self, reading: &Submission) -> Result<Acceptance, ApiError> {
        let body = json!({
            "meter_id": reading.meter,
            "kwh_amount": reading.kwh,
            "interval_start": rfc3339_secs(reading.start),
            "reading_timestamp": rfc3339_secs(reading.end),
        });
        let url = format!("{}/api/meters/submit-reading", self.api_url);
        let (answer, tries): (SubmitAnswer, u32) =
            self.call(|http| http.post(&url).json(&body)).await?;
        Ok(Acceptance {
            reading_id: answer.reading_id,
            state: answer.state,
            base_units: answer.base_units,
            // A duplicate of an earlier try of this call is this run's reading.
            is_old: answer.duplicate && tries == 1,
        })
    }

    /// The readings of the token's subject, or of one of its meters, in the order in which they were accepted.
    pub async fn readings(
        &self,
        meter: Option<&str>,
        after: Option<&str>,
    ) -> Result<ReadingPage, ApiError> {
        let url = format!("{}/api/readings", self.api_url);
        let mut query = vec![("limit", PAGE_SIZE.to_string())];
        query.extend(meter.map(|meter| ("meter_id", meter.to_owned())));
        query.extend(after.map(|after| ("after", after.to_owned())));
        let (page, _) = self.call(|http| http.get(&url).query(&query)).await?;
        Ok(page)
    }

    /// Returns the answer and the number of tries that it took.
    async fn call<T: DeserializeOwned>(
        &self,
        request: impl Fn(&Client) -> RequestBuilder,
    ) -> Result<(T, u32), ApiError> {
        let mut retries = Retries::new(CALL_BACKOFF);
        let mut tries = 0;
        loop {
            tries += 1;
            let sent = request(&self.http)
                .bearer_auth(self.tokens.token())
                .send()
                .await;
            let wait = match sent {
                Ok(answer) if answer.status().is_success() => match answer.json().await {
                    Ok(answer) => return Ok((answer, tries)),
                    Err(error) if error.is_decode() => return Err(ApiError::Malformed(error)),
                    Err(_) => retries.next_delay(rand::random()),
                },
                Ok(answer) if is_transient(answer.status()) => {
                    retry_after(&answer).unwrap_or_else(|| retries.next_delay(rand::random()))
                }
                Ok(answer) => return Err(refusal(answer).await),
                Err(error) if error.is_builder() => return Err(ApiError::Client(error)),
                Err(_) => retries.next_delay(rand::random()),
            };
            sleep(wait).await;
        }
    }
}

/// Whether the service may answer a moment later.
fn is_transient(status: StatusCode) -> bool {
    status == StatusCode::TOO_MANY_REQUESTS
        || status == StatusCode::REQUEST_TIMEOUT
        || status.is_server_error()
}

fn retry_after(answer: &Response) -> Option<Duration> {
    let seconds = answer
        .headers()
        .get(header::RETRY_AFTER)?
        .to_str()
        .ok()?
        .parse()
        .ok()?;
    let scatter = Duration::from_millis(rand::rng().random_range(0..=RETRY_AFTER_SCATTER_MS));
    Some(Duration::from_secs(seconds).min(RETRY_AFTER_LIMIT) + scatter)
}

async fn refusal(answer: Response) -> ApiError {
    let status = answer.status();
    let text = answer.text().await.unwrap_or_default();
    let reason = serde_json::from_str::<Problem>(&text).map_or(text, |problem| problem.error);
    ApiError::Refused { status, reason }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use axum::Json;
    use axum::extract::State;
    use axum::http::HeaderMap;
    use axum::response::IntoResponse;
    use axum::routing::post;

    use super::*;
    use crate::commands::tokens::test_tokens;

    type Seen = Arc<Mutex<Vec<serde_json::Value>>>;

    /// Refuses the first call as overloaded, fails the second, and accepts the third as a duplicate.
    async fn overloaded_at_first(
        State(seen): State<Seen>,
        headers: HeaderMap,
        Json(body): Json<serde_json::Value>,
    ) -> axum::response::Response {
        assert!(
            headers["authorization"]
                .to_str()
                .unwrap()
                .starts_with("Bearer ")
        );
        let mut seen = seen.lock().unwrap();
        seen.push(body);
        match seen.len() {
            1 => (StatusCode::TOO_MANY_REQUESTS, [("retry-after", "0")], "").into_response(),
            2 => StatusCode::BAD_GATEWAY.into_response(),
            3 => Json(json!({
                "success": true, "message": "", "duplicate": true, "state": "pending",
                "reading_id": "01936a00-0000-7000-8000-000000000000", "base_units": "123400000",
            }))
            .into_response(),
            _ => (
                StatusCode::BAD_REQUEST,
                Json(json!({"error": "Reading validation failed: too old"})),
            )
                .into_response(),
        }
    }

    #[tokio::test]
    async fn a_submission_is_repeated_until_it_is_answered_and_a_refusal_is_final() {
        let seen = Seen::default();
        let router = axum::Router::new()
            .route("/api/meters/submit-reading", post(overloaded_at_first))
            .with_state(seen.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let api_url = format!("http://{}", listener.local_addr().unwrap());
        let server = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        let service = ApiClient::new(&api_url, Arc::new(test_tokens())).unwrap();
        let reading = Submission {
            meter: "ausgrid-12-2011-07-01".to_owned(),
            kwh: "0.1234".to_owned(),
            start: "2026-11-24T04:00:00Z".parse().unwrap(),
            end: "2026-11-24T04:30:00Z".parse().unwrap(),
        };

        let acceptance = service.submit(&reading).await.unwrap();
        assert_eq!(acceptance.base_units, BaseUnits::new(123_400_000));
        assert!(!acceptance.is_old, "the duplicate is of this run's own try");
        let refused = service.submit(&reading).await.unwrap_err();
        assert_eq!(
            refused.to_string(),
            "Reading validation failed: too old (400 Bad Request)"
        );

        let seen = seen.lock().unwrap();
        let expected = json!({
            "meter_id": "ausgrid-12-2011-07-01", "kwh_amount": "0.1234",
            "interval_start": "2026-11-24T04:00:00Z", "reading_timestamp": "2026-11-24T04:30:00Z",
        });
        assert_eq!(*seen, vec![expected; 4]);
        server.abort();
    }
}
