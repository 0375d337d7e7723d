//! Extractors: a handler that takes [`Authenticated`] or [`AdminOnly`] is only reached by such a caller.

use axum::extract::FromRequestParts;
use axum::http::header::{self, HeaderMap};
use axum::http::request::Parts;

use crate::api::auth::authenticator::{AuthError, Principal};
use crate::api::problem::{Problem, ProblemKind};
use crate::api::state::AppState;

/// The caller of a request, its token checked and its share of requests not used up.
#[derive(Clone, Debug)]
pub struct Authenticated(pub Principal);

/// An admin; users get 403.
#[derive(Clone, Debug)]
pub struct AdminOnly(pub Principal);

impl FromRequestParts<AppState> for Authenticated {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, Problem> {
        let token = bearer_token(&parts.headers)?;
        let principal = state.authenticator.verify(token).await?;
        state.rate_limiter.admit(&principal.caller.subject)?;
        Ok(Authenticated(principal))
    }
}

impl FromRequestParts<AppState> for AdminOnly {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, Problem> {
        let Authenticated(principal) = Authenticated::from_request_parts(parts, state).await?;
        if principal.caller.is_admin() {
            Ok(AdminOnly(principal))
        } else {
            Err(Problem::new(
                ProblemKind::Forbidden,
                "this is for admins: the token's role must be \"admin\"",
            ))
        }
    }
}

/// The token of `Authorization: Bearer …`. It is taken from nowhere else: a token in a URL ends up in logs and histories.
pub fn bearer_token(headers: &HeaderMap) -> Result<&str, AuthError> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let Some(value) = values.next() else {
        return Err(AuthError::Missing);
    };
    if values.next().is_some() {
        return Err(AuthError::Malformed(
            "the request has more than one Authorization header".to_owned(),
        ));
    }
    let (scheme, token) = value
        .to_str()
        .ok()
        .and_then(|value| value.trim().split_once(' '))
        .ok_or(AuthError::Missing)?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(AuthError::Missing);
    }
    Ok(token.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_comes_from_one_bearer_header() {
        let headers = |values: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(header::AUTHORIZATION, value.parse().unwrap());
            }
            headers
        };
        assert_eq!(bearer_token(&headers(&["Bearer a.b.c"])), Ok("a.b.c"));
        assert_eq!(bearer_token(&headers(&["bearer  a.b.c "])), Ok("a.b.c"));
        assert_eq!(bearer_token(&headers(&[])), Err(AuthError::Missing));
        assert_eq!(
            bearer_token(&headers(&["Basic YTpi"])),
            Err(AuthError::Missing)
        );
        assert_eq!(bearer_token(&headers(&["Bearer"])), Err(AuthError::Missing));
        assert!(bearer_token(&headers(&["Bearer a", "Bearer b"])).is_err());
    }
}
