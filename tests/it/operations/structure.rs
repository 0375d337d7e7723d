//! The structure of `src/`: dependencies between rooms point down the list in `src/lib.rs`, no two files import each other in
//! a circle, what is spawned is a periodic task or named here, and retired words stay retired, here and in the pages.
//!
//! Imports are read from the text: `use` declarations, and paths that begin with `crate`, `super` or `self`. What a `mod.rs`
//! re-exports counts as an import of the file that defines it. Test modules are left out.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::{Path, PathBuf};

fn source_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// A module by its path from the crate's root; the root is empty.
type ModulePath = Vec<String>;

/// One file of a crate.
struct Module {
    /// From `src/`, for instance `ledger/record.rs`.
    file: String,
    /// Without comments, texts and test modules.
    code: String,
    /// What its `pub use` declarations offer under a name of its own: name -> full path.
    reexports: BTreeMap<String, ModulePath>,
}

/// A crate: its modules by path.
struct Crate {
    modules: BTreeMap<ModulePath, Module>,
}

/// One import, from file to file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Import {
    from: String,
    to: String,
    path: String,
}

impl Crate {
    /// Reads the files below `dir`; `root` is the file of the crate's root.
    fn read(dir: &Path, root: &str, leave_out: &[&str]) -> Crate {
        let mut modules = BTreeMap::new();
        for path in files_below(dir, &["rs"]) {
            let relative = path.strip_prefix(dir).unwrap();
            if leave_out.iter().any(|other| relative.starts_with(other)) {
                continue;
            }
            let mut module: ModulePath = relative
                .with_extension("")
                .iter()
                .map(|part| part.to_str().unwrap().to_owned())
                .collect();
            if relative == Path::new(root) {
                module.clear();
            } else if module.last().is_some_and(|last| last == "mod") {
                module.pop();
            }
            let text = std::fs::read_to_string(&path).unwrap();
            let file = path.strip_prefix(source_dir()).unwrap();
            modules.insert(
                module,
                Module {
                    file: file.to_str().unwrap().to_owned(),
                    code: without_test_modules(&without_comments_and_texts(&text)),
                    reexports: BTreeMap::new(),
                },
            );
        }
        let mut read = Crate { modules };
        read.read_reexports();
        read
    }

    fn read_reexports(&mut self) {
        let mut all: Vec<(ModulePath, BTreeMap<String, ModulePath>)> = Vec::new();
        for (module, file) in &self.modules {
            let offered = declarations(&file.code)
                .filter(|(is_public, _)| *is_public)
                .flat_map(|(_, tree)| leaves(tree))
                .map(|(path, name)| (name, self.absolute(module, &path)))
                .filter(|(_, path)| !path.is_empty());
            all.push((module.clone(), offered.collect()));
        }
        for (module, reexports) in all {
            self.modules.get_mut(&module).unwrap().reexports = reexports;
        }
    }

    /// The path from the root; empty for one that leads out of the crate.
    fn absolute(&self, module: &ModulePath, path: &[String]) -> ModulePath {
        let mut at = module.clone();
        let mut rest = path;
        match path.first().map(String::as_str) {
            Some("crate" | "gridtokenx") => {
                at.clear();
                rest = &path[1..];
            }
            Some("self") => rest = &path[1..],
            Some("super") => {
                while rest.first().is_some_and(|segment| segment == "super") {
                    at.pop();
                    rest = &rest[1..];
                }
            }
            Some(first) => {
                let mut child = module.clone();
                child.push(first.to_owned());
                if !self.modules.contains_key(&child) {
                    return Vec::new();
                }
            }
            None => return Vec::new(),
        }
        at.extend(rest.iter().cloned());
        at
    }

