//! Login, logout, and who may pass.
//!
//! A session is an admin's token in a cookie that scripts cannot read, that is sent to this address alone and never with a
//! request that another site caused. Nothing of it is kept here: the token is checked again at each request, so that it
//! ends when the token does, on every process.

use axum::Form;
use axum::extract::{Query, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{Html, IntoResponse, Response};
use chrono::Utc;
use serde::Deserialize;

use super::{PREFIX, origin, ui};
use crate::api::auth::authenticator::{AuthError, Principal};
use crate::api::problem::{Problem, ProblemKind};
use crate::api::state::AppState;

const COOKIE: &str = "gridtokenx_queue";

/// Browsers drop a cookie of more than 4,096 bytes, its name and attributes included.
const TOKEN_BYTES_MAX: usize = 3_800;

const LOGIN_PAGE: &str = include_str!("login.html");
/// Where the page says why the last login was refused.
const NOTICE: &str = "<!-- notice -->";

/// Why a login was refused, as the address of the page says it.
const REFUSALS: [(&str, &str); 4] = [
    (
        "token",
        "This token does not count: it is incomplete, over, or not signed by a key that is trusted here.",
    ),
    ("role", "This is a user's token. The page is for admins."),
    (
        "size",
        "This token is too long for a cookie (3,800 bytes at most). Ask for one with fewer claims.",
    ),
    (
        "later",
        "The keys that sign tokens cannot be fetched at the moment. Try again later.",
    ),
];

#[derive(Deserialize)]
pub(super) struct LoginForm {
    token: String,
}

#[derive(Deserialize)]
pub(super) struct LoginQuery {
    #[serde(default)]
    refused: String,
}

pub(super) async fn login_page(Query(query): Query<LoginQuery>) -> Response {
    let notice = REFUSALS
        .iter()
        .find(|(code, _)| *code == query.refused)
        .map_or("", |(_, sentence)| sentence);
    show_login(notice)
}

fn show_login(notice: &str) -> Response {
    let notice = match notice {
        "" => String::new(),
        sentence => format!("<p role=\"alert\">{sentence}</p>"),
    };
    let headers = [
        (header::CONTENT_SECURITY_POLICY, login_policy()),
        // So that a browser tells where the form was filled in.
        (header::REFERRER_POLICY, "same-origin".to_owned()),
        (header::CACHE_CONTROL, "no-store".to_owned()),
    ];
    (headers, Html(LOGIN_PAGE.replace(NOTICE, &notice))).into_response()
}

fn login_policy() -> String {
    format!(
        "default-src 'none'; style-src '{}'; img-src data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
        ui::hash_between(LOGIN_PAGE, "<style>", "</style>")
    )
}

pub(super) async fn login(
    State(state): State<AppState>,
    headers: HeaderMap,
    Form(form): Form<LoginForm>,
) -> Result<Response, Problem> {
    origin::check(&headers)?;
    let token = form.token.trim();
    if token.len() > TOKEN_BYTES_MAX {
        return Ok(refuse("size"));
    }
    let principal = match state.authenticator.verify(token).await {
        Ok(principal) => principal,
        Err(AuthError::KeysUnavailable) => return Ok(refuse("later")),
        Err(_) => return Ok(refuse("token")),
    };
    state.rate_limiter.admit(&principal.caller.subject)?;
    if !principal.caller.is_admin() {
        return Ok(refuse("role"));
    }
    let lives_secs = (principal.expires_at - Utc::now()).num_seconds().max(0);
    tracing::info!(
        admin = principal.caller.subject,
        "logged in to the queue console"
    );
    // A token that counts is base64url and dots.
    Ok(see_other(PREFIX, Some(cookie(token, lives_secs, &headers))))
}

pub(super) async fn logout(headers: HeaderMap) -> Result<Response, Problem> {
    origin::check(&headers)?;
    Ok(see_other(PREFIX, Some(cookie("", 0, &headers))))
}

fn refuse(code: &str) -> Response {
    see_other(&format!("{PREFIX}/login?refused={code}"), None)
}

fn see_other(location: &str, cookie: Option<String>) -> Response {
    let mut response = StatusCode::SEE_OTHER.into_response();
    let mut set = |name: HeaderName, value: &str| {
        if let Ok(value) = HeaderValue::from_str(value) {
            response.headers_mut().insert(name, value);
        }
    };
    set(header::LOCATION, location);
    set(header::CACHE_CONTROL, "no-store");
    if let Some(cookie) = cookie {
        set(header::SET_COOKIE, &cookie);
    }
    response
}

fn cookie(token: &str, lives_secs: i64, headers: &HeaderMap) -> String {
    let secure = if origin::needs_secure_cookie(headers) {
        "; Secure"
    } else {
        ""
    };
    format!(
        "{COOKIE}={token}; Path={PREFIX}; Max-Age={lives_secs}; HttpOnly; SameSite=Strict{secure}"
    )
}

/// Lets an admin look. Without a session a page becomes the login, and everything else 401.
pub(super) async fn require(
    State(state): State<AppState>,
    mut request: Request,
    next: Next,
) -> Result<Response, Problem> {
    let reads = [Method::GET, Method::HEAD].contains(request.method());
    let admin = match admin_of(&state, request.headers()).await {
        Ok(admin) => admin,
        Err(_) if reads && ui::is_page(request.uri().path()) => return Ok(show_login("")),
        Err(error) => return Err(error),
    };
    if !reads {
        return Ok(not_to_be_changed());
    }
    request.extensions_mut().insert(admin);
    Ok(next.run(request).await)
}

async fn admin_of(state: &AppState, headers: &HeaderMap) -> Result<Principal, Problem> {
    let token = session_token(headers).ok_or_else(|| {
        Problem::new(
            ProblemKind::Unauthorized,
            "log in as an admin on the page /admin/queue",
        )
    })?;
    let principal = state.authenticator.verify(token).await?;
    state.rate_limiter.admit(&principal.caller.subject)?;
    if !principal.caller.is_admin() {
        return Err(Problem::new(
            ProblemKind::Forbidden,
            "this is for admins: the token's role must be \"admin\"",
        ));
    }
    Ok(principal)
}

fn session_token(headers: &HeaderMap) -> Option<&str> {
    headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .find_map(|pair| pair.trim().strip_prefix(COOKIE)?.strip_prefix('='))
}

fn not_to_be_changed() -> Response {
    let problem = Problem::new(
        ProblemKind::MethodNotAllowed,
        "the queue console only shows: jobs are made by readings, and the admin API retries them",
    );
    ([(header::ALLOW, "GET, HEAD")], problem).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cookie_is_found_among_others() {
        let headers = |values: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(header::COOKIE, HeaderValue::from_static(value));
            }
            headers
        };
        let one = headers(&["a=b; gridtokenx_queue=x.y.z; c=d"]);
        assert_eq!(session_token(&one), Some("x.y.z"));
        let two = headers(&["a=b", "gridtokenx_queue=x.y.z"]);
        assert_eq!(session_token(&two), Some("x.y.z"));
        let none = headers(&["gridtokenx_queue2=x", "xgridtokenx_queue=y"]);
        assert_eq!(session_token(&none), None);
    }

    #[test]
    fn the_login_page_loads_nothing_and_has_a_place_for_the_notice() {
        assert_eq!(LOGIN_PAGE.matches(NOTICE).count(), 1);
        for outside in ["http://", "https://", "src=", "<script", " style="] {
            assert!(!LOGIN_PAGE.contains(outside), "the page holds {outside}");
        }
    }
}
