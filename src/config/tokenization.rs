//! Settings of readings: which are accepted, what they are worth, and when a refused one is retried.

use std::time::Duration;

use clap::Args;
use rust_decimal::Decimal;

use super::setting::{common, days, decimal, decimal_above_zero, text, whole};
use crate::domain::{Backoff, Jitter};

/// Each retry delay is extended at random by up to this share, so that readings that failed together are not retried together.
const RETRY_JITTER_PERCENT: u32 = 20;

/// Readings and their worth.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Tokenization", mut_args(common))]
pub struct TokenizationConfig {
    /// Tokens minted for one kWh: a number above 0
    #[arg(id = "TOKENIZATION_KWH_TO_TOKEN_RATIO", env, long = "tokenization-kwh-to-token-ratio", default_value = "1.0", value_parser = decimal_above_zero())]
    pub kwh_to_token_ratio: Decimal,

    /// Decimals of the token, equal to the mint's: a whole number from 0 to 9
    #[arg(id = "TOKENIZATION_DECIMALS", env, long = "tokenization-decimals", default_value = "9", value_parser = whole(0..=9u8))]
    pub decimals: u8,

    /// Largest energy of one reading, in kWh: a number above 0
    #[arg(id = "TOKENIZATION_MAX_READING_KWH", env, long = "tokenization-max-reading-kwh", default_value = "100.0", value_parser = decimal_above_zero())]
    pub max_reading_kwh: Decimal,

    /// Highest age of an interval's start, in days: a whole number from 1 to 3650
    #[arg(id = "TOKENIZATION_READING_MAX_AGE_DAYS", env, long = "tokenization-reading-max-age-days", default_value = "7", value_parser = whole(1..=3650u64).map(days))]
    pub reading_max_age: Duration,

    /// Mint without a trigger; used at the first start only, later the stored setting applies: true or false
    #[arg(id = "TOKENIZATION_AUTO_MINT_ENABLED", env, long = "tokenization-auto-mint-enabled", action = clap::ArgAction::Set, default_value = "true", value_parser = text::<bool>("true or false"))]
    pub auto_mint_enabled: bool,

    /// Share of the meters whose readings are minted without a trigger, in percent, by stable hash, for a gradual roll-out; used at the first start only, later the stored setting applies: a whole number from 0 to 100
    #[arg(id = "TOKENIZATION_AUTO_MINT_PERCENTAGE", env, long = "tokenization-auto-mint-percentage", default_value = "100", value_parser = whole(0..=100u8))]
    pub auto_mint_percentage: u8,

    /// Period of the sweep, in seconds: a whole number from 1 to 86400
    #[arg(id = "TOKENIZATION_POLLING_INTERVAL_SECS", env, long = "tokenization-polling-interval-secs", default_value = "60", value_parser = whole(1..=86_400u64).map(Duration::from_secs))]
    pub polling_interval: Duration,

    /// Readings claimed per step of the sweep: a whole number from 1 to 1000
    #[arg(id = "TOKENIZATION_BATCH_SIZE", env, long = "tokenization-batch-size", default_value = "50", value_parser = whole(1..=1000u16))]
    pub batch_size: u16,

    /// Retries of a refused reading before it is marked failed: a whole number from 0 to 10
    #[arg(id = "TOKENIZATION_MAX_RETRY_ATTEMPTS", env, long = "tokenization-max-retry-attempts", default_value = "3", value_parser = whole(0..=10u8))]
    pub max_retry_attempts: u8,

    /// Delay before the first retry, in seconds: a whole number from 1 to 86400
    #[arg(id = "TOKENIZATION_INITIAL_RETRY_DELAY_SECS", env, long = "tokenization-initial-retry-delay-secs", default_value = "300", value_parser = whole(1..=86_400u64).map(Duration::from_secs))]
    pub initial_retry_delay: Duration,

