//! The Minter: many readings, one Solana transaction.
//!
//! Callers hand in one reading each and wait; readings that arrive together are packed together, signed, recorded in the
//! ledger, and only then sent. The answer comes once the ledger holds the reading as `submitted` (or it cannot be minted
//! now); what follows is the Resolver's.
//!
//! | file | what it does |
//! |---|---|
//! | `minter` | collects callers into batches, and keeps the sends within their bound |
//! | `candidate` | loads what a reading needs to be paid, and sorts out what cannot be paid now |
//! | `batch` | one batch: accounts, packing, and what to answer each caller |
//! | `draft` | one packed transaction: simulated, signed, recorded, sent |
//! | `estimate` | what minting would take, without minting |
//! | `transaction` | builds and signs one transaction: pure |

mod batch;
mod candidate;
mod draft;
mod estimate;
mod minter;
mod transaction;

pub use estimate::{Estimate, Estimating, Estimator, Unminted};
pub use minter::{MintLimits, MintOutcome, MintPermission, Minter};
