//! Who is asking: bearer tokens (JWT) are checked here, and development tokens are made.
//!
//! Invariant: a token counts only when a key that we trust signed it with the one algorithm pinned to that key, its `sub`
//! and `role` are what we know, and now lies between `nbf` and `exp`, give or take [`SKEW_SECS`]. The times are checked
//! here and not by `jsonwebtoken`: under serde_json's `arbitrary_precision`, which exact amounts need, its reading of
//! `exp` and `nbf` fails.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::api::auth::jwks::KeySet;
use crate::meters::{Caller, Role};

/// How far the clocks of issuer and service may differ, seconds.
pub const SKEW_SECS: i64 = 30;

/// Longest subject, characters: owners are stored and shown.
const SUBJECT_CHARS_MAX: usize = 128;

/// Longest token, bytes; it would not fit most proxies' header limits anyway.
const TOKEN_BYTES_MAX: usize = 8 * 1024;

/// Where the keys come from that sign tokens.
#[derive(Clone)]
pub enum TokenKeys {
    /// One shared secret, 32 bytes or more: HS256.
    Secret(String),
    /// An identity provider's published keys: RS256 or ES256.
    JwksUrl(String),
}

/// Why a token does not count. The sentences never repeat the token.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum AuthError {
    #[error("a bearer token is needed: send `Authorization: Bearer TOKEN`")]
    Missing,
    #[error("the bearer token is not a JWT: {0}")]
    Malformed(String),
    #[error("the bearer token is not signed by a key and algorithm that this service trusts")]
    Untrusted,
    #[error("the bearer token expired at {0}; get a new one")]
    Expired(DateTime<Utc>),
    #[error("the bearer token is not valid before {0}")]
    NotYetValid(DateTime<Utc>),
    #[error("the bearer token's claims do not fit: {0}")]
    Claims(String),
    #[error("the keys that sign tokens cannot be fetched at the moment; try again later")]
    KeysUnavailable,
    #[error("this service checks tokens of an identity provider and cannot make one")]
    CannotIssue,
}

/// Who a token speaks for, and until when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    pub caller: Caller,
    /// The token's `exp`: a stream ends then.
    pub expires_at: DateTime<Utc>,
}

/// What this service reads in a token; other claims are ignored.
#[derive(Debug, Deserialize)]
struct Claims {
    sub: String,
    role: String,
    /// Seconds since 1970; a fraction is allowed (RFC 7519, NumericDate).
    exp: f64,
    #[serde(default)]
    nbf: Option<f64>,
}

/// What this service writes into a development token.
#[derive(Serialize)]
struct IssuedClaims<'a> {
    sub: &'a str,
    role: &'static str,
    iat: i64,
    exp: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    iss: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    aud: Option<&'a str>,
}

enum Keys {
    Secret {
        verifying: DecodingKey,
        signing: EncodingKey,
    },
    Published(Arc<KeySet>),
}

/// Checks bearer tokens.
pub struct Authenticator {
    keys: Keys,
    issuer: Option<String>,
    audience: Option<String>,
}

impl Authenticator {
    /// With `issuer` or `audience`, tokens must carry exactly it.
    pub fn new(
        keys: TokenKeys,
        issuer: Option<String>,
        audience: Option<String>,
    ) -> Result<Authenticator, reqwest::Error> {
        let keys = match keys {
            TokenKeys::Secret(secret) => Keys::Secret {
                verifying: DecodingKey::from_secret(secret.as_bytes()),
                signing: EncodingKey::from_secret(secret.as_bytes()),
            },
            TokenKeys::JwksUrl(url) => Keys::Published(Arc::new(KeySet::new(url)?)),
        };
        Ok(Authenticator {
            keys,
            issuer,
            audience,
        })
    }

    /// The identity provider's keys, which somebody must [keep](KeySet::keep); `None` with a shared secret.
    pub fn key_set(&self) -> Option<Arc<KeySet>> {
        match &self.keys {
            Keys::Secret { .. } => None,
            Keys::Published(key_set) => Some(Arc::clone(key_set)),
        }
    }

