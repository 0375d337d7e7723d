//! Everything that the documents name exists: files, headings, constants, commands, flags, routes.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use solana_sdk::signature::{Keypair, Signer};

use crate::support::Grid;

struct Document {
    path: PathBuf,
    text: String,
}

impl Document {
    fn read(path: PathBuf) -> Document {
        let text = std::fs::read_to_string(&path).unwrap();
        Document { path, text }
    }

    /// Inline code, and each line of a block of code.
    fn code(&self) -> Vec<&str> {
        let mut in_block = false;
        let mut code = Vec::new();
        for line in self.text.lines() {
            if line.starts_with("```") {
                in_block = !in_block;
            } else if in_block {
                code.push(line);
            } else {
                code.extend(line.split('`').skip(1).step_by(2));
            }
        }
        code
    }

    /// The targets of its links, other sites left out.
    fn links(&self) -> Vec<&str> {
        self.text
            .split("](")
            .skip(1)
            .filter_map(|rest| rest.split_once(')'))
            .map(|(target, _)| target)
            .filter(|target| !target.contains("://"))
            .collect()
    }

    fn has_heading(&self, anchor: &str) -> bool {
        self.text
            .lines()
            .filter(|line| line.starts_with('#'))
            .any(|line| slug(line) == anchor)
    }
}

/// As web sites name a heading.
fn slug(heading: &str) -> String {
    heading
        .trim_start_matches('#')
        .trim()
        .to_lowercase()
        .chars()
        .filter_map(|character| match character {
            ' ' => Some('-'),
            '-' | '_' => Some(character),
            _ => Some(character).filter(|character| character.is_alphanumeric()),
        })
        .collect()
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn documents() -> Vec<Document> {
    let pages = ["docs", "docs/decisions"].into_iter().flat_map(|folder| {
        std::fs::read_dir(root().join(folder))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "md"))
    });
    ["README.md", "CONTRIBUTING.md"]
        .map(|name| root().join(name))
        .into_iter()
        .chain(pages)
        .map(Document::read)
        .collect()
}

/// Every word of every document's code that `pick` takes for a name, once.
fn named<'a>(
    documents: &'a [Document],
    pick: impl Fn(&'a str) -> Vec<&'a str>,
) -> BTreeSet<&'a str> {
    documents
        .iter()
        .flat_map(Document::code)
        .flat_map(pick)
        .collect()
}

#[test]
fn every_link_leads_to_a_file_and_a_heading() {
    let documents = documents();
    for document in &documents {
        for link in document.links() {
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = match file {
                "" => document.path.clone(),
                file => document.path.parent().unwrap().join(file),
            };
            let from = document.path.display();
            assert!(
                target.exists(),
                "{from} links to {link}, which is not there"
            );
            assert!(
                anchor.is_empty() || Document::read(target).has_heading(anchor),
                "{from} links to {link}: no such heading"
            );
        }
    }
}

#[test]
fn every_file_that_is_named_exists() {
    let documents = documents();
    let files = named(&documents, |code| {
        code.split([' ', ',', '"', '(', ')'])
            .filter(|word| {
                [
                    "src/",
                    "docs/",
                    "scripts/",
                    "tests/",
                    "migrations/",
                    "data/",
                ]
                .iter()
                .any(|folder| word.starts_with(folder))
            })
            .collect()
    });
    assert!(files.len() > 30, "only {files:?} are named");
    for file in files {
        assert!(root().join(file).exists(), "{file} is not there");
    }
}

/// The constants that a row of a table names, and the file in which the row says they are.
fn constants_of(row: &str) -> Option<(&str, Vec<&str>)> {
    let names: Vec<&str> = row.split('`').skip(1).step_by(2).collect();
    let file = names.iter().rfind(|name| name.ends_with(".rs"))?;
    let is_constant = |name: &&str| name.chars().all(|c| c.is_ascii_uppercase() || c == '_');
    Some((file, names.iter().copied().filter(is_constant).collect()))
}