    /// Factor by which each retry delay exceeds the previous one: a number from 1 to 100
    #[arg(id = "TOKENIZATION_RETRY_BACKOFF_MULTIPLIER", env, long = "tokenization-retry-backoff-multiplier", default_value = "2.0", value_parser = decimal(Decimal::ONE..=Decimal::ONE_HUNDRED))]
    pub retry_backoff_multiplier: Decimal,

    /// Longest delay before a retry, in seconds: a whole number from 1 to 86400
    #[arg(id = "TOKENIZATION_MAX_RETRY_DELAY_SECS", env, long = "tokenization-max-retry-delay-secs", default_value = "3600", value_parser = whole(1..=86_400u64).map(Duration::from_secs))]
    pub max_retry_delay: Duration,

    /// Time limit of one RPC call or database transaction, in seconds; it ends a wait, never a mint transaction: a whole number from 1 to 600
    #[arg(id = "TOKENIZATION_TRANSACTION_TIMEOUT_SECS", env, long = "tokenization-transaction-timeout-secs", default_value = "60", value_parser = whole(1..=600u64).map(Duration::from_secs))]
    pub transaction_timeout: Duration,
}

impl TokenizationConfig {
    /// When refused readings are tried again: the exact delays, spread by a fifth to both sides.
    pub fn retry_backoff(&self) -> Backoff {
        Backoff::doubling(self.initial_retry_delay, self.max_retry_delay)
            .with_multiplier(self.retry_backoff_multiplier)
            .with_jitter(Jitter::plus_minus(RETRY_JITTER_PERCENT))
    }

    /// The longest time that all retries of one reading can wait in all, jitter included.
    pub fn retry_delays_total_max(&self) -> Duration {
        let backoff = self.retry_backoff();
        (1..=u32::from(self.max_retry_attempts))
            .map(|retry| backoff.delay_max(retry))
            .sum()
    }

    /// Base units of the largest reading allowed; `None` when they do not fit the chain's 64 bits.
    pub fn largest_reading_base_units(&self) -> Option<u64> {
        let base_units_per_token = Decimal::from(10u64.checked_pow(u32::from(self.decimals))?);
        self.kwh_to_token_ratio
            .checked_mul(self.max_reading_kwh)?
            .checked_mul(base_units_per_token)?
            .trunc()
            .try_into()
            .ok()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use crate::config::Config;

    use super::*;

    #[test]
    fn retries_back_off_up_to_the_cap() {
        let tokenization = Config::defaults().tokenization;
        let delays: Vec<u64> = (1..=6)
            .map(|retry| tokenization.retry_backoff().exact_delay(retry).as_secs())
            .collect();
        assert_eq!(delays, [300, 600, 1200, 2400, 3600, 3600]);
        // 300 + 600 + 1200, and 20 % more.
        assert_eq!(tokenization.retry_delays_total_max().as_secs(), 2520);
    }

    #[test]
    fn a_fractional_multiplier_is_exact() {
        let tokenization = TokenizationConfig {
            retry_backoff_multiplier: Decimal::new(11, 1),
            ..Config::defaults().tokenization
        };
        assert_eq!(tokenization.retry_backoff().exact_delay(3).as_secs(), 363);
    }

    proptest! {
        #[test]
        fn a_retry_never_waits_less_than_the_one_before_nor_more_than_the_cap(
            initial in 1u64..=86_400, cap in 1u64..=86_400, multiplier in 100i64..=10_000, retry in 1u32..40
        ) {
            let tokenization = TokenizationConfig {
                initial_retry_delay: Duration::from_secs(initial),
                max_retry_delay: Duration::from_secs(cap),
                retry_backoff_multiplier: Decimal::new(multiplier, 2),
                ..Config::defaults().tokenization
            };
            let backoff = tokenization.retry_backoff();
            let delay = backoff.exact_delay(retry);
            prop_assert!(delay <= backoff.exact_delay(retry + 1));
            prop_assert!(delay <= tokenization.max_retry_delay);
        }
    }
}
