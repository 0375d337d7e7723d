//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Parser;

use crate::parameters::Choice;

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

    /// Length of a slot in milliseconds; otherwise that of the stored chain, 200 for a new one.
    #[arg(long, env = "LOCALNET_SLOT_MS", value_name = "MS", value_parser = clap::value_parser!(u64).range(10..=60_000))]
    pub slot_ms: Option<u64>,

    /// Rent in lamports per byte; otherwise that of the stored chain, 5080 for a new one (a token account costs 1,488,440).
    // The highest makes a token account cost 293 SOL: no limit in practice, and no amount overflows.
    #[arg(long, env = "LOCALNET_RENT_LAMPORTS_PER_BYTE", value_name = "LAMPORTS", value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    pub rent_lamports_per_byte: Option<u64>,

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

impl Flags {
    pub fn parameters(&self) -> Choice {
        Choice {
            slot_ms: self.slot_ms,
            rent_lamports_per_byte: self.rent_lamports_per_byte,
        }
    }
}
