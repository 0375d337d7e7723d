//! Extractors: a handler that takes [`Authenticated`] or [`AdminOnly`] is only reached by such a caller.

use axum::extract::{FromRef, FromRequestParts};
use axum::http::request::Parts;

use super::bearer_token::bearer_token;
use super::caller_auth::CallerAuth;
use super::principal::Principal;
use crate::api::problem::Problem;

/// The caller of a request, its token valid and its rate limit not used up.
#[derive(Clone, Debug)]
pub struct Authenticated(pub Principal);

/// An admin; users get 403.
#[derive(Clone, Debug)]
pub struct AdminOnly(pub Principal);

impl<S> FromRequestParts<S> for Authenticated
where
    S: Send + Sync,
    CallerAuth: FromRef<S>,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let token = bearer_token(&parts.headers)?;
        let auth = CallerAuth::from_ref(state);
        auth.authenticate(token).await.map(Authenticated)
    }
}

impl<S> FromRequestParts<S> for AdminOnly
where
    S: Send + Sync,
    CallerAuth: FromRef<S>,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let Authenticated(principal) = Authenticated::from_request_parts(parts, state).await?;
        principal.require_admin().map(AdminOnly)
    }
}

#[cfg(test)]
mod tests {
    use axum::http::StatusCode;
    use serde_json::json;

    use crate::api::test_support::{
        NO_DATABASE, call, request, sample_routes, test_state, token, with_token,
    };
    use crate::meters::Role;

    #[tokio::test]
    async fn a_token_is_required_and_its_role_is_checked() {
        let state = test_state(NO_DATABASE, 100);
        let router = sample_routes(state.clone());

        let none = call(&router, request("GET", "/own")).await;
        assert_eq!(
            none.json(),
            json!({
                "type": "/problems/unauthorized",
                "title": "Unauthorized",
                "status": 401,
                "detail": "a bearer token is needed: send `Authorization: Bearer TOKEN`",
                "error": "a bearer token is needed: send `Authorization: Bearer TOKEN`",
            })
        );
        assert_eq!(
            none.header("www-authenticate"),
            "Bearer realm=\"gridtokenx\""
        );

        let bad = call(&router, with_token("/own", "a.b.c")).await;
        bad.problem(401, "unauthorized");
        assert!(
            bad.header("www-authenticate")
                .contains("error=\"invalid_token\"")
        );
        assert!(!bad.body.contains("a.b.c"));

        let user = token(&state, Role::User);
        let in_url = call(&router, request("GET", &format!("/own?token={user}"))).await;
        in_url.problem(401, "unauthorized");
        let own = call(&router, with_token("/own", &user)).await;
        assert_eq!(own.body, "alice");
        let refused = call(&router, with_token("/admins", &user)).await;
        refused.problem(403, "forbidden");
        let admin = token(&state, Role::Admin);
        assert_eq!(
            call(&router, with_token("/admins", &admin)).await.body,
            "admins"
        );
    }

    #[tokio::test]
    async fn beyond_its_rate_limit_a_subject_is_refused_with_retry_after() {
        let state = test_state(NO_DATABASE, 3);
        let router = sample_routes(state.clone());
        let token = token(&state, Role::User);
        for _ in 0..3 {
            let answer = call(&router, with_token("/own", &token)).await;
            assert_eq!(answer.status, StatusCode::OK);
        }
        let refused = call(&router, with_token("/own", &token)).await;
        refused.problem(429, "rate-limited");
        let wait: u64 = refused.header("retry-after").parse().unwrap();
        assert!((1..=20).contains(&wait), "{wait}");
    }
}
