//! The Resolver: brings every stored mint transaction to its end (rule 4), in the one process that holds its lock.
//!
//! It depends on nothing but ledger and chain: not on the queue, the sweep or the auto-mint switch. Everything it writes is
//! compare-and-set ([`transitions`](super::transitions)), so a Resolver that was suspended does no harm when it resumes.
//!
//! | file | what it does |
//! |---|---|
//! | `tasks` | the loops, each with its period |
//! | `status_round`, `status_changes` | confirms, finalizes, detects forks and failures: what the chain reports of each signature |
//! | `failed_on_chain`, `blame` | a transaction landed with an error: dead, and which readings use an attempt |
//! | `resend` | sends the same bytes again |
//! | `expiry` | proves that an expired transaction did not land: dead; or quarantines it |
//! | `breaker_upkeep`, `unproven_dead` | keeps the ledger breaker open or closed; searches for what a person called dead |
//! | `read_charges` | reads what the chain charged for what is finalized |
//! | `open_transactions`, `signature_status` | open transactions as the ledger stores them; their status as the chain reports it |
//! | `limits`, `log_on_change` | settings, and quiet logging of failures |

pub(super) mod blame;
mod breaker_upkeep;
mod expiry;
mod failed_on_chain;
pub(super) mod limits;
mod log_on_change;
pub(super) mod open_transactions;
mod read_charges;
mod resend;
pub(super) mod signature_status;
mod status_changes;
mod status_round;
pub(super) mod tasks;
mod unproven_dead;
