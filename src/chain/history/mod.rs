//! What the chain holds: blocks, the transactions that mention an address, and what each of them minted.

mod address_history;
mod block_run;
mod block_scan;
mod call_retry;
mod capability_probe;
mod charge;
mod executed_transaction;
mod finalized_block;
mod finalized_blocks;
mod mint_lookup;
mod mint_supply;
mod no_proof;
mod programs;
mod shown_transaction;
mod signed_mint;

pub use address_history::{AddressHistory, HistoryCursor, HistoryRange, ListedTransaction};
pub use block_run::{BlockRun, BlockRuns, BlockhashLife, RunChange};
pub use block_scan::{BlockScan, RunStore, Saved, ScanError, ScanOutcome};
pub use capability_probe::probe_capabilities;
pub use charge::{Charge, charge_of};
pub use finalized_block::FinalizedBlock;
pub use mint_lookup::{ChainMint, MintLookup};
pub use mint_supply::{TokenSupply, history_includes_creation, mint_history, shows_creation};
pub use no_proof::NoProof;
pub use signed_mint::mint_of_signed_bytes;
