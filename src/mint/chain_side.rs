//! The chain as a process sees it, whether it signs or not.

use super::transaction::LAMPORTS_PER_SIGNATURE;
use crate::chain::{Circuit, Endpoints, MintAccounts, MintSigner, Purse};

/// Shared by everything in a process that asks the chain; a clone is the same circuit and the same purse.
#[derive(Clone)]
pub struct ChainSide {
    pub endpoints: Endpoints,
    pub accounts: MintAccounts,
    /// Asked before each batch.
    pub circuit: Circuit,
    /// What the fee payer can still spend.
    pub purse: Purse,
    /// Of one mint transaction.
    pub fee_lamports: u64,
}

impl ChainSide {
    /// A process without a signer counts with one signature, as when the authority pays its own fees.
    pub fn new(
        endpoints: Endpoints,
        accounts: MintAccounts,
        signer: Option<&MintSigner>,
    ) -> ChainSide {
        let signatures = signer.map_or(1, MintSigner::signatures_per_transaction);
        ChainSide {
            endpoints,
            accounts,
            circuit: Circuit::default(),
            purse: Purse::default(),
            fee_lamports: signatures * LAMPORTS_PER_SIGNATURE,
        }
    }
}
