//! Checks bearer tokens (JWT), and makes development tokens.
//!
//! Invariant: a token is accepted only when a key that the service trusts signed it with the one algorithm pinned to that
//! key, its `sub` and `role` are valid, and now lies between `nbf` and `exp`, give or take
//! [`SKEW_SECS`](super::principal::SKEW_SECS). The times are checked in [`Principal`] and not by `jsonwebtoken`: under
//! serde_json's `arbitrary_precision`, which exact amounts need, its reading of `exp` and `nbf` fails.

use std::sync::Arc;
use std::time::Duration;

use chrono::Utc;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};

use super::key_set::KeySet;
use super::principal::{Claims, IssuedClaims, Principal, check_subject};
use crate::domain::{AuthError, InvalidClaims, MalformedToken, TOKEN_BYTES_MAX};
use crate::meters::Role;

/// The source of the keys that verify tokens.
#[derive(Clone)]
pub enum TokenKeys {
    /// One shared secret, 32 bytes or more: HS256.
    Secret(String),
    /// An identity provider's published keys: RS256 or ES256.
    JwksUrl(String),
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

    /// The identity provider's keys, which the caller must [keep up to date](KeySet::refresh_task); `None` with a shared
    /// secret.
    pub fn key_set(&self) -> Option<Arc<KeySet>> {
        match &self.keys {
            Keys::Secret { .. } => None,
            Keys::Published(key_set) => Some(Arc::clone(key_set)),
        }
    }

    /// Checks a token. Waits only when the identity provider's keys must be fetched, and then a few seconds at most.
    pub async fn verify(&self, token: &str) -> Result<Principal, AuthError> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(AuthError::Malformed(MalformedToken::TooLong));
        }
        let header = jsonwebtoken::decode_header(token)
            .map_err(|_| AuthError::Malformed(MalformedToken::Header))?;
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
            .map_err(|error| auth_error(&error))?;
        Principal::from_claims(decoded.claims, Utc::now())
    }

    /// Signature, algorithm, issuer and audience; [`Principal::from_claims`] checks the rest.
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
            role: role.as_str(),
            iat: now,
            exp: now.saturating_add(ttl_secs),
            iss: self.issuer.as_deref(),
            aud: self.audience.as_deref(),
        };
        jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, signing)
            .map_err(|_| AuthError::Unsigned)
    }
}

/// Translates the library's errors. None of its texts is shown, since some repeat parts of the token.
fn auth_error(error: &jsonwebtoken::errors::Error) -> AuthError {
    use jsonwebtoken::errors::ErrorKind;
    match error.kind() {
        ErrorKind::InvalidSignature | ErrorKind::InvalidAlgorithm => AuthError::Untrusted,
        ErrorKind::InvalidIssuer => AuthError::Claims(InvalidClaims::Issuer),
        ErrorKind::InvalidAudience => AuthError::Claims(InvalidClaims::Audience),
        ErrorKind::MissingRequiredClaim(claim) => AuthError::Claims(InvalidClaims::Missing {
            claim: claim.clone(),
        }),
        ErrorKind::Json(_) => AuthError::Claims(InvalidClaims::Types),
        _ => AuthError::Malformed(MalformedToken::Parts),
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
    async fn invalid_claims_are_refused() {
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
    async fn another_key_another_algorithm_and_no_signature_are_refused() {
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
    async fn issuer_and_audience_are_required_when_configured() {
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
        // It accepts the tokens that it issues.
        let own = strict
            .issue("a", Role::User, Duration::from_secs(60))
            .unwrap();
        assert!(strict.verify(&own).await.is_ok());
        // Without configuration the audience is not checked.
        let token = with(good, Some(json!("x")));
        assert!(authenticator().verify(&token).await.is_ok());
    }
}
