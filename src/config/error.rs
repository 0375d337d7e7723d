//! The errors of a configuration.

use rust_decimal::Decimal;

/// Each text is one sentence that names the variables and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// One value cannot be read or is out of range; the sentence comes from the setting.
    #[error("{0}")]
    Value(String),
    #[error(
        "TOKENIZATION_MAX_RETRY_DELAY_SECS={max_secs} is below TOKENIZATION_INITIAL_RETRY_DELAY_SECS={initial_secs}: \
         give at least {initial_secs}"
    )]
    RetryDelayCapBelowFirst { initial_secs: u64, max_secs: u64 },
    #[error(
        "the TOKENIZATION_MAX_RETRY_ATTEMPTS={attempts} retries of a reading may wait {total_secs} seconds in all: \
         lower attempts or delays until the sum is below 86400 (24 hours)"
    )]
    RetryDelaysTooLong { attempts: u8, total_secs: u64 },
    #[error(
        "TOKENIZATION_KWH_TO_TOKEN_RATIO={ratio} × TOKENIZATION_MAX_READING_KWH={max_kwh} × 10^{decimals} \
         (TOKENIZATION_DECIMALS) base units do not fit the chain's 64 bits: lower one of the three"
    )]
    LargestReadingTooLarge {
        ratio: Decimal,
        max_kwh: Decimal,
        decimals: u8,
    },
    #[error(
        "the largest reading allowed pays {base_units} base units, above \
         BLOCKCHAIN_MAX_TOKENS_PER_TRANSACTION={cap}: raise the cap or lower TOKENIZATION_MAX_READING_KWH"
    )]
    LargestReadingAboveCap { base_units: u64, cap: u64 },
    #[error(
        "BLOCKCHAIN_PRIORITY_FEE=fixed:{price} is above BLOCKCHAIN_PRIORITY_FEE_MAX_MICROLAMPORTS={cap}: \
         raise the cap or lower the price"
    )]
    PriorityFeeAboveCap { price: u64, cap: u64 },
    #[error("JWT_SECRET and JWT_JWKS_URL are both set: give only one of them")]
    TwoWaysToVerifyTokens,
    #[error("neither JWT_SECRET (32 bytes or more) nor JWT_JWKS_URL is set: give one of them")]
    NoWayToVerifyTokens,
    #[error("{variable} is not set: give {wanted}")]
    Missing {
        variable: &'static str,
        wanted: &'static str,
    },
}
