//! `GET /`: a page for people, in one file, that loads nothing from elsewhere.

use axum::Router;
use axum::http::header;
use axum::response::{Html, IntoResponse};
use axum::routing::get;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};

use crate::api::state::AppState;

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

/// Only the page's own script and style run, known by their hashes; it talks to this service alone.
fn policy() -> String {
    format!(
        "default-src 'none'; script-src '{}'; style-src '{}'; connect-src 'self'; img-src data:; \
         frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
        hash_of("script"),
        hash_of("style"),
    )
}

/// `sha256-…` of what stands between the tags, as browsers compute it.
fn hash_of(element: &str) -> String {
    let open = format!("<{element}>");
    let close = format!("</{element}>");
    let content = PAGE
        .split_once(&open)
        .and_then(|(_, rest)| rest.split_once(&close))
        .map_or("", |(content, _)| content);
    format!("sha256-{}", STANDARD.encode(Sha256::digest(content)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_has_one_script_and_one_style_and_nothing_from_elsewhere() {
        assert_eq!(PAGE.matches("<script").count(), 1);
        assert_eq!(PAGE.matches("<style").count(), 1);
        let empty = format!("sha256-{}", STANDARD.encode(Sha256::digest("")));
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
}
