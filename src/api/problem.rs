//! Refusals as RFC 9457 problem documents, and how each room's errors become one.

use std::time::Duration;

use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Serialize, Serializer};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::admin::AdminError;
use crate::api::auth::authenticator::AuthError;
use crate::db::SqlCondition;
use crate::ledger::{LedgerError, ResolveError, RetryError};
use crate::meters::MeterError;
use crate::readings::ReadingError;

/// Media type of a problem document.
pub const PROBLEM_JSON: HeaderValue = HeaderValue::from_static("application/problem+json");

/// How long a client is asked to wait when the service cannot say it better.
pub const RETRY_AFTER_UNAVAILABLE: Duration = Duration::from_secs(2);

/// The kinds of refusal. Each has a stable address, explained in `docs/api.md`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProblemKind {
    MalformedRequest,
    ValidationFailed,
    Unauthorized,
    Forbidden,
    NotFound,
    MethodNotAllowed,
    RequestTimeout,
    Conflict,
    PayloadTooLarge,
    UnsupportedMediaType,
    UpgradeRequired,
    RateLimited,
    InternalError,
    Unavailable,
}

impl ProblemKind {
    pub const ALL: [ProblemKind; 14] = [
        ProblemKind::MalformedRequest,
        ProblemKind::ValidationFailed,
        ProblemKind::Unauthorized,
        ProblemKind::Forbidden,
        ProblemKind::NotFound,
        ProblemKind::MethodNotAllowed,
        ProblemKind::RequestTimeout,
        ProblemKind::Conflict,
        ProblemKind::PayloadTooLarge,
        ProblemKind::UnsupportedMediaType,
        ProblemKind::UpgradeRequired,
        ProblemKind::RateLimited,
        ProblemKind::InternalError,
        ProblemKind::Unavailable,
    ];

    /// Status, address and title, in one row each.
    const fn row(self) -> (StatusCode, &'static str, &'static str) {
        match self {
            ProblemKind::MalformedRequest => (
                StatusCode::BAD_REQUEST,
                "/problems/malformed-request",
                "Malformed request",
            ),
            ProblemKind::ValidationFailed => (
                StatusCode::BAD_REQUEST,
                "/problems/validation-failed",
                "Validation failed",
            ),
            ProblemKind::Unauthorized => (
                StatusCode::UNAUTHORIZED,
                "/problems/unauthorized",
                "Unauthorized",
            ),
            ProblemKind::Forbidden => (StatusCode::FORBIDDEN, "/problems/forbidden", "Forbidden"),
            ProblemKind::NotFound => (StatusCode::NOT_FOUND, "/problems/not-found", "Not found"),
            ProblemKind::MethodNotAllowed => (
                StatusCode::METHOD_NOT_ALLOWED,
                "/problems/method-not-allowed",
                "Method not allowed",
            ),
            ProblemKind::RequestTimeout => (
                StatusCode::REQUEST_TIMEOUT,
                "/problems/request-timeout",
                "Request timeout",
            ),
            ProblemKind::Conflict => (StatusCode::CONFLICT, "/problems/conflict", "Conflict"),
            ProblemKind::PayloadTooLarge => (
                StatusCode::PAYLOAD_TOO_LARGE,
                "/problems/payload-too-large",
                "Payload too large",
            ),
            ProblemKind::UnsupportedMediaType => (
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "/problems/unsupported-media-type",
                "Unsupported media type",
            ),
            ProblemKind::UpgradeRequired => (
                StatusCode::UPGRADE_REQUIRED,
                "/problems/upgrade-required",
                "Upgrade required",
            ),
            ProblemKind::RateLimited => (
                StatusCode::TOO_MANY_REQUESTS,
                "/problems/rate-limited",
                "Rate limited",
            ),
            ProblemKind::InternalError => (
                StatusCode::INTERNAL_SERVER_ERROR,
                "/problems/internal-error",
                "Internal error",
            ),
            ProblemKind::Unavailable => (
                StatusCode::SERVICE_UNAVAILABLE,
                "/problems/unavailable",
                "Unavailable",
            ),
        }
    }

