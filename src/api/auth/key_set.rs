//! The identity provider's published keys, fetched and kept up to date.
//!
//! Invariant: a token signed by a known key is checked without waiting, and a key that the provider withdrew is refused
//! within ten minutes while its key set can be fetched. Kept by [`KeySet::refresh_task`], which runs beside the requests and
//! is the only code that fetches: a client that disconnects cancels no fetch, and any number of requests share one.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until, timeout};

use super::jwks_client::JwksClient;
use super::known_keys::{KEYS_AGE_MAX, Known, RETRY_PAUSE_MS};
use super::published_keys::PublishedKey;
use crate::domain::AuthError;
use crate::periodic::{Periodic, PeriodicTask, RunError, Timing};
use crate::telemetry::Health;

/// How long a request waits for a fetch and its outcome.
const OUTCOME_LIMIT: Duration = Duration::from_secs(6);

/// The provider's keys as of the last successful fetch.
pub struct KeySet {
    provider: JwksClient,
    known: watch::Sender<Known>,
    /// A token names a key that is not known.
    wanted: Notify,
}

impl KeySet {
    pub fn new(url: String) -> Result<KeySet, reqwest::Error> {
        Ok(KeySet {
            provider: JwksClient::new(url)?,
            known: watch::Sender::new(Known::nothing()),
            wanted: Notify::new(),
        })
    }

    /// The key that a token names; for a token that names none, the only key there is.
    pub async fn find(&self, key_id: Option<&str>) -> Result<Arc<PublishedKey>, AuthError> {
        let mut known = self.known.subscribe();
        let (key, may_fetch) = {
            let known = known.borrow_and_update();
            let may_fetch = known.allowed_at <= Instant::now();
            (known.keys.find(key_id), may_fetch)
        };
        if let Some(key) = key {
            return Ok(key);
        }
        if may_fetch {
            self.wanted.notify_one();
            // Whatever the outcome, or without one in time: the keys that are known then decide.
            let _ = timeout(OUTCOME_LIMIT, known.changed()).await;
        }
        let known = known.borrow();
        if known.keys.is_empty() {
            return Err(AuthError::KeysUnavailable);
        }
        known.keys.find(key_id).ok_or(AuthError::Untrusted)
    }

    /// Fetches the keys whenever a fetch is due or requested, and reports to health.
    pub fn refresh_task(self: Arc<Self>, health: Health) -> PeriodicTask {
        let refresh = KeySetRefresh {
            key_set: self,
            health,
        };
        PeriodicTask::new(Timing::new("JWKS refresh", KEYS_AGE_MAX), refresh)
    }

    /// Fetches the keys now and reports to health, within [`FETCH_LIMIT`](super::jwks_client::FETCH_LIMIT).
    async fn fetch(&self, health: &Health) {
        match self.provider.fetch().await {
            Ok(keys) => {
                tracing::info!(keys = keys.len(), "fetched the keys that sign tokens");
                self.known.send_modify(|known| known.succeeded(keys));
            }
            Err(error) => {
                // One warning until a fetch succeeds.
                let was_failing = self.known.borrow().is_failing;
                if was_failing {
                    tracing::debug!(reason = %error, "JWT_JWKS_URL still returns no keys");
                } else {
                    tracing::warn!(
                        reason = %error,
                        "JWT_JWKS_URL returned no keys; those known before stay valid"
                    );
                }
                self.known.send_modify(Known::failed);
            }
        }
        self.known.borrow().report(health);
    }
}

/// The one caller of [`KeySet::fetch`].
struct KeySetRefresh {
    key_set: Arc<KeySet>,
    health: Health,
}

impl Periodic for KeySetRefresh {
    /// The request has a limit. A fetch that fails is logged and reported to health where it fails.
    async fn run(&mut self) -> Result<(), RunError> {
        self.key_set.fetch(&self.health).await;
        Ok(())
    }

    fn pause(&self) -> Option<Duration> {
        let due_at = self.key_set.known.borrow().due_at;
        let until_due = due_at.saturating_duration_since(Instant::now());
        // A run that panicked has set no moment for the next.
        Some(until_due.max(Duration::from_millis(RETRY_PAUSE_MS.start)))
    }

