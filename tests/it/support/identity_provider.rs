//! An identity provider: it signs tokens, and publishes its key unless it is away.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use chrono::Utc;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use p256::elliptic_curve::rand_core::OsRng;
use p256::pkcs8::EncodePrivateKey;
use serde_json::json;

const KEY_ID: &str = "key of the tests";

pub struct IdentityProvider {
    pub jwks_url: String,
    signing: EncodingKey,
    is_away: Arc<AtomicBool>,
}

impl IdentityProvider {
    pub async fn away() -> IdentityProvider {
        let secret = p256::SecretKey::random(&mut OsRng);
        let signing = EncodingKey::from_ec_der(secret.to_pkcs8_der().unwrap().as_bytes());
        let mut published = Jwk::from_encoding_key(&signing, Algorithm::ES256).unwrap();
        published.common.key_id = Some(KEY_ID.to_owned());
        let document = json!({ "keys": [published] });
        let is_away = Arc::new(AtomicBool::new(true));
        let away = Arc::clone(&is_away);
        let answer = async move || {
            if away.load(Ordering::SeqCst) {
                Err(StatusCode::BAD_GATEWAY)
            } else {
                Ok(Json(document.clone()))
            }
        };
        let routes = Router::new().route("/keys", get(answer));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let jwks_url = format!("http://{}/keys", listener.local_addr().unwrap());
        // Ends with the test's runtime.
        tokio::spawn(async move { axum::serve(listener, routes).await });
        IdentityProvider {
            jwks_url,
            signing,
            is_away,
        }
    }

    pub fn come_back(&self) {
        self.is_away.store(false, Ordering::SeqCst);
    }

    pub fn token(&self, subject: &str, role: &str) -> String {
        let mut header = Header::new(Algorithm::ES256);
        header.kid = Some(KEY_ID.to_owned());
        let claims = json!({"sub": subject, "role": role, "exp": Utc::now().timestamp() + 3600});
        jsonwebtoken::encode(&header, &claims, &self.signing).unwrap()
    }
}
