//! Reports payments, pending costs, the fee payer, and readings by state.
//!
//! | file | what it does |
//! |---|---|
//! | `costs` | adds up the cost of everything that landed |
//! | `charges` | stores charges beside the booked costs |
//! | `recent_spending` | adds up the cost of the last six hours |
//! | `minting_conditions` | reads what minting needs from the ledger |
//! | `fee_payer` | the address that processes without keys watch |
//! | `counts` | readings by state, exact at every moment |

pub(super) mod charges;
pub(super) mod costs;
pub(super) mod counts;
pub(super) mod fee_payer;
pub(super) mod minting_conditions;
pub(super) mod recent_spending;
