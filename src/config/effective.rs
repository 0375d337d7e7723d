//! The effective configuration for display: every setting as text, without secrets.

use std::collections::BTreeMap;

use clap::{ArgMatches, Args, Command, Error, FromArgMatches};
use serde::Serialize;

use super::auth::AuthConfig;
use super::connections::{DataDir, DatabaseConfig, LocalnetConfig, SolanaConfig};
use super::minting::{BlockchainConfig, IntakeConfig, LedgerConfig};
use super::service::{FeedConfig, HttpConfig, LogConfig, ServiceConfig, WebsocketConfig};
use super::tokenization::TokenizationConfig;

/// Shown in place of a secret.
const SET: &str = "***";

/// Every variable with its effective text, from a flag, the environment or the default. `None`: unset. A value that may contain
/// a password or an access key is shown as `***`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct EffectiveConfig(BTreeMap<String, Option<String>>);

impl EffectiveConfig {
    pub fn iter(&self) -> impl Iterator<Item = (&str, Option<&str>)> {
        self.0
            .iter()
            .map(|(variable, text)| (variable.as_str(), text.as_deref()))
    }
}

impl FromArgMatches for EffectiveConfig {
    fn from_arg_matches(matches: &ArgMatches) -> Result<EffectiveConfig, Error> {
        let settings = all_settings();
        let texts = settings.get_arguments().map(|arg| {
            let id = arg.get_id().as_str();
            let text = matches.try_get_raw(id).ok().flatten().map(|values| {
                if arg.is_hide_env_values_set() {
                    return SET.to_owned();
                }
                let values: Vec<_> = values.map(|value| value.to_string_lossy()).collect();
                values.join(",")
            });
            (id.to_owned(), text)
        });
        Ok(EffectiveConfig(texts.collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        *self = EffectiveConfig::from_arg_matches(matches)?;
        Ok(())
    }
}

/// Adds the flags of one group to a command.
type AddGroup = fn(Command) -> Command;

/// The groups of settings that are shown. A test holds them to those of the whole configuration.
const GROUPS: [AddGroup; 14] = [
    TokenizationConfig::augment_args,
    LedgerConfig::augment_args,
    IntakeConfig::augment_args,
    BlockchainConfig::augment_args,
    WebsocketConfig::augment_args,
    FeedConfig::augment_args,
    DatabaseConfig::augment_args,
    SolanaConfig::augment_args,
    AuthConfig::augment_args,
    HttpConfig::augment_args,
    LogConfig::augment_args,
    ServiceConfig::augment_args,
    DataDir::augment_args,
    LocalnetConfig::augment_args,
];

fn all_settings() -> Command {
    GROUPS
        .into_iter()
        .fold(Command::new("gridtokenx"), |command, add| add(command))
}

/// Adds no flag; it only reads the flags of the other groups.
impl Args for EffectiveConfig {
    fn augment_args(command: Command) -> Command {
        command
    }

    fn augment_args_for_update(command: Command) -> Command {
        command
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn shown(flags: &[&str]) -> BTreeMap<String, Option<String>> {
        Config::from_flags(flags.iter().copied())
            .unwrap()
            .effective
            .0
    }

    #[test]
    fn every_setting_has_its_effective_value() {
        let shown = shown(&[
            "--tokenization-decimals=6",
            "--cors-origins=https://a.example",
        ]);
        assert_eq!(shown["TOKENIZATION_DECIMALS"].as_deref(), Some("6"));
        assert_eq!(shown["TOKENIZATION_BATCH_SIZE"].as_deref(), Some("50"));
        assert_eq!(shown["CORS_ORIGINS"].as_deref(), Some("https://a.example"));
        assert_eq!(shown["SOLANA_MINT_ADDRESS"], None);
        assert_eq!(shown.len(), Config::command().get_arguments().count());
    }

    #[test]
    fn secrets_are_shown_as_set_only() {
        let flags = [
            "--jwt-secret=correct horse battery staple and more",
            "--database-url=postgres://grid:hunter2@127.0.0.1/grid",
            "--solana-rpc-url=https://rpc.example/?key=hunter2",
        ];
        let shown = shown(&flags);
        for variable in ["JWT_SECRET", "DATABASE_URL", "SOLANA_RPC_URL"] {
            assert_eq!(shown[variable].as_deref(), Some(SET), "{variable}");
        }
        assert_eq!(shown["OTEL_EXPORTER_OTLP_ENDPOINT"], None);
    }
}
