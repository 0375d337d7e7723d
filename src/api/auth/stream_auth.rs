//! Who may open a stream of the feed, and how a client says who it is.
//!
//! A token comes in the header `Authorization`, in `Sec-WebSocket-Protocol`, or in a WebSocket's first message; never in the
//! URL, which ends up in logs and histories. There a single-use ticket may stand.

use axum::http::{HeaderMap, HeaderName, HeaderValue, Uri, header};
use chrono::Utc;
use url::form_urlencoded;

use crate::api::auth::authenticator::{AuthError, Principal};
use crate::api::auth::caller::bearer_token;
use crate::api::problem::{Problem, ProblemKind};
use crate::api::state::AppState;
use crate::feed::{Listener, StreamKind, StreamPermit, Viewer, tickets};
use crate::telemetry::names;

/// The WebSocket protocol that we speak, for clients that name one.
pub const PROTOCOL: &str = "gridtokenx";
/// Beside it, the token of a page: `gridtokenx, bearer.TOKEN`.
const BEARER_PREFIX: &str = "bearer.";

/// What a request shows.
#[derive(Debug, PartialEq, Eq)]
enum Credential<'a> {
    Token(&'a str),
    Ticket(String),
    Nothing,
}

/// Checks what a request shows; `None` when it shows nothing.
pub async fn authenticate(
    state: &AppState,
    uri: &Uri,
    headers: &HeaderMap,
) -> Result<Option<Listener>, Problem> {
    check_origin(headers, &state.cors_origins)?;
    match credential(uri, headers)? {
        Credential::Token(token) => authenticate_token(state, token).await.map(Some),
        Credential::Ticket(ticket) => redeem_ticket(state, &ticket).await.map(Some),
        Credential::Nothing => Ok(None),
    }
}

fn credential<'a>(uri: &Uri, headers: &'a HeaderMap) -> Result<Credential<'a>, Problem> {
    let in_header = match bearer_token(headers) {
        Ok(token) => Some(token),
        Err(AuthError::Missing) => None,
        Err(error) => return Err(error.into()),
    };
    let in_protocol = token_in_protocols(headers)?;
    let ticket = ticket(uri)?;
    match (in_header, in_protocol, ticket) {
        (Some(token), None, None) | (None, Some(token), None) => Ok(Credential::Token(token)),
        (None, None, Some(ticket)) => Ok(Credential::Ticket(ticket)),
        (None, None, None) => Ok(Credential::Nothing),
        _ => Err(malformed(
            "the request says twice who asks; send either a token, in `Authorization` or in `Sec-WebSocket-Protocol`, or a ticket",
        )),
    }
}

fn malformed(sentence: &str) -> Problem {
    Problem::new(ProblemKind::MalformedRequest, sentence)
}

/// The ticket of the query, which is the only secret that may stand there.
fn ticket(uri: &Uri) -> Result<Option<String>, Problem> {
    let mut ticket = None;
    let query = uri.query().unwrap_or_default();
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        let is_token = [
            "token",
            "access_token",
            "id_token",
            "jwt",
            "bearer",
            "auth",
            "authorization",
        ]
        .iter()
        .any(|known| name.eq_ignore_ascii_case(known));
        if is_token || looks_like_a_token(&value) {
            return Err(malformed(
                "a token is never taken from a URL, which ends up in logs and histories, and this one may have by now: get \
                 another, send it in the header `Authorization`, or ask POST /api/ws/ticket for a single-use ticket",
            ));
        }
        if name == "ticket" && ticket.replace(value.into_owned()).is_some() {
            return Err(malformed("`ticket` is there twice"));
        }
    }
    Ok(ticket)
}

/// Three parts of base64url, of which the first is a JSON object.
fn looks_like_a_token(value: &str) -> bool {
    value.starts_with("eyJ") && value.split('.').count() == 3
}