    pub const fn status(self) -> StatusCode {
        self.row().0
    }

    /// Stable relative URI: the problem's `type`.
    pub const fn uri(self) -> &'static str {
        self.row().1
    }

    pub const fn title(self) -> &'static str {
        self.row().2
    }

    /// The kind that says what a bare status means; for answers that no room of ours wrote.
    pub fn of_status(status: StatusCode) -> ProblemKind {
        ProblemKind::ALL
            .into_iter()
            .find(|kind| kind.status() == status)
            .unwrap_or(if status.is_server_error() {
                ProblemKind::InternalError
            } else {
                ProblemKind::MalformedRequest
            })
    }
}

/// One refusal: what kind, the sentence that tells the client what to do, and what else belongs to the answer.
#[derive(Clone, Debug)]
pub struct Problem {
    kind: ProblemKind,
    sentence: String,
    members: Map<String, Value>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Problem {
    pub fn new(kind: ProblemKind, sentence: impl Into<String>) -> Problem {
        Problem {
            kind,
            sentence: sentence.into(),
            members: Map::new(),
            headers: Vec::new(),
        }
    }

    /// 503 with Retry-After: nothing is wrong with the request, the same one will do later.
    pub fn unavailable(sentence: impl Into<String>) -> Problem {
        Problem::new(ProblemKind::Unavailable, sentence).retry_after(RETRY_AFTER_UNAVAILABLE)
    }

    /// 500. The cause is logged here, once; the client gets the request id to ask about, never the cause.
    pub fn internal(cause: impl std::fmt::Display) -> Problem {
        tracing::error!(error = %cause, "a request failed for a reason of our own");
        Problem::internal_told_before()
    }

    /// 500 whose cause is in the log already.
    pub fn internal_told_before() -> Problem {
        Problem::new(
            ProblemKind::InternalError,
            "the service failed; tell the operator the x-request-id of this answer",
        )
    }

    /// For an error of the database: 503 when it does not answer, 500 otherwise.
    pub fn database(error: &sqlx::Error) -> Problem {
        match SqlCondition::of(error) {
            SqlCondition::NoAnswer => {
                tracing::warn!(%error, "a request was refused: the database does not answer");
                Problem::unavailable("the database does not answer at the moment; try again later")
            }
            SqlCondition::SerializationConflict
            | SqlCondition::RolledBack
            | SqlCondition::LockTimeout
            | SqlCondition::ReadOnly
            | SqlCondition::RefusesConnections
            | SqlCondition::CannotServe => {
                tracing::warn!(%error, "a request was refused: the database cannot serve it now");
                Problem::unavailable(
                    "the database cannot serve the request at the moment; try again later",
                )
            }
            SqlCondition::ClientFailure
            | SqlCondition::BadValue
            | SqlCondition::IdleInTransactionTimeout
            | SqlCondition::SystemError
            | SqlCondition::SchemaMismatch
            | SqlCondition::UniqueViolation
            | SqlCondition::BadRow => Problem::internal(error),
        }
    }

    /// Adds a member to the document, for instance the reading that an interval overlaps.
    pub fn with(mut self, member: &str, value: impl Into<Value>) -> Problem {
        self.members.insert(member.to_owned(), value.into());
        self
    }

    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Problem {
        self.headers.push((name, value));
        self
    }

    /// Asks the client to come back after this time, in whole seconds, at least one.
    pub fn retry_after(self, wait: Duration) -> Problem {
        let seconds = wait.as_millis().div_ceil(1000).max(1);
        let seconds = u64::try_from(seconds).unwrap_or(u64::MAX);
        self.header(header::RETRY_AFTER, HeaderValue::from(seconds))
    }

    pub fn kind(&self) -> ProblemKind {
        self.kind
    }

    pub fn status(&self) -> StatusCode {
        self.kind.status()
    }

    /// The human sentence: what is wrong and what to do.
    pub fn sentence(&self) -> &str {
        &self.sentence
    }

    /// The document that the client gets.
    pub fn document(&self) -> ProblemDocument {
        ProblemDocument {
            type_uri: self.kind.uri().to_owned(),
            title: self.kind.title().to_owned(),
            status: self.kind.status().as_u16(),
            detail: self.sentence.clone(),
            error: self.sentence.clone(),
            members: self.members.clone(),
        }
    }
}

/// RFC 9457 problem document. `error` repeats the sentence under the name that older clients know.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "type": "/problems/validation-failed",
    "title": "Validation failed",
    "status": 400,
    "detail": "Reading validation failed: kwh_amount 120.5 is above this service's limit of 100 kWh per reading",
    "error": "Reading validation failed: kwh_amount 120.5 is above this service's limit of 100 kWh per reading",
}))]
pub struct ProblemDocument {
    /// Stable address of this kind of problem, relative to the service.
    #[serde(rename = "type")]
    type_uri: String,
    /// The kind of problem in a few words.
    title: String,
    /// The HTTP status once more.
    #[schema(minimum = 400, maximum = 599)]
    status: u16,
    /// What is wrong with this request, and what to do.
    detail: String,
    /// The same sentence as `detail`.
    error: String,
    /// What else belongs to this problem, for instance the reading that an interval overlaps.
    #[serde(flatten)]
    #[schema(ignore)]
    members: Map<String, Value>,
}

