//! Authenticates a caller and counts its request.

use std::num::NonZeroU32;
use std::sync::Arc;

use super::authenticator::Authenticator;
use super::principal::Principal;
use super::rate_limit::{RateLimiter, RateLimiterCleanup};
use crate::api::problem::Problem;
use crate::domain::AuthError;
use crate::periodic::PeriodicTask;
use crate::telemetry::Health;

/// Checks a caller's token and counts its request. Clones share keys and counts.
#[derive(Clone)]
pub struct CallerAuth {
    authenticator: Arc<Authenticator>,
    rate_limiter: Arc<RateLimiter>,
}

impl CallerAuth {
    pub fn new(authenticator: Authenticator, requests_per_minute: NonZeroU32) -> CallerAuth {
        CallerAuth {
            authenticator: Arc::new(authenticator),
            rate_limiter: Arc::new(RateLimiter::per_minute(requests_per_minute)),
        }
    }

    /// Checks the token alone; the caller of this function counts the request.
    pub async fn verify(&self, token: &str) -> Result<Principal, AuthError> {
        self.authenticator.verify(token).await
    }

    /// Counts one request of this subject, or refuses it.
    pub fn count_request(&self, subject: &str) -> Result<(), Problem> {
        self.rate_limiter.check(subject)
    }

    pub async fn authenticate(&self, token: &str) -> Result<Principal, Problem> {
        let principal = self.verify(token).await?;
        self.count_request(&principal.caller.subject)?;
        Ok(principal)
    }

    /// The same for an admin; a user gets 403.
    pub async fn authenticate_admin(&self, token: &str) -> Result<Principal, Problem> {
        self.authenticate(token).await?.require_admin()
    }

    /// Keeps the identity provider's keys up to date; `None` with a shared secret. Until its first run no token can be checked.
    pub fn key_set_task(&self, health: Health) -> Option<PeriodicTask> {
        let key_set = self.authenticator.key_set()?;
        Some(key_set.refresh_task(health))
    }

    /// Frees the memory of subjects that have made no request for a while.
    pub fn cleanup_task(&self) -> PeriodicTask {
        RateLimiterCleanup(Arc::clone(&self.rate_limiter)).task()
    }

    #[cfg(test)]
    pub fn issue(&self, subject: &str, role: crate::meters::Role) -> String {
        let ttl = std::time::Duration::from_secs(60);
        self.authenticator.issue(subject, role, ttl).unwrap()
    }
}
