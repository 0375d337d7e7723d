//! The keys of a JSON Web Key Set (RFC 7517) that may sign tokens.

use std::collections::HashMap;
use std::sync::Arc;

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use serde_json::value::RawValue;

/// One key that may sign tokens, with the one algorithm that it may be used for.
pub struct PublishedKey {
    pub algorithm: Algorithm,
    pub verifying: DecodingKey,
}

/// Keys by their ids; a key without an id is stored under the empty text.
#[derive(Default)]
pub(super) struct PublishedKeys(HashMap<String, Arc<PublishedKey>>);

impl PublishedKeys {
    /// Takes the keys that the service can use. Others in the set (encryption keys, other curves, future kinds) are not
    /// an error, so each key is parsed separately: `jsonwebtoken::jwk::JwkSet` would refuse the whole set.
    pub fn parse(document: &[u8]) -> serde_json::Result<PublishedKeys> {
        #[derive(Deserialize)]
        struct Document<'a> {
            #[serde(borrow)]
            keys: Vec<&'a RawValue>,
        }
        let document: Document = serde_json::from_slice(document)?;
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
        Ok(PublishedKeys(keys.collect()))
    }

    /// The key of this id; without an id, the only key there is.
    pub fn find(&self, key_id: Option<&str>) -> Option<Arc<PublishedKey>> {
        match key_id {
            Some(key_id) => self.0.get(key_id).cloned(),
            None if self.0.len() == 1 => self.0.values().next().cloned(),
            None => None,
        }
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The algorithm follows from the kind of key, never from the token, so that a public key is never used as an HMAC secret.
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
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn the_algorithm_follows_from_the_kind_of_key() {
        let of = |key: Value| {
            let set = json!({"keys": [key]}).to_string();
            let keys = PublishedKeys::parse(set.as_bytes()).unwrap();
            keys.find(None).map(|key| key.algorithm)
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
