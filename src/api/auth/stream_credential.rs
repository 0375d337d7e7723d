//! Reads the credential that the client of a stream presents.
//!
//! A token comes in the header `Authorization`, in `Sec-WebSocket-Protocol`, or in a WebSocket's first message, and never in
//! the URL, because URLs end up in logs and histories. A single-use ticket may be in the URL.

use axum::http::{HeaderMap, Uri, header};
use url::form_urlencoded;

use super::bearer_token::bearer_token;
use crate::api::problem::Problem;
use crate::api::problem_kind::ProblemKind;
use crate::domain::AuthError;

/// The WebSocket protocol of the feed, for clients that name one.
pub const PROTOCOL: &str = "gridtokenx";
/// Beside it, the token of a page: `gridtokenx, bearer.TOKEN`.
const BEARER_PREFIX: &str = "bearer.";

/// The credential with which a request opens a stream.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Credential<'a> {
    Token(&'a str),
    Ticket(String),
    None,
}

/// The credential of a request; two are refused, because it is unclear which one counts.
pub(super) fn credential<'a>(uri: &Uri, headers: &'a HeaderMap) -> Result<Credential<'a>, Problem> {
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
        (None, None, None) => Ok(Credential::None),
        _ => Err(malformed(
            "the request has two credentials; send either a token, in `Authorization` or in `Sec-WebSocket-Protocol`, or a ticket",
        )),
    }
}

fn malformed(sentence: &str) -> Problem {
    Problem::new(ProblemKind::MalformedRequest, sentence)
}

/// The ticket of the query; it is the only secret that may be there.
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
                "a token in a URL is never accepted, because URLs end up in logs and histories, where this one may be by now: get \
                 another and send it in the header `Authorization`, or get a single-use ticket with POST /api/ws/ticket",
            ));
        }
        if name == "ticket" && ticket.replace(value.into_owned()).is_some() {
            return Err(malformed("`ticket` is given twice"));
        }
    }
    Ok(ticket)
}

/// Three parts of base64url, of which the first is a JSON object.
fn looks_like_a_token(value: &str) -> bool {
    value.starts_with("eyJ") && value.split('.').count() == 3
}

/// The token that a page sends beside the protocol's name.
fn token_in_protocols(headers: &HeaderMap) -> Result<Option<&str>, Problem> {
    let mut tokens = protocols(headers).filter_map(|name| name.strip_prefix(BEARER_PREFIX));
    let token = tokens.next();
    if tokens.next().is_some() {
        return Err(malformed("`Sec-WebSocket-Protocol` has two tokens"));
    }
    if token.is_some() && !protocols(headers).any(|name| name == PROTOCOL) {
        // A browser closes a connection whose answer names none of its protocols, and the answer must not repeat the token.
        return Err(malformed(
            "beside `bearer.TOKEN`, `Sec-WebSocket-Protocol` must name the protocol: `gridtokenx, bearer.TOKEN`",
        ));
    }
    Ok(token)
}

/// The protocols that the client names in `Sec-WebSocket-Protocol`.
pub fn protocols(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    headers
        .get_all(header::SEC_WEBSOCKET_PROTOCOL)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderName;

    use super::*;

    fn headers(of: &[(HeaderName, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in of {
            headers.append(name, value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn a_request_has_one_credential() {
        let bearer = (header::AUTHORIZATION, "Bearer a.b.c");
        let protocol = (header::SEC_WEBSOCKET_PROTOCOL, "gridtokenx, bearer.d.e.f");
        let plain: Uri = "/ws".parse().unwrap();
        let ticket: Uri = "/ws?after=3&ticket=x_-7".parse().unwrap();
        let parsed = |uri: &Uri, of: &[(HeaderName, &str)]| {
            let headers = headers(of);
            credential(uri, &headers)
                .map(|credential| format!("{credential:?}"))
                .ok()
        };
        let token = |token: &str| Some(format!("Token({token:?})"));
        assert_eq!(
            parsed(&plain, std::slice::from_ref(&bearer)),
            token("a.b.c")
        );
        assert_eq!(
            parsed(&plain, std::slice::from_ref(&protocol)),
            token("d.e.f")
        );
        assert_eq!(parsed(&ticket, &[]), Some("Ticket(\"x_-7\")".to_owned()));
        assert_eq!(parsed(&plain, &[]), Some("None".to_owned()));
        let named = (header::SEC_WEBSOCKET_PROTOCOL, "gridtokenx");
        assert_eq!(parsed(&plain, &[named]), Some("None".to_owned()));
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
            assert_eq!(parsed(uri, &of), None, "{uri} {of:?}");
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
