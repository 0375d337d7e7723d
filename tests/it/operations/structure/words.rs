//! Retired names and phrases stay retired.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use super::source_text::files_below;

/// Names that had to be learnt before the code could be read. Each has a successor in the field's own words.
const RETIRED_NAMES: &[&str] = &[
    "AwaitsFunds",
    "BatchDesk",
    "CauseOfDeath",
    "ChainSide",
    "Courier",
    "Desk",
    "Dice",
    "Door",
    "Doorkeeper",
    "Ears",
    "Farewell",
    "Heard",
    "HolderLock",
    "Judge",
    "MintTools",
    "News",
    "NotNow",
    "PatientJson",
    "Placed",
    "ProcessLock",
    "Purse",
    "PurseView",
    "Restless",
    "Seat",
    "Sight",
    "Sighting",
    "Singer",
    "Speaker",
    "Spoiled",
    "Standing",
    "Survey",
    "Theirs",
    "Trouble",
    "Undertaker",
    "Visitors",
    "Workshop",
    "begin_reading",
    "book_foreign",
    "bury",
    "bury_expired",
    "bury_failed",
    "bury_in",
    "census",
    "courier",
    "doorkeeper",
    "dress",
    "entrance",
    "fruitless",
    "hold_once",
    "keep_house",
    "look_at",
    "luck",
    "purse",
    "relapses",
    "sighting",
    "singer",
    "sort_in",
    "swallow",
    "take_in",
    "tell_everything",
    "undertaker",
    "within_means",
];
/// Phrases for which plain English has a shorter word.
const RETIRED_PHRASES: &[&str] = &[
    "whoever",
    "somebody",
    "in vain",
    "for want of",
    "for ever",
    "shall",
    "is told",
    "are told",
    "told of",
    "nobody else",
];
/// Members of a JSON file that hold prose.
const PROSE_MEMBERS: [&str; 3] = ["\"title\":", "\"description\":", "\"summary\":"];

/// Whether the text holds the word, not as a part of a longer one.
fn has_word(line: &str, word: &str) -> bool {
    let is_part = |character: char| character.is_alphanumeric() || character == '_';
    line.match_indices(word).any(|(at, _)| {
        !line[..at].ends_with(is_part) && !line[at + word.len()..].starts_with(is_part)
    })
}

/// The files in which words are checked.
fn files(root: &Path) -> Vec<PathBuf> {
    let folders = [
        "src",
        "tests",
        "benches",
        "docs",
        "scripts",
        "dashboards",
        "deploy",
    ];
    let extensions = [
        "rs", "md", "py", "mjs", "html", "svg", "yml", "yaml", "json",
    ];
    let mut files: Vec<PathBuf> = folders
        .iter()
        .flat_map(|folder| files_below(&root.join(folder), &extensions))
        // These lists have to name the words.
        .filter(|path| !path.ends_with(file!()))
        .collect();
    files.extend(["README.md", "CONTRIBUTING.md"].map(|name| root.join(name)));
    files
}

/// Of a JSON file only prose is checked: names of members are public.
fn is_prose(path: &Path, line: &str) -> bool {
    let is_json = path
        .extension()
        .is_some_and(|extension| extension == "json");
    let begins = |member: &&str| line.trim_start().starts_with(*member);
    !is_json || PROSE_MEMBERS.iter().any(begins)
}

fn retired_words_of(line: &str) -> Vec<&'static str> {
    let lower = line.to_lowercase();
    let names = RETIRED_NAMES.iter().filter(|name| has_word(line, name));
    let phrases = RETIRED_PHRASES
        .iter()
        .filter(|phrase| has_word(&lower, phrase));
    names.chain(phrases).copied().collect()
}

#[test]
fn retired_words_stay_retired() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = String::new();
    for path in files(root) {
        let text = std::fs::read_to_string(&path).unwrap();
        let file = path.strip_prefix(root).unwrap().display();
        for (number, line) in text.lines().enumerate() {
            if is_prose(&path, line) {
                for word in retired_words_of(line) {
                    writeln!(found, "{file}:{}: {word}", number + 1).unwrap();
                }
            }
        }
    }
    assert!(found.is_empty(), "retired words:\n{found}");
}