    /// A token names a key that is not known, and a fetch is allowed.
    async fn woken(&mut self) {
        let allowed_at = self.key_set.known.borrow().allowed_at;
        sleep_until(allowed_at).await;
        self.key_set.wanted.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    use axum::http::StatusCode;
    use axum::routing::get;
    use axum::{Json, Router};
    use jsonwebtoken::jwk::{Jwk, PublicKeyUse};
    use jsonwebtoken::{Algorithm, EncodingKey, Header};
    use p256::elliptic_curve::rand_core::OsRng;
    use p256::pkcs8::EncodePrivateKey;
    use serde_json::{Value, json};
    use tokio_util::sync::CancellationToken;

    use super::super::authenticator::{Authenticator, TokenKeys};
    use super::super::jwks_client::FETCH_LIMIT;
    use super::super::published_keys::PublishedKeys;
    use super::*;
    use crate::periodic::TaskList;
    use crate::telemetry::HealthPart;
    use crate::telemetry::Status;

    struct Signer(EncodingKey);

    impl Signer {
        fn new() -> Signer {
            let secret = p256::SecretKey::random(&mut OsRng);
            let der = secret.to_pkcs8_der().unwrap();
            Signer(EncodingKey::from_ec_der(der.as_bytes()))
        }

        fn published(&self, key_id: &str) -> Value {
            let mut jwk = Jwk::from_encoding_key(&self.0, Algorithm::ES256).unwrap();
            jwk.common.key_id = Some(key_id.to_owned());
            jwk.common.public_key_use = Some(PublicKeyUse::Signature);
            serde_json::to_value(jwk).unwrap()
        }

        fn token(&self, key_id: Option<&str>) -> String {
            let mut header = Header::new(Algorithm::ES256);
            header.kid = key_id.map(str::to_owned);
            jsonwebtoken::encode(&header, &claims(), &self.0).unwrap()
        }
    }

    fn claims() -> Value {
        json!({"sub": "a", "role": "user", "exp": chrono::Utc::now().timestamp() + 60})
    }

    /// An identity provider, and a service that checks its tokens.
    struct Provider {
        authenticator: Authenticator,
        key_set: Arc<KeySet>,
        health: Health,
        fetches: Arc<AtomicUsize>,
        is_down: Arc<AtomicBool>,
    }

    impl Provider {
        /// Publishes this set; the service fetches it.
        async fn with(set: Value) -> Provider {
            let provider = Provider::without_fetching(set).await;
            provider.keep_fetching();
            provider
        }

        async fn without_fetching(set: Value) -> Provider {
            let (fetches, is_down) = (Arc::<AtomicUsize>::default(), Arc::<AtomicBool>::default());
            let (count, down) = (Arc::clone(&fetches), Arc::clone(&is_down));
            let routes = Router::new().route(
                "/keys",
                get(async move || {
                    count.fetch_add(1, Ordering::SeqCst);
                    if down.load(Ordering::SeqCst) {
                        Err(StatusCode::BAD_GATEWAY)
                    } else {
                        Ok(Json(set.clone()))
                    }
                }),
            );
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let url = format!("http://{}/keys", listener.local_addr().unwrap());
            tokio::spawn(async move { axum::serve(listener, routes).await });
            let authenticator = Authenticator::new(TokenKeys::JwksUrl(url), None, None).unwrap();
            Provider {
                key_set: authenticator.key_set().unwrap(),
                authenticator,
                health: Health::default(),
                fetches,
                is_down,
            }
        }

        fn keep_fetching(&self) {
            let task = Arc::clone(&self.key_set).refresh_task(self.health.clone());
            tokio::spawn(task.run(&TaskList::default(), CancellationToken::new()));
        }

        fn fetches(&self) -> usize {
            self.fetches.load(Ordering::SeqCst)
        }

        fn status(&self) -> Status {
            self.health.readiness().checks[HealthPart::Tokens.name()].status
        }
    }

    #[tokio::test]
    async fn tokens_of_a_published_key_are_accepted_and_the_keys_are_fetched_once() {
        let signer = Signer::new();
        let set = json!({"keys": [
            signer.published("k1"),
            {"kty": "oct", "kid": "shared", "k": "c2VjcmV0"},
            {"kty": "a future kind", "kid": "new"},
        ]});
        let provider = Provider::with(set).await;
        let authenticator = &provider.authenticator;
        for _ in 0..3 {
            let principal = authenticator.verify(&signer.token(Some("k1"))).await;
            assert_eq!(principal.unwrap().caller.subject, "a");
        }
        // The only usable key needs no id.
        assert!(authenticator.verify(&signer.token(None)).await.is_ok());
        assert_eq!(provider.fetches(), 1);
    }

    #[tokio::test]
    async fn unknown_keys_are_refused_without_flooding_the_provider() {
        let provider = Provider::with(json!({"keys": [Signer::new().published("k1")]})).await;
        let other = Signer::new();
        for key_id in ["k2", "k3", "k1"] {
            let token = other.token(Some(key_id));
            let refused = provider.authenticator.verify(&token).await;
            assert_eq!(refused, Err(AuthError::Untrusted), "{key_id}");
        }
        assert_eq!(provider.fetches(), 1);
    }

    #[tokio::test]
    async fn a_public_key_is_never_used_as_a_shared_secret() {
        let signer = Signer::new();
        let published = signer.published("k1");
        let public = published["x"].as_str().unwrap().as_bytes().to_vec();
        let provider = Provider::with(json!({"keys": [published]})).await;
        let mut header = Header::new(Algorithm::HS256);
        header.kid = Some("k1".to_owned());
        let forged =
            jsonwebtoken::encode(&header, &claims(), &EncodingKey::from_secret(&public)).unwrap();
        assert_eq!(
            provider.authenticator.verify(&forged).await,
            Err(AuthError::Untrusted)
        );
    }

    #[tokio::test]
    async fn without_keys_no_token_is_called_untrusted() {
        let provider = Provider::with(json!({"keys": []})).await;
        let token = Signer::new().token(Some("k1"));
        let refused = provider.authenticator.verify(&token).await;
        assert_eq!(refused, Err(AuthError::KeysUnavailable));
    }

    #[tokio::test]
    async fn a_provider_that_was_down_is_queried_again_within_seconds_and_not_flooded() {
        const WITHIN: Duration = Duration::from_secs(15);
        let signer = Signer::new();
        let provider = Provider::without_fetching(json!({"keys": [signer.published("k1")]})).await;
        provider.is_down.store(true, Ordering::SeqCst);
        provider.keep_fetching();
        let verify = async |key_id: &str| {
            let token = signer.token(Some(key_id));
            provider.authenticator.verify(&token).await
        };
        let began = Instant::now();
        for number in 0..50 {
            let refused = verify(&format!("invented-{number}")).await;
            assert_eq!(refused, Err(AuthError::KeysUnavailable));
        }
        let rounds = began.elapsed().as_secs() as usize / 4;
        assert!(provider.fetches() <= 1 + rounds, "{}", provider.fetches());
        assert_eq!(provider.status(), Status::Unavailable);

        provider.is_down.store(false, Ordering::SeqCst);
        let mut known = provider.key_set.known.subscribe();
        let back = known.wait_for(|known| !known.keys.is_empty());
        drop(timeout(WITHIN, back).await.expect("it is queried again"));
        assert!(verify("k1").await.is_ok());
        assert_eq!(provider.status(), Status::Ok);
    }

    #[tokio::test]
    async fn known_keys_stay_valid_while_their_provider_is_down() {
        let signer = Signer::new();
        let provider = Provider::with(json!({"keys": [signer.published("k1")]})).await;
        let verify = async |key_id: &str| {
            let token = signer.token(Some(key_id));
            provider.authenticator.verify(&token).await
        };
        assert!(verify("k1").await.is_ok());
        provider.is_down.store(true, Ordering::SeqCst);
        provider.key_set.fetch(&provider.health).await;
        assert_eq!(provider.status(), Status::Degraded);
        assert!(verify("k1").await.is_ok());
        for key_id in ["k2", "k3"] {
            assert_eq!(verify(key_id).await, Err(AuthError::Untrusted));
        }
        assert_eq!(provider.fetches(), 2, "invented key ids cause no fetch");
        provider.is_down.store(false, Ordering::SeqCst);
        provider.key_set.fetch(&provider.health).await;
        assert_eq!(provider.status(), Status::Ok);
    }

    #[tokio::test]
    async fn a_new_key_is_fetched_for_the_first_token_that_names_it() {
        let signer = Signer::new();
        let provider = Provider::without_fetching(json!({"keys": [signer.published("new")]})).await;
        let before = json!({"keys": [signer.published("old")]}).to_string();
        provider.key_set.known.send_modify(|known| {
            known.succeeded(PublishedKeys::parse(before.as_bytes()).unwrap());
            // A while ago.
            known.allowed_at = Instant::now();
        });
        let mut refresh = KeySetRefresh {
            key_set: Arc::clone(&provider.key_set),
            health: provider.health.clone(),
        };
        tokio::spawn(async move {
            refresh.woken().await;
            refresh.run().await
        });
        for key_id in ["old", "new"] {
            let token = signer.token(Some(key_id));
            let verified = provider.authenticator.verify(&token).await;
            assert!(verified.is_ok(), "{key_id}: {verified:?}");
        }
        assert_eq!(provider.fetches(), 1);
    }

    #[tokio::test]
    async fn a_provider_that_hangs_delays_neither_the_start_nor_the_shutdown() {
        // Accepts connections and never answers.
        let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/keys", silent.local_addr().unwrap());
        let key_set = Arc::new(KeySet::new(url).unwrap());
        let (health, stop) = (Health::default(), CancellationToken::new());
        let task = Arc::clone(&key_set).refresh_task(health.clone());
        let fetching = tokio::spawn(task.run(&TaskList::default(), stop.clone()));
        // It waits for the answer.
        let _connection = silent.accept().await.unwrap();
        stop.cancel();
        timeout(Duration::from_secs(2), fetching)
            .await
            .expect("it ends at once")
            .unwrap();

        timeout(FETCH_LIMIT * 2, key_set.fetch(&health))
            .await
            .expect("the fetch has its limit");
        let readiness = health.readiness();
        assert_eq!(
            readiness.checks[HealthPart::Tokens.name()].status,
            Status::Unavailable
        );
    }
}
