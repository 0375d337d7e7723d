//! How somebody else's text is shown in an error: short, and without what would upset a terminal or a log.

/// Characters of it that are shown.
const SHOWN_CHARACTERS: usize = 64;

pub(super) fn excerpt(text: &str) -> String {
    let shown = text.chars().take(SHOWN_CHARACTERS);
    let mut excerpt: String = shown.flat_map(char::escape_debug).collect();
    if text.chars().nth(SHOWN_CHARACTERS).is_some() {
        excerpt.push('…');
    }
    excerpt
}
