//! Recognises a provider's limits in whatever form they come: pure.
//!
//! Providers put their own limits in front of a Solana node, and each answers in its own form: an HTTP status, a JSON-RPC error
//! inside HTTP 200, 403 or 429, an error object without its envelope, or a bare text. They reuse codes that a node gives another
//! meaning (-32005 is a node that lags, -32007 a slot without a block), so the text decides before the code does. An answer that
//! is not recognised here does not count as a limit: it stays what the node said.

use std::fmt;

use reqwest::StatusCode;
use solana_client::client_error::{ClientError, ClientErrorKind};
use solana_client::rpc_custom_error::{
    JSON_RPC_SERVER_ERROR_SEND_TRANSACTION_PREFLIGHT_FAILURE,
    JSON_RPC_SERVER_ERROR_TRANSACTION_HISTORY_NOT_AVAILABLE,
};
use thiserror::Error;

/// The limit of a provider that a call met.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ProviderLimit {
    /// Too many calls in this second, minute or month: later, the same call may be answered.
    Rate,
    /// The question is too large: a smaller one may be answered.
    Size,
    /// This endpoint does not serve the method: another one may.
    Method,
    /// The endpoint serves this key no calls: an operator must act.
    Access,
}

impl ProviderLimit {
    /// The word for it in the admin status.
    pub fn label(self) -> &'static str {
        match self {
            ProviderLimit::Rate => "rate",
            ProviderLimit::Size => "size",
            ProviderLimit::Method => "method",
            ProviderLimit::Access => "access",
        }
    }
}

impl fmt::Display for ProviderLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ProviderLimit::Rate => "too many calls",
            ProviderLimit::Size => "the question is too large",
            ProviderLimit::Method => "the endpoint does not serve this method",
            ProviderLimit::Access => "the endpoint refuses the access key",
        })
    }
}

/// A call that met a limit. Travels through solana-client inside [`ClientErrorKind::Middleware`].
#[derive(Clone, Debug, Error)]
#[error("{limit}: {answer}")]
struct Limited {
    limit: ProviderLimit,
    answer: String,
}

/// The error of a call that met this limit; `answer` is shown.
pub(super) fn limited(limit: ProviderLimit, answer: String) -> ClientError {
    ClientErrorKind::Middleware(Limited { limit, answer }.into()).into()
}

/// The limit that a call met and the answer, if that is what the error reports.
pub(in crate::chain) fn limit_met(error: &ClientError) -> Option<(ProviderLimit, &str)> {
    match error.kind() {
        ClientErrorKind::Middleware(error) => error
            .downcast_ref::<Limited>()
            .map(|error| (error.limit, error.answer.as_str())),
        _ => None,
    }
}

/// JSON-RPC: the parameters are refused.
const INVALID_PARAMETERS: i64 = -32_602;
/// Codes that several providers use for too many calls, and no Solana node for anything.
const RATE_CODES: [i64; 4] = [429, -32_429, -32_029, -32_097];
/// JSON-RPC: no such method; and the node's own code for a method whose data it does not keep.
const METHOD_CODES: [i64; 3] = [
    -32_601,
    -32_075,
    JSON_RPC_SERVER_ERROR_TRANSACTION_HISTORY_NOT_AVAILABLE,
];
const ACCESS_CODES: [i64; 5] = [401, 402, 403, -32_052, -32_401];

const RATE_TEXTS: [&str; 17] = [
    "rate limit",
    "rate-limit",
    "ratelimit",
    "rate exceeded",
    "too many requests",
    "too many calls",
    "request limit",
    "requests limit",
    "rps limit",
    "request count exceeded",
    "requests per second",
    "calls per second",
    "compute units per second",
    "throughput",
    "credits",
    "quota",
    "usage reached",
];
const SIZE_TEXTS: [&str; 7] = [
    "too many inputs",
    "too large",
    "limited to",
    "too many accounts",
    "too many signatures",
    "batch size",
    "max allowed",
];
const METHOD_TEXTS: [&str; 8] = [
    "not available",
    "unavailable",
    "not supported",
    "unsupported",
    "disabled",
    "not allowed",
    "not enabled",
    "blocked",
];
const ACCESS_TEXTS: [&str; 4] = [
    "api key",
    "unauthorized",
    "payment required",
    "access forbidden",
];

