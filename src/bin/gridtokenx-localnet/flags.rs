//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Parser;

/// A Solana chain on this machine: JSON-RPC, pubsub, and state that survives kill -9.
#[derive(Debug, Parser)]
#[command(name = "gridtokenx-localnet", version)]
pub struct Flags {
    /// Where JSON-RPC listens; pubsub listens on the next port. Port 0 takes two free neighbours.
    #[arg(
        long,
        env = "LOCALNET_RPC_ADDR",
        value_name = "ADDR",
        default_value = "127.0.0.1:8899"
    )]
    pub rpc_addr: SocketAddr,

    /// Stores the chain here; the same directory continues the same chain.
    #[arg(
        long,
        value_name = "DIR",
        required_unless_present = "ephemeral",
        conflicts_with = "ephemeral"
    )]
    pub data_dir: Option<PathBuf>,

    /// Stores nothing: the chain ends with the process.
    #[arg(long)]
    pub ephemeral: bool,

    /// Length of a slot in milliseconds.
    #[arg(long, env = "LOCALNET_SLOT_MS", value_name = "MS", default_value_t = 400, value_parser = clap::value_parser!(u64).range(10..=60_000))]
    pub slot_ms: u64,

    /// Once JSON-RPC answers, one JSON line {rpc_url, ws_url, pid} is written here.
    #[arg(long, value_name = "FILE")]
    pub ready_file: Option<PathBuf>,

    /// What to log to stderr, for instance `info` or `surfpool_core=debug`.
    #[arg(
        long,
        env = "LOCALNET_LOG",
        value_name = "FILTER",
        default_value = "warn"
    )]
    pub log: String,
}
