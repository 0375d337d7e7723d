//! The file `docs/configuration.md`, generated from the settings.

use std::fmt::Write;

use clap::Arg;

use super::configuration::Config;

const PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/configuration.md");

const HEAD: &str = "# Configuration

Generated from the settings by `UPDATE_CONFIGURATION=1 cargo test --lib config::reference`; a test fails while they differ.

Each setting is an environment variable and a flag of `gridtokenx serve` and `gridtokenx run`; the flag wins. An empty variable counts as
unset. A value that cannot be read, would be rounded, or is out of range stops the start with one sentence that names the variable, the
value and the allowed values. Secrets are never shown. [.env.example](../.env.example) lists the variables for a file.
";

/// One table for each group of `--help`.
fn reference() -> String {
    let command = Config::command();
    let mut text = HEAD.to_owned();
    let mut group = None;
    for arg in command.get_arguments() {
        if group != arg.get_help_heading() {
            group = arg.get_help_heading();
            let _ = write!(
                text,
                "\n## {}\n\n| variable | flag | default | meaning and range |\n|---|---|---|---|\n",
                group.unwrap_or_default()
            );
        }
        text.push_str(&row(arg));
    }
    text
}

fn row(arg: &Arg) -> String {
    let defaults: Vec<_> = arg
        .get_default_values()
        .iter()
        .map(|value| format!("`{}`", value.to_string_lossy()))
        .collect();
    let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
    format!(
        "| `{}` | `--{}` | {} | {} |\n",
        arg.get_id(),
        arg.get_long().unwrap_or_default(),
        defaults.join(","),
        help.replace('|', "\\|")
    )
}

#[test]
fn the_reference_lists_every_setting() {
    if std::env::var_os("UPDATE_CONFIGURATION").is_some() {
        std::fs::write(PATH, reference()).unwrap();
    }
    let stored = std::fs::read_to_string(PATH).unwrap_or_default();
    assert!(
        stored == reference(),
        "docs/configuration.md differs from the settings; generate it again: \
         UPDATE_CONFIGURATION=1 cargo test --lib config::reference"
    );
}
