//! The chain as a process sees it, whether it signs or not.

use solana_sdk::pubkey::Pubkey;

use super::transaction::LAMPORTS_PER_SIGNATURE;
use crate::chain::{CircuitBreaker, Endpoints, FeeBudget, MintAccounts, PriorityFees};
use crate::domain::PAYMENT_COMPUTE_UNITS_MAX;

/// Who pays for what is minted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Payer {
    /// This process, which mints, with this key.
    Ours(Pubkey),
    /// Others: the one whom the ledger names, now and later. `None` until it names one.
    Theirs(Option<Pubkey>),
}

/// Shared by everything in a process that asks the chain; a clone is the same circuit breaker and the same fee budget.
#[derive(Clone)]
pub struct ChainSide {
    pub endpoints: Endpoints,
    pub accounts: MintAccounts,
    /// Asked before each batch.
    pub circuit_breaker: CircuitBreaker,
    /// Whose money is spent, and what can still be spent of it.
    pub fee_budget: FeeBudget,
    pub priority_fees: PriorityFees,
    /// The fee budget belongs to whom the ledger names.
    pub(super) follows_ledger: bool,
}

impl ChainSide {
    pub fn new(
        endpoints: Endpoints,
        accounts: MintAccounts,
        payer: Payer,
        priority_fees: PriorityFees,
    ) -> ChainSide {
        let (fee_payer, follows_ledger) = match payer {
            Payer::Ours(fee_payer) => (Some(fee_payer), false),
            Payer::Theirs(fee_payer) => (fee_payer, true),
        };
        ChainSide {
            endpoints,
            accounts,
            circuit_breaker: CircuitBreaker::default(),
            fee_budget: FeeBudget::of(fee_payer),
            priority_fees,
            follows_ledger,
        }
    }

    /// Fee payer and mint authority are two keys. Assumed while the fee payer is not known: an estimate is a ceiling.
    pub(super) fn has_separate_fee_payer(&self) -> bool {
        self.fee_budget.fee_payer() != Some(self.accounts.authority)
    }

    /// For the signatures of one mint transaction, lamports; the priority fee comes on top.
    pub(super) fn base_fee_lamports(&self) -> u64 {
        let signatures = 1 + u64::from(self.has_separate_fee_payer());
        signatures * LAMPORTS_PER_SIGNATURE
    }

    /// What every transaction of ours writes to: whoever else does competes with us.
    pub(super) fn writable_accounts(&self) -> Vec<Pubkey> {
        let mut accounts = vec![self.accounts.mint];
        accounts.extend(self.fee_budget.fee_payer());
        accounts
    }

    /// What the cheapest transaction costs at most: one payment to an account that is there.
    pub(super) fn least_fee_lamports(&self) -> u64 {
        let price = self.priority_fees.price();
        self.base_fee_lamports() + price.lamports_for(PAYMENT_COMPUTE_UNITS_MAX)
    }
}
