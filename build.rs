//! Passes the commit that the program is built from to the compiler, for reports.

use std::process::Command;

fn main() {
    // HEAD names the branch; the log grows with every commit, checkout and rebase.
    for watched in ["HEAD", "logs/HEAD"] {
        if let Some(path) = git(&["rev-parse", "--git-path", watched]) {
            println!("cargo::rerun-if-changed={path}");
        }
    }
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=GRIDTOKENX_COMMIT");
    // An image is built without the repository, with the commit in the environment.
    let commit = std::env::var("GRIDTOKENX_COMMIT")
        .ok()
        .filter(|commit| !commit.is_empty())
        .or_else(|| git(&["rev-parse", "HEAD"]))
        .unwrap_or_else(|| "unknown".to_owned());
    println!("cargo::rustc-env=GRIDTOKENX_COMMIT={commit}");
}

/// The output of git. `None` without git or a repository, neither of which is needed to build.
fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let text = text.trim();
    (output.status.success() && !text.is_empty()).then(|| text.to_owned())
}
