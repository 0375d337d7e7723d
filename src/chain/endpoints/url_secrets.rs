//! Removes an endpoint's access key from what the endpoint answers: some providers repeat it in their errors.

use reqwest::Url;

/// Parts of a URL that are shorter are words such as `v2`, not keys.
const KEY_CHARACTERS_MIN: usize = 8;
/// Characters of an answer's text that are kept: errors are shown in logs, status and `last_error`.
const TEXT_CHARACTERS_MAX: usize = 200;

/// The parts of a URL that may be keys.
pub(super) struct UrlSecrets(Vec<String>);

impl UrlSecrets {
    pub fn of(url: &str) -> UrlSecrets {
        let Ok(url) = Url::parse(url) else {
            return UrlSecrets(Vec::new());
        };
        let segments = url.path_segments().into_iter().flatten();
        let values: Vec<String> = url
            .query_pairs()
            .map(|(_, value)| value.into_owned())
            .collect();
        let parts = segments
            .chain([url.username(), url.password().unwrap_or_default()])
            .map(str::to_owned)
            .chain(values)
            .chain(url.host_str().map(str::to_owned));
        UrlSecrets(
            parts
                .filter(|part| part.len() >= KEY_CHARACTERS_MIN)
                .collect(),
        )
    }

    /// The text without them, on one line and shortened.
    pub fn redact(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for secret in &self.0 {
            text = text.replace(secret.as_str(), "…");
        }
        let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
        line.chars()
            .filter(|character| !character.is_control())
            .take(TEXT_CHARACTERS_MAX)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_part_of_the_url_is_left_in_a_text() {
        let url = "https://user-name:pass-word-1@node.example.com/v2/0123456789abcdef?api-key=fedcba98765";
        let secrets = UrlSecrets::of(url);
        let text = format!("invalid api key fedcba98765\n for {url} in v2\u{7}");
        let redacted = secrets.redact(&text);
        for secret in [
            "fedcba98765",
            "0123456789abcdef",
            "pass-word-1",
            "user-name",
            "node.example.com",
        ] {
            assert!(!redacted.contains(secret), "{redacted}");
        }
        assert!(
            redacted.starts_with("invalid api key … for https://"),
            "{redacted}"
        );
        assert!(secrets.redact(&"x".repeat(1_000)).len() <= TEXT_CHARACTERS_MAX);
    }
}
