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
