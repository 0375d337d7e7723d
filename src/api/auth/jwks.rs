//! The identity provider's published keys (RFC 7517), fetched and kept.
//!
//! Invariant: what is known counts without waiting, and a key that the provider withdrew ends to count within ten minutes
//! while its key set can be fetched. Kept by [`KeySet::keep`], which runs beside the requests and alone fetches: a request
//! whose client goes away cuts no fetch off, and however many ask, they cause one.

use std::collections::HashMap;
use std::error::Error;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use crate::api::auth::authenticator::AuthError;
use crate::telemetry::Health;

/// Limit of one fetch; the start waits for it.
const FETCH_LIMIT: Duration = Duration::from_secs(5);

/// How long a request waits for a fetch and its outcome.
const OUTCOME_LIMIT: Duration = Duration::from_secs(6);

/// Between two fetches while keys are known, so that tokens with invented key ids do not make us hammer the provider.
const FETCH_INTERVAL: Duration = Duration::from_secs(60);

/// After a fetch that failed while no key is known, when no token can be checked. Spread, so that processes that were
/// started together do not ask together.
const RETRY_PAUSE_MS: Range<u64> = 4_000..6_000;

/// After this time the keys are fetched again even when all are known: a withdrawn key ends to count within ten minutes,
/// also when one fetch fails in between.
const KEYS_AGE_MAX: Duration = Duration::from_secs(530);

/// A key set has a few keys of some kilobytes.
const DOCUMENT_BYTES_MAX: usize = 256 * 1024;

const HEALTH_PART: &str = "tokens";

/// One key that may sign tokens, with the one algorithm that it may be used for.
pub struct PublishedKey {
    pub algorithm: Algorithm,
    pub verifying: DecodingKey,
}

/// By key id; a key without an id is known by the empty text.
type Keys = HashMap<String, Arc<PublishedKey>>;

/// The provider's keys as they were fetched last.
pub struct KeySet {
    url: String,
    client: reqwest::Client,
    known: watch::Sender<Known>,
    /// A token names a key that is not known.
    wanted: Notify,
}

/// The outcome of all fetches so far.
struct Known {
    keys: Keys,
    /// Whether the newest fetch failed.
    is_failing: bool,
    /// No fetch before that, not even for a key that is not known.
    allowed_at: Instant,
    /// The next fetch, whether anybody asks for it or not.
    due_at: Instant,
}

impl Known {
    fn nothing() -> Known {
        let now = Instant::now();
        Known {
            keys: Keys::new(),
            is_failing: false,
            allowed_at: now,
            due_at: now,
        }
    }

    fn succeeded(&mut self, keys: Keys) {
        let now = Instant::now();
        self.keys = keys;
        self.is_failing = false;
        self.allowed_at = now + FETCH_INTERVAL;
        self.due_at = now + KEYS_AGE_MAX;
    }

    /// The old keys go on counting.
    fn failed(&mut self) {
        let pause = if self.keys.is_empty() {
            Duration::from_millis(rand::random_range(RETRY_PAUSE_MS))
        } else {
            FETCH_INTERVAL
        };
        self.is_failing = true;
        self.allowed_at = Instant::now() + pause;
        self.due_at = self.allowed_at;
    }

    fn report(&self, health: &Health) {
        if self.keys.is_empty() {
            health.unavailable(
                HEALTH_PART,
                "JWT_JWKS_URL has given no keys yet, so no token can be checked; it is asked every few seconds, and \
                 the log says what is wrong",
            );
        } else if self.is_failing {
            health.degraded(
                HEALTH_PART,
                "JWT_JWKS_URL gives no keys at the moment: those known before go on counting, a new one does not \
                 count yet; the log says what is wrong",
            );
        } else {
            health.ok(HEALTH_PART);
        }
    }
}

impl KeySet {
    pub fn new(url: String) -> Result<KeySet, reqwest::Error> {
        let client = reqwest::Client::builder()
            .timeout(FETCH_LIMIT)
            .redirect(reqwest::redirect::Policy::none())
            .build()?;
        Ok(KeySet {
            url,
            client,
            known: watch::Sender::new(Known::nothing()),
            wanted: Notify::new(),
        })
    }

