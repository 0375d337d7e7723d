//! Decides whether a request comes from a page of the service itself: one that a page of another site causes must change nothing.

use axum::http::{HeaderMap, HeaderName, header};

use crate::api::origin::{is_same_origin, lowercase};
use crate::api::problem::Problem;
use crate::api::problem_kind::ProblemKind;

/// Browsers set it, and no page can (Fetch Metadata).
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Refuses requests of pages of another origin, and those that do not name their origin.
pub(super) fn check(headers: &HeaderMap) -> Result<(), Problem> {
    let is_own = match headers.get(SEC_FETCH_SITE) {
        Some(site) => site == "same-origin",
        None => headers
            .get(header::ORIGIN)
            .is_some_and(|origin| is_same_origin(origin, headers)),
    };
    if is_own {
        return Ok(());
    }
    Err(Problem::new(
        ProblemKind::Forbidden,
        "this request must come from a page of this service: log in and out on the page /admin/queue itself",
    ))
}

/// Whether the cookie must be marked `Secure`: everywhere but over http on the loopback interface, where browsers would drop a
/// marked cookie.
pub(super) fn needs_secure_cookie(headers: &HeaderMap) -> bool {
    let https = headers
        .get("x-forwarded-proto")
        .is_some_and(|scheme| scheme == "https");
    let host = lowercase(headers.get(header::HOST)).unwrap_or_default();
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host.as_str(),
    };
    https || !matches!(name, "localhost" | "127.0.0.1" | "[::1]")
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| {
                (
                    HeaderName::from_static(name),
                    HeaderValue::from_static(value),
                )
            })
            .collect()
    }

    #[test]
    fn only_pages_of_the_service_pass() {
        let host = ("host", "grid.example:8080");
        for own in [
            &[host, ("sec-fetch-site", "same-origin")][..],
            &[host, ("sec-fetch-site", "same-origin"), ("origin", "null")],
            &[host, ("origin", "http://grid.example:8080")],
            &[host, ("origin", "https://GRID.example:8080")],
        ] {
            assert!(check(&headers(own)).is_ok(), "{own:?}");
        }
        for other in [
            &[host][..],
            &[host, ("origin", "null")],
            &[host, ("origin", "http://grid.example")],
            &[host, ("origin", "http://evil.example")],
            &[host, ("sec-fetch-site", "cross-site")],
            &[host, ("sec-fetch-site", "none")],
            &[
                host,
                ("sec-fetch-site", "same-site"),
                ("origin", "http://grid.example:8080"),
            ],
        ] {
            assert!(check(&headers(other)).is_err(), "{other:?}");
        }
    }

    #[test]
    fn only_on_the_loopback_a_cookie_is_sent_without_tls() {
        for (pairs, secure) in [
            (&[("host", "localhost:8080")][..], false),
            (&[("host", "127.0.0.1:8080")], false),
            (&[("host", "[::1]:8080")], false),
            (
                &[("host", "localhost:8080"), ("x-forwarded-proto", "https")],
                true,
            ),
            (&[("host", "grid.example")], true),
            (&[("host", "10.0.0.7:8080")], true),
            (&[], true),
        ] {
            assert_eq!(needs_secure_cookie(&headers(pairs)), secure, "{pairs:?}");
        }
    }
}