/// The limit that an answer reports; `None`: it is not a limit of a provider. `code` and `text` are those of the JSON-RPC error, or
/// `text` is the body where it is not JSON.
pub(super) fn limit_of(status: StatusCode, code: Option<i64>, text: &str) -> Option<ProviderLimit> {
    // What a simulated program wrote into its log says nothing about the endpoint.
    if code == Some(JSON_RPC_SERVER_ERROR_SEND_TRANSACTION_PREFLIGHT_FAILURE) && status.is_success()
    {
        return None;
    }
    let text = text.to_lowercase();
    let has = |words: &[&str]| words.iter().any(|word| text.contains(word));
    let is = |codes: &[i64]| code.is_some_and(|code| codes.contains(&code));
    // Parameters that are refused concern this call, not the method: a commitment, say, that a method does not support.
    let concerns_call = code == Some(INVALID_PARAMETERS) && status.is_success();
    let concerns_method = text.contains("method");
    if status == StatusCode::TOO_MANY_REQUESTS || is(&RATE_CODES) || has(&RATE_TEXTS) {
        Some(ProviderLimit::Rate)
    } else if status == StatusCode::PAYLOAD_TOO_LARGE || has(&SIZE_TEXTS) {
        Some(ProviderLimit::Size)
    } else if concerns_call {
        None
    } else if is(&METHOD_CODES)
        || matches!(
            status,
            StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_IMPLEMENTED
        )
        || (concerns_method && has(&METHOD_TEXTS))
    {
        Some(ProviderLimit::Method)
    } else if matches!(
        status,
        StatusCode::UNAUTHORIZED | StatusCode::PAYMENT_REQUIRED | StatusCode::FORBIDDEN
    ) || is(&ACCESS_CODES)
        || has(&ACCESS_TEXTS)
    {
        Some(ProviderLimit::Access)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use ProviderLimit::{Access, Method, Rate, Size};

    use super::*;

    /// HTTP status, error code and text of a refusal, and the limit that it names.
    const REFUSALS: [(u16, Option<i64>, &str, ProviderLimit); 23] = [
        (429, None, "", Rate),
        (
            429,
            Some(429),
            "Too many requests for a specific RPC call",
            Rate,
        ),
        (
            200,
            Some(-32_007),
            "50/second request limit reached - reduce calls per second",
            Rate,
        ),
        (200, Some(-32_005), "Too many requests", Rate),
        (
            200,
            Some(-32_005),
            "You've exceeded the RPS limit available on the current plan.",
            Rate,
        ),
        (200, Some(-32_016), "over rate limit", Rate),
        (200, Some(-32_012), "credits limited", Rate),
        (200, Some(-32_429), "max usage reached", Rate),
        (
            200,
            Some(-32_003),
            "daily request limit reached - upgrade your account",
            Rate,
        ),
        (
            403,
            Some(-32_052),
            "your compute units per second capacity is exceeded",
            Rate,
        ),
        (200, None, "max usage reached", Rate),
        (413, None, "<html>413 Request Entity Too Large</html>", Size),
        (200, Some(-32_602), "Too many inputs provided; max 5", Size),
        (
            200,
            Some(-32_615),
            "getMultipleAccounts is limited to a range of 5",
            Size,
        ),
        (200, Some(-32_601), "Method not found", Method),
        (403, Some(-32_600), "Unsupported method: getBlocks", Method),
        (200, Some(-32_075), "Method disabled", Method),
        (
            403,
            Some(403),
            "the method getBlock is not available on the free plan",
            Method,
        ),
        (
            200,
            Some(-32_011),
            "Transaction history is not available from this node",
            Method,
        ),
        (401, None, "", Access),
        (402, None, "Payment required", Access),
        (403, None, "<html>Forbidden</html>", Access),
        (
            200,
            Some(-32_600),
            "Must be authenticated: invalid API key",
            Access,
        ),
    ];

    #[test]
    fn a_limit_is_recognised_in_whatever_form_it_comes() {
        for (status, code, text, expected) in REFUSALS {
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(
                limit_of(status, code, text),
                Some(expected),
                "{code:?} {text}"
            );
        }
    }

    #[test]
    fn what_a_node_says_of_itself_is_no_limit() {
        for (status, code, text) in [
            (200, Some(-32_005), "Node is behind by 42 slots"),
            (200, Some(-32_005), "Node is unhealthy"),
            (
                200,
                Some(-32_007),
                "Slot 7 was skipped, or missing due to ledger jump to recent snapshot",
            ),
            (
                200,
                Some(-32_009),
                "Slot 7 was skipped, or missing in long-term storage",
            ),
            (200, Some(-32_004), "Block not available for slot 7"),
            (
                200,
                Some(-32_016),
                "Minimum context slot has not been reached",
            ),
            (
                200,
                Some(-32_015),
                "Transaction version (1) is not supported by the requesting client",
            ),
            (
                200,
                Some(-32_002),
                "Transaction simulation failed: program log: rate limit of this method reached",
            ),
            (200, Some(-32_602), "invalid params: wrong size"),
            (
                200,
                Some(-32_602),
                "Invalid params: this method is unsupported at commitment `confirmed`",
            ),
            (502, None, "<html>Bad Gateway</html>"),
            (503, None, ""),
            (504, None, ""),
            (200, None, "<html>maintenance</html>"),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(limit_of(status, code, text), None, "{code:?} {text}");
        }
    }
}
