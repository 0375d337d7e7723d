//! The settings, one struct per group. Each setting is a command-line flag and an environment variable of the same name
//! (`--tokenization-decimals`, `TOKENIZATION_DECIMALS`).
//!
//! Invariant: a program that has started has only values within their ranges, exactly as they were written. A value that
//! cannot be read, would be rounded, or is out of range stops the start with exit status 2 and one sentence that names the
//! variable, the value and the allowed values. An empty variable counts as unset. Secrets are never printed: not in error
//! messages, not in `--help`, not by `Debug`.
//!
//! ```
//! use gridtokenx::config::Config;
//!
//! let config = Config::from_flags(["--tokenization-decimals=6"]).unwrap();
//! assert_eq!(config.tokenization.decimals, 6);
//!
//! let refused = Config::from_flags(["--tokenization-decimals=12"]).unwrap_err();
//! assert_eq!(refused.to_string(), "TOKENIZATION_DECIMALS=12 is out of range: give a whole number from 0 to 9");
//! ```

mod auth;
mod configuration;
mod connections;
mod effective;
mod env_example;
mod error;
mod minting;
#[cfg(test)]
mod readme;
#[cfg(test)]
mod reference;
mod role;
mod secret;
mod service;
mod setting;
mod tokenization;

pub use auth::AuthConfig;
pub use configuration::Config;
pub use connections::{DataDir, DatabaseConfig, LocalnetConfig, SolanaConfig};
pub use effective::EffectiveConfig;
pub use env_example::env_example;
pub use error::ConfigError;
pub use minting::{BlockchainConfig, IntakeConfig, LedgerConfig};
pub use role::ProcessRole;
pub use secret::Secret;
pub use service::{
    FeedConfig, HttpConfig, LogConfig, LogFormat, ServiceConfig, WebsocketConfig, is_log_filter,
};
pub use tokenization::TokenizationConfig;
