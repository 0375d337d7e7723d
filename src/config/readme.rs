//! The README's table of settings, compared with the settings themselves.

use std::fmt::Write;

use super::Config;

const PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/README.md");
const BEGIN: &str = "<!-- settings: written by `UPDATE_README=1 cargo test --lib readme` -->\n";
const END: &str = "<!-- end of settings -->";

/// One row for each setting, in the groups of `--help`.
fn settings_table() -> String {
    let command = Config::command();
    let mut table = String::from("\n| variable | default | meaning |\n|---|---|---|\n");
    let mut group = None;
    for arg in command.get_arguments() {
        if group != arg.get_help_heading() {
            group = arg.get_help_heading();
            let _ = writeln!(table, "| **{}** | | |", group.unwrap_or_default());
        }
        let defaults: Vec<_> = arg
            .get_default_values()
            .iter()
            .map(|value| format!("`{}`", value.to_string_lossy()))
            .collect();
        let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
        let _ = writeln!(
            table,
            "| `{}` | {} | {} |",
            arg.get_id(),
            defaults.join(","),
            help.replace('|', "\\|")
        );
    }
    table.push('\n');
    table
}

#[test]
fn the_readme_lists_every_setting() {
    let stored = std::fs::read_to_string(PATH).unwrap();
    let (before, rest) = stored.split_once(BEGIN).unwrap();
    let (table, after) = rest.split_once(END).unwrap();
    if std::env::var_os("UPDATE_README").is_some() {
        let written = format!("{before}{BEGIN}{}{END}{after}", settings_table());
        std::fs::write(PATH, written).unwrap();
        return;
    }
    assert!(
        table == settings_table(),
        "the README's table differs from the settings; write it anew: UPDATE_README=1 cargo test --lib readme"
    );
}
