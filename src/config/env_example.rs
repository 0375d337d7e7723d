//! The file `.env.example`, generated from the settings.

use std::fmt::Write;

use super::configuration::Config;

/// Every variable with its default and one line of explanation, in the groups of `--help`. A variable without a default is
/// empty, which counts as unset.
pub fn env_example() -> String {
    let command = Config::command();
    let mut text = String::from(
        "# Every setting of GridTokenX with its default. An empty variable counts as unset.\n\
         # Each is also a command-line flag: HTTP_ADDR is --http-addr.\n",
    );
    let mut group = None;
    for arg in command.get_arguments() {
        if group != arg.get_help_heading() {
            group = arg.get_help_heading();
            let _ = write!(text, "\n# --- {} ---\n", group.unwrap_or_default());
        }
        let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
        let default: Vec<_> = arg
            .get_default_values()
            .iter()
            .map(|value| value.to_string_lossy())
            .collect();
        let _ = write!(text, "# {help}\n{}={}\n", arg.get_id(), default.join(","));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_file_matches_the_settings() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/.env.example");
        if std::env::var_os("UPDATE_ENV_EXAMPLE").is_some() {
            std::fs::write(path, env_example()).unwrap();
        }
        let stored = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            stored == env_example(),
            ".env.example differs from the settings; generate it again: UPDATE_ENV_EXAMPLE=1 cargo test --lib env_example"
        );
    }
}
