//! Quotes untrusted text in an error: short, and with control characters escaped, for terminals and logs.

/// The number of characters that are quoted.
const SHOWN_CHARACTERS: usize = 64;

pub(super) fn excerpt(text: &str) -> String {
    truncated(text, SHOWN_CHARACTERS)
        .chars()
        .flat_map(char::escape_debug)
        .collect()
}

/// The first `characters_max` characters; `…` stands for the rest. Control characters stay as they are.
pub fn truncated(text: &str, characters_max: usize) -> String {
    let mut shown: String = text.chars().take(characters_max).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    shown
}
