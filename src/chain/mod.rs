//! The Solana cluster as this service sees it: RPC endpoints, signer, blocks, token accounts.
//!
//! Invariant: an answer counts only for what it proves. That a signature was found proves that it landed; that
//! it was not found proves nothing, unless a [`BlockScan`] has read every block that could hold it.
//!
//! | file | what it does |
//! |---|---|
//! | `endpoints/` | the configured RPC endpoints: calls, budgets, health, probes |
//! | `history/` | blocks, the transactions that mention an address, and their mints |
//! | `circuit_breaker`, `breaker_state`, `cause` | whether minting is worth trying now, and why not |
//! | `commitment` | finality that an answer must have, the cluster's consensus, and the commitment that a call names |
//! | `parameters`, `slot_clock`, `charge_refresh` | the chain's charges, and the length of a slot |
//! | `fee_budget` | how much the fee payer can still spend |
//! | `priority_fee` | the price that is offered for a compute unit |
//! | `transaction_format` | the format of a transaction, by what its endpoint takes |
//! | `blockhash` | the blockhash that a transaction is signed on, and its life |
//! | `token_account` | the wallets' token accounts |
//! | `signature_statuses`, `transaction_failure` | statuses and errors of transactions, read item by item |
//! | `signer`, `local_chain` | keys, and the chain for development |
//! | `error`, `error_reason`, `client_error`, `rpc_error_code` | errors of chain queries |

mod blockhash;
mod breaker_state;
mod cause;
mod charge_refresh;
mod circuit_breaker;
mod client_error;
mod commitment;
mod endpoints;
mod error;
mod error_reason;
mod fee_budget;
mod history;
mod local_chain;
mod parameters;
mod priority_fee;
mod rpc_error_code;
mod signature_statuses;
mod signer;
mod slot_clock;
mod token_account;
mod transaction_failure;
mod transaction_format;

pub use blockhash::BLOCKHASH_LIFE;
pub use breaker_state::{Activity, PROBE_EVERY, PROBE_IDLE_EVERY, PROBE_PAUSE_MAX};
pub use cause::{Cause, LaggingEndpoint};
pub use charge_refresh::charge_refresh;
pub use circuit_breaker::{BegunProbe, CircuitBreaker, CircuitBreakerView, ProbeReason};
pub use commitment::{Consensus, Finality};
pub use endpoints::{
    Ability, Capabilities, ChainProbe, ChainSnapshot, Endpoint, EndpointView, Endpoints,
    EndpointsKey, ListMethod, MetLimit, MintAccounts, Probed, ProviderLimit, RecentBlockhash,
    RpcClass, SharedProbe,
};
pub use error::{ChainError, FailureOrigin, ProbeFailure, UnusableEndpoint};
pub use error_reason::{
    CallProblem, Lag, MintProblem, NoAnswer, TransactionProblem, UnusableAnswer,
};
pub use fee_budget::{FeeBudget, FeeBudgetView, Funds, Reservation};
pub use history::{
    AddressHistory, BlockRun, BlockRuns, BlockScan, BlockhashLife, ChainMint, Charge,
    FinalizedBlock, HistoryCursor, HistoryRange, INDEXING_LAG_SLOTS, ListedTransaction, MintLookup,
    NoProof, RunChange, RunStore, Saved, ScanError, ScanOutcome, TokenSupply, charge_of,
    height_of_block, history_includes_creation, mint_history, mint_of_signed_bytes,
    probe_capabilities, shows_creation,
};
pub use local_chain::{is_local_chain, prepare_local_chain};
pub use parameters::{ChainCharges, ChainParameters};
pub use priority_fee::PriorityFees;
pub use signature_statuses::{ShownStatus, StatusSource};
pub use signer::{KeyFileError, MintSigner, read_keypair, read_or_create_keypair};
pub use token_account::{
    AccountProblem, AsOf, TokenAccountState, TokenAccounts, inspect_token_accounts,
};
pub use transaction_failure::TransactionFailure;
pub use transaction_format::TransactionFormats;
