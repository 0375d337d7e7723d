//! The audit: walks chain and ledger and proves that they agree, or reports every difference.
//!
//! Invariant: the report says "ok" only if each of these was checked and holds.
//!
//! - No reading has two landed mint transactions; each minted or finalized one has exactly one.
//! - That transaction landed without an error, paid each wallet's token account what its readings are worth, and carries
//!   the number and the Merkle root that follow from exactly these readings: a changed amount, interval, wallet or serial, and
//!   a reading that was added or removed, show here.
//! - Every mint of our token that our authority signed belongs to readings, or was booked as foreign by an admin.
//! - The entries of the admin log are unchanged: each hash fits, and none is missing.
//! - No reading waits for a transaction that the ledger lacks, and none is free while a transaction that pays it may land.
//! - The sums of both sides are equal, and no token exists that was not minted in this way. Fewer tokens may exist: holders may
//!   burn theirs.
//! - No moment of a meter is in two paid intervals.
//!
//! The audit runs beside a service that mints. An apparent difference is checked twice, on the chain and in the ledger.
//! Supply and history are cut off at the same slot. The ledger is read in pages, each in one statement and so in one snapshot.
//!
//! A full audit reads every transaction from the chain. An incremental one compares what is new since the last checkpoint and a
//! random sample of the old: its cost and memory grow with the new transactions only (some 150 bytes for each).
//!
//! | file | what it does |
//! |---|---|
//! | `steps`, `scope` | the steps in order, and how much is compared |
//! | `full`, `incremental`, `incremental_rows`, `tally` | everything, or what is new and a sample; what was counted |
//! | `checkpoints`, `segment` | what need not be compared again: sums and hashes |
//! | `overlaps` | intervals that share time: SQL |
//! | `context` | the endpoint with full history, and the supply |
//! | `error` | errors that keep an audit from being finished |
//! | `unmatched_mints` | the chain's side: mints that have not landed according to the ledger |
//! | `landed_transactions` | the ledger's side: each landed transaction against its own bytes on chain |
//! | `compare_transaction` | compares one transaction: pure |
//! | `sums` | the sums of both sides, and the supply: pure |
//! | `ledger_transactions`, `ledger_checks` | the ledger's rows, and contradictions within them: SQL |
//! | `admin_log_check` | the chain of the admin log |
//! | `difference`, `difference_text`, `unreadable`, `findings`, `total` | the findings |
//! | `report`, `report_text` | the report, for programs and for people |
//! | `recorded_audit` | stored results, for dashboards and alerts |

mod admin_log_check;
mod checkpoints;
mod compare_transaction;
mod context;
mod difference;
mod difference_text;
mod error;
mod findings;
mod full;
mod incremental;
mod incremental_rows;
mod landed_transactions;
mod ledger_checks;
mod ledger_transactions;
mod overlaps;
mod recorded_audit;
mod report;
mod report_text;
mod scope;
mod segment;
mod steps;
mod sums;
mod tally;
mod total;
mod unmatched_mints;
mod unreadable;

pub use admin_log_check::AdminLogReport;
pub use difference::Difference;
pub use error::AuditError;
pub use recorded_audit::{RecordedAudit, record};
pub(crate) use report::with_sentences;
pub use report::{AuditReport, ComparedScope, ForeignMint, Outstanding};
pub use scope::{AuditScope, Memory};
pub use steps::{audit, audit_with};
pub use total::Total;
pub use unreadable::{ReadingPart, UnreadableReading};
