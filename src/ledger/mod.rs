//! The ledger: which reading is paid by which transaction.
//!
//! Invariant: a reading has at most one live mint transaction. Kept by the unique index `live_mint_of_reading`, because two
//! workers may hold the same job. Whoever sends bytes must have committed them here before ([`record`]). A transaction is
//! given up only on proof ([`expiry`]); until then its bytes may be sent again and again, and its readings wait.
//!
//! This room alone writes the states, attempts and wallets of `readings`, and the tables of `migrations/0002_ledger.sql`.
//!
//! | file | what it does |
//! |---|---|
//! | `record` | rule 1: the transaction is stored before it is sent |
//! | `send` | rule 2: the same bytes, any number of times |
//! | `proof` | rule 3: dead only when every block that could hold it was read |
//! | `resolver` | rule 4: one loop that brings everything stored to its end |
//! | `status`, `blame` | rule 5: what the chain says of a signature, and whose fault an error is |
//! | `transitions`, `refuse` | every change of state, with its events, compare-and-set |
//! | `retry_failed` | failed readings are tried again, many at once |
//! | `retry_reading`, `resolve_quarantined` | what a person decides about a reading, or about a quarantined transaction |
//! | `unproven_dead` | what a person called dead without a proof is looked for |
//! | `breaker`, `history_scan`, `unknown_mints`, `adopt`, `identity` | rule 7: a ledger that went backwards |
//! | `chain_binding` | rule 8: the right chain |
//! | `costs`, `spending` | what was paid, and what is about to be |
//! | `fee_payer` | whom processes without keys watch |
//! | `counts` | readings by state, exact at every moment |

mod adopt;
mod blame;
mod breaker;
mod chain_binding;
mod costs;
mod counts;
mod error;
mod expiry;
mod fee_payer;
mod guard;
mod history_scan;
mod identity;
mod open;
mod record;
mod refuse;
mod resolve_quarantined;
mod resolver;
mod retry_failed;
mod retry_reading;
mod retry_schedule;
mod send;
mod signature_status;
mod spending;
mod transition_metrics;
mod transitions;
mod unknown_mints;
mod unproven_dead;

pub use adopt::{AdoptError, Adoptable, Adopted, adopt, check_adoptable};
pub use blame::{Blame, blame};
pub use breaker::{BreakerState, SigningRefused};
pub use chain_binding::{BindingError, ChainBinding, bind, bind_offline, binding};
pub use costs::{Costs, costs};
pub use counts::ReadingCounts;
pub use error::LedgerError;
pub use fee_payer::{fee_payer, store_fee_payer};
pub use history_scan::{ScanOutcome, scan_history};
pub use open::count_open_transactions;
pub use record::{
    NewMintTransaction, PackedReading, RecordError, may_sign, record, reserve_numbers,
};
pub use refuse::{AfterRefusal, Refusal, refuse_pending};
pub use resolve_quarantined::{
    QuarantineOutcome, Resolvable, ResolveError, Resolved, check_resolvable,
    resolve as resolve_transaction,
};
pub use resolver::{RESOLVER_TIMINGS, Resolver, ResolverLimits};
pub use retry_failed::retry_failed;
pub use retry_reading::{RetryError, check_retryable, retry_reading};
pub use retry_schedule::RetrySchedule;
pub use send::{send, send_to_others};
pub use spending::{
    MintingConditions, Spending, minting_conditions, note_waiting, recent_spending,
};
pub use transition_metrics::MINT_TIME_TARGET;
pub use transitions::newest_finalized_slot;
pub use unknown_mints::{UnknownMint, UnknownMintError, book_without_reading, fetch_unknown_mint};
