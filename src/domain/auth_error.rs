//! The errors of a bearer token.

use chrono::{DateTime, Utc};
use thiserror::Error;

/// Longest subject, characters: owners are stored and shown.
pub const SUBJECT_CHARS_MAX: usize = 128;

/// Longest token, bytes; it would not fit most proxies' header limits anyway.
pub const TOKEN_BYTES_MAX: usize = 8 * 1024;

/// The reason for which a token is refused. The sentences never repeat the token.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum AuthError {
    #[error("a bearer token is needed: send `Authorization: Bearer TOKEN`")]
    Missing,
    #[error("the bearer token is not a JWT: {0}")]
    Malformed(MalformedToken),
    #[error("the bearer token is not signed by a key and algorithm that this service trusts")]
    Untrusted,
    #[error("the bearer token expired at {0}; get a new one")]
    Expired(DateTime<Utc>),
    #[error("the bearer token is not valid before {0}")]
    NotYetValid(DateTime<Utc>),
    #[error("the bearer token's claims do not fit: {0}")]
    Claims(InvalidClaims),
    #[error("the keys that sign tokens cannot be fetched at the moment; try again later")]
    KeysUnavailable,
    #[error("this service checks tokens of an identity provider and cannot make one")]
    CannotIssue,
    #[error("the token could not be signed")]
    Unsigned,
}

/// The fault in the form of a token.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum MalformedToken {
    #[error("the request has more than one Authorization header")]
    SeveralHeaders,
    #[error("it is longer than {TOKEN_BYTES_MAX} bytes")]
    TooLong,
    #[error("its header cannot be read")]
    Header,
    #[error("it is not three base64url parts of JSON and signature")]
    Parts,
}

/// The fault in the claims of a token.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum InvalidClaims {
    #[error("`sub` must have 1 to {SUBJECT_CHARS_MAX} characters and no control characters")]
    Subject,
    #[error("`role` must be exactly \"user\" or \"admin\"")]
    Role,
    /// Of `exp` or `nbf`.
    #[error("`{claim}` is not a time in seconds since 1970")]
    Time { claim: &'static str },
    #[error("`iss` is not the issuer that this service trusts")]
    Issuer,
    #[error("`aud` does not name this service")]
    Audience,
    #[error("`{claim}` is missing")]
    Missing { claim: String },
    #[error("`sub` and `role` must be texts, `exp` (required) and `nbf` numbers")]
    Types,
}
