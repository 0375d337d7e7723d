//! Tests that the README names only settings that exist, with their defaults. `docs/configuration.md` lists all settings.

use std::collections::BTreeMap;

use super::configuration::Config;

const PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/README.md");

/// Every variable with its default as a table shows it.
fn defaults() -> BTreeMap<String, String> {
    Config::command()
        .get_arguments()
        .map(|arg| {
            let defaults: Vec<_> = arg
                .get_default_values()
                .iter()
                .map(|value| format!("`{}`", value.to_string_lossy()))
                .collect();
            (arg.get_id().to_string(), defaults.join(","))
        })
        .collect()
}

/// Words such as `HTTP_ADDR`: at least two parts of capital letters or digits, joined by underscores.
fn variables_in(text: &str) -> impl Iterator<Item = &str> {
    text.split(|character: char| !(character.is_ascii_alphanumeric() || character == '_'))
        .filter(|word| word.contains('_') && !word.bytes().any(|byte| byte.is_ascii_lowercase()))
        .filter(|word| word.bytes().any(|byte| byte.is_ascii_uppercase()))
}

/// The parts between backticks, code blocks included.
fn code_in(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// Rows ``| `VARIABLE` | default | meaning |``: variable and default.
fn settings_shown_in(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.lines().filter_map(|line| {
        let mut cells = line.strip_prefix("| `")?.split(" | ");
        let variable = cells.next()?.strip_suffix('`')?;
        let default = cells.next()?;
        let is_variable = variables_in(variable).next() == Some(variable);
        is_variable.then_some((variable, default.trim()))
    })
}

#[test]
fn the_readme_names_only_settings_that_exist() {
    let defaults = defaults();
    let readme = std::fs::read_to_string(PATH).unwrap();
    for variable in code_in(&readme).flat_map(variables_in) {
        assert!(
            defaults.contains_key(variable),
            "README.md names {variable}, which is not a setting"
        );
    }
}

#[test]
fn the_readme_shows_settings_with_their_defaults() {
    let readme = std::fs::read_to_string(PATH).unwrap();
    let defaults = defaults();
    for (variable, default) in settings_shown_in(&readme) {
        let expected = defaults.get(variable).map(String::as_str);
        assert_eq!(
            Some(default),
            expected,
            "README.md shows another default for {variable} than the setting has"
        );
    }
}

#[test]
fn a_row_of_a_table_of_settings_is_recognised() {
    let text = "| `HTTP_ADDR` | `127.0.0.1:8080` | address |\n| `DATABASE_URL` |  | unset |\n| `postgresql` | 15 | |\n";
    let shown: Vec<_> = settings_shown_in(text).collect();
    assert_eq!(
        shown,
        [("HTTP_ADDR", "`127.0.0.1:8080`"), ("DATABASE_URL", "")]
    );
}
