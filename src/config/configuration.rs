//! The whole configuration, and the rules between its settings.

use std::ffi::OsString;
use std::time::Duration;

use clap::{Args, Command, FromArgMatches};

use super::auth::AuthConfig;
use super::connections::{DataDir, DatabaseConfig, LocalnetConfig, SolanaConfig};
use super::effective::EffectiveConfig;
use super::error::ConfigError;
use super::minting::{BlockchainConfig, IntakeConfig, LedgerConfig};
use super::service::{FeedConfig, HttpConfig, LogConfig, ServiceConfig, WebsocketConfig};
use super::tokenization::TokenizationConfig;
use crate::domain::PriorityFeePolicy;

/// Longest time for all retries of a reading; a longer one would outlast the alerts that watch it.
const RETRY_DELAYS_TOTAL_LIMIT: Duration = Duration::from_secs(24 * 60 * 60);

/// The whole configuration.
#[derive(Args, Clone, Debug)]
pub struct Config {
    /// All settings as text, for display. It comes first, because the groups remove their values from clap's matches.
    #[command(flatten)]
    pub effective: EffectiveConfig,
    #[command(flatten)]
    pub tokenization: TokenizationConfig,
    #[command(flatten)]
    pub ledger: LedgerConfig,
    #[command(flatten)]
    pub intake: IntakeConfig,
    #[command(flatten)]
    pub blockchain: BlockchainConfig,
    #[command(flatten)]
    pub websocket: WebsocketConfig,
    #[command(flatten)]
    pub feed: FeedConfig,
    #[command(flatten)]
    pub database: DatabaseConfig,
    #[command(flatten)]
    pub solana: SolanaConfig,
    #[command(flatten)]
    pub auth: AuthConfig,
    #[command(flatten)]
    pub http: HttpConfig,
    #[command(flatten)]
    pub log: LogConfig,
    #[command(flatten)]
    pub service: ServiceConfig,
    #[command(flatten)]
    pub data_dir: DataDir,
    #[command(flatten)]
    pub localnet: LocalnetConfig,
}

impl Config {
    /// All defaults, regardless of the environment.
    ///
    /// # Panics
    /// When a default is refused by its own setting, which a unit test rules out.
    pub fn defaults() -> Config {
        match Config::from_flags([""; 0]) {
            Ok(config) => config,
            Err(refused) => panic!("a default is refused: {refused}"),
        }
    }

    /// Defaults and these flags, regardless of the environment.
    pub fn from_flags(
        flags: impl IntoIterator<Item = impl Into<OsString> + Clone>,
    ) -> Result<Config, ConfigError> {
        let program = OsString::from("gridtokenx");
        let line = std::iter::once(program).chain(flags.into_iter().map(Into::into));
        let matches = Config::command()
            .mut_args(|arg| arg.env(None::<&str>))
            .try_get_matches_from(line);
        matches
            .and_then(|matches| Config::from_arg_matches(&matches))
            .map_err(|error| {
                let text = error.to_string();
                let sentence = text.strip_prefix("error: ").unwrap_or(&text);
                ConfigError::Value(sentence.trim_end().to_owned())
            })
    }

    /// A command with all settings and nothing else.
    pub(super) fn command() -> Command {
        Config::augment_args(Command::new("gridtokenx"))
    }

