//! The ledger breaker: signs nothing while the ledger may have gone backwards (rule 7), and binds a ledger to one chain
//! (rule 8).
//!
//! Invariant: a mint transaction is recorded only in a database that the ledger knows, and only while the breaker is closed;
//! both are read in the very transaction that records it. One row holds the breaker for all processes. It opens automatically when
//! the database is another one than before or its server was restarted (the ledger may lack what an earlier one has sent),
//! and when a landed mint is found that the ledger lacks or holds as dead.
//!
//! After a change of the database it closes automatically, once nothing that was signed before can land any more and everything
//! that landed is known. After a mismatch a person has to deal with each unknown mint first.
//!
//! | file | what it does |
//! |---|---|
//! | `signing` | reads whether signing is allowed, in the transaction that records |
//! | `opening`, `closing` | the only writers of the breaker's state |
//! | `identity` | which database this is |
//! | `history_scan` | compares the authority's history on chain with the ledger |
//! | `scan_progress`, `mint_creation` | how far the scan is, and whether an endpoint has the beginning |
//! | `scan_checks` | whether an endpoint's list is the whole history |
//! | `scan_failure` | what follows when a scan stopped before its end |
//! | `scan_request` | requests of processes that have just started, which wait for a scan |
//! | `history_reader` | reads what the history lists, one unreadable transaction apart from a failing endpoint |
//! | `history_transactions` | transactions of others, each read once |
//! | `scan_view` | watermark, last scan and what cannot be read, for status, metrics and health |
//! | `unknown_mints` | stores landed mints that the ledger lacks |
//! | `heights` | block heights that the breaker waits for |
//! | `ledger_row` | the ledger's one row |
//! | `chain_binding` | the chain, mint and authority of a ledger |

pub(super) mod chain_binding;
pub(super) mod closing;
pub(super) mod heights;
mod history_reader;
pub(super) mod history_scan;
mod history_transactions;
mod identity;
pub(super) mod ledger_row;
mod mint_creation;
pub(super) mod opening;
mod scan_checks;
mod scan_failure;
mod scan_progress;
pub(super) mod scan_request;
pub(super) mod scan_view;
pub(super) mod signing;
pub(super) mod unknown_mints;
