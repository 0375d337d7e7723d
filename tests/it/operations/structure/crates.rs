//! The crates of `src/`, with the imports from file to file.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::source_text::{
    files_below, source_dir, without_comments_and_texts, without_test_modules,
};
use super::use_tree::{GLOB, declarations, inline_paths, leaves};

/// A module by its path from the crate's root; the root is empty.
pub type ModulePath = Vec<String>;

/// One file of a crate.
pub struct Module {
    /// From `src/`, for instance `ledger/record.rs`.
    pub file: String,
    /// Without comments, texts and test modules.
    pub code: String,
    /// The names that its `pub use` declarations offer: name -> full path.
    reexports: BTreeMap<String, ModulePath>,
}

/// A crate: its modules by path.
pub struct Crate {
    pub modules: BTreeMap<ModulePath, Module>,
}

/// One import, from file to file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Import {
    pub from: String,
    pub to: String,
    pub path: String,
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
            let offered: BTreeMap<String, ModulePath> = offered.collect();
            assert!(
                !offered.contains_key(GLOB),
                "src/{} re-exports by glob, which hides the imports through it",
                file.file
            );
            all.push((module.clone(), offered));
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

    /// The imports between different files of the crate.
    pub fn imports(&self) -> BTreeSet<Import> {
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
            let named = declared
                .iter()
                .map(|(path, name)| (path.clone(), name == GLOB));
            for (path, is_glob) in named.chain(inline.map(|path| (path, false))) {
                // A module that is imported is not used before something of it is named, as by a glob.
                let is_used = is_glob || !self.modules.contains_key(&path);
                let Some(to) = self.file_of(&path).filter(|to| is_used && *to != file.file) else {
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

/// Every crate of `src/`: the library, its program, and the programs in `src/bin`.
pub fn crates() -> Vec<Crate> {
    let source = source_dir();
    let mut crates = vec![Crate::read(&source, "lib.rs", &["bin", "main.rs"])];
    for entry in std::fs::read_dir(source.join("bin")).unwrap() {
        crates.push(Crate::read(&entry.unwrap().path(), "main.rs", &[]));
    }
    crates
}

/// The room of a file.
pub fn room_of(file: &str) -> &str {
    file.split_once('/')
        .map_or_else(|| file.trim_end_matches(".rs"), |(room, _)| room)
}
