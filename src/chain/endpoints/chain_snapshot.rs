//! The accounts that minting needs, as a probe found them.

use crate::chain::parameters::ChainCharges;

/// The accounts, as one endpoint shows them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChainSnapshot {
    /// They include all that landed up to this slot, at `confirmed`.
    pub slot: u64,
    /// The fee payer's, lamports; `None` when the probe was run without one.
    pub balance: Option<u64>,
    /// Of the chain.
    pub charges: ChainCharges,
}
