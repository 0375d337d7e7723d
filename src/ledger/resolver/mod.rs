//! The resolver: brings every stored mint transaction to its end (rule 4), in the one process that holds its lock.
//!
//! It depends on nothing but ledger and chain: not on the queue, the sweep or the auto-mint switch. Everything it writes is
//! compare-and-set ([`transitions`](super::transitions)), so a resolver that was suspended does no harm when it resumes.
//!
//! | file | what it does |
//! |---|---|
//! | `tasks` | the loops, each with its period |
//! | `status_round` | transactions that are in time, once a slot: what the chain reports of each signature |
//! | `late_round` | those that are late, ever more rarely |
//! | `status_changes`, `status_writer` | confirms, finalizes, detects forks and failures |
//! | `failed_on_chain`, `blame` | a transaction landed with an error: dead, and which readings use an attempt |
//! | `resend` | sends the same bytes again |
//! | `expiry` | proves that an expired transaction did not land: dead |
//! | `quarantine` | quarantines what has been unproven for too long |
//! | `breaker_upkeep`, `unproven_dead` | keeps the ledger breaker open or closed; searches for what a person called dead |
//! | `read_charges` | reads what the chain charged for what is finalized |
//! | `open_transactions`, `signature_status` | open transactions as the ledger stores them; their status as the chain reports it |
//! | `limits`, `log_on_change`, `first_failure` | settings, quiet logging of failures, rounds that go on past an item that fails |

pub(super) mod blame;
mod breaker_upkeep;
mod expiry;
mod failed_on_chain;
mod first_failure;
mod late_round;
pub(super) mod limits;
mod log_on_change;
pub(super) mod open_transactions;
mod quarantine;
mod read_charges;
mod resend;
pub(super) mod signature_status;
mod status_changes;
mod status_round;
mod status_writer;
pub(super) mod tasks;
mod unproven_dead;
