//! Whether a request comes from a page of our own: what a page of another site makes a browser send must change nothing.

use axum::http::{HeaderMap, HeaderName, HeaderValue, header};

use crate::api::problem::{Problem, ProblemKind};

/// Browsers set it, and no page can (Fetch Metadata).
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Refuses what a page of another origin sends, and what does not say where it comes from.
pub(super) fn check(headers: &HeaderMap) -> Result<(), Problem> {
    let is_own = match headers.get(SEC_FETCH_SITE) {
        Some(site) => site == "same-origin",
        None => headers
            .get(header::ORIGIN)
            .is_some_and(|origin| names_host(origin, headers)),
    };
    if is_own {
        return Ok(());
    }
    Err(Problem::new(
        ProblemKind::Forbidden,
        "this must come from a page of this service: log in and out on the page /admin/queue itself",
    ))
}

/// Whether host and port are the ones that were asked. The scheme may differ: TLS ends in front of us.
fn names_host(origin: &HeaderValue, headers: &HeaderMap) -> bool {
    let host = text(headers.get(header::HOST));
    let origin = text(Some(origin));
    let authority = origin
        .as_deref()
        .and_then(|origin| origin.split_once("://"))
        .map(|(_, authority)| authority);
    authority.is_some() && authority == host.as_deref()
}

/// Whether a browser keeps a cookie marked `Secure` that it gets here: over https, and nowhere else but on the loopback,
/// where the mark is not needed.
pub(super) fn needs_secure_cookie(headers: &HeaderMap) -> bool {
    let https = headers
        .get("x-forwarded-proto")
        .is_some_and(|scheme| scheme == "https");
    let host = text(headers.get(header::HOST)).unwrap_or_default();
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host.as_str(),
    };
    https || !matches!(name, "localhost" | "127.0.0.1" | "[::1]")
}

fn text(value: Option<&HeaderValue>) -> Option<String> {
    value?.to_str().ok().map(str::to_ascii_lowercase)
}

#[cfg(test)]
mod tests {
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
    fn only_pages_of_our_own_pass() {
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
    fn only_on_the_loopback_a_cookie_travels_in_the_clear() {
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