    /// The file that defines what the path names. `None`: it is the root, or outside of this crate.
    fn file_of(&self, path: &[String]) -> Option<&str> {
        let mut module: ModulePath = Vec::new();
        for (index, segment) in path.iter().enumerate() {
            let mut child = module.clone();
            child.push(segment.clone());
            if self.modules.contains_key(&child) {
                module = child;
                continue;
            }
            let here = self.modules.get(&module)?;
            if let Some(target) = here.reexports.get(segment)
                && target.as_slice() != path
            {
                let target: ModulePath = target.iter().chain(&path[index + 1..]).cloned().collect();
                return self.file_of(&target);
            }
            break;
        }
        (!module.is_empty()).then(|| self.modules[&module].file.as_str())
    }

    fn imports(&self) -> BTreeSet<Import> {
        let mut imports = BTreeSet::new();
        for (module, file) in &self.modules {
            // A `mod.rs` only re-exports these names; that does not count as using them.
            let declared: Vec<(ModulePath, String)> = declarations(&file.code)
                .filter(|(is_public, _)| !is_public)
                .flat_map(|(_, tree)| leaves(tree))
                .map(|(path, name)| (self.absolute(module, &path), name))
                .collect();
            let imported: BTreeMap<&str, &ModulePath> = declared
                .iter()
                .map(|(path, name)| (name.as_str(), path))
                .collect();
            let inline = inline_paths(&file.code).into_iter().map(|path| {
                match imported.get(path[0].as_str()) {
                    Some(begin) => begin.iter().chain(&path[1..]).cloned().collect(),
                    None => self.absolute(module, &path),
                }
            });
            for path in declared.iter().map(|(path, _)| path.clone()).chain(inline) {
                // A module that is imported is not used before something of it is named.
                let is_module = self.modules.contains_key(&path);
                let Some(to) = self
                    .file_of(&path)
                    .filter(|to| !is_module && *to != file.file)
                else {
                    continue;
                };
                imports.insert(Import {
                    from: file.file.clone(),
                    to: to.to_owned(),
                    path: path.join("::"),
                });
            }
        }
        imports
    }
}

