//! Finds files, and reduces Rust source to its code.

use std::path::{Path, PathBuf};

pub fn source_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

pub fn files_below(dir: &Path, extensions: &[&str]) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let extension = path.extension().and_then(|extension| extension.to_str());
        if path.is_dir() {
            files.extend(files_below(&path, extensions));
        } else if extension.is_some_and(|extension| extensions.contains(&extension)) {
            files.push(path);
        }
    }
    files.sort();
    files
}

/// Comments and the contents of texts become blanks.
pub fn without_comments_and_texts(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let length = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if let Some(hashes) = raw_text_hashes(rest) {
            let end = format!("\"{}", "#".repeat(hashes));
            let begin = 2 + hashes;
            rest[begin..]
                .find(&end)
                .map_or(rest.len(), |at| begin + at + end.len())
        } else if first == '"' {
            text_length(rest)
        } else if rest.starts_with("'\"'") {
            3
        } else {
            code.push(first);
            rest = &rest[first.len_utf8()..];
            continue;
        };
        code.push(' ');
        rest = &rest[length..];
    }
    code
}

/// Of `r"…"`, `r#"…"#`, …: the number of hashes.
fn raw_text_hashes(rest: &str) -> Option<usize> {
    let after = rest.strip_prefix('r')?;
    let hashes = after.bytes().take_while(|byte| *byte == b'#').count();
    after[hashes..].starts_with('"').then_some(hashes)
}

fn text_length(rest: &str) -> usize {
    let mut is_escaped = false;
    for (index, character) in rest.char_indices().skip(1) {
        match character {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            '"' => return index + 1,
            _ => {}
        }
    }
    rest.len()
}

/// Cuts `#[cfg(test)] mod … { … }`, which ends at a brace in the first column.
pub fn without_test_modules(code: &str) -> String {
    const BEGIN: &str = "#[cfg(test)]\n";
    let mut kept = String::with_capacity(code.len());
    let mut rest = code;
    while let Some(at) = rest.find(BEGIN) {
        let item = &rest[at + BEGIN.len()..];
        let head = &item[..item.find(['{', ';']).unwrap_or(item.len())];
        let is_module =
            head.starts_with("mod ") || head.starts_with("pub") && head.contains(" mod ");
        if !is_module {
            kept.push_str(&rest[..at + BEGIN.len()]);
            rest = item;
            continue;
        }
        kept.push_str(&rest[..at]);
        let end = match item[head.len()..].starts_with('{') {
            true => item.find("\n}").map_or(item.len(), |at| at + 2),
            false => (head.len() + 1).min(item.len()),
        };
        rest = &item[end..];
    }
    kept + rest
}
