//! Quotes untrusted text in an error: short, and with control characters escaped, for terminals and logs.

/// The number of characters that are quoted.
const SHOWN_CHARACTERS: usize = 64;

pub(super) fn excerpt(text: &str) -> String {
    let shown = text.chars().take(SHOWN_CHARACTERS);
    let mut excerpt: String = shown.flat_map(char::escape_debug).collect();
    if text.chars().nth(SHOWN_CHARACTERS).is_some() {
        excerpt.push('…');
    }
    excerpt
}
