//! The Solana cluster as this service sees it: RPC endpoints, signer, blocks, token accounts.
//!
//! Invariant: an answer counts only for what it proves. That a signature was found proves that it landed; that
//! it was not found proves nothing, unless a [`BlockScan`] has read every block that could hold it.
//!
//! | file | what it does |
//! |---|---|
//! | `endpoints/endpoint`, `rpc_sender` | how a call reaches an endpoint |
//! | `endpoints/rpc_class`, `call_budget`, `rate_limit` | which budget a call spends, and when none is made |
//! | `endpoints/endpoint_health`, `selection` | which endpoints are usable, and which one is queried first |
//! | `endpoints/chain_probe`, `mint_accounts` | one probe of all endpoints, the fee payer and the mint |
//! | `endpoints/shared_probe` | what one process found, for the others |
//! | `endpoints/capabilities`, `history/capability_probe` | what an endpoint can do |
//! | `circuit_breaker`, `breaker_state`, `cause` | whether minting is worth trying now, and why not |
//! | `commitment` | how final an answer must be, which consensus the cluster runs, and which commitment a call names |
//! | `parameters`, `slot_clock`, `endpoints/charges`, `charge_refresh` | what the chain charges, and how long a slot lasts |
//! | `fee_budget` | what the fee payer can still spend |
//! | `priority_fee` | what is offered for a compute unit |
//! | `transaction_format`, `endpoints/v1_support` | which format transactions get, and which endpoints take v1 |
//! | `blockhash` | what a transaction is signed on, and how long that is valid |
//! | `history/block_scan`, `block_run` | the proof that a transaction did not land |
//! | `history/address_history`, `mint_lookup`, `mint_supply` | which transactions mention an address, what each of them minted, and the mint's supply |
//! | `history/charge` | what a transaction cost its fee payer |
//! | `token_account` | the wallets' token accounts |
//! | `signature_statuses`, `transaction_failure` | statuses and errors of transactions, read item by item |
//! | `endpoints/refusal`, `provider_limits`, `list_query` | the limits of providers: recognised, remembered, respected by smaller questions |
//! | `signer`, `local_chain` | keys, and the chain for development |
//! | `error`, `error_reason`, `client_error`, `rpc_error_code` | what can go wrong |

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
    FinalizedBlock, HistoryCursor, HistoryRange, ListedTransaction, MintLookup, NoProof, RunChange,
    RunStore, Saved, ScanError, ScanOutcome, TokenSupply, charge_of, history_includes_creation,
    mint_history, mint_of_signed_bytes, probe_capabilities, shows_creation,
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
