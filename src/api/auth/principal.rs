//! Turns the claims of a token into a caller, by the rules for each claim.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::api::problem::Problem;
use crate::api::problem_kind::ProblemKind;
use crate::domain::{AuthError, InvalidClaims, SUBJECT_CHARS_MAX};
use crate::meters::{Caller, Role};

/// How far the clocks of issuer and service may differ, seconds.
pub const SKEW_SECS: i64 = 30;

/// Latest `exp` and `nbf`, seconds since 1970: later than any token needs, and far from the calendar's end, so that adding
/// the skew cannot overflow.
const TIME_SECS_MAX: f64 = 253_402_300_799.0; // 9999-12-31T23:59:59Z

/// Whom a token identifies, and until when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    pub caller: Caller,
    /// The token's `exp`: a stream ends then.
    pub expires_at: DateTime<Utc>,
}

/// The claims that this service reads; others are ignored.
#[derive(Debug, Deserialize)]
pub(super) struct Claims {
    sub: String,
    role: String,
    /// Seconds since 1970; a fraction is allowed (RFC 7519, NumericDate).
    exp: f64,
    #[serde(default)]
    nbf: Option<f64>,
}

/// The claims of a development token.
#[derive(Serialize)]
pub(super) struct IssuedClaims<'a> {
    pub sub: &'a str,
    pub role: &'static str,
    pub iat: i64,
    pub exp: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub iss: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aud: Option<&'a str>,
}

impl Principal {
    /// Refuses a user.
    pub fn require_admin(self) -> Result<Principal, Problem> {
        if self.caller.is_admin() {
            return Ok(self);
        }
        Err(Problem::new(
            ProblemKind::Forbidden,
            "this is for admins: the token's role must be \"admin\"",
        ))
    }

    /// Checks the claims of a token whose signature holds. `now` is a parameter for the sake of tests.
    pub(super) fn from_claims(claims: Claims, now: DateTime<Utc>) -> Result<Principal, AuthError> {
        let expires_at = time(claims.exp, "exp")?;
        let skew = chrono::Duration::seconds(SKEW_SECS);
        if expires_at + skew <= now {
            return Err(AuthError::Expired(expires_at));
        }
        if let Some(nbf) = claims.nbf {
            let valid_from = time(nbf, "nbf")?;
            if valid_from - skew > now {
                return Err(AuthError::NotYetValid(valid_from));
            }
        }
        check_subject(&claims.sub)?;
        let role = Role::parse(&claims.role).ok_or(AuthError::Claims(InvalidClaims::Role))?;
        Ok(Principal {
            caller: Caller {
                subject: claims.sub,
                role,
            },
            expires_at,
        })
    }
}

pub(super) fn check_subject(subject: &str) -> Result<(), AuthError> {
    let characters = subject.chars().count();
    if characters == 0 || characters > SUBJECT_CHARS_MAX || subject.chars().any(char::is_control) {
        return Err(AuthError::Claims(InvalidClaims::Subject));
    }
    Ok(())
}

fn time(seconds: f64, claim: &'static str) -> Result<DateTime<Utc>, AuthError> {
    // Rounded down: a token is never accepted beyond its own times.
    let whole = seconds.floor();
    (0.0..=TIME_SECS_MAX)
        .contains(&whole)
        // A whole number below 2^38 is exact as an i64.
        .then(|| DateTime::from_timestamp(whole as i64, 0))
        .flatten()
        .ok_or(AuthError::Claims(InvalidClaims::Time { claim }))
}
