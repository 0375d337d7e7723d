//! Connections of the service: database, chain, and the data directory of a local system.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;
use reqwest::Url;
use rust_decimal::Decimal;
use solana_sdk::pubkey::Pubkey;
use sqlx::postgres::PgConnectOptions;

use super::secret::Secret;
use super::setting::{common, decimal, text, text_that, whole};
use crate::domain::CallRate;

/// The database.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Database", mut_args(common))]
pub struct DatabaseConfig {
    /// The database; if unset, `gridtokenx run` starts a private cluster: a postgres:// URL
    #[arg(id = "DATABASE_URL", env, long = "database-url", hide_env_values = true, value_parser = text_that("a postgres:// URL", is_postgres_url))]
    pub url: Option<Secret>,

    /// Connections in the pool: a whole number from 4 to 1000
    #[arg(id = "DATABASE_MAX_CONNECTIONS", env, long = "database-max-connections", default_value = "20", value_parser = whole(4..=1000u32))]
    pub max_connections: u32,
}

fn is_postgres_url(url: &Secret) -> bool {
    let url = url.expose();
    ["postgres://", "postgresql://"]
        .iter()
        .any(|scheme| url.starts_with(scheme))
        && PgConnectOptions::from_str(url).is_ok()
}

/// The chain. The URLs of endpoints may contain access keys, so they are secrets.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Solana", mut_args(common))]
pub struct SolanaConfig {
    /// RPC endpoints in order of preference; if unset, `gridtokenx run` starts a local chain; `#NAME` at the end of a URL names the endpoint in metrics: http:// or https:// URLs, comma separated
    #[arg(id = "SOLANA_RPC_URL", env, long = "solana-rpc-url", hide_env_values = true, value_delimiter = ',', value_parser = text_that("http:// or https:// URLs, comma separated", is_http_url))]
    pub rpc_urls: Vec<Secret>,

    /// Key file of the mint authority: a path
    #[arg(id = "SOLANA_KEYPAIR_PATH", env, long = "solana-keypair-path", value_parser = text::<PathBuf>("a path"))]
    pub keypair_path: Option<PathBuf>,

    /// Key file of the fee payer; if unset, the mint authority pays: a path
    #[arg(id = "SOLANA_FEE_PAYER_PATH", env, long = "solana-fee-payer-path", value_parser = text::<PathBuf>("a path"))]
    fee_payer_path: Option<PathBuf>,

    /// The token's mint; required unless the chain is local: 32 bytes in base58
    #[arg(id = "SOLANA_MINT_ADDRESS", env, long = "solana-mint-address", value_parser = text::<Pubkey>("32 bytes in base58"))]
    pub mint_address: Option<Pubkey>,

    /// RPC calls per second to one endpoint for all that can wait: proofs, history, audit, look-ups; if unset, 10, and no limit on a local chain: a number from 0.1 to 1000
    #[arg(id = "RPC_BACKGROUND_CALLS_PER_SECOND", env, long = "rpc-background-calls-per-second", value_parser = decimal(CallRate::PER_SECOND_MIN..=CallRate::PER_SECOND_MAX).map(CallRate::per_second))]
    pub background_rate: Option<CallRate>,
}

/// The rate of background calls on a cluster, if none is configured: what is left of the 50 calls a second of a small paid plan
/// while minting spends 4 on each of 10 transactions a second. At this rate the 152 blocks of a proof are read in 16 seconds.
const BACKGROUND_CALLS_PER_SECOND: Decimal = Decimal::TEN;

impl SolanaConfig {
    /// The rate of background calls to each endpoint of a cluster.
    pub fn cluster_background_rate(&self) -> CallRate {
        let default = CallRate::per_second(BACKGROUND_CALLS_PER_SECOND);
        self.background_rate.unwrap_or(default)
    }

    /// Key file of the fee payer; by default the key file of the mint authority.
    pub fn fee_payer_path(&self) -> Option<&PathBuf> {
        self.fee_payer_path.as_ref().or(self.keypair_path.as_ref())
    }
}

fn is_http_url(url: &Secret) -> bool {
    Url::parse(url.expose()).is_ok_and(|url| is_http(&url))
}

/// Whether the URL uses HTTP. [`Url`] guarantees a host for these schemes.
pub(super) fn is_http(url: &Url) -> bool {
    matches!(url.scheme(), "http" | "https")
}

/// The data directory of a local system.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Local system", mut_args(common))]
pub struct DataDir {
    /// Directory of the database, chain and secrets of the local system: a path
    #[arg(id = "GRIDTOKENX_DATA_DIR", env, long = "gridtokenx-data-dir", default_value = ".gridtokenx", value_parser = text::<PathBuf>("a path"))]
    pub path: PathBuf,
}

/// The local chain.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Local system", mut_args(common))]
pub struct LocalnetConfig {
    /// RPC address of the local chain; its pubsub listens on the next port: an address such as 127.0.0.1:8899, with a port from 1 to 65534
    #[arg(id = "LOCALNET_RPC_ADDR", env, long = "localnet-rpc-addr", default_value = "127.0.0.1:8899", value_parser = text_that("an address such as 127.0.0.1:8899, with a port from 1 to 65534", has_next_port))]
    pub rpc_addr: SocketAddr,
}

fn has_next_port(address: &SocketAddr) -> bool {
    (1..u16::MAX).contains(&address.port())
}