/// Items of a bulk answer carry their problem as a document.
impl Serialize for Problem {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.document().serialize(serializer)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let document = self.document();
        let mut response = (self.status(), axum::Json(document)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, PROBLEM_JSON);
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        for (name, value) in self.headers {
            headers.insert(name, value);
        }
        response
    }
}

impl From<AuthError> for Problem {
    fn from(error: AuthError) -> Problem {
        if let AuthError::KeysUnavailable = error {
            return Problem::unavailable(error.to_string());
        }
        // RFC 6750, section 3: a request without a token gets no error code.
        let challenge = if let AuthError::Missing = error {
            HeaderValue::from_static("Bearer realm=\"gridtokenx\"")
        } else {
            HeaderValue::from_static("Bearer realm=\"gridtokenx\", error=\"invalid_token\"")
        };
        Problem::new(ProblemKind::Unauthorized, error.to_string())
            .header(header::WWW_AUTHENTICATE, challenge)
    }
}

impl From<MeterError> for Problem {
    fn from(error: MeterError) -> Problem {
        let kind = match &error {
            MeterError::Serial(_)
            | MeterError::Wallet(_)
            | MeterError::WalletOfProgram { .. }
            | MeterError::IntervalMinutes { .. }
            | MeterError::Owner { .. } => ProblemKind::ValidationFailed,
            MeterError::OwnerOfAnother => ProblemKind::Forbidden,
            MeterError::OwnedByAnother { .. }
            | MeterError::OtherWallet { .. }
            | MeterError::OtherInterval { .. } => ProblemKind::Conflict,
            MeterError::ChainUnavailable { .. } => return Problem::unavailable(error.to_string()),
            MeterError::Database(cause) => return Problem::database(cause),
        };
        Problem::new(kind, error.to_string())
    }
}

impl From<ReadingError> for Problem {
    fn from(error: ReadingError) -> Problem {
        let kind = match &error {
            ReadingError::Invalid(_) => ProblemKind::ValidationFailed,
            ReadingError::UnknownMeter { .. } => ProblemKind::NotFound,
            ReadingError::OtherValue { reading_id, .. }
            | ReadingError::Overlap { reading_id, .. } => {
                return Problem::new(ProblemKind::Conflict, error.to_string())
                    .with("reading_id", reading_id.to_string());
            }
            ReadingError::Busy
            | ReadingError::Stopping
            | ReadingError::Unavailable
            | ReadingError::OutcomeUnknown => return Problem::unavailable(error.to_string()),
            // Its cause was logged where it was met.
            ReadingError::NotStored => ProblemKind::InternalError,
            ReadingError::Database(cause) => return Problem::database(cause),
        };
        Problem::new(kind, error.to_string())
    }
}