    /// Checks the rules between settings. Every command that uses the whole configuration calls this first.
    pub fn check(&self) -> Result<(), ConfigError> {
        let tokenization = &self.tokenization;
        let (initial, max) = (
            tokenization.initial_retry_delay,
            tokenization.max_retry_delay,
        );
        if max < initial {
            return Err(ConfigError::RetryDelayCapBelowFirst {
                initial_secs: initial.as_secs(),
                max_secs: max.as_secs(),
            });
        }
        let total = tokenization.retry_delays_total_max();
        if total >= RETRY_DELAYS_TOTAL_LIMIT {
            return Err(ConfigError::RetryDelaysTooLong {
                attempts: tokenization.max_retry_attempts,
                total_secs: total.as_secs(),
            });
        }
        let base_units = tokenization.largest_reading_base_units().ok_or(
            ConfigError::LargestReadingTooLarge {
                ratio: tokenization.kwh_to_token_ratio,
                max_kwh: tokenization.max_reading_kwh,
                decimals: tokenization.decimals,
            },
        )?;
        let cap = self.blockchain.max_tokens_per_transaction;
        if base_units > cap {
            return Err(ConfigError::LargestReadingAboveCap { base_units, cap });
        }
        let price_cap = self.blockchain.priority_fee_max;
        if let PriorityFeePolicy::Fixed(price) = self.blockchain.priority_fee
            && price > price_cap
        {
            return Err(ConfigError::PriorityFeeAboveCap {
                price: price.micro_lamports(),
                cap: price_cap.micro_lamports(),
            });
        }
        if self.auth.jwt_secret.is_some() && self.auth.jwt_jwks_url.is_some() {
            return Err(ConfigError::TwoWaysToVerifyTokens);
        }
        Ok(())
    }