fn files_below(dir: &Path, extensions: &[&str]) -> Vec<PathBuf> {
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
fn without_comments_and_texts(text: &str) -> String {
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
fn without_test_modules(code: &str) -> String {
    let mut kept = String::with_capacity(code.len());
    let mut rest = code;
    while let Some(at) = rest.find("#[cfg(test)]\nmod ") {
        kept.push_str(&rest[..at]);
        rest = &rest[at..];
        let body = rest.find(['{', ';']).unwrap_or(rest.len());
        let end = match rest[body..].starts_with('{') {
            true => rest.find("\n}").map_or(rest.len(), |at| at + 2),
            false => (body + 1).min(rest.len()),
        };
        rest = &rest[end..];
    }
    kept + rest
}

/// Each `use` declaration: whether it is public, and its tree.
fn declarations(code: &str) -> impl Iterator<Item = (bool, &str)> {
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

/// The paths of a tree of `use`, each with the name that it takes here. `a::{self, b as c}` gives (a, a) and (a::b, c).
fn leaves(tree: &str) -> Vec<(ModulePath, String)> {
    fn walk(prefix: &[String], tree: &str, found: &mut Vec<(ModulePath, String)>) {
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
        if full.len() > 1
            && full
                .last()
                .is_some_and(|last| last == "self" || last == "*")
        {
            full.pop();
        }
        let Some(last) = full.last().cloned() else {
            return;
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
fn inline_paths(code: &str) -> Vec<ModulePath> {
    let is_part = |character: char| character.is_alphanumeric() || "_:".contains(character);
    code.split(|character: char| !is_part(character))
        .filter(|word| word.contains("::") && !word.starts_with("::"))
        .map(|word| segments(word).collect())
        .filter(|path: &ModulePath| path.len() > 1)
        .collect()
}

/// Every crate of `src/`: the library, its program, and the programs in `src/bin`.
fn crates() -> Vec<Crate> {
    let source = source_dir();
    let mut crates = vec![Crate::read(&source, "lib.rs", &["bin", "main.rs"])];
    for entry in std::fs::read_dir(source.join("bin")).unwrap() {
        crates.push(Crate::read(&entry.unwrap().path(), "main.rs", &[]));
    }
    crates
}

/// The rooms in the order of the table of `src/lib.rs`, the topmost first.
fn rooms() -> Vec<String> {
    let page = std::fs::read_to_string(source_dir().join("lib.rs")).unwrap();
    page.lines()
        .filter_map(|line| line.strip_prefix("//! | [`"))
        .filter_map(|row| Some(row.split_once("`]")?.0.to_owned()))
        .collect()
}

fn room_of(file: &str) -> &str {
    file.split_once('/')
        .map_or_else(|| file.trim_end_matches(".rs"), |(room, _)| room)
}

/// Whether imports lead from one file to the other.
fn reaches(below: &BTreeMap<&str, BTreeSet<&str>>, from: &str, to: &str) -> bool {
    let (mut waiting, mut seen) = (vec![from], BTreeSet::new());
    while let Some(file) = waiting.pop() {
        if file == to {
            return true;
        }
        if seen.insert(file) {
            waiting.extend(below.get(file).into_iter().flatten());
        }
    }
    false
}

#[test]
fn rooms_import_only_what_stands_below_them_in_the_list() {
    let rooms = rooms();
    let floor = |room: &str| rooms.iter().position(|listed| listed == room);
    let mut unlisted: BTreeSet<String> = BTreeSet::new();
    let mut upward = String::new();
    let library = &crates()[0];
    for module in library.modules.values() {
        let room = room_of(&module.file);
        if floor(room).is_none() && room != "lib" {
            unlisted.insert(room.to_owned());
        }
    }
    assert!(
        unlisted.is_empty(),
        "rooms that the table in src/lib.rs lacks: {unlisted:?}"
    );
    for import in library.imports() {
        let (from, to) = (room_of(&import.from), room_of(&import.to));
        if from != to && floor(from) > floor(to) {
            writeln!(upward, "src/{} imports {}", import.from, import.path).unwrap();
        }
    }
    assert!(upward.is_empty(), "imports against the list:\n{upward}");
}

#[test]
fn no_two_files_import_each_other_in_a_circle() {
    let mut circles = String::new();
    for read in crates() {
        let imports = read.imports();
        let mut below: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for import in &imports {
            below.entry(&import.from).or_default().insert(&import.to);
        }
        for import in &imports {
            if reaches(&below, &import.to, &import.from) {
                let Import { from, to, path } = import;
                writeln!(circles, "src/{from} imports {path} of src/{to}").unwrap();
            }
        }
    }
    assert!(circles.is_empty(), "files in a circle:\n{circles}");
}

/// Files that spawn what is not a periodic task, and what that is. A loop that waits for time is a `PeriodicTask`, so that it
/// survives panics, has a limit and is listed in the status.
const SPAWNS: [(&str, &str); 15] = [
    ("api/resources/websocket.rs", "one client's stream"),
    ("api/server/accept.rs", "one connection"),
    ("coalesce.rs", "collects the items of callers into batches"),
    (
        "commands/local_stack.rs",
        "`run`: supervises the local chain and database",
    ),
    ("commands/replay/listener.rs", "the play: receives events"),
    (
        "commands/serve/base.rs",
        "every periodic task, and what `start.rs` and `open_chain.rs` hand over",
    ),
    (
        "commands/serve/open_chain.rs",
        "the resolver's lock, after the checks that a start without an endpoint skipped",
    ),
    ("commands/serve/http.rs", "accepts connections"),
    (
        "commands/serve/leader_tasks.rs",
        "the locks under which periodic tasks run",
    ),
    (
        "commands/serve/minting.rs",
        "apalis' workers, and the check of their heartbeats",
    ),
    ("commands/signals.rs", "waits for a signal"),
    (
        "commands/serve/start.rs",
        "receives notifications; holds the lock that marks the process alive",
    ),
    ("mint/first_send.rs", "one transaction's first send"),
    ("telemetry/traces/otlp_client.rs", "one export of traces"),
    (
        "telemetry/traces/provider.rs",
        "exports the steps of readings as they end",
    ),
];

#[test]
fn whatever_is_spawned_is_a_periodic_task_or_does_not_wait_for_time() {
    let library = &crates()[0];
    // The one stands outside the service, in tests; the other starts processes.
    let others = ["fault_proxy", "embedded"];
    let spawning: BTreeSet<&str> = library
        .modules
        .values()
        .filter(|module| !others.contains(&room_of(&module.file)))
        .filter(|module| {
            ["spawn(", "spawn_background("]
                .iter()
                .any(|call| module.code.contains(call))
        })
        .map(|module| module.file.as_str())
        .collect();
    let listed: BTreeSet<&str> = SPAWNS.iter().map(|(file, _)| *file).collect();
    let unlisted: Vec<&&str> = spawning.difference(&listed).collect();
    assert!(
        unlisted.is_empty(),
        "these spawn something: make it a PeriodicTask, or say here what it is: {unlisted:?}"
    );
    let stale: Vec<&&str> = listed.difference(&spawning).collect();
    assert!(stale.is_empty(), "these spawn nothing any more: {stale:?}");
}

/// Names that had to be learnt before the code could be read. Each has a successor in the field's own words.
const RETIRED_NAMES: [&str; 44] = [
    "AwaitsFunds",
    "BatchDesk",
    "CauseOfDeath",
    "ChainSide",
    "Courier",
    "Desk",
    "Dice",
    "Doorkeeper",
    "Ears",
    "Farewell",
    "HolderLock",
    "Judge",
    "MintTools",
    "NotNow",
    "PatientJson",
    "ProcessLock",
    "Purse",
    "PurseView",
    "Restless",
    "Seat",
    "Sight",
    "Sighting",
    "Singer",
    "Speaker",
    "Standing",
    "Survey",
    "Undertaker",
    "Visitors",
    "Workshop",
    "book_foreign",
    "bury",
    "bury_expired",
    "bury_failed",
    "bury_in",
    "census",
    "doorkeeper",
    "fruitless",
    "hold_once",
    "keep_house",
    "purse",
    "sighting",
    "tell_everything",
    "undertaker",
    "within_means",
];
/// Phrases for which plain English has a shorter word.
const RETIRED_PHRASES: [&str; 7] = [
    "whoever",
    "somebody",
    "in vain",
    "for want of",
    "for ever",
    "shall",
    "it is told",
];

/// Whether the text holds the word, not as a part of a longer one.
fn has_word(line: &str, word: &str) -> bool {
    let is_part = |character: char| character.is_alphanumeric() || character == '_';
    line.match_indices(word).any(|(at, _)| {
        !line[..at].ends_with(is_part) && !line[at + word.len()..].starts_with(is_part)
    })
}

#[test]
fn commitments_are_decided_in_one_file() {
    const DECIDES: &str = "chain/commitment.rs";
    let library = &crates()[0];
    let names_one = |module: &&Module| module.code.contains("CommitmentConfig::");
    let files: Vec<&str> = library
        .modules
        .values()
        .filter(names_one)
        .map(|module| module.file.as_str())
        .collect();
    assert_eq!(files, [DECIDES], "ask `Endpoint::commitment` instead");
}

#[test]
fn retired_words_stay_retired() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    for folder in ["src", "tests", "benches", "docs", "scripts", "dashboards"] {
        files.extend(files_below(&root.join(folder), &["rs", "md", "py", "mjs"]));
    }
    files.extend(["README.md", "CONTRIBUTING.md"].map(|name| root.join(name)));
    let mut found = String::new();
    for path in files {
        // This list has to name them.
        if path.ends_with(file!()) {
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        for (number, line) in text.lines().enumerate() {
            let names = RETIRED_NAMES.iter().filter(|name| has_word(line, name));
            let lower = line.to_lowercase();
            let phrases = RETIRED_PHRASES
                .iter()
                .filter(|phrase| has_word(&lower, phrase));
            for word in names.chain(phrases) {
                let file = path.strip_prefix(root).unwrap().display();
                writeln!(found, "{file}:{}: {word}", number + 1).unwrap();
            }
        }
    }
    assert!(found.is_empty(), "retired words:\n{found}");
}
