//! Login, logout, and the check of every request.
//!
//! A session is an admin's token in a cookie that scripts cannot read, that browsers send to this path alone and never with a
//! request that another site caused. The service stores nothing: it checks the token again with each request, so that the
//! session ends when the token does, on every process.

use axum::Form;
use axum::extract::{Query, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{Html, IntoResponse, Response};
use chrono::Utc;
use serde::Deserialize;

use super::request_origin;
use super::ui::{self, PREFIX};
use crate::api::auth::caller_auth::CallerAuth;
use crate::api::auth::principal::Principal;
use crate::api::csp_hash::hash_between;
use crate::api::problem::Problem;
use crate::api::problem_kind::ProblemKind;
use crate::domain::AuthError;

const COOKIE: &str = "gridtokenx_queue";

/// Browsers drop a cookie of more than 4,096 bytes, its name and attributes included.
const TOKEN_BYTES_MAX: usize = 3_800;

const LOGIN_PAGE: &str = include_str!("login.html");
/// The place where the page shows why the last login was refused.
const NOTICE: &str = "<!-- notice -->";

/// A refused login. The URL of the login page has the code, and the page shows the sentence.
#[derive(Clone, Copy)]
enum LoginError {
    Token,
    Role,
    TooLong,
    KeysUnavailable,
}

impl LoginError {
    const ALL: [LoginError; 4] = [
        LoginError::Token,
        LoginError::Role,
        LoginError::TooLong,
        LoginError::KeysUnavailable,
    ];

    fn code(self) -> &'static str {
        match self {
            LoginError::Token => "token",
            LoginError::Role => "role",
            LoginError::TooLong => "size",
            LoginError::KeysUnavailable => "later",
        }
    }

    fn sentence(self) -> &'static str {
        match self {
            LoginError::Token => {
                "This token is not valid: it is incomplete, expired, or not signed by a trusted key."
            }
            LoginError::Role => "This is a user's token. The page is for admins.",
            LoginError::TooLong => {
                "This token is too long for a cookie (3,800 bytes at most). Get one with fewer claims."
            }
            LoginError::KeysUnavailable => {
                "The keys that sign tokens cannot be fetched at the moment. Try again later."
            }
        }
    }
}

/// The form of the login page.
#[derive(Deserialize)]
pub(super) struct LoginForm {
    token: String,
}

/// The query of the login page: the code of the last refusal.
#[derive(Deserialize)]
pub(super) struct LoginQuery {
    #[serde(default)]
    refused: String,
}

pub(super) async fn login_page(Query(query): Query<LoginQuery>) -> Response {
    let error = LoginError::ALL
        .into_iter()
        .find(|error| error.code() == query.refused);
    show_login(error)
}

fn show_login(error: Option<LoginError>) -> Response {
    let notice = error.map_or_else(String::new, |error| {
        format!("<p role=\"alert\">{}</p>", error.sentence())
    });
    let headers = [
        (header::CONTENT_SECURITY_POLICY, login_policy()),
        // So that a browser sends the origin of the form.
        (header::REFERRER_POLICY, "same-origin".to_owned()),
        (header::CACHE_CONTROL, "no-store".to_owned()),
    ];
    (headers, Html(LOGIN_PAGE.replace(NOTICE, &notice))).into_response()
}

fn login_policy() -> String {
    format!(
        "default-src 'none'; style-src '{}'; img-src data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
        hash_between(LOGIN_PAGE, "<style>", "</style>")
    )
}

pub(super) async fn login(
    State(auth): State<CallerAuth>,
    headers: HeaderMap,
    Form(form): Form<LoginForm>,
) -> Result<Response, Problem> {
    request_origin::check(&headers)?;
    let token = form.token.trim();
    if token.len() > TOKEN_BYTES_MAX {
        return Ok(refuse(LoginError::TooLong));
    }
    let principal = match auth.verify(token).await {
        Ok(principal) => principal,
        Err(AuthError::KeysUnavailable) => return Ok(refuse(LoginError::KeysUnavailable)),
        Err(_) => return Ok(refuse(LoginError::Token)),
    };
    auth.count_request(&principal.caller.subject)?;
    if !principal.caller.is_admin() {
        return Ok(refuse(LoginError::Role));
    }
    let lives_secs = (principal.expires_at - Utc::now()).num_seconds().max(0);
    tracing::info!(
        admin = principal.caller.subject,
        "admin logged in to the queue console"
    );
    // A valid token has base64url characters and dots only, so it needs no quoting.
    Ok(see_other(PREFIX, Some(cookie(token, lives_secs, &headers))))
}

pub(super) async fn logout(headers: HeaderMap) -> Result<Response, Problem> {
    request_origin::check(&headers)?;
    Ok(see_other(PREFIX, Some(cookie("", 0, &headers))))
}

fn refuse(error: LoginError) -> Response {
    let code = error.code();
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
    let secure = if request_origin::needs_secure_cookie(headers) {
        "; Secure"
    } else {
        ""
    };
    format!(
        "{COOKIE}={token}; Path={PREFIX}; Max-Age={lives_secs}; HttpOnly; SameSite=Strict{secure}"
    )
}

/// Requires the session of an admin. Without one, a page shows the login and any other request gets 401.
pub(super) async fn require(
    State(auth): State<CallerAuth>,
    mut request: Request,
    next: Next,
) -> Result<Response, Problem> {
    let reads = [Method::GET, Method::HEAD].contains(request.method());
    let admin = match admin_of(&auth, request.headers()).await {
        Ok(admin) => admin,
        Err(_) if reads && ui::is_page(request.uri().path()) => return Ok(show_login(None)),
        Err(error) => return Err(error),
    };
    if !reads {
        return Ok(read_only());
    }
    request.extensions_mut().insert(admin);
    Ok(next.run(request).await)
}

async fn admin_of(auth: &CallerAuth, headers: &HeaderMap) -> Result<Principal, Problem> {
    let token = session_token(headers).ok_or_else(|| {
        Problem::new(
            ProblemKind::Unauthorized,
            "log in as an admin on the page /admin/queue",
        )
    })?;
    auth.authenticate_admin(token).await
}

fn session_token(headers: &HeaderMap) -> Option<&str> {
    headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .find_map(|pair| pair.trim().strip_prefix(COOKIE)?.strip_prefix('='))
}

fn read_only() -> Response {
    let problem = Problem::new(
        ProblemKind::MethodNotAllowed,
        "the queue console is read-only: readings create jobs, and the admin API retries them",
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
