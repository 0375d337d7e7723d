//! Development tokens: the secret that signs them stays with the data directory, and the program's own clients renew theirs
//! before they expire.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use thiserror::Error;

use super::atomic_file;
use crate::api::{Authenticator, TokenKeys};
use crate::config::{AuthConfig, Secret};
use crate::domain::{AuthError, hex};
use crate::meters::Role;

/// A token is valid for this long …
const LIFETIME: Duration = Duration::from_secs(3600);
/// … and replaced this long before it expires: a request under way must not outlive it.
const RENEWAL: Duration = Duration::from_secs(600);
const SECRET_FILE: &str = "jwt-secret";

/// No development token can be made.
#[derive(Debug, Error)]
pub enum TokenError {
    #[error("the secret in {} cannot be read or created: {source}", .path.display())]
    Secret { path: PathBuf, source: io::Error },
    #[error("the secret in {} is too short; remove the file to get a new one", .path.display())]
    ShortSecret { path: PathBuf },
    #[error(transparent)]
    Auth(#[from] AuthError),
    #[error("tokens cannot be checked: {0}")]
    Keys(#[from] reqwest::Error),
}

/// The configured secret or key set; without either, the data directory's own secret, which is generated once.
pub fn with_development_secret(
    mut auth: AuthConfig,
    data_dir: &Path,
) -> Result<AuthConfig, TokenError> {
    if auth.jwt_secret.is_some() || auth.jwt_jwks_url.is_some() {
        return Ok(auth);
    }
    let path = data_dir.join(SECRET_FILE);
    let generate = || {
        let bytes: [u8; 32] = rand::random();
        hex(&bytes).into_bytes()
    };
    // A token may be requested before anything ever ran here.
    let secret = std::fs::create_dir_all(data_dir)
        .and_then(|()| atomic_file::read_or_create(&path, generate))
        .and_then(|bytes| String::from_utf8(bytes).map_err(io::Error::other))
        .map_err(|source| TokenError::Secret {
            path: path.clone(),
            source,
        })?;
    let secret = secret.trim_end();
    if secret.len() < 32 {
        return Err(TokenError::ShortSecret { path });
    }
    auth.jwt_secret = Some(Secret::new(secret));
    Ok(auth)
}

/// Checks tokens, and issues them where a secret is configured.
pub fn authenticator(auth: &AuthConfig) -> Result<Authenticator, TokenError> {
    let keys = match (&auth.jwt_secret, &auth.jwt_jwks_url) {
        (Some(secret), _) => TokenKeys::Secret(secret.expose().to_owned()),
        (None, Some(url)) => TokenKeys::JwksUrl(url.to_string()),
        (None, None) => return Err(TokenError::Auth(AuthError::CannotIssue)),
    };
    Ok(Authenticator::new(
        keys,
        auth.jwt_issuer.clone(),
        auth.jwt_audience.clone(),
    )?)
}

/// Issues valid tokens of one subject and role.
pub struct TokenSource {
    authenticator: Authenticator,
    subject: String,
    role: Role,
    current: Mutex<(String, Instant)>,
}

impl TokenSource {
    /// Fails where tokens come from an identity provider.
    pub fn new(auth: &AuthConfig, subject: &str, role: Role) -> Result<TokenSource, TokenError> {
        let authenticator = authenticator(auth)?;
        let first = authenticator.issue(subject, role, LIFETIME)?;
        Ok(TokenSource {
            authenticator,
            subject: subject.to_owned(),
            role,
            current: Mutex::new((first, Instant::now())),
        })
    }

    /// A token that stays valid for minutes.
    pub fn token(&self) -> String {
        // The lock only guards a copy: a panic elsewhere cannot leave it half written.
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if current.1.elapsed() > LIFETIME - RENEWAL {
            // A token that could be issued once can be issued again; if not, the service refuses the old one and reports why.
            if let Ok(token) = self.authenticator.issue(&self.subject, self.role, LIFETIME) {
                *current = (token, Instant::now());
            }
        }
        current.0.clone()
    }
}

#[cfg(test)]
pub(super) fn test_tokens() -> TokenSource {
    let config =
        crate::config::Config::from_flags([format!("--jwt-secret={}", "s".repeat(32))]).unwrap();
    TokenSource::new(&config.auth, "ausgrid-12", Role::User).unwrap()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[tokio::test]
    async fn the_data_directory_keeps_one_secret_for_service_and_client() {
        let data_dir = std::env::temp_dir().join(format!("tokens-{}", uuid::Uuid::new_v4()));
        std::fs::create_dir(&data_dir).unwrap();
        let unset = Config::defaults().auth;

        let service = with_development_secret(unset.clone(), &data_dir).unwrap();
        let client = with_development_secret(unset, &data_dir).unwrap();
        let token = TokenSource::new(&client, "ausgrid-12", Role::User)
            .unwrap()
            .token();

        let principal = authenticator(&service)
            .unwrap()
            .verify(&token)
            .await
            .unwrap();
        assert_eq!(principal.caller.subject, "ausgrid-12");
        std::fs::remove_dir_all(&data_dir).unwrap();
    }

    #[test]
    fn a_configured_secret_takes_precedence_and_a_key_set_issues_nothing() {
        let nowhere = Path::new("/nonexistent");
        let secret = Config::from_flags([format!("--jwt-secret={}", "s".repeat(32))]).unwrap();
        let kept = with_development_secret(secret.auth, nowhere).unwrap();
        assert_eq!(kept.jwt_secret.unwrap().expose(), "s".repeat(32));

        let key_set = Config::from_flags(["--jwt-jwks-url=https://keys.example"]).unwrap();
        let kept = with_development_secret(key_set.auth, nowhere).unwrap();
        assert!(matches!(
            TokenSource::new(&kept, "a", Role::User),
            Err(TokenError::Auth(AuthError::CannotIssue))
        ));
    }
}
