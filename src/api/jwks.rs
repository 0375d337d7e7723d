//! The identity provider's published keys (RFC 7517), fetched and kept.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::sync::{Mutex, RwLock};
use tokio::time::Instant;

use super::authenticator::AuthError;

/// Limit of one fetch; requests wait for it.
const FETCH_LIMIT: Duration = Duration::from_secs(5);

/// Between two fetches, so that tokens with invented key ids do not make us hammer the provider.
const FETCH_INTERVAL: Duration = Duration::from_secs(60);

/// After this time the keys are fetched again even when all are known: a withdrawn key ends to count.
const KEYS_AGE_MAX: Duration = Duration::from_secs(600);

/// A key set has a few keys of some kilobytes.
const DOCUMENT_BYTES_MAX: usize = 256 * 1024;

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
    keys: RwLock<Arc<Keys>>,
    /// Held during a fetch, so that many requests with an unknown key cause one.
    fetch: Mutex<FetchTimes>,
}

#[derive(Default)]
struct FetchTimes {
    tried: Option<Instant>,
    succeeded: Option<Instant>,
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
            keys: RwLock::default(),
            fetch: Mutex::default(),
        })
    }

    /// The key that a token names; without a name, the only one there is.
    pub async fn find(&self, key_id: Option<&str>) -> Result<Arc<PublishedKey>, AuthError> {
        let known = select(&*self.keys.read().await, key_id);
        let fresh = match self.fetch.try_lock() {
            Ok(times) => times
                .succeeded
                .is_some_and(|moment| moment.elapsed() < KEYS_AGE_MAX),
            // Somebody fetches right now: what is known is good enough.
            Err(_) => true,
        };
        if let Some(key) = &known
            && fresh
        {
            return Ok(Arc::clone(key));
        }
        self.refresh().await;
        let keys = self.keys.read().await;
        if keys.is_empty() {
            return Err(AuthError::KeysUnavailable);
        }
        select(&keys, key_id).ok_or(AuthError::Untrusted)
    }

    /// Fetches the keys unless that was tried a short while ago. A failure leaves the old ones.
    async fn refresh(&self) {
        let mut times = self.fetch.lock().await;
        if times
            .tried
            .is_some_and(|moment| moment.elapsed() < FETCH_INTERVAL)
        {
            return;
        }
        times.tried = Some(Instant::now());
        match self.fetch_keys().await {
            Ok(keys) => {
                tracing::info!(keys = keys.len(), "fetched the keys that sign tokens");
                *self.keys.write().await = Arc::new(keys);
                times.succeeded = Some(Instant::now());
            }
            Err(reason) => tracing::warn!(
                reason,
                "JWT_JWKS_URL gave no keys; the ones known before go on counting"
            ),
        }
    }

    async fn fetch_keys(&self) -> Result<Keys, String> {
        let without_url = |error: reqwest::Error| error.without_url().to_string();
        let mut response = self
            .client
            .get(&self.url)
            .send()
            .await
            .and_then(reqwest::Response::error_for_status)
            .map_err(without_url)?;
        let mut document = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(without_url)? {
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
    use std::sync::atomic::{AtomicUsize, Ordering};

    use axum::routing::get;
    use axum::{Json, Router};
    use jsonwebtoken::{EncodingKey, Header};
    use p256::elliptic_curve::rand_core::OsRng;
    use p256::pkcs8::EncodePrivateKey;
    use serde_json::{Value, json};

    use super::super::authenticator::{Authenticator, TokenKeys};
    use super::*;

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

    /// An identity provider that publishes this set; the counter says how often it was asked.
    async fn provider(set: Value) -> (Authenticator, Arc<AtomicUsize>) {
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        let routes = Router::new().route(
            "/keys",
            get(move || {
                count.fetch_add(1, Ordering::SeqCst);
                let set = set.clone();
                async move { Json(set) }
            }),
        );
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/keys", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, routes).await });
        let authenticator = Authenticator::new(TokenKeys::JwksUrl(url), None, None).unwrap();
        (authenticator, asked)
    }

    #[tokio::test]
    async fn tokens_of_a_published_key_count_and_the_keys_are_fetched_once() {
        let signer = Signer::new();
        let set = json!({"keys": [
            signer.published("k1"),
            {"kty": "oct", "kid": "shared", "k": "c2VjcmV0"},
            {"kty": "a kind of tomorrow", "kid": "new"},
        ]});
        let (authenticator, asked) = provider(set).await;
        for _ in 0..3 {
            let principal = authenticator.verify(&signer.token(Some("k1"))).await;
            assert_eq!(principal.unwrap().caller.subject, "a");
        }
        // The only usable key needs no name.
        assert!(authenticator.verify(&signer.token(None)).await.is_ok());
        assert_eq!(asked.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn unknown_keys_are_refused_without_hammering_the_provider() {
        let (authenticator, asked) =
            provider(json!({"keys": [Signer::new().published("k1")]})).await;
        let stranger = Signer::new();
        for key_id in ["k2", "k3", "k1"] {
            let refused = authenticator.verify(&stranger.token(Some(key_id))).await;
            assert_eq!(refused, Err(AuthError::Untrusted), "{key_id}");
        }
        assert_eq!(asked.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn a_public_key_is_never_taken_for_a_shared_secret() {
        let signer = Signer::new();
        let published = signer.published("k1");
        let public = published["x"].as_str().unwrap().as_bytes().to_vec();
        let (authenticator, _) = provider(json!({"keys": [published]})).await;
        let mut header = Header::new(Algorithm::HS256);
        header.kid = Some("k1".to_owned());
        let forged =
            jsonwebtoken::encode(&header, &claims(), &EncodingKey::from_secret(&public)).unwrap();
        assert_eq!(
            authenticator.verify(&forged).await,
            Err(AuthError::Untrusted)
        );
    }

    #[tokio::test]
    async fn without_keys_nobody_is_called_a_forger() {
        let (authenticator, _) = provider(json!({"keys": []})).await;
        let refused = authenticator.verify(&Signer::new().token(Some("k1"))).await;
        assert_eq!(refused, Err(AuthError::KeysUnavailable));
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
