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
//! | `batch` | one batch: packing, and what to answer each caller |
//! | `accounts` | which wallets can be paid, and what it takes to refuse one |
//! | `chain_side` | the chain as a process sees it, whether it signs or not |
//! | `draft` | one packed transaction: simulated, signed, recorded, sent |
//! | `estimate` | what minting would take, without minting |
//! | `transaction` | builds and signs one transaction: pure |
//! | `means` | what of a batch the fee payer can pay |
//! | `watch`, `announce` | opens and closes the circuit breaker of the chain; admins are told |

mod accounts;
mod announce;
mod batch;
mod candidate;
mod chain_side;
mod draft;
mod estimate;
mod means;
mod minter;
mod transaction;
mod watch;

pub use announce::announce;
pub use chain_side::{ChainSide, Payer};
pub use estimate::{Estimate, Estimating, Estimator, Unminted};
pub use minter::{MintLimits, MintOutcome, MintPermission, MintTools, Minter};
pub use watch::Watch;
