//! The name of each endpoint: safe to show, and a label of metrics.

use std::collections::HashSet;

/// At most: the name is a label of metrics.
const NAME_CHARACTERS_MAX: usize = 32;

/// Each URL with its endpoint's name. The name is the text after the URL's `#`, which is never sent. It is the URL's place,
/// `rpc-1` and so on, where nothing follows, or what follows is not a valid name, is taken, or reads like a place.
pub(super) fn named(urls: &[String]) -> impl Iterator<Item = (String, &str)> {
    let mut taken = HashSet::new();
    urls.iter().enumerate().map(move |(index, url)| {
        let (address, given) = url.split_once('#').unwrap_or((url, ""));
        let is_name = !given.starts_with("rpc-")
            && (1..=NAME_CHARACTERS_MAX).contains(&given.len())
            && given
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'));
        let name = if is_name && taken.insert(given) {
            given.to_owned()
        } else {
            format!("rpc-{}", index + 1)
        };
        (name, address)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_named_by_its_url_fragment_or_its_position() {
        let urls = [
            "https://one.example/key#main",
            "https://two.example/",
            "https://three.example/#main",
            "https://four.example/#no name",
            "https://five.example/?k=v#spare-2",
            "https://six.example/#rpc-1",
        ]
        .map(str::to_owned);
        let named: Vec<(String, &str)> = named(&urls).collect();
        let named: Vec<(&str, &str)> = named.iter().map(|(name, url)| (&name[..], *url)).collect();
        assert_eq!(
            named,
            [
                ("main", "https://one.example/key"),
                ("rpc-2", "https://two.example/"),
                ("rpc-3", "https://three.example/"),
                ("rpc-4", "https://four.example/"),
                ("spare-2", "https://five.example/?k=v"),
                ("rpc-6", "https://six.example/"),
            ]
        );
    }
}