    /// Checks a token. Waits only when the identity provider's keys must be fetched, and then a few seconds at most.
    pub async fn verify(&self, token: &str) -> Result<Principal, AuthError> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(AuthError::Malformed(format!(
                "it is longer than {TOKEN_BYTES_MAX} bytes"
            )));
        }
        let header = jsonwebtoken::decode_header(token)
            .map_err(|_| AuthError::Malformed("its header cannot be read".to_owned()))?;
        match &self.keys {
            Keys::Secret { verifying, .. } => self.check(token, Algorithm::HS256, verifying),
            Keys::Published(key_set) => {
                let key = key_set.find(header.kid.as_deref()).await?;
                self.check(token, key.algorithm, &key.verifying)
            }
        }
    }

    fn check(
        &self,
        token: &str,
        algorithm: Algorithm,
        key: &DecodingKey,
    ) -> Result<Principal, AuthError> {
        let decoded = jsonwebtoken::decode::<Claims>(token, key, &self.validation(algorithm))
            .map_err(|error| refusal(&error))?;
        admit(decoded.claims, Utc::now())
    }

    /// Signature, algorithm, issuer and audience; the rest is [`admit`]'s.
    fn validation(&self, algorithm: Algorithm) -> Validation {
        let mut validation = Validation::new(algorithm);
        validation.validate_exp = false;
        validation.validate_nbf = false;
        validation.required_spec_claims.clear();
        validation.validate_aud = self.audience.is_some();
        if let Some(issuer) = &self.issuer {
            validation.set_issuer(&[issuer]);
            validation.required_spec_claims.insert("iss".to_owned());
        }
        if let Some(audience) = &self.audience {
            validation.set_audience(&[audience]);
            validation.required_spec_claims.insert("aud".to_owned());
        }
        validation
    }

    /// Makes a token that [`verify`](Self::verify) accepts for the time `ttl`; only with a shared secret.
    pub fn issue(&self, subject: &str, role: Role, ttl: Duration) -> Result<String, AuthError> {
        let Keys::Secret { signing, .. } = &self.keys else {
            return Err(AuthError::CannotIssue);
        };
        check_subject(subject)?;
        let now = Utc::now().timestamp();
        let ttl_secs = i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX);
        let claims = IssuedClaims {
            sub: subject,
            role: role_name(role),
            iat: now,
            exp: now.saturating_add(ttl_secs),
            iss: self.issuer.as_deref(),
            aud: self.audience.as_deref(),
        };
        jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, signing)
            .map_err(|error| AuthError::Malformed(error.to_string()))
    }
}

/// The claims' own rules, apart from the clock for the tests' sake.
fn admit(claims: Claims, now: DateTime<Utc>) -> Result<Principal, AuthError> {
    let expires_at = moment(claims.exp, "exp")?;
    let skew = chrono::Duration::seconds(SKEW_SECS);
    if expires_at + skew <= now {
        return Err(AuthError::Expired(expires_at));
    }
    if let Some(nbf) = claims.nbf {
        let valid_from = moment(nbf, "nbf")?;
        if valid_from - skew > now {
            return Err(AuthError::NotYetValid(valid_from));
        }
    }
    check_subject(&claims.sub)?;
    let role = match claims.role.as_str() {
        "user" => Role::User,
        "admin" => Role::Admin,
        _ => {
            return Err(AuthError::Claims(
                "`role` must be exactly \"user\" or \"admin\"".to_owned(),
            ));
        }
    };
    Ok(Principal {
        caller: Caller {
            subject: claims.sub,
            role,
        },
        expires_at,
    })
}

fn role_name(role: Role) -> &'static str {
    match role {
        Role::User => "user",
        Role::Admin => "admin",
    }
}