/// The token that a page puts beside the protocol's name.
fn token_in_protocols(headers: &HeaderMap) -> Result<Option<&str>, Problem> {
    let mut tokens = protocols(headers).filter_map(|name| name.strip_prefix(BEARER_PREFIX));
    let token = tokens.next();
    if tokens.next().is_some() {
        return Err(malformed("`Sec-WebSocket-Protocol` holds two tokens"));
    }
    if token.is_some() && !protocols(headers).any(|name| name == PROTOCOL) {
        // Browsers end a connection whose answer names none of their protocols, and the token is not repeated.
        return Err(malformed(
            "beside `bearer.TOKEN`, `Sec-WebSocket-Protocol` names the protocol: `gridtokenx, bearer.TOKEN`",
        ));
    }
    Ok(token)
}

/// Names in `Sec-WebSocket-Protocol`.
pub fn protocols(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    headers
        .get_all(header::SEC_WEBSOCKET_PROTOCOL)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
}

/// A connection counts as a request of its subject: a client that reconnects in a circle is slowed down.
pub async fn authenticate_token(state: &AppState, token: &str) -> Result<Listener, Problem> {
    let Principal { caller, expires_at } = state.authenticator.verify(token).await?;
    // A request may be late by the skew of two clocks; a stream would end before it began.
    if expires_at <= Utc::now() {
        return Err(AuthError::Expired(expires_at).into());
    }
    state.rate_limiter.admit(&caller.subject)?;
    Ok(Listener {
        viewer: Viewer::from(&caller),
        expires_at: Some(expires_at),
    })
}

async fn redeem_ticket(state: &AppState, ticket: &str) -> Result<Listener, Problem> {
    // Before it is used up.
    if state.feed.open_streams() >= state.websocket.max_connections {
        return Err(no_permit_left(state));
    }
    let redeemed = tickets::redeem(&state.pool, ticket).await?;
    let Some((caller, expires_at)) = redeemed.filter(|(_, expires_at)| *expires_at > Utc::now())
    else {
        return Err(Problem::new(
            ProblemKind::Unauthorized,
            "the ticket does not count: each opens one stream, within half a minute; ask POST /api/ws/ticket for another",
        ));
    };
    state.rate_limiter.admit(&caller.subject)?;
    Ok(Listener {
        viewer: Viewer::from(&caller),
        expires_at: Some(expires_at),
    })
}

/// A place for a stream of this process.
pub fn take_stream_permit(state: &AppState, kind: StreamKind) -> Result<StreamPermit, Problem> {
    if state.draining.is_cancelled() {
        return Err(Problem::unavailable(
            "this process ends; connect again, and another one answers",
        ));
    }
    let streams_max = state.websocket.max_connections;
    state
        .feed
        .stream_permit(kind, streams_max)
        .ok_or_else(|| no_permit_left(state))
}

fn no_permit_left(state: &AppState) -> Problem {
    metrics::counter!(names::STREAMS_REFUSED).increment(1);
    let streams_max = state.websocket.max_connections;
    Problem::unavailable(format!(
        "all {streams_max} streams of this process are taken; try again later, or use GET /api/events"
    ))
}

/// Browsers let any page open a WebSocket to us and tell where the page is from. Our own pages may, and those that
/// `CORS_ORIGINS` lists: the same that may call the API. Programs send no origin.
fn check_origin(headers: &HeaderMap, allowed: &[HeaderValue]) -> Result<(), Problem> {
    let Some(origin) = headers.get(header::ORIGIN) else {
        return Ok(());
    };
    if allowed.contains(origin) || is_own(origin, headers) {
        return Ok(());
    }
    Err(Problem::new(
        ProblemKind::Forbidden,
        "pages of this origin may not listen here; the operator lists those that may in CORS_ORIGINS",
    ))
}

