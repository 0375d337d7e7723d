//! Hashes of inline scripts and styles, for a Content-Security-Policy that allows those and no others.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};

/// `sha256-…` of the text between `open` and `close`, as browsers compute it.
pub fn hash_between(page: &str, open: &str, close: &str) -> String {
    let content = page
        .split_once(open)
        .and_then(|(_, rest)| rest.split_once(close))
        .map_or("", |(content, _)| content);
    format!("sha256-{}", STANDARD.encode(Sha256::digest(content)))
}