impl From<AdminError> for Problem {
    fn from(error: AdminError) -> Problem {
        match error {
            AdminError::Reason(_) => Problem::new(ProblemKind::ValidationFailed, error.to_string()),
            AdminError::Wallet(error) => error.into(),
            AdminError::Retry(error) => error.into(),
            AdminError::Resolve(error) => error.into(),
            AdminError::Database(error) => error.into(),
        }
    }
}

impl From<RetryError> for Problem {
    fn from(error: RetryError) -> Problem {
        let sentence = error.to_string();
        match error {
            RetryError::Unknown { .. } => Problem::new(ProblemKind::NotFound, sentence),
            RetryError::NotRetryable { state, .. } => {
                Problem::new(ProblemKind::Conflict, sentence).with("state", state.as_str())
            }
            RetryError::Ledger(error) => error.into(),
        }
    }
}

impl From<ResolveError> for Problem {
    fn from(error: ResolveError) -> Problem {
        let sentence = error.to_string();
        match error {
            ResolveError::Unknown { .. } => Problem::new(ProblemKind::NotFound, sentence),
            ResolveError::NotQuarantined { state, .. } => {
                Problem::new(ProblemKind::Conflict, sentence).with("state", state.as_str())
            }
            ResolveError::NotExpired { .. }
            | ResolveError::NotOnChain { .. }
            | ResolveError::NotSettled { .. }
            | ResolveError::FailedOnChain { .. }
            | ResolveError::HasLanded { .. } => Problem::new(ProblemKind::Conflict, sentence),
            ResolveError::Ledger(error) => error.into(),
        }
    }
}

impl From<LedgerError> for Problem {
    fn from(error: LedgerError) -> Problem {
        match error {
            LedgerError::Database(cause) => cause.into(),
            LedgerError::Chain(cause) => {
                tracing::warn!(error = %cause, "a request was refused: the chain does not answer");
                Problem::unavailable(
                    "no Solana RPC endpoint answers at the moment; try again later",
                )
            }
            LedgerError::Unreadable { .. } => Problem::internal(error),
        }
    }
}

impl From<sqlx::Error> for Problem {
    fn from(error: sqlx::Error) -> Problem {
        Problem::database(&error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_have_different_addresses() {
        let mut addresses: Vec<_> = ProblemKind::ALL.iter().map(|kind| kind.uri()).collect();
        addresses.sort_unstable();
        addresses.dedup();
        assert_eq!(addresses.len(), ProblemKind::ALL.len());
    }

    #[test]
    fn every_kind_is_explained_in_the_documentation() {
        let documentation = include_str!("../../docs/api.md");
        for kind in ProblemKind::ALL {
            assert!(
                documentation.contains(&format!("`{}`", kind.uri())),
                "docs/api.md does not explain {}",
                kind.uri()
            );
        }
    }

    #[tokio::test]
    async fn the_document_has_its_members_and_headers() {
        let response = Problem::new(ProblemKind::Conflict, "the interval overlaps reading 7")
            .with("reading_id", "7")
            .retry_after(Duration::from_millis(1200))
            .into_response();
        assert_eq!(response.status(), StatusCode::CONFLICT);
        assert_eq!(response.headers()[header::CONTENT_TYPE], PROBLEM_JSON);
        assert_eq!(response.headers()[header::RETRY_AFTER], "2");
        let body = axum::body::to_bytes(response.into_body(), 4096)
            .await
            .unwrap();
        assert_eq!(
            serde_json::from_slice::<Value>(&body).unwrap(),
            serde_json::json!({
                "type": "/problems/conflict",
                "title": "Conflict",
                "status": 409,
                "detail": "the interval overlaps reading 7",
                "error": "the interval overlaps reading 7",
                "reading_id": "7",
            })
        );
    }

    #[test]
    fn a_status_that_is_not_ours_still_has_a_kind() {
        assert_eq!(
            ProblemKind::of_status(StatusCode::IM_A_TEAPOT),
            ProblemKind::MalformedRequest
        );
        assert_eq!(
            ProblemKind::of_status(StatusCode::BAD_GATEWAY),
            ProblemKind::InternalError
        );
    }
}
