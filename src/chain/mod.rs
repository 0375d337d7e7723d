//! The Solana cluster as this service sees it: RPC endpoints, signer, blocks, token accounts.
//!
//! Invariant: an answer is believed for what it proves and no more. That a signature was found proves that it landed; that
//! it was not found proves nothing, unless [`scan_blocks`] read every block that could hold it.
//!
//! | file | what it does |
//! |---|---|
//! | `endpoint`, `endpoint_health` | the endpoints, and which of them is worth asking |
//! | `sender`, `rate_limit` | how a call travels; an endpoint that answers 429 is left alone for as long as it asked |
//! | `chain_probe` | one look at all endpoints, the fee payer and the mint |
//! | `circuit_breaker` | whether minting is worth trying now |
//! | `fee_budget` | what the fee payer can still spend |
//! | `priority_fee` | what is offered for a compute unit |
//! | `blockhash`, `blocks`, `address_history`, `mint_supply`, `mint_lookup`, `executed_transaction` | what the chain holds |
//! | `signer`, `token_account`, `local` | keys, wallets' accounts, the chain for development |

mod address_history;
mod blockhash;
mod blocks;
mod cause;
mod chain_probe;
mod circuit_breaker;
mod endpoint;
mod endpoint_health;
mod error;
mod executed_transaction;
mod fee_budget;
mod local;
mod mint_lookup;
mod mint_supply;
mod priority_fee;
mod rate_limit;
mod sender;
mod signer;
mod token_account;

pub use address_history::{HistoryWalk, ListedTransaction, walk_history};
pub use blockhash::{BLOCKHASH_LIFE, RecentBlockhash};
pub use blocks::{BlockScan, NoProof, scan_blocks};
pub use cause::{Cause, LaggingEndpoint};
pub use chain_probe::{ChainProbe, ChainSnapshot, FeePayer, MintAccounts};
pub use circuit_breaker::{CircuitBreaker, CircuitBreakerView};
pub use endpoint::{Endpoint, EndpointView, Endpoints};
pub use error::{ChainError, Fault};
pub use fee_budget::{FeeBudget, FeeBudgetView, Funds, Reservation, TOKEN_ACCOUNT_RENT_LAMPORTS};
pub use local::{is_local_chain, prepare_local_chain};
pub use mint_lookup::{ChainMint, find_mint, find_transaction, mint_of};
pub use mint_supply::{TokenSupply, shows_creation};
pub use priority_fee::PriorityFees;
pub use signer::{KeyFileError, MintSigner, read_keypair, read_or_create_keypair};
pub use token_account::{AsOf, TokenAccountState, TokenAccounts, inspect_token_accounts};