    /// [`Config::check`], and that all settings are present that `gridtokenx run` provides automatically and `gridtokenx serve`
    /// requires. Keys and mint are checked later, when the chain is known: on a local chain they are created.
    pub fn check_complete(&self) -> Result<(), ConfigError> {
        self.check()?;
        let required = [
            (
                self.database.url.is_some(),
                "DATABASE_URL",
                "a postgres:// URL",
            ),
            (
                !self.solana.rpc_urls.is_empty(),
                "SOLANA_RPC_URL",
                "http:// or https:// URLs, comma separated",
            ),
        ];
        for (is_set, variable, wanted) in required {
            if !is_set {
                return Err(ConfigError::Missing { variable, wanted });
            }
        }
        let verifies_tokens = self.service.role.serves_api();
        if verifies_tokens && self.auth.jwt_secret.is_none() && self.auth.jwt_jwks_url.is_none() {
            return Err(ConfigError::NoWayToVerifyTokens);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn refused(flags: &[&str]) -> String {
        match Config::from_flags(flags.iter().copied()).and_then(|config| config.check()) {
            Ok(()) => panic!("{flags:?} was accepted"),
            Err(refused) => refused.to_string(),
        }
    }

    #[test]
    fn the_defaults_pass_every_check() {
        assert_eq!(Config::defaults().check(), Ok(()));
    }

    #[test]
    fn a_refusal_names_variable_value_and_range() {
        for (flag, sentence) in [
            (
                "--tokenization-decimals=12",
                "TOKENIZATION_DECIMALS=12 is out of range: give a whole number from 0 to 9",
            ),
            (
                "--tokenization-decimals=-1",
                "TOKENIZATION_DECIMALS=-1 is out of range: give a whole number from 0 to 9",
            ),
            (
                "--tokenization-kwh-to-token-ratio=0",
                "TOKENIZATION_KWH_TO_TOKEN_RATIO=0 is out of range: give a number above 0",
            ),
            (
                "--tokenization-retry-backoff-multiplier=0.99",
                "TOKENIZATION_RETRY_BACKOFF_MULTIPLIER=0.99 is out of range: give a number from 1 to 100",
            ),
            (
                "--blockchain-priority-fee=percentile:101",
                "BLOCKCHAIN_PRIORITY_FEE=percentile:101 is not allowed: give none, fixed:MICROLAMPORTS (1 to 1000000000) or percentile:P of the prices in recent slots (1 to 100)",
            ),
            (
                "--blockchain-transaction-format=v0",
                "BLOCKCHAIN_TRANSACTION_FORMAT=v0 is not allowed: give auto, v1 or legacy",
            ),
            (
                "--blockchain-priority-fee-max-microlamports=0",
                "BLOCKCHAIN_PRIORITY_FEE_MAX_MICROLAMPORTS=0 is out of range: give a whole number from 1 to 1000000000",
            ),
            (
                "--role=boss",
                "GRIDTOKENX_ROLE=boss is not allowed: give all, api or worker",
            ),
            (
                "--canary-enabled=maybe",
                "CANARY_ENABLED=maybe is not allowed: give true or false",
            ),
            (
                "--http-addr=localhost",
                "HTTP_ADDR=localhost is not allowed: give an address such as 127.0.0.1:8080",
            ),
            (
                "--http-addr=",
                "HTTP_ADDR= is empty: give an address such as 127.0.0.1:8080",
            ),
            (
                "--log-level=inof",
                "LOG_LEVEL=inof is not allowed: give a level (error, warn, info, debug, trace) or a filter such as info,gridtokenx::mint=debug",
            ),
            (
                "--cors-origins=https://a.example,b.example/x",
                "CORS_ORIGINS=b.example/x is not allowed: give origins such as https://grid.example, comma separated",
            ),
            (
                "--jwt-jwks-url=http://keys.example",
                "JWT_JWKS_URL=http://keys.example is not allowed: give an https:// URL (http:// on the loopback only)",
            ),
            (
                "--localnet-rpc-addr=127.0.0.1:65535",
                "LOCALNET_RPC_ADDR=127.0.0.1:65535 is not allowed: give an address such as 127.0.0.1:8899, with a port from 1 to 65534",
            ),
        ] {
            assert_eq!(refused(&[flag]), sentence);
        }
    }

    #[test]
    fn a_refusal_never_echoes_a_secret() {
        for (flag, sentence) in [
            (
                "--jwt-secret=hunter2",
                "JWT_SECRET is not allowed: give 32 bytes or more",
            ),
            (
                "--database-url=mysql://root:hunter2@db",
                "DATABASE_URL is not allowed: give a postgres:// URL",
            ),
            (
                "--solana-rpc-url=https://rpc.example,ftp://hunter2",
                "SOLANA_RPC_URL is not allowed: give http:// or https:// URLs, comma separated",
            ),
        ] {
            assert_eq!(refused(&[flag]), sentence);
        }
    }

    #[test]
    fn debug_never_shows_a_secret() {
        let config = Config::from_flags([
            "--jwt-secret=hunter2hunter2hunter2hunter2hunter2",
            "--database-url=postgres://grid:hunter2@localhost/grid",
            "--solana-rpc-url=https://rpc.example/hunter2",
        ])
        .unwrap();
        assert!(!format!("{config:?}").contains("hunter2"));
        assert_eq!(
            config.solana.rpc_urls[0].expose(),
            "https://rpc.example/hunter2"
        );
    }

    #[test]
    fn settings_that_contradict_each_other_are_refused() {
        for (flags, part) in [
            (
                &["--tokenization-max-retry-delay-secs=10"][..],
                "TOKENIZATION_MAX_RETRY_DELAY_SECS=10 is below",
            ),
            (
                &[
                    "--tokenization-max-retry-attempts=10",
                    "--tokenization-initial-retry-delay-secs=7200",
                    "--tokenization-max-retry-delay-secs=7200",
                ],
                "may wait 86400 seconds in all",
            ),
            (
                &["--tokenization-max-reading-kwh=20000000000"],
                "do not fit the chain's 64 bits",
            ),
            (
                &["--tokenization-max-reading-kwh=1000.000000001"],
                "pays 1000000000001 base units, above",
            ),
            (
                &["--blockchain-priority-fee=fixed:1000001"],
                "fixed:1000001 is above BLOCKCHAIN_PRIORITY_FEE_MAX_MICROLAMPORTS=1000000",
            ),
            (
                &[
                    "--jwt-secret=01234567890123456789012345678901",
                    "--jwt-jwks-url=https://keys.example",
                ],
                "are both set",
            ),
        ] {
            let sentence = refused(flags);
            assert!(sentence.contains(part), "{sentence}");
            assert_eq!(sentence.lines().count(), 1);
        }
    }

    #[test]
    fn a_service_requires_the_settings_that_a_local_system_provides() {
        let mut flags = vec![];
        for (missing, flag) in [
            ("DATABASE_URL", "--database-url=postgres://db/grid"),
            (
                "SOLANA_RPC_URL",
                "--solana-rpc-url=https://one.example, https://two.example",
            ),
            (
                "JWT_SECRET",
                "--jwt-secret=01234567890123456789012345678901",
            ),
        ] {
            let refused = Config::from_flags(flags.clone()).unwrap().check_complete();
            assert!(refused.unwrap_err().to_string().contains(missing));
            flags.push(flag);
        }
        let no_tokens = [flags[0], flags[1], "--role=worker"];
        let worker = Config::from_flags(no_tokens).unwrap();
        assert_eq!(
            worker.check_complete(),
            Ok(()),
            "a worker verifies no tokens"
        );
        let config = Config::from_flags(flags).unwrap();
        assert_eq!(config.check_complete(), Ok(()));
        assert_eq!(config.solana.rpc_urls[1].expose(), "https://two.example");
        assert_eq!(
            config.solana.fee_payer_path(),
            config.solana.keypair_path.as_ref()
        );
    }

    #[test]
    fn the_help_of_every_setting_names_the_allowed_values() {
        let command = Config::command();
        for arg in command.get_arguments() {
            let flag = arg.get_long().unwrap();
            assert_eq!(arg.get_id().as_str(), flag.replace('-', "_").to_uppercase());
            assert!(arg.get_help_heading().is_some(), "{flag} is in no group");
            let Err(ConfigError::Value(sentence)) = Config::from_flags([format!("--{flag}=")])
            else {
                panic!("{flag} accepts an empty value");
            };
            let (_, allowed) = sentence.split_once(": give ").unwrap();
            let help = arg.get_help().unwrap().to_string();
            assert!(
                help.ends_with(&format!(": {allowed}")),
                "the help of {flag} must end with \": {allowed}\""
            );
        }
    }

    /// Runs this test again as a child process with these environment variables, and returns its output.
    fn with_environment(variables: &[(&str, &str)]) -> String {
        let output = std::process::Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "config::configuration::tests::the_environment_is_read_and_never_shown",
                "--nocapture",
            ])
            .env("CONFIG_TEST_CHILD", "1")
            .envs(variables.iter().copied())
            .output()
            .unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
            + &String::from_utf8_lossy(&output.stderr)
    }

