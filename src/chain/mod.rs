//! The Solana cluster as this service sees it: RPC endpoints, signer, blocks, token accounts.
//!
//! Invariant: an answer is believed for what it proves and no more. That a signature was found proves that it landed; that
//! it was not found proves nothing, unless [`scan_blocks`] read every block that could hold it.

mod blockhash;
mod blocks;
mod endpoint;
mod error;
mod executed;
mod history;
mod landed_mint;
mod local;
mod signer;
mod token_account;
mod watch;

pub use blockhash::{BLOCKHASH_LIFE, RecentBlockhash};
pub use blocks::{BlockScan, NoProof, scan_blocks};
pub use endpoint::{Endpoint, Endpoints};
pub use error::ChainError;
pub use history::{HistoryWalk, ListedTransaction, walk_history};
pub use landed_mint::{ChainMint, find_mint, mint_of};
pub use local::{is_local_chain, prepare_local_chain};
pub use signer::{KeyFileError, MintSigner, read_keypair, read_or_create_keypair};
pub use token_account::{TokenAccountState, inspect_token_accounts};
pub use watch::watch;
