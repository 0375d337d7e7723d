//! Decides which pages may call the service from a browser.

use std::sync::Arc;

use axum::http::{HeaderMap, HeaderValue, header};

/// CORS_ORIGINS: other origins whose pages may call the service. Clones share it.
#[derive(Clone)]
pub struct CorsOrigins(Arc<[HeaderValue]>);

impl CorsOrigins {
    pub fn new(origins: Vec<HeaderValue>) -> CorsOrigins {
        CorsOrigins(origins.into())
    }

    pub fn contains(&self, origin: &HeaderValue) -> bool {
        self.0.contains(origin)
    }

    pub fn iter(&self) -> impl Iterator<Item = &HeaderValue> {
        self.0.iter()
    }
}

/// Whether host and port of the origin are those that the request was sent to. The scheme may differ, because TLS may end in
/// front of the service.
pub fn is_same_origin(origin: &HeaderValue, headers: &HeaderMap) -> bool {
    let host = lowercase(headers.get(header::HOST));
    let origin = lowercase(Some(origin));
    let authority = origin
        .as_deref()
        .and_then(|origin| origin.split_once("://"))
        .map(|(_, authority)| authority);
    authority.is_some() && authority == host.as_deref()
}

/// A header's text in lower case, because hosts are compared without regard to case.
pub fn lowercase(value: Option<&HeaderValue>) -> Option<String> {
    value?.to_str().ok().map(str::to_ascii_lowercase)
}
