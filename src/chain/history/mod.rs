//! Reads blocks, the transactions that mention an address, and their mints.
//!
//! | file | what it does |
//! |---|---|
//! | `block_scan`, `block_run`, `no_proof` | the proof that a transaction did not land, or the reason why there is none yet |
//! | `finalized_blocks`, `finalized_block` | finalized blocks, as an endpoint lists and shows them |
//! | `address_history` | all transactions that mention an address, newest first |
//! | `mint_lookup`, `signed_mint` | what one transaction minted: read from the chain, or from its signed bytes |
//! | `shown_transaction`, `executed_transaction`, `programs` | a transaction as an endpoint shows it, and its instructions |
//! | `mint_supply` | the mint's supply, and whether a history reaches its creation |
//! | `charge` | how much a transaction charged the fee payer |
//! | `capability_probe` | probes the capabilities of an endpoint |
//! | `call_retry` | repeats a call that got no answer, or whose object is not shown yet |

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

pub use address_history::{
    AddressHistory, HistoryCursor, HistoryRange, INDEXING_LAG_SLOTS, ListedTransaction,
};
pub use block_run::{BlockRun, BlockRuns, BlockhashLife, RunChange};
pub use block_scan::{BlockScan, RunStore, Saved, ScanError, ScanOutcome};
pub use capability_probe::probe_capabilities;
pub use charge::{Charge, charge_of};
pub use finalized_block::FinalizedBlock;
pub use finalized_blocks::height_of_block;
pub use mint_lookup::{ChainMint, MintLookup};
pub use mint_supply::{TokenSupply, history_includes_creation, mint_history, shows_creation};
pub use no_proof::NoProof;
pub use signed_mint::mint_of_signed_bytes;