fn is_own(origin: &HeaderValue, headers: &HeaderMap) -> bool {
    let lowercase = |name: HeaderName| {
        let value = headers.get(name)?.to_str().ok()?;
        Some(value.to_ascii_lowercase())
    };
    let authority = origin
        .to_str()
        .ok()
        .and_then(|origin| origin.split_once("://"))
        .map(|(_, authority)| authority.to_ascii_lowercase());
    authority.is_some() && authority == lowercase(header::HOST)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(of: &[(HeaderName, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in of {
            headers.append(name, value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn only_listed_origins_and_our_own_pages_come_in() {
        let listed = [HeaderValue::from_static("https://grid.example")];
        let comes_in = |origin: Option<&str>, allowed: &[HeaderValue]| {
            let mut headers = headers(&[(header::HOST, "api.grid.example:8080")]);
            if let Some(origin) = origin {
                headers.insert(header::ORIGIN, origin.parse().unwrap());
            }
            check_origin(&headers, allowed).is_ok()
        };
        for allowed in [&listed[..], &[]] {
            assert!(comes_in(None, allowed));
            assert!(comes_in(Some("http://API.grid.example:8080"), allowed));
            assert!(!comes_in(Some("https://evil.example"), allowed));
            assert!(!comes_in(Some("http://api.grid.example"), allowed));
            assert!(!comes_in(Some("null"), allowed));
        }
        assert!(comes_in(Some("https://grid.example"), &listed));
        assert!(!comes_in(Some("https://grid.example"), &[]));
    }

    #[test]
    fn who_asks_is_said_in_one_way() {
        let bearer = (header::AUTHORIZATION, "Bearer a.b.c");
        let protocol = (header::SEC_WEBSOCKET_PROTOCOL, "gridtokenx, bearer.d.e.f");
        let plain: Uri = "/ws".parse().unwrap();
        let ticket: Uri = "/ws?after=3&ticket=x_-7".parse().unwrap();
        let says = |uri: &Uri, of: &[(HeaderName, &str)]| {
            let headers = headers(of);
            credential(uri, &headers)
                .map(|credential| format!("{credential:?}"))
                .ok()
        };
        let token = |token: &str| Some(format!("Token({token:?})"));
        assert_eq!(says(&plain, std::slice::from_ref(&bearer)), token("a.b.c"));
        assert_eq!(
            says(&plain, std::slice::from_ref(&protocol)),
            token("d.e.f")
        );
        assert_eq!(says(&ticket, &[]), Some("Ticket(\"x_-7\")".to_owned()));
        assert_eq!(says(&plain, &[]), Some("Nothing".to_owned()));
        let named = (header::SEC_WEBSOCKET_PROTOCOL, "gridtokenx");
        assert_eq!(says(&plain, &[named]), Some("Nothing".to_owned()));
        for (uri, of) in [
            (&plain, vec![bearer.clone(), protocol.clone()]),
            (&ticket, vec![bearer]),
            (&ticket, vec![protocol]),
            (
                &plain,
                vec![(header::SEC_WEBSOCKET_PROTOCOL, "bearer.d.e.f")],
            ),
            (
                &plain,
                vec![(
                    header::SEC_WEBSOCKET_PROTOCOL,
                    "gridtokenx, bearer.a, bearer.b",
                )],
            ),
        ] {
            assert_eq!(says(uri, &of), None, "{uri} {of:?}");
        }
    }

    #[test]
    fn a_token_in_the_url_is_refused_and_not_repeated() {
        for query in [
            "token=abc",
            "access_token=abc",
            "Authorization=abc",
            "ticket=eyJhbGciOi.eyJzdWIi.c2ln",
            "x=eyJhbGciOi%2EeyJzdWIi.c2ln",
            "ticket=a&ticket=b",
        ] {
            let uri: Uri = format!("/ws?{query}").parse().unwrap();
            let problem = credential(&uri, &HeaderMap::new()).unwrap_err();
            assert_eq!(problem.kind(), ProblemKind::MalformedRequest);
            for secret in ["abc", "eyJ"] {
                assert!(!problem.sentence().contains(secret), "{query}");
            }
        }
    }
}
