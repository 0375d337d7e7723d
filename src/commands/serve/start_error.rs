//! The errors with which the service does not start: one sentence each, which says what to do.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use metrics_exporter_prometheus::BuildError;
use nix::errno::Errno;
use thiserror::Error;

use crate::chain::{ChainError, KeyFileError};
use crate::commands::tokens::TokenError;
use crate::config::ConfigError;
use crate::db::OpenError;
use crate::domain::WalletError;
use crate::ledger::BindingError;
use crate::queue::RegistrationError;
use crate::telemetry::LogError;
use crate::telemetry::traces::TracesError;

/// The service did not start.
#[derive(Debug, Error)]
pub enum StartError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    OpenDatabase(#[from] OpenError),
    #[error("the database does not answer: {0}")]
    Database(#[from] sqlx::Error),
    #[error(transparent)]
    Chain(#[from] ChainError),
    #[error(transparent)]
    Key(#[from] KeyFileError),
    #[error(
        "SOLANA_KEYPAIR_PATH is not set: name the file of the mint authority's keypair (only a local chain makes its own)"
    )]
    NoKeypair,
    #[error(
        "SOLANA_MINT_ADDRESS is not set: name the token's mint (only a local chain makes its own)"
    )]
    NoMint,
    #[error("SOLANA_MINT_ADDRESS={mint} is not a mint of the SPL token program on this chain")]
    NotAMint { mint: String },
    #[error(
        "the mint {mint} has {found} decimals, TOKENIZATION_DECIMALS says {configured}: they must be equal"
    )]
    Decimals {
        mint: String,
        found: u8,
        configured: u8,
    },
    #[error(
        "the keypair {authority} is not the mint authority of {mint}: SOLANA_KEYPAIR_PATH must name the authority's file"
    )]
    NotTheAuthority { mint: String, authority: String },
    #[error("the mint {mint} has no mint authority any more: nothing can be minted of it")]
    NoAuthority { mint: String },
    #[error(transparent)]
    Binding(#[from] BindingError),
    #[error(transparent)]
    Process(#[from] RegistrationError),
    #[error(transparent)]
    Traces(#[from] TracesError),
    #[error(
        "CANARY_ENABLED is set and CANARY_WALLET_ADDRESS is not: name a wallet of yours that the canary's readings pay \
         (only a local chain makes its own)"
    )]
    NoCanaryWallet,
    #[error("CANARY_WALLET_ADDRESS={address} is not a wallet for the canary: {error}")]
    CanaryWallet { address: String, error: WalletError },
    #[error(
        "CANARY_ENABLED is set, but no reading that is allowed pays a base unit: see TOKENIZATION_KWH_TO_TOKEN_RATIO, \
         TOKENIZATION_DECIMALS and TOKENIZATION_MAX_READING_KWH"
    )]
    NoCanaryAmount,
    #[error(
        "HTTP_ADDR={address} cannot be listened on: {source}; choose another port, or stop what uses it"
    )]
    Listen {
        address: SocketAddr,
        source: io::Error,
    },
    #[error(transparent)]
    Ended(#[from] ServiceEnded),
    #[error(transparent)]
    Logs(#[from] LogError),
    #[error(transparent)]
    Metrics(#[from] BuildError),
    #[error(transparent)]
    Token(#[from] TokenError),
    #[error("signals cannot be received: {0}")]
    Signals(io::Error),
    #[error("SOLANA_RPC_URL names no endpoint")]
    NoEndpoint,
    #[error("GRIDTOKENX_DATA_DIR={} cannot be created: {source}", .path.display())]
    DataDir { path: PathBuf, source: io::Error },
    #[error("the limit of open files cannot be read or raised: {0}")]
    OpenFiles(#[from] Errno),
    #[error(
        "WEBSOCKET_MAX_CONNECTIONS={streams} needs {least} open files, and this process may have {hard}: raise the hard \
         limit (LimitNOFILE= of systemd, --ulimit nofile= of containers, `ulimit -Hn`), or set a lower number"
    )]
    TooFewOpenFiles { streams: u32, least: u64, hard: u64 },
    #[error("the address of the listening socket cannot be read: {0}")]
    LocalAddress(io::Error),
    #[error("--ready-file {} cannot be written: {source}", .path.display())]
    ReadyFile { path: PathBuf, source: io::Error },
}

/// A running service cannot continue.
#[derive(Debug, Error)]
pub enum ServiceEnded {
    /// A check that was skipped at a start without the chain has failed.
    #[error("{0}")]
    CheckFailed(String),
    /// A defect.
    #[error("the service stopped unexpectedly; its log says why")]
    ByItself,
}
