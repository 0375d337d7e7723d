//! The kinds of problems that the API reports, with status, URI and title.

use axum::http::StatusCode;

/// Each kind has a stable URI, explained in `docs/api.md`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProblemKind {
    MalformedRequest,
    ValidationFailed,
    Unauthorized,
    Forbidden,
    NotFound,
    MethodNotAllowed,
    RequestTimeout,
    Conflict,
    PayloadTooLarge,
    UnsupportedMediaType,
    UpgradeRequired,
    RateLimited,
    InternalError,
    Unavailable,
}

impl ProblemKind {
    pub const ALL: [ProblemKind; 14] = [
        ProblemKind::MalformedRequest,
        ProblemKind::ValidationFailed,
        ProblemKind::Unauthorized,
        ProblemKind::Forbidden,
        ProblemKind::NotFound,
        ProblemKind::MethodNotAllowed,
        ProblemKind::RequestTimeout,
        ProblemKind::Conflict,
        ProblemKind::PayloadTooLarge,
        ProblemKind::UnsupportedMediaType,
        ProblemKind::UpgradeRequired,
        ProblemKind::RateLimited,
        ProblemKind::InternalError,
        ProblemKind::Unavailable,
    ];

    /// Status, URI and title.
    const fn row(self) -> (StatusCode, &'static str, &'static str) {
        match self {
            ProblemKind::MalformedRequest => (
                StatusCode::BAD_REQUEST,
                "/problems/malformed-request",
                "Malformed request",
            ),
            ProblemKind::ValidationFailed => (
                StatusCode::BAD_REQUEST,
                "/problems/validation-failed",
                "Validation failed",
            ),
            ProblemKind::Unauthorized => (
                StatusCode::UNAUTHORIZED,
                "/problems/unauthorized",
                "Unauthorized",
            ),
            ProblemKind::Forbidden => (StatusCode::FORBIDDEN, "/problems/forbidden", "Forbidden"),
            ProblemKind::NotFound => (StatusCode::NOT_FOUND, "/problems/not-found", "Not found"),
            ProblemKind::MethodNotAllowed => (
                StatusCode::METHOD_NOT_ALLOWED,
                "/problems/method-not-allowed",
                "Method not allowed",
            ),
            ProblemKind::RequestTimeout => (
                StatusCode::REQUEST_TIMEOUT,
                "/problems/request-timeout",
                "Request timeout",
            ),
            ProblemKind::Conflict => (StatusCode::CONFLICT, "/problems/conflict", "Conflict"),
            ProblemKind::PayloadTooLarge => (
                StatusCode::PAYLOAD_TOO_LARGE,
                "/problems/payload-too-large",
                "Payload too large",
            ),
            ProblemKind::UnsupportedMediaType => (
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "/problems/unsupported-media-type",
                "Unsupported media type",
            ),
            ProblemKind::UpgradeRequired => (
                StatusCode::UPGRADE_REQUIRED,
                "/problems/upgrade-required",
                "Upgrade required",
            ),
            ProblemKind::RateLimited => (
                StatusCode::TOO_MANY_REQUESTS,
                "/problems/rate-limited",
                "Rate limited",
            ),
            ProblemKind::InternalError => (
                StatusCode::INTERNAL_SERVER_ERROR,
                "/problems/internal-error",
                "Internal error",
            ),
            ProblemKind::Unavailable => (
                StatusCode::SERVICE_UNAVAILABLE,
                "/problems/unavailable",
                "Unavailable",
            ),
        }
    }

    pub const fn status(self) -> StatusCode {
        self.row().0
    }

    /// Stable relative URI: the problem's `type`.
    pub const fn uri(self) -> &'static str {
        self.row().1
    }

    pub const fn title(self) -> &'static str {
        self.row().2
    }

    /// The kind for a bare status: the answer comes from a library.
    pub fn of_status(status: StatusCode) -> ProblemKind {
        ProblemKind::ALL
            .into_iter()
            .find(|kind| kind.status() == status)
            .unwrap_or(if status.is_server_error() {
                ProblemKind::InternalError
            } else {
                ProblemKind::MalformedRequest
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_have_different_uris() {
        let mut uris: Vec<_> = ProblemKind::ALL.iter().map(|kind| kind.uri()).collect();
        uris.sort_unstable();
        uris.dedup();
        assert_eq!(uris.len(), ProblemKind::ALL.len());
    }

    #[test]
    fn every_kind_is_explained_in_the_documentation() {
        let documentation = include_str!("../../docs/api.md");
        for kind in ProblemKind::ALL {
            assert!(
                documentation.contains(&format!("`{}`", kind.uri())),
                "docs/api.md does not explain {}",
                kind.uri()
            );
        }
    }

    #[test]
    fn every_error_status_has_a_kind() {
        assert_eq!(
            ProblemKind::of_status(StatusCode::IM_A_TEAPOT),
            ProblemKind::MalformedRequest
        );
        assert_eq!(
            ProblemKind::of_status(StatusCode::BAD_GATEWAY),
            ProblemKind::InternalError
        );
    }
}