    #[test]
    fn the_environment_is_read_and_never_shown() {
        if std::env::var_os("CONFIG_TEST_CHILD").is_some() {
            println!("{}", Config::command().render_help());
            let matches = Config::command().get_matches_from(["gridtokenx"]);
            println!("{:?}", Config::from_arg_matches(&matches).unwrap());
            return;
        }
        let printed = with_environment(&[
            ("JWT_SECRET", "hunter2hunter2hunter2hunter2hunter2"),
            ("TOKENIZATION_DECIMALS", ""),
            ("JWT_ISSUER", ""),
            ("TOKENIZATION_BATCH_SIZE", "7"),
        ]);
        // The help wraps its lines.
        let printed = printed.split_whitespace().collect::<Vec<_>>().join(" ");
        for part in [
            "[env: JWT_SECRET]",
            "[env: TOKENIZATION_DECIMALS=]",
            "jwt_secret: Some(***)",
            "jwt_issuer: None",
            "decimals: 9",
            "batch_size: 7",
        ] {
            assert!(printed.contains(part), "{part} is not in {printed}");
        }
        assert!(!printed.contains("hunter2"), "{printed}");

        let refused = with_environment(&[("INTAKE_LINGER_MS", "101")]);
        assert!(
            refused.contains(
                "error: INTAKE_LINGER_MS=101 is out of range: give a whole number from 0 to 100\n"
            ),
            "{refused}"
        );
    }

    proptest! {
        #[test]
        fn the_largest_reading_never_passes_the_cap(
            ratio in 1u64..1_000_000_000, kwh in 1u64..1_000_000_000, scale in 0u32..9, decimals in 0u8..=9
        ) {
            let mut config = Config::defaults();
            config.tokenization.kwh_to_token_ratio = rust_decimal::Decimal::from_i128_with_scale(ratio.into(), scale);
            config.tokenization.max_reading_kwh = rust_decimal::Decimal::from_i128_with_scale(kwh.into(), scale);
            config.tokenization.decimals = decimals;
            let base_units = u128::from(ratio) * u128::from(kwh) * 10u128.pow(decimals.into()) / 10u128.pow(2 * scale);
            let cap = config.blockchain.max_tokens_per_transaction;
            prop_assert_eq!(config.check().is_ok(), base_units <= u128::from(cap));
        }
    }
}