#[test]
fn every_bound_is_a_constant_of_the_file_that_is_named() {
    let limits = Document::read(root().join("docs/limits.md"));
    let backoff = Document::read(root().join("src/domain/backoff.rs"));
    let settings = gridtokenx::config::env_example();
    let is_setting = |name: &str| settings.contains(&format!("\n{name}="));
    for (page, folder, prefix, least) in [(&limits, "", "|", 20), (&backoff, "src", "//! |", 14)] {
        let mut found = 0;
        let rows = page.text.lines().filter(|line| line.starts_with(prefix));
        for (file, constants) in rows.filter_map(constants_of) {
            let source = std::fs::read_to_string(root().join(folder).join(file)).unwrap();
            for name in constants.into_iter().filter(|name| !is_setting(name)) {
                found += 1;
                assert!(
                    source.contains(&format!("const {name}:")),
                    "{file} has no constant {name}"
                );
            }
        }
        assert!(
            found > least,
            "{:?} names only {found} constants",
            page.path
        );
    }
}

#[test]
fn every_make_target_exists() {
    let makefile = std::fs::read_to_string(root().join("Makefile")).unwrap();
    let documents = documents();
    let targets = named(&documents, |code| {
        code.split("make ")
            .skip(1)
            .filter_map(|rest| rest.trim_start_matches("-s ").split([' ', ')', '"']).next())
            .collect()
    });
    for expected in ["run", "test", "token", "audit", "listen"] {
        assert!(
            targets.contains(expected),
            "no page explains make {expected}"
        );
    }
    for target in targets {
        assert!(
            makefile.contains(&format!("\n{target}: ## ")),
            "make {target} is not in the Makefile"
        );
    }
}

#[test]
fn every_flag_of_the_play_is_known() {
    let help = Command::new(env!("CARGO_BIN_EXE_gridtokenx"))
        .args(["run", "--help"])
        .output()
        .unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    let documents = documents();
    let flags = named(&documents, |code| {
        code.split("make run ARGS=\"")
            .skip(1)
            .filter_map(|rest| rest.split('"').next())
            .flat_map(|arguments| arguments.split(' '))
            .filter(|word| word.starts_with("--"))
            .collect()
    });
    assert!(flags.contains("--report"), "only {flags:?} are named");
    for flag in flags {
        let known = help
            .split(|character: char| character.is_whitespace() || character == ',')
            .any(|word| word == flag);
        assert!(known, "gridtokenx run does not know {flag}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_route_that_is_named_is_served() {
    let grid = Grid::start().await;
    let served = grid.admin().get_text("/api/openapi.json").await;
    let served: Value = serde_json::from_str(&served).unwrap();
    let documents = documents();
    for method in ["GET", "POST"] {
        let paths = named(&documents, |code| {
            code.split(method)
                .skip(1)
                .filter_map(|rest| rest.strip_prefix(' '))
                .filter(|path| path.starts_with('/'))
                .filter_map(|path| path.split([' ', ',', '?']).next())
                .collect()
        });
        assert!(!paths.is_empty(), "no {method} is explained");
        for path in paths {
            // Pages for people are not in the OpenAPI document.
            let is_page = ["/", "/docs", "/api/openapi.json", "/admin/queue"].contains(&path);
            let operation = &served["paths"][path][method.to_lowercase()];
            assert!(
                is_page || operation.is_object(),
                "{method} {path} is not served"
            );
        }
    }
}

/// The Python program of docs/clients.md, as a reader would run it.
#[tokio::test(flavor = "multi_thread")]
async fn the_client_of_the_documents_is_paid() {
    let grid = Grid::start().await;
    let user = grid.user("anna");
    let page = Document::read(root().join("docs/clients.md"));
    let (_, program) = page.text.split_once("```python\n").unwrap();
    let (program, _) = program.split_once("```").unwrap();
    let wallet = Keypair::new().pubkey();
    let output = tokio::process::Command::new("python3")
        .args(["-c", program])
        .env("API", &user.url)
        .env("TOKEN", &user.token)
        .env("WALLET", wallet.to_string())
        .output()
        .await
        .expect("python3 is installed");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{error}");
    let printed = String::from_utf8(output.stdout).unwrap();
    let words: Vec<&str> = printed.split_whitespace().collect();
    assert!(["minted", "finalized"].contains(&words[0]), "{printed}");
    assert_eq!(words[1], "750000000");
    grid.until_count("finalized", 1).await;
    grid.audit_holds().await;
}