fn check_subject(subject: &str) -> Result<(), AuthError> {
    let characters = subject.chars().count();
    if characters == 0 || characters > SUBJECT_CHARS_MAX || subject.chars().any(char::is_control) {
        return Err(AuthError::Claims(format!(
            "`sub` must have 1 to {SUBJECT_CHARS_MAX} characters and no control characters"
        )));
    }
    Ok(())
}

/// Later than any token needs, and far from the calendar's end, so that adding the skew cannot overflow.
const EXP_SECS_MAX: f64 = 253_402_300_799.0; // 9999-12-31T23:59:59Z

fn moment(seconds: f64, claim: &str) -> Result<DateTime<Utc>, AuthError> {
    // Rounded down: a token never counts longer than it says.
    let whole = seconds.floor();
    (0.0..=EXP_SECS_MAX)
        .contains(&whole)
        .then(|| DateTime::from_timestamp(whole as i64, 0))
        .flatten()
        .ok_or_else(|| AuthError::Claims(format!("`{claim}` is not a time in seconds since 1970")))
}

/// Translates the library's refusals; none of its texts is shown, since some repeat parts of the token.
fn refusal(error: &jsonwebtoken::errors::Error) -> AuthError {
    use jsonwebtoken::errors::ErrorKind;
    match error.kind() {
        ErrorKind::InvalidSignature | ErrorKind::InvalidAlgorithm => AuthError::Untrusted,
        ErrorKind::InvalidIssuer => {
            AuthError::Claims("`iss` is not the issuer that this service trusts".to_owned())
        }
        ErrorKind::InvalidAudience => {
            AuthError::Claims("`aud` does not name this service".to_owned())
        }
        ErrorKind::MissingRequiredClaim(claim) => {
            AuthError::Claims(format!("`{claim}` is missing"))
        }
        ErrorKind::Json(_) => AuthError::Claims(
            "`sub` and `role` must be texts, `exp` (required) and `nbf` numbers".to_owned(),
        ),
        _ => {
            AuthError::Malformed("it is not three base64url parts of JSON and signature".to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    const SECRET: &str = "0123456789abcdef0123456789abcdef";

    fn authenticator() -> Authenticator {
        Authenticator::new(TokenKeys::Secret(SECRET.to_owned()), None, None).unwrap()
    }

    fn sign(claims: &Value) -> String {
        let key = EncodingKey::from_secret(SECRET.as_bytes());
        jsonwebtoken::encode(&Header::new(Algorithm::HS256), claims, &key).unwrap()
    }

    fn now() -> i64 {
        Utc::now().timestamp()
    }

    async fn refused(claims: Value) -> AuthError {
        authenticator().verify(&sign(&claims)).await.unwrap_err()
    }

    #[tokio::test]
    async fn an_issued_token_is_accepted() {
        let authenticator = authenticator();
        let token = authenticator
            .issue("ausgrid-12", Role::User, Duration::from_secs(60))
            .unwrap();
        let principal = authenticator.verify(&token).await.unwrap();
        assert_eq!(principal.caller.subject, "ausgrid-12");
        assert_eq!(principal.caller.role, Role::User);
        let left = (principal.expires_at - Utc::now()).num_seconds();
        assert!((55..=60).contains(&left), "{left} s left");
    }

    #[tokio::test]
    async fn the_skew_is_thirty_seconds_both_ways() {
        let token = |exp: i64, nbf: i64| {
            sign(&json!({"sub": "a", "role": "user", "exp": now() + exp, "nbf": now() + nbf}))
        };
        let verify = async |exp, nbf| authenticator().verify(&token(exp, nbf)).await;
        assert!(verify(-25, 0).await.is_ok());
        assert!(verify(60, 25).await.is_ok());
        assert!(matches!(verify(-35, 0).await, Err(AuthError::Expired(_))));
        assert!(matches!(
            verify(60, 40).await,
            Err(AuthError::NotYetValid(_))
        ));
    }

    #[tokio::test]
    async fn claims_that_do_not_fit_are_refused() {
        let exp = now() + 60;
        for claims in [
            json!({"sub": "a", "role": "user"}),
            json!({"sub": "a", "exp": exp}),
            json!({"role": "user", "exp": exp}),
            json!({"sub": "", "role": "user", "exp": exp}),
            json!({"sub": "a\u{0}", "role": "user", "exp": exp}),
            json!({"sub": "x".repeat(129), "role": "user", "exp": exp}),
            json!({"sub": 7, "role": "user", "exp": exp}),
            json!({"sub": "a", "role": "Admin", "exp": exp}),
            json!({"sub": "a", "role": ["admin"], "exp": exp}),
            json!({"sub": "a", "role": "user", "exp": exp.to_string()}),
            json!({"sub": "a", "role": "user", "exp": 1e300}),
            json!({"sub": "a", "role": "user", "exp": exp, "nbf": "soon"}),
        ] {
            let error = refused(claims.clone()).await;
            assert!(matches!(error, AuthError::Claims(_)), "{claims}: {error:?}");
        }
        let longest = json!({"sub": "ü".repeat(128), "role": "admin", "exp": exp as f64 + 0.5});
        let principal = authenticator().verify(&sign(&longest)).await.unwrap();
        assert!(principal.caller.is_admin());
    }

    #[tokio::test]
    async fn another_key_algorithm_or_none_is_refused() {
        let authenticator = authenticator();
        let claims = json!({"sub": "a", "role": "admin", "exp": now() + 60});
        let other = EncodingKey::from_secret(b"another secret of thirty-two bytes!!");
        let token = jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &other).unwrap();
        assert_eq!(
            authenticator.verify(&token).await,
            Err(AuthError::Untrusted)
        );
        let key = EncodingKey::from_secret(SECRET.as_bytes());
        let token = jsonwebtoken::encode(&Header::new(Algorithm::HS512), &claims, &key).unwrap();
        assert_eq!(
            authenticator.verify(&token).await,
            Err(AuthError::Untrusted)
        );
        // {"alg":"none"}
        let good = sign(&claims);
        let payload = good.split('.').nth(1).unwrap();
        let unsigned = format!("eyJhbGciOiJub25lIn0.{payload}.");
        assert!(authenticator.verify(&unsigned).await.is_err());
        assert!(authenticator.verify("nonsense").await.is_err());
        assert!(authenticator.verify("").await.is_err());
    }

    #[tokio::test]
    async fn issuer_and_audience_are_demanded_when_configured() {
        let strict = Authenticator::new(
            TokenKeys::Secret(SECRET.to_owned()),
            Some("https://issuer.example".to_owned()),
            Some("gridtokenx".to_owned()),
        )
        .unwrap();
        let exp = now() + 60;
        let base = json!({"sub": "a", "role": "user", "exp": exp});
        let with = |iss: Option<&str>, aud: Option<Value>| {
            let mut claims = base.clone();
            if let Some(iss) = iss {
                claims["iss"] = json!(iss);
            }
            if let Some(aud) = aud {
                claims["aud"] = aud;
            }
            sign(&claims)
        };
        let good = Some("https://issuer.example");
        let ours = Some(json!(["other", "gridtokenx"]));
        assert!(strict.verify(&with(good, ours.clone())).await.is_ok());
        assert!(strict.verify(&with(None, ours.clone())).await.is_err());
        assert!(strict.verify(&with(Some("x"), ours)).await.is_err());
        assert!(strict.verify(&with(good, None)).await.is_err());
        assert!(strict.verify(&with(good, Some(json!("x")))).await.is_err());
        // What it issues, it accepts.
        let own = strict
            .issue("a", Role::User, Duration::from_secs(60))
            .unwrap();
        assert!(strict.verify(&own).await.is_ok());
        // Without configuration an audience is nobody's business.
        let token = with(good, Some(json!("x")));
        assert!(authenticator().verify(&token).await.is_ok());
    }
}