    /// The key that a token names; without a name, the only one there is.
    pub async fn find(&self, key_id: Option<&str>) -> Result<Arc<PublishedKey>, AuthError> {
        let mut known = self.known.subscribe();
        let (key, may_ask) = {
            let known = known.borrow_and_update();
            let may_ask = known.allowed_at <= Instant::now();
            (select(&known.keys, key_id), may_ask)
        };
        if let Some(key) = key {
            return Ok(key);
        }
        if may_ask {
            self.wanted.notify_one();
            // Whatever the outcome is, or none in time: what is known then decides.
            let _ = timeout(OUTCOME_LIMIT, known.changed()).await;
        }
        let known = known.borrow();
        if known.keys.is_empty() {
            return Err(AuthError::KeysUnavailable);
        }
        select(&known.keys, key_id).ok_or(AuthError::Untrusted)
    }

    /// Fetches the keys whenever it is time and tells health how they stand, until told to stop.
    pub async fn keep(self: Arc<Self>, health: Health, stop: CancellationToken) {
        let work = async {
            loop {
                self.until_time().await;
                self.fetch(&health).await;
            }
        };
        stop.run_until_cancelled(work).await;
    }

    /// Waits until a fetch is due, or allowed and wanted.
    async fn until_time(&self) {
        let (allowed_at, due_at) = {
            let known = self.known.borrow();
            (known.allowed_at, known.due_at)
        };
        let wanted = async {
            sleep_until(allowed_at).await;
            self.wanted.notified().await;
        };
        tokio::select! {
            () = sleep_until(due_at) => {}
            () = wanted => {}
        }
    }

    /// Fetches the keys now and tells health how they stand. A few seconds at most, whatever the provider does. Not to be
    /// called beside [`keep`](Self::keep).
    pub async fn fetch(&self, health: &Health) {
        match self.fetch_keys().await {
            Ok(keys) => {
                tracing::info!(keys = keys.len(), "fetched the keys that sign tokens");
                self.known.send_modify(|known| known.succeeded(keys));
            }
            Err(reason) => {
                // The log has it once, until a fetch succeeds.
                let was_failing = self.known.borrow().is_failing;
                if was_failing {
                    tracing::debug!(reason, "JWT_JWKS_URL still gives no keys");
                } else {
                    tracing::warn!(
                        reason,
                        "JWT_JWKS_URL gave no keys; the ones known before go on counting"
                    );
                }
                self.known.send_modify(Known::failed);
            }
        }
        self.known.borrow().report(health);
    }

    async fn fetch_keys(&self) -> Result<Keys, String> {
        let mut response = self
            .client
            .get(&self.url)
            .send()
            .await
            .and_then(reqwest::Response::error_for_status)
            .map_err(in_full)?;
        let mut document = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(in_full)? {
            if document.len() + chunk.len() > DOCUMENT_BYTES_MAX {
                return Err(format!(
                    "the answer is longer than {DOCUMENT_BYTES_MAX} bytes"
                ));
            }
            document.extend_from_slice(&chunk);
        }
        let keys = parse(&document)?;
        if keys.is_empty() {
            return Err("the answer holds no RSA or P-256 signing key".to_owned());
        }
        Ok(keys)
    }
}

/// With its causes, which reqwest keeps out of its sentence; without the URL, which may hold a password.
fn in_full(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut told = error.to_string();
    let mut cause = error.source();
    while let Some(deeper) = cause {
        told = format!("{told}: {deeper}");
        cause = deeper.source();
    }
    told
}

fn select(keys: &Keys, key_id: Option<&str>) -> Option<Arc<PublishedKey>> {
    match key_id {
        Some(key_id) => keys.get(key_id).cloned(),
        None if keys.len() == 1 => keys.values().next().cloned(),
        None => None,
    }
}

/// Takes the keys that we can use; others in the set (encryption keys, other curves) are no error.
fn parse(document: &[u8]) -> Result<Keys, String> {
    #[derive(Deserialize)]
    struct Document<'a> {
        #[serde(borrow)]
        keys: Vec<&'a RawValue>,
    }
    let document: Document =
        serde_json::from_slice(document).map_err(|error| format!("no key set: {error}"))?;
    let keys = document.keys.into_iter().filter_map(|raw| {
        let jwk: Jwk = serde_json::from_str(raw.get()).ok()?;
        let algorithm = signing_algorithm(&jwk)?;
        let verifying = DecodingKey::from_jwk(&jwk).ok()?;
        let key = PublishedKey {
            algorithm,
            verifying,
        };
        Some((jwk.common.key_id.unwrap_or_default(), Arc::new(key)))
    });
    Ok(keys.collect())
}

