//! Authenticates the client that opens a stream of the feed.
//!
//! Each stream counts as one request of its subject, so that a client that reconnects in a loop is slowed down.

use axum::http::{HeaderMap, Uri, header};
use chrono::Utc;
use sqlx::PgPool;

use super::caller_auth::CallerAuth;
use super::principal::Principal;
use super::stream_credential::{Credential, credential};
use crate::api::live_feed::LiveFeed;
use crate::api::origin::{CorsOrigins, is_same_origin};
use crate::api::problem::Problem;
use crate::api::problem_kind::ProblemKind;
use crate::domain::AuthError;
use crate::feed::{Listener, Viewer, tickets};

/// Authenticates the clients of streams. Clones share everything.
#[derive(Clone)]
pub struct StreamAuth {
    pub auth: CallerAuth,
    pub feed: LiveFeed,
    pub cors_origins: CorsOrigins,
    /// The database, where tickets are redeemed.
    pub pool: PgPool,
}

/// A credential that opens no stream.
pub enum StreamRefused {
    Token(AuthError),
    /// Its subject makes too many requests.
    RateLimited(Problem),
}

impl From<AuthError> for StreamRefused {
    fn from(error: AuthError) -> StreamRefused {
        StreamRefused::Token(error)
    }
}

impl From<StreamRefused> for Problem {
    fn from(refused: StreamRefused) -> Problem {
        match refused {
            StreamRefused::Token(error) => error.into(),
            StreamRefused::RateLimited(problem) => problem,
        }
    }
}

impl StreamAuth {
    /// Checks the credential of a request; `None` when it has none.
    pub async fn authenticate(
        &self,
        uri: &Uri,
        headers: &HeaderMap,
    ) -> Result<Option<Listener>, Problem> {
        check_origin(headers, &self.cors_origins)?;
        match credential(uri, headers)? {
            Credential::Token(token) => Ok(Some(self.authenticate_token(token).await?)),
            Credential::Ticket(ticket) => self.redeem_ticket(&ticket).await.map(Some),
            Credential::None => Ok(None),
        }
    }

    pub async fn authenticate_token(&self, token: &str) -> Result<Listener, StreamRefused> {
        let Principal { caller, expires_at } = self.auth.verify(token).await?;
        // A single request may be late by the skew of two clocks. A stream must not: it would end before it began.
        if expires_at <= Utc::now() {
            return Err(AuthError::Expired(expires_at).into());
        }
        self.auth
            .count_request(&caller.subject)
            .map_err(StreamRefused::RateLimited)?;
        Ok(Listener {
            viewer: Viewer::from(&caller),
            expires_at: Some(expires_at),
        })
    }

    async fn redeem_ticket(&self, ticket: &str) -> Result<Listener, Problem> {
        // Checked first, so that a ticket is not used up for a stream that cannot open.
        self.feed.check_capacity()?;
        let redeemed = tickets::redeem(&self.pool, ticket).await?;
        let Some((caller, expires_at)) =
            redeemed.filter(|(_, expires_at)| *expires_at > Utc::now())
        else {
            return Err(Problem::new(
                ProblemKind::Unauthorized,
                "the ticket is not valid: each opens one stream, within half a minute; get another with POST /api/ws/ticket",
            ));
        };
        self.auth.count_request(&caller.subject)?;
        Ok(Listener {
            viewer: Viewer::from(&caller),
            expires_at: Some(expires_at),
        })
    }
}

/// Browsers let any page open a WebSocket, and send the page's origin along. Pages of the service itself may open streams, and
/// those that `CORS_ORIGINS` lists: the same that may call the API. Programs send no origin.
fn check_origin(headers: &HeaderMap, allowed: &CorsOrigins) -> Result<(), Problem> {
    let Some(origin) = headers.get(header::ORIGIN) else {
        return Ok(());
    };
    if allowed.contains(origin) || is_same_origin(origin, headers) {
        return Ok(());
    }
    Err(Problem::new(
        ProblemKind::Forbidden,
        "pages of this origin may not open a stream; the operator lists those that may in CORS_ORIGINS",
    ))
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn pages_of_listed_origins_and_of_the_service_may_open_a_stream() {
        let listed = || CorsOrigins::new(vec![HeaderValue::from_static("https://grid.example")]);
        let none = || CorsOrigins::new(Vec::new());
        let may_open = |origin: Option<&'static str>, allowed: &CorsOrigins| {
            let mut headers = HeaderMap::new();
            headers.insert(
                header::HOST,
                HeaderValue::from_static("api.grid.example:8080"),
            );
            if let Some(origin) = origin {
                headers.insert(header::ORIGIN, HeaderValue::from_static(origin));
            }
            check_origin(&headers, allowed).is_ok()
        };
        for allowed in [listed(), none()] {
            assert!(may_open(None, &allowed));
            assert!(may_open(Some("http://API.grid.example:8080"), &allowed));
            assert!(!may_open(Some("https://evil.example"), &allowed));
            assert!(!may_open(Some("http://api.grid.example"), &allowed));
            assert!(!may_open(Some("null"), &allowed));
        }
        assert!(may_open(Some("https://grid.example"), &listed()));
        assert!(!may_open(Some("https://grid.example"), &none()));
    }
}
