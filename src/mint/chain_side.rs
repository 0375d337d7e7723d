//! The chain as a process sees it, whether it signs or not.

use solana_sdk::pubkey::Pubkey;

use super::transaction::LAMPORTS_PER_SIGNATURE;
use crate::chain::{Circuit, Endpoints, MintAccounts, MintSigner, PriorityFees, Purse};
use crate::domain::PAYMENT_COMPUTE_UNITS_MAX;

/// Shared by everything in a process that asks the chain; a clone is the same circuit and the same purse.
#[derive(Clone)]
pub struct ChainSide {
    pub endpoints: Endpoints,
    pub accounts: MintAccounts,
    /// Asked before each batch.
    pub circuit: Circuit,
    /// What the fee payer can still spend.
    pub purse: Purse,
    /// For the signatures of one mint transaction, lamports; the priority fee comes on top.
    pub base_fee_lamports: u64,
    pub priority_fees: PriorityFees,
}

impl ChainSide {
    /// A process without a signer counts with one signature, as when the authority pays its own fees.
    pub fn new(
        endpoints: Endpoints,
        accounts: MintAccounts,
        signer: Option<&MintSigner>,
        priority_fees: PriorityFees,
    ) -> ChainSide {
        let signatures = signer.map_or(1, MintSigner::signatures_per_transaction);
        ChainSide {
            endpoints,
            accounts,
            circuit: Circuit::default(),
            purse: Purse::default(),
            base_fee_lamports: signatures * LAMPORTS_PER_SIGNATURE,
            priority_fees,
        }
    }

    /// What every transaction of ours writes to: whoever else does competes with us.
    pub(super) fn writable_accounts(&self) -> [Pubkey; 2] {
        [self.accounts.mint, self.accounts.fee_payer]
    }

    /// What the cheapest transaction costs at most: one payment to an account that is there.
    pub(super) fn least_fee_lamports(&self) -> u64 {
        let price = self.priority_fees.price();
        self.base_fee_lamports + price.lamports_for(PAYMENT_COMPUTE_UNITS_MAX)
    }
}
