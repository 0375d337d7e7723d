//! The request that becomes a WebSocket, and its answer (RFC 6455, section 4.2).

use std::io;
use std::time::Duration;

use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, header};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use thiserror::Error;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::extension::{Agreed, Compression};
use super::socket::Socket;

/// From our answer to the connection being ours: the answer must be written, and a client that went away is found out.
const OPENING_LIMIT: Duration = Duration::from_secs(10);

/// Why a request does not become a WebSocket.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum HandshakeError {
    #[error(
        "this address speaks WebSocket: ask for it with GET, `Connection: Upgrade`, `Upgrade: websocket` and `Sec-WebSocket-Version: 13`"
    )]
    NotAsked,
    #[error("`Sec-WebSocket-Key` is 16 bytes in base64")]
    Key,
}

/// A request for a WebSocket that can be granted.
pub struct Upgrade {
    accept_key: String,
    agreed: Option<Agreed>,
    on_upgrade: OnUpgrade,
}

impl Upgrade {
    /// Takes the connection out of the request, if the request asks for a WebSocket.
    pub fn of(parts: &mut Parts) -> Result<Upgrade, HandshakeError> {
        let headers = &parts.headers;
        let is_asked = parts.method == Method::GET
            && has_token(headers, header::CONNECTION, "upgrade")
            && has_token(headers, header::UPGRADE, "websocket")
            && headers
                .get(header::SEC_WEBSOCKET_VERSION)
                .is_some_and(|version| version == "13");
        if !is_asked {
            return Err(HandshakeError::NotAsked);
        }
        let key = headers
            .get(header::SEC_WEBSOCKET_KEY)
            .filter(|key| STANDARD.decode(key).is_ok_and(|key| key.len() == 16))
            .ok_or(HandshakeError::Key)?;
        let accept_key = derive_accept_key(key.as_bytes());
        let agreed = Agreed::from_offers(headers);
        let on_upgrade = parts
            .extensions
            .remove::<OnUpgrade>()
            .ok_or(HandshakeError::NotAsked)?;
        Ok(Upgrade {
            accept_key,
            agreed,
            on_upgrade,
        })
    }

    /// The answer, and the connection that opens once it is written. Both `protocol`, which must be one that the client named,
    /// and compression, where it is `allowed` and offered, are part of it.
    pub fn grant(
        self,
        compression_allowed: bool,
        protocol: Option<HeaderValue>,
    ) -> (Response<Body>, Opening) {
        let agreed = self.agreed.filter(|_| compression_allowed);
        let mut answer = Response::new(Body::empty());
        *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = answer.headers_mut();
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        // Base64 is always fit for a header.
        if let Ok(accept_key) = HeaderValue::from_str(&self.accept_key) {
            headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept_key);
        }
        if let Some(protocol) = protocol {
            headers.insert(header::SEC_WEBSOCKET_PROTOCOL, protocol);
        }
        if let Some(agreed) = agreed {
            headers.insert(header::SEC_WEBSOCKET_EXTENSIONS, agreed.answer());
        }
        let opening = Opening {
            on_upgrade: self.on_upgrade,
            compression: agreed.map_or(Compression::None, |_| Compression::Deflate),
        };
        (answer, opening)
    }
}

/// A connection that becomes a WebSocket as soon as our answer is written.
pub struct Opening {
    on_upgrade: OnUpgrade,
    compression: Compression,
}

impl Opening {
    /// Waits for it; an error when the client went away before.
    pub async fn open(self) -> io::Result<Socket> {
        let upgraded = timeout(OPENING_LIMIT, self.on_upgrade)
            .await?
            .map_err(io::Error::other)?;
        let parts = upgraded
            .downcast::<TokioIo<TcpStream>>()
            .map_err(|_| io::Error::other("the connection is no TCP stream"))?;
        Ok(Socket::new(
            parts.io.into_inner(),
            parts.read_buf,
            self.compression,
        ))
    }
}

/// A header that lists words: whether this is one of them.
fn has_token(headers: &HeaderMap, name: HeaderName, token: &str) -> bool {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|word| word.trim().eq_ignore_ascii_case(token))
}
