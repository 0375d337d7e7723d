//! The minter: many readings, one Solana transaction.
//!
//! A caller hands in one reading and waits. Readings that arrive together are packed together, signed, recorded in the ledger,
//! and only then sent. The caller gets its answer once the ledger holds the reading as `submitted`, or it cannot be minted
//! now. What follows is the resolver's part: see
//! [the life of a mint transaction](crate::ledger#the-life-of-a-mint-transaction).
//!
//! | file | what it does |
//! |---|---|
//! | `minter` | collects requests into batches |
//! | `pipeline` | one batch from top to bottom: the order of the steps |
//! | `load`, `candidate` | step 1: loads what is needed to pay a reading, and answers those that are not to be minted |
//! | `resolve_accounts`, `token_accounts`, `unsettled_accounts` | step 2: which wallets can be paid, and what it takes to refuse one |
//! | `pack` | step 3: which transactions are sent now and which wait for more readings. Which readings share one: [`domain::pack`](crate::domain::pack) |
//! | `affordability`, `costs` | step 4: trims a batch to what the fee payer can afford |
//! | `left_out`, `refuse` | answers the readings that steps 2 to 5 leave out |
//! | `draft`, `simulate` | step 5: unsigned transactions, simulated |
//! | `sign_and_record`, `transaction` | step 6: signed, and recorded in the ledger |
//! | `first_send` | step 7: sent, after the record's commit |
//! | `request`, `answers`, `defer_reason` | what goes into a batch and what comes out |
//! | `context`, `chain_handle`, `stage_times` | what all steps share |
//! | `estimate` | what minting would take, without minting |
//! | `shared_probes`, `capability_watch` | one process probes for all; what each endpoint can do |
//! | `chain_monitor`, `announce` | opens and closes the circuit breaker of the chain, and notifies admins |

mod affordability;
mod announce;
mod answers;
mod candidate;
mod capability_watch;
mod chain_handle;
mod chain_monitor;
mod context;
mod costs;
mod defer_reason;
mod draft;
mod estimate;
mod first_send;
mod left_out;
mod load;
mod minter;
mod pack;
mod pipeline;
mod refuse;
mod request;
mod resolve_accounts;
mod shared_probes;
mod sign_and_record;
mod simulate;
mod stage_times;
mod token_accounts;
mod transaction;
mod unsettled_accounts;

pub use announce::outage_announcements;
pub use capability_watch::capability_watch;
pub use chain_handle::{ChainHandle, FeePayerSource};
pub use chain_monitor::ChainMonitor;
pub use context::MintLimits;
pub use defer_reason::DeferReason;
pub use estimate::{Estimate, Estimating, Estimator, Unminted};
pub use minter::Minter;
pub use request::{MintOutcome, MintPermission};
