//! The opening handshake: validates the upgrade request and answers it (RFC 6455, section 4.2).

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

use super::extension::{Compression, NegotiatedDeflate};
use super::socket::Socket;

/// From returning the response to owning the connection: hyper has to write the response first, and a client that has
/// disconnected is detected then.
const UPGRADE_LIMIT: Duration = Duration::from_secs(10);

/// A request that cannot be upgraded to a WebSocket.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum HandshakeError {
    #[error(
        "this address speaks WebSocket: request it with GET, `Connection: Upgrade`, `Upgrade: websocket` and `Sec-WebSocket-Version: 13`"
    )]
    NotAnUpgrade,
    #[error("`Sec-WebSocket-Key` is 16 bytes in base64")]
    InvalidKey,
}

/// A valid request for a WebSocket.
pub struct Upgrade {
    accept_key: String,
    deflate: Option<NegotiatedDeflate>,
    on_upgrade: OnUpgrade,
}

impl Upgrade {
    /// Validates the request and takes the connection out of it.
    pub fn from_request(parts: &mut Parts) -> Result<Upgrade, HandshakeError> {
        let headers = &parts.headers;
        let is_upgrade = parts.method == Method::GET
            && has_token(headers, header::CONNECTION, "upgrade")
            && has_token(headers, header::UPGRADE, "websocket")
            && headers
                .get(header::SEC_WEBSOCKET_VERSION)
                .is_some_and(|version| version == "13");
        if !is_upgrade {
            return Err(HandshakeError::NotAnUpgrade);
        }
        let key = headers
            .get(header::SEC_WEBSOCKET_KEY)
            .filter(|key| STANDARD.decode(key).is_ok_and(|key| key.len() == 16))
            .ok_or(HandshakeError::InvalidKey)?;
        let accept_key = derive_accept_key(key.as_bytes());
        let deflate = NegotiatedDeflate::from_offers(headers);
        let on_upgrade = parts
            .extensions
            .remove::<OnUpgrade>()
            .ok_or(HandshakeError::NotAnUpgrade)?;
        Ok(Upgrade {
            accept_key,
            deflate,
            on_upgrade,
        })
    }

    /// The response, and the connection that opens once the response is written. Compression is used if the client offered it
    /// and `allowed` permits it. `protocol` must be one of those that the client named.
    pub fn accept(
        self,
        allowed: Compression,
        protocol: Option<HeaderValue>,
    ) -> (Response<Body>, PendingSocket) {
        let deflate = self.deflate.filter(|_| allowed == Compression::Deflate);
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = response.headers_mut();
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        // Base64 is always a valid header value.
        if let Ok(accept_key) = HeaderValue::from_str(&self.accept_key) {
            headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept_key);
        }
        if let Some(protocol) = protocol {
            headers.insert(header::SEC_WEBSOCKET_PROTOCOL, protocol);
        }
        if let Some(deflate) = deflate {
            headers.insert(header::SEC_WEBSOCKET_EXTENSIONS, deflate.header_value());
        }
        let pending = PendingSocket {
            on_upgrade: self.on_upgrade,
            compression: deflate.map_or(Compression::None, |_| Compression::Deflate),
        };
        (response, pending)
    }
}

/// A connection that becomes a WebSocket once the response is written.
pub struct PendingSocket {
    on_upgrade: OnUpgrade,
    compression: Compression,
}

impl PendingSocket {
    /// Waits until the response is written; an error if the client disconnected before.
    pub async fn open(self) -> io::Result<Socket> {
        let upgraded = timeout(UPGRADE_LIMIT, self.on_upgrade)
            .await?
            .map_err(io::Error::other)?;
        let parts = upgraded
            .downcast::<TokioIo<TcpStream>>()
            .map_err(|_| io::Error::other("the connection is not a TCP stream"))?;
        Ok(Socket::new(
            parts.io.into_inner(),
            parts.read_buf,
            self.compression,
        ))
    }
}

/// Whether a comma-separated header contains this token.
fn has_token(headers: &HeaderMap, name: HeaderName, token: &str) -> bool {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|item| item.trim().eq_ignore_ascii_case(token))
}
