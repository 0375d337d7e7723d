//! URLs as they may be shown.

/// A URL without what may be an access key: on other hosts than this one only scheme, host and port are shown.
pub fn public_url(urls: &str) -> String {
    let shown = |url: &str| match reqwest::Url::parse(url) {
        Ok(parsed) if matches!(parsed.host_str(), Some("127.0.0.1" | "localhost" | "[::1]")) => {
            url.to_owned()
        }
        Ok(parsed) => parsed.origin().ascii_serialization(),
        Err(_) => "…".to_owned(),
    };
    urls.split(',')
        .map(|url| shown(url.trim()))
        .collect::<Vec<_>>()
        .join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_access_key_is_not_shown() {
        assert_eq!(public_url("http://127.0.0.1:8899"), "http://127.0.0.1:8899");
        assert_eq!(
            public_url("https://rpc.example/secret?key=secret, https://u:secret@two.example:8443"),
            "https://rpc.example,https://two.example:8443"
        );
    }
}
