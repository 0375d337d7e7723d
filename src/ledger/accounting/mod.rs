//! What was paid, what is about to be paid, and by whom; and how many readings are in each state.
//!
//! | file | what it does |
//! |---|---|
//! | `costs` | what everything that landed has cost |
//! | `charges` | what the chain charged for finalized transactions, beside what was booked |
//! | `recent_spending` | what was spent in the last hours |
//! | `minting_conditions` | what a process that mints needs from the ledger |
//! | `fee_payer` | which address processes without keys watch |
//! | `counts` | readings by state, exact at every moment |

pub(super) mod charges;
pub(super) mod costs;
pub(super) mod counts;
pub(super) mod fee_payer;
pub(super) mod minting_conditions;
pub(super) mod recent_spending;
