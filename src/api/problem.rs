//! Problem documents (RFC 9457): the one shape of every error answer, and how each room's errors become one.

use std::time::Duration;

use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Serialize, Serializer};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::problem_kind::ProblemKind;
use crate::admin::AdminError;
use crate::admin::batches::BatchRequestError;
use crate::db::SqlCondition;
use crate::domain::AuthError;
use crate::ledger::{LedgerError, ResolveError, RetryError};
use crate::meters::MeterError;
use crate::readings::ReadingError;

/// Media type of a problem document.
pub const PROBLEM_JSON: HeaderValue = HeaderValue::from_static("application/problem+json");

/// Retry-After of a 503 when the service has no better estimate.
pub const RETRY_AFTER_UNAVAILABLE: Duration = Duration::from_secs(2);

/// One error answer: its kind, a sentence that says what is wrong and what to do, and further members and headers.
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

    /// 503 with Retry-After: nothing is wrong with the request, and it can be sent again later.
    pub fn unavailable(sentence: impl Into<String>) -> Problem {
        Problem::new(ProblemKind::Unavailable, sentence).retry_after(RETRY_AFTER_UNAVAILABLE)
    }

    /// 500. The cause is logged here, once. The client gets the request id, which the log has too, and never the cause.
    pub fn internal(cause: impl std::fmt::Display) -> Problem {
        tracing::error!(error = %cause, "request failed: internal error");
        Problem::internal_already_logged()
    }

    /// 500 whose cause was logged before.
    pub fn internal_already_logged() -> Problem {
        Problem::new(
            ProblemKind::InternalError,
            "the service failed; report the x-request-id of this answer to the operator",
        )
    }

    /// For an error of the database: 503 when it does not answer or cannot serve, 500 otherwise.
    pub fn database(error: &sqlx::Error) -> Problem {
        match SqlCondition::of(error) {
            SqlCondition::NoAnswer => {
                tracing::warn!(%error, "request refused: the database does not answer");
                Problem::unavailable("the database does not answer at the moment; try again later")
            }
            SqlCondition::SerializationConflict
            | SqlCondition::RolledBack
            | SqlCondition::LockTimeout
            | SqlCondition::ReadOnly
            | SqlCondition::RefusesConnections
            | SqlCondition::CannotServe => {
                tracing::warn!(%error, "request refused: the database cannot serve it now");
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

    /// Adds a member to the document, for example the reading that an interval overlaps.
    pub fn with(mut self, member: &str, value: impl Into<Value>) -> Problem {
        self.members.insert(member.to_owned(), value.into());
        self
    }

    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Problem {
        self.headers.push((name, value));
        self
    }

    /// Asks the client to wait for this time: whole seconds, rounded up, at least one.
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

    /// The sentence that says what is wrong and what to do.
    pub fn sentence(&self) -> &str {
        &self.sentence
    }

    /// The body of the answer.
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
    /// The HTTP status, repeated.
    #[schema(minimum = 400, maximum = 599)]
    status: u16,
    /// The fault of this request, and what to do about it.
    detail: String,
    /// The same sentence as `detail`.
    error: String,
    /// Further members, for example the reading that an interval overlaps.
    #[serde(flatten)]
    #[schema(ignore)]
    members: Map<String, Value>,
}

/// The items of a bulk answer contain their problems as documents.
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
            // The cause was logged where it occurred.
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

impl From<BatchRequestError> for Problem {
    fn from(error: BatchRequestError) -> Problem {
        let kind = match &error {
            BatchRequestError::Serial(_)
            | BatchRequestError::User(_)
            | BatchRequestError::Before(_) => ProblemKind::ValidationFailed,
            BatchRequestError::UnknownMeter { .. } => ProblemKind::NotFound,
            BatchRequestError::Database(cause) => return Problem::database(cause),
        };
        Problem::new(kind, error.to_string())
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
                tracing::warn!(error = %cause, "request refused: the chain does not answer");
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
}
