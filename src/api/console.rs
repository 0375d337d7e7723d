//! `GET /`: a page for people, in one file, that loads nothing from other hosts.

use axum::Router;
use axum::http::header;
use axum::response::{Html, IntoResponse};
use axum::routing::get;

use super::csp_hash::hash_between;
use super::state::AppState;

const PAGE: &str = include_str!("console.html");

pub fn routes() -> Router<AppState> {
    let policy = policy();
    Router::new().route(
        "/",
        get(|| async move {
            ([(header::CONTENT_SECURITY_POLICY, policy)], Html(PAGE)).into_response()
        }),
    )
}

/// Only the page's own script and style run, identified by their hashes, and requests go to this service alone.
fn policy() -> String {
    format!(
        "default-src 'none'; script-src '{}'; style-src '{}'; connect-src 'self'; img-src data:; \
         frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
        hash_of("script"),
        hash_of("style"),
    )
}

fn hash_of(element: &str) -> String {
    hash_between(PAGE, &format!("<{element}>"), &format!("</{element}>"))
}

#[cfg(test)]
mod tests {
    use axum::http::StatusCode;

    use super::*;
    use crate::api::router::router;
    use crate::api::test_support::{NO_DATABASE, call, request, test_state};

    #[test]
    fn the_page_has_one_script_and_one_style_and_loads_nothing() {
        assert_eq!(PAGE.matches("<script").count(), 1);
        assert_eq!(PAGE.matches("<style").count(), 1);
        let empty = hash_between("", "<", ">");
        assert_ne!(hash_of("script"), empty);
        assert_ne!(hash_of("style"), empty);
        for outside in [
            "http://",
            "https://",
            "src=",
            "@import",
            " style=",
            " onclick=",
        ] {
            assert!(!PAGE.contains(outside), "the page holds {outside}");
        }
    }

    #[tokio::test]
    async fn the_console_is_one_page_with_a_policy_of_its_own() {
        let router = router(test_state(NO_DATABASE, 100));
        let page = call(&router, request("GET", "/")).await;
        assert_eq!(page.status, StatusCode::OK);
        assert!(page.header("content-type").starts_with("text/html"));
        let policy = page.header("content-security-policy");
        assert!(policy.contains("script-src 'sha256-"), "{policy}");
        assert!(!policy.contains("unsafe"), "{policy}");
    }
}