/// The algorithm follows from the kind of key, never from the token: a public key can not be taken for an HMAC secret.
fn signing_algorithm(jwk: &Jwk) -> Option<Algorithm> {
    if !matches!(
        jwk.common.public_key_use,
        None | Some(PublicKeyUse::Signature)
    ) {
        return None;
    }
    let algorithm = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => Algorithm::RS256,
        AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => {
            Algorithm::ES256
        }
        _ => return None,
    };
    let declared = jwk
        .common
        .key_algorithm
        .map(|declared| declared.to_string());
    match declared {
        Some(name) if name != format!("{algorithm:?}") => None,
        _ => Some(algorithm),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    use axum::http::StatusCode;
    use axum::routing::get;
    use axum::{Json, Router};
    use jsonwebtoken::{EncodingKey, Header};
    use p256::elliptic_curve::rand_core::OsRng;
    use p256::pkcs8::EncodePrivateKey;
    use serde_json::{Value, json};

    use super::*;
    use crate::api::auth::authenticator::{Authenticator, TokenKeys};
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

    /// An identity provider, and a service's side of it.
    struct Provider {
        authenticator: Authenticator,
        key_set: Arc<KeySet>,
        health: Health,
        asked: Arc<AtomicUsize>,
        is_away: Arc<AtomicBool>,
    }

    impl Provider {
        /// Publishes this set; the service keeps it.
        async fn with(set: Value) -> Provider {
            let provider = Provider::unasked(set).await;
            provider.keep();
            provider
        }

        async fn unasked(set: Value) -> Provider {
            let (asked, is_away) = (Arc::<AtomicUsize>::default(), Arc::<AtomicBool>::default());
            let (count, away) = (Arc::clone(&asked), Arc::clone(&is_away));
            let routes = Router::new().route(
                "/keys",
                get(async move || {
                    count.fetch_add(1, Ordering::SeqCst);
                    if away.load(Ordering::SeqCst) {
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
                asked,
                is_away,
            }
        }

        fn keep(&self) {
            let keeping = Arc::clone(&self.key_set);
            tokio::spawn(keeping.keep(self.health.clone(), CancellationToken::new()));
        }

        fn asked(&self) -> usize {
            self.asked.load(Ordering::SeqCst)
        }

        fn status(&self) -> Status {
            self.health.readiness().checks[HEALTH_PART].status
        }
    }

    #[tokio::test]
    async fn tokens_of_a_published_key_count_and_the_keys_are_fetched_once() {
        let signer = Signer::new();
        let set = json!({"keys": [
            signer.published("k1"),
            {"kty": "oct", "kid": "shared", "k": "c2VjcmV0"},
            {"kty": "a kind of tomorrow", "kid": "new"},
        ]});
        let provider = Provider::with(set).await;
        let authenticator = &provider.authenticator;
        for _ in 0..3 {
            let principal = authenticator.verify(&signer.token(Some("k1"))).await;
            assert_eq!(principal.unwrap().caller.subject, "a");
        }
        // The only usable key needs no name.
        assert!(authenticator.verify(&signer.token(None)).await.is_ok());
        assert_eq!(provider.asked(), 1);
    }

    #[tokio::test]
    async fn unknown_keys_are_refused_without_hammering_the_provider() {
        let provider = Provider::with(json!({"keys": [Signer::new().published("k1")]})).await;
        let stranger = Signer::new();
        for key_id in ["k2", "k3", "k1"] {
            let token = stranger.token(Some(key_id));
            let refused = provider.authenticator.verify(&token).await;
            assert_eq!(refused, Err(AuthError::Untrusted), "{key_id}");
        }
        assert_eq!(provider.asked(), 1);
    }

    #[tokio::test]
    async fn a_public_key_is_never_taken_for_a_shared_secret() {
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
    async fn without_keys_nobody_is_called_a_forger() {
        let provider = Provider::with(json!({"keys": []})).await;
        let token = Signer::new().token(Some("k1"));
        let refused = provider.authenticator.verify(&token).await;
        assert_eq!(refused, Err(AuthError::KeysUnavailable));
    }

    #[tokio::test]
    async fn a_provider_that_was_away_is_asked_again_within_seconds_and_not_hammered() {
        const WITHIN: Duration = Duration::from_secs(15);
        let signer = Signer::new();
        let provider = Provider::unasked(json!({"keys": [signer.published("k1")]})).await;
        provider.is_away.store(true, Ordering::SeqCst);
        provider.keep();
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
        assert!(provider.asked() <= 1 + rounds, "{}", provider.asked());
        assert_eq!(provider.status(), Status::Unavailable);

        provider.is_away.store(false, Ordering::SeqCst);
        let mut known = provider.key_set.known.subscribe();
        let back = known.wait_for(|known| !known.keys.is_empty());
        drop(timeout(WITHIN, back).await.expect("it is asked again"));
        assert!(verify("k1").await.is_ok());
        assert_eq!(provider.status(), Status::Ok);
    }

    #[tokio::test]
    async fn known_keys_go_on_counting_while_their_provider_is_away() {
        let signer = Signer::new();
        let provider = Provider::with(json!({"keys": [signer.published("k1")]})).await;
        let verify = async |key_id: &str| {
            let token = signer.token(Some(key_id));
            provider.authenticator.verify(&token).await
        };
        assert!(verify("k1").await.is_ok());
        provider.is_away.store(true, Ordering::SeqCst);
        provider.key_set.fetch(&provider.health).await;
        assert_eq!(provider.status(), Status::Degraded);
        assert!(verify("k1").await.is_ok());
        for key_id in ["k2", "k3"] {
            assert_eq!(verify(key_id).await, Err(AuthError::Untrusted));
        }
        assert_eq!(provider.asked(), 2, "invented keys are no reason to ask");
        provider.is_away.store(false, Ordering::SeqCst);
        provider.key_set.fetch(&provider.health).await;
        assert_eq!(provider.status(), Status::Ok);
    }

    #[tokio::test]
    async fn a_key_that_is_new_is_fetched_by_the_first_token_that_names_it() {
        let signer = Signer::new();
        let provider = Provider::unasked(json!({"keys": [signer.published("new")]})).await;
        let before = json!({"keys": [signer.published("old")]}).to_string();
        provider.key_set.known.send_modify(|known| {
            known.succeeded(parse(before.as_bytes()).unwrap());
            // A while ago.
            known.allowed_at = Instant::now();
        });
        provider.keep();
        for key_id in ["old", "new"] {
            let token = signer.token(Some(key_id));
            let verified = provider.authenticator.verify(&token).await;
            assert!(verified.is_ok(), "{key_id}: {verified:?}");
        }
        assert_eq!(provider.asked(), 1);
    }

    #[tokio::test]
    async fn a_provider_that_hangs_holds_up_neither_the_start_nor_the_end() {
        // Accepts connections and never says a word.
        let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/keys", silent.local_addr().unwrap());
        let key_set = Arc::new(KeySet::new(url).unwrap());
        let (health, stop) = (Health::default(), CancellationToken::new());
        let keeping = tokio::spawn(Arc::clone(&key_set).keep(health.clone(), stop.clone()));
        // It waits for the answer.
        let _connection = silent.accept().await.unwrap();
        stop.cancel();
        timeout(Duration::from_secs(2), keeping)
            .await
            .expect("it ends at once")
            .unwrap();

        timeout(FETCH_LIMIT * 2, key_set.fetch(&health))
            .await
            .expect("the fetch has its limit");
        let readiness = health.readiness();
        assert_eq!(readiness.checks[HEALTH_PART].status, Status::Unavailable);
    }

    #[test]
    fn the_algorithm_follows_from_the_kind_of_key() {
        let of = |key: Value| {
            let set = json!({"keys": [key]}).to_string();
            let keys = parse(set.as_bytes()).unwrap();
            keys.values().next().map(|key| key.algorithm)
        };
        let rsa = |extra: Value| {
            let mut key = json!({"kty": "RSA", "kid": "r", "n": "sXchDaQebHnPiGvyDOAT4saGEUetSyo9MKLOoWFsueri23bOdgWp4Dy1WlUzewbgBHod5pcM9H95GQRV3JDXboIRROSBigeC5yjU1hGzHHyXss8UDprecbAYxknTcQkhslANGRUZmdTOQ5qTRsLAt6BTYuyvVRdhS8exSZEy_c4gs_7svlJJQ4H9_NxsiIoLwAEk7-Q3UXERGYw_75IDrGA84-lA_-Ct4eTlXHBIY2EaV7t7LjJaynVJCpkv4LKjTTAumiGUIuQhrNhZLuF_RJLqHpM2kgWFLU7-VTdL1VbC2tejvcI2BlMkEpk1BzBZI0KQB0GaDWFLN-aEAw3vRw", "e": "AQAB"});
            key.as_object_mut()
                .unwrap()
                .extend(extra.as_object().unwrap().clone());
            key
        };
        assert_eq!(of(rsa(json!({}))), Some(Algorithm::RS256));
        assert_eq!(
            of(rsa(json!({"alg": "RS256", "use": "sig"}))),
            Some(Algorithm::RS256)
        );
        assert_eq!(of(rsa(json!({"alg": "PS512"}))), None);
        assert_eq!(of(rsa(json!({"use": "enc"}))), None);
    }
}
