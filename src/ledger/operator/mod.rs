//! Carries out decisions of a person, in the transaction of the admin-log entry.
//!
//! | file | what it does |
//! |---|---|
//! | `retry` | retries readings that failed or wait |
//! | `resolve_quarantined` | ends a transaction for which there is no proof |
//! | `adopt`, `paid_readings` | books a landed mint that the ledger lacks for the readings that it paid |
//! | `book_unknown` | books such a mint without a reading |

pub(super) mod adopt;
pub(super) mod book_unknown;
mod paid_readings;
pub(super) mod resolve_quarantined;
pub(super) mod retry;
