//! Reads `use` declarations and paths from the code.

/// The name under which a glob is listed.
pub const GLOB: &str = "*";

/// Each `use` declaration: whether it is public, and its tree.
pub fn declarations(code: &str) -> impl Iterator<Item = (bool, &str)> {
    code.split(';').filter_map(|statement| {
        // Only a visibility may stand before it on its line.
        let begins = |at: &usize| {
            let before = statement[..*at].rsplit('\n').next().unwrap_or_default();
            let before = before.trim();
            (before.is_empty() || before.starts_with("pub"))
                && !before.contains(char::is_whitespace)
                && !statement[..*at].ends_with(char::is_alphanumeric)
        };
        let found = statement.match_indices("use ").map(|(at, _)| at);
        let at = found.filter(begins).last()?;
        let before = statement[..at].rsplit('\n').next().unwrap_or_default();
        Some((before.trim().starts_with("pub"), &statement[at + 4..]))
    })
}

/// The paths of a tree of `use`, each with the name that it takes here. `a::{self, b as c}` gives (a, a) and (a::b, c);
/// `a::*` gives (a, *).
pub fn leaves(tree: &str) -> Vec<(Vec<String>, String)> {
    fn walk(prefix: &[String], tree: &str, found: &mut Vec<(Vec<String>, String)>) {
        let tree = tree.trim();
        if let Some(brace) = tree.find('{') {
            let mut path = prefix.to_vec();
            path.extend(segments(&tree[..brace]));
            for branch in branches(&tree[brace + 1..tree.rfind('}').unwrap_or(tree.len())]) {
                walk(&path, branch, found);
            }
            return;
        }
        let (path, alias) = tree.split_once(" as ").unwrap_or((tree, ""));
        let mut full = prefix.to_vec();
        full.extend(segments(path));
        let Some(last) = full.last().cloned() else {
            return;
        };
        if full.len() > 1 && (last == "self" || last == GLOB) {
            full.pop();
        }
        let last = match full.last() {
            Some(module) if last == "self" => module.clone(),
            _ => last,
        };
        let name = match alias.trim() {
            "" => last,
            alias => alias.to_owned(),
        };
        found.push((full, name));
    }
    let mut found = Vec::new();
    walk(&[], tree, &mut found);
    found
}

fn segments(path: &str) -> impl Iterator<Item = String> {
    path.split("::")
        .map(|segment| segment.trim().to_owned())
        .filter(|segment| !segment.is_empty())
}

/// Splits at the commas outside of braces.
fn branches(list: &str) -> Vec<&str> {
    let (mut depth, mut start, mut found) = (0, 0, Vec::new());
    for (at, character) in list.char_indices() {
        match character {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                found.push(&list[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    found.push(&list[start..]);
    found.retain(|branch| !branch.trim().is_empty());
    found
}

/// Paths in the code itself, for instance `crate::ledger::record(…)` or `record::store(…)`.
pub fn inline_paths(code: &str) -> Vec<Vec<String>> {
    let is_part = |character: char| character.is_alphanumeric() || "_:".contains(character);
    code.split(|character: char| !is_part(character))
        .filter(|word| word.contains("::") && !word.starts_with("::"))
        .map(|word| segments(word).collect())
        .filter(|path: &Vec<String>| path.len() > 1)
        .collect()
}
