//! Settings that verify the tokens of callers.

use clap::Args;
use reqwest::Url;

use super::secret::Secret;
use super::setting::{common, text_that};

/// A shorter key would make HMAC-SHA-256 weaker than its hash (RFC 7518, section 3.2).
const JWT_SECRET_BYTES_MIN: usize = 32;

/// Verification of JSON Web Tokens: with a shared secret or with a published key set, never both.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Authentication", mut_args(common))]
pub struct AuthConfig {
    /// Shared secret of the tokens: 32 bytes or more
    #[arg(id = "JWT_SECRET", env, long = "jwt-secret", hide_env_values = true, value_parser = text_that("32 bytes or more", is_long_enough))]
    pub jwt_secret: Option<Secret>,

    /// Key set of the tokens' issuer: an https:// URL (http:// on the loopback only)
    #[arg(id = "JWT_JWKS_URL", env, long = "jwt-jwks-url", value_parser = text_that("an https:// URL (http:// on the loopback only)", is_trustworthy))]
    pub jwt_jwks_url: Option<Url>,

    /// Issuer that a token must name: text
    #[arg(id = "JWT_ISSUER", env, long = "jwt-issuer", value_parser = text_that::<String>("text", is_not_blank))]
    pub jwt_issuer: Option<String>,

    /// Audience that a token must name: text
    #[arg(id = "JWT_AUDIENCE", env, long = "jwt-audience", value_parser = text_that::<String>("text", is_not_blank))]
    pub jwt_audience: Option<String>,
}

fn is_long_enough(secret: &Secret) -> bool {
    secret.expose().len() >= JWT_SECRET_BYTES_MIN
}

/// Anyone who can modify the key set in transit can forge any token.
fn is_trustworthy(url: &Url) -> bool {
    let loopback = matches!(url.host_str(), Some("localhost" | "127.0.0.1" | "[::1]"));
    url.scheme() == "https" || (url.scheme() == "http" && loopback)
}

fn is_not_blank(text: &impl AsRef<str>) -> bool {
    !text.as_ref().trim().is_empty()
}
