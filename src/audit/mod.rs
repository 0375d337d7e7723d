//! The audit: walks chain and ledger and proves that they agree, or names every difference.
//!
//! Invariant: "ok" is said only if each of these was looked at and holds.
//!
//! - No reading has two landed mint transactions; each minted or finalized one has exactly one.
//! - That transaction landed without an error, paid each wallet's token account what its readings are worth, and carries
//!   the number and the Merkle root that follow from these very readings: a changed amount, interval, wallet or serial, a
//!   reading that was added or removed shows here.
//! - Every mint of our token by our authority's signature belongs to readings, or was booked as foreign by an admin.
//! - The admin log is what was written: each entry's hash fits, none is missing.
//! - No reading is promised to a transaction that the ledger lacks, and none is free while a transaction that pays it may land.
//! - The sums of both sides are equal, and no token exists that was not minted so. Fewer may: holders may burn theirs.
//!
//! It runs beside a service that mints: what one side lacks is looked up again by signature, and the ledger read again,
//! before it is called a difference. Supply and history are cut at one slot. Memory does not grow with the readings: the
//! ledger is read in pages, each in one statement and so in one snapshot.
//!
//! | file | what it does |
//! |---|---|
//! | `examine` | the order of the steps, and the sums |
//! | `strays` | the chain's side: what our authority minted that the ledger does not call landed |
//! | `paid` | the ledger's side: each landed transaction against its own bytes on chain |
//! | `verdict` | one transaction, compared: pure |
//! | `books` | what the ledger says: SQL |
//! | `admin_log` | the chain of the admin log |
//! | `difference`, `report` | what was found, for people and programs |
//! | `record` | the verdicts that are kept, for boards and alerts |

mod admin_log;
mod books;
mod difference;
mod error;
mod examine;
mod paid;
mod record;
mod report;
mod strays;
mod verdict;

pub use admin_log::AdminLogReport;
pub use difference::Difference;
pub use error::AuditError;
pub use examine::audit;
pub use record::{RecordedAudit, record};
pub(crate) use report::with_sentences;
pub use report::{AuditReport, ForeignMint, Outstanding, Total};
