//! The ledger: which reading is paid by which transaction.
//!
//! Invariant: a reading has at most one live mint transaction. The unique index `live_mint_of_reading` keeps it, because two
//! workers may hold the same job. Bytes are sent only after they are committed here ([`record()`]). A transaction is dead only on
//! proof; until then its bytes may be sent again any number of times, and its readings wait.
//!
//! This room alone writes the states, attempts and wallets of `readings`, and the tables of `migrations/0002_ledger.sql`.
//!
//! # The life of a mint transaction
//!
//! ```text
//!  recorded ─▶ sent ─▶ confirmed ─▶ finalized
//!     ▲  │                │
//!     │  │                └─ fork ─▶ recorded, and the same bytes are sent again
//!     │  ├─▶ dead (proven)          its readings are due at once
//!     │  └─▶ quarantined            unproven for too long ─▶ confirmed | dead
//! ```
//!
//! | change | in which file | on which evidence | by which guard |
//! |---|---|---|---|
//! | → recorded | the minter: `record.rs` | the breaker is closed, the database is the known one, and every packed reading is pending at its packed revision: all read in the transaction that stores the bytes | `live_mint_of_reading`, `Recorded` of the readings |
//! | → sent | the minter: `send.rs`; again: `resolver/resend.rs` | the commit is known; again: the chain does not show the signature | none: the same bytes may be sent any number of times |
//! | → confirmed | `resolver/status_round.rs` | the signature was found without an error, confirmed | `Confirmed` |
//! | → finalized | `resolver/status_round.rs` | the signature was found without an error, finalized | `Finalized` |
//! | confirmed → recorded | `resolver/status_changes.rs` | no endpoint has shown it for several rounds | `Forked` |
//! | → dead, expired | `resolver/expiry.rs` | an unbroken chain of finalized blocks over its whole life does not hold it | `Dead` |
//! | → dead, failed | `resolver/failed_on_chain.rs` | the signature was found with an error, finalized | `Dead` |
//! | → quarantined | `resolver/quarantine.rs` | expired, and for `LEDGER_QUARANTINE_AFTER_SECS` no endpoint that answers could prove either | `Quarantined` |
//! | quarantined → confirmed, dead | the resolver as above; or a person: `operator/resolve_quarantined.rs` | proof; or the person's word, if the chain does not contradict it. The resolver keeps searching for what was called dead (`resolver/unproven_dead.rs`) | as above; `ResolvedLanded`, `ResolvedDead` |
//!
//! The guards are events of the domain's state machine ([`MintTransactionEvent`](crate::domain::MintTransactionEvent)); `guard.rs`
//! turns each into the states that a statement may change. Every change is a function of `transitions.rs` that compares and
//! sets, so of two writers only one takes effect, and only that one publishes the events. The transaction's readings move with
//! it (`changed_readings.rs`).
//!
//! # Files
//!
//! | file | what it does |
//! |---|---|
//! | `record` | rule 1: the transaction is stored before it is sent |
//! | `send` | rule 2: the same bytes, any number of times |
//! | `transitions`, `changed_readings` | every change of a transaction and its readings, with the events |
//! | `refuse`, `refusal`, `retry_schedule` | a reading that cannot be paid as it is: attempts, backoff, failure |
//! | `waiting` | the reason for which a reading waits although nothing is wrong with it |
//! | `guard` | the state machines as SQL guards |
//! | `transition_metrics` | reports committed changes |
//! | `error` | errors of the ledger |
//! | `resolver/` | rules 3 to 5: the loops that bring everything stored to its end |
//! | `proof/` | rule 3: what was read of the chain, so that a transaction that did not land is proven dead |
//! | `breaker/` | rules 7 and 8: a ledger that went backwards, and the right chain |
//! | `operator/` | carries out decisions of a person |
//! | `accounting/` | payments, pending costs, the fee payer, readings by state |

mod accounting;
mod breaker;
mod changed_readings;
mod error;
mod guard;
mod operator;
mod proof;
mod record;
mod refusal;
mod refuse;
mod resolver;
mod retry_schedule;
mod send;
mod transition_metrics;
mod transitions;
mod waiting;

pub use accounting::costs::{Costs, costs};
pub use accounting::counts::ReadingCounts;
pub(crate) use accounting::counts::counted_readings;
pub use accounting::fee_payer::{fee_payer, store_fee_payer};
pub use accounting::minting_conditions::{
    MintingConditions, minting_conditions, newest_finalized_slot,
};
pub use accounting::recent_spending::{Spending, recent_spending};
pub use breaker::chain_binding::{BindingError, ChainBinding, bind, bind_offline, binding};
pub use breaker::history_scan::{ScanOutcome, scan_history};
pub use breaker::scan_request::ScanRequest;
pub use breaker::scan_view::{HistoryScanView, UnreadableTransaction};
pub use error::LedgerError;
pub use operator::adopt::{AdoptError, Adoptable, Adopted, adopt, check_adoptable};
pub use operator::book_unknown::{
    UnknownMint, UnknownMintError, book_without_reading, fetch_unknown_mint,
};
pub use operator::resolve_quarantined::{
    QuarantineOutcome, Resolvable, ResolveError, Resolved, check_resolvable,
    resolve as resolve_transaction,
};
pub use operator::retry::{RetryError, check_retryable, retry_failed, retry_reading};
pub use proof::progress::ProofProgress;
pub use record::{
    NewMintTransaction, PackedReading, RecordError, may_sign, record, reserve_numbers,
};
pub use refusal::{AfterRefusal, Payee, Refusal, RefusalReason};
pub use refuse::{pack_alone_next_time, refuse_pending};
pub use resolver::blame::{Blame, blame};
pub use resolver::limits::ResolverLimits;
pub use resolver::open_transactions::count_open_transactions;
pub use resolver::tasks::Resolver;
pub use retry_schedule::RetrySchedule;
pub use send::{send, send_to_others};
pub use transition_metrics::MINT_TIME_TARGET;
pub use waiting::{WaitingReason, note_waiting};
