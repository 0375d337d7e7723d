//! What minting readings would take, without minting any: the same look at the accounts, the same packing.

use std::collections::HashSet;

use uuid::Uuid;

use super::chain_side::ChainSide;
use super::transaction::LAMPORTS_PER_SIGNATURE;
use crate::chain::{AsOf, ChainError, TOKEN_ACCOUNT_RENT_LAMPORTS, inspect_token_accounts};
use crate::domain::{
    BaseUnits, COMPUTE_UNITS_MAX, ComputeUnitPrice, PackItem, PackLimits, TRANSACTION_BYTES_MAX,
    Wallet, pack,
};

/// Wallets that were found to need an account and are remembered, so that each is counted once: 32 bytes each. Past it a
/// forgotten one that comes again counts again, so that the figure is a ceiling.
const NEW_WALLETS_MAX: usize = 200_000;

/// An unminted reading.
#[derive(Clone, Copy, Debug)]
pub struct Unminted {
    pub id: Uuid,
    pub wallet: Wallet,
    pub base_units: BaseUnits,
    pub pack_alone: bool,
    /// The wallet was paid at finality before: its token account existed.
    pub account_was_there: bool,
}

/// What it would take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Estimate {
    /// All that were looked at.
    pub readings: u64,
    /// Of those, how many would be refused before anything is signed: their token account is closed, frozen or given away, or
    /// their amount is above the limit of a transaction.
    pub refused: u64,
    pub transactions: u64,
    /// Token accounts that would be created.
    pub account_creations: u64,
    /// Fees of the transactions, with the priority fee.
    pub fee_lamports: u64,
    /// Of these, the priority fee at most: what a transaction asks for is known once it was simulated.
    pub priority_fee_lamports: u64,
    /// Rent of the token accounts, beside the fees.
    pub rent_lamports: u64,
}

/// Estimates with the Minter's settings. A clone shares the chain's side.
#[derive(Clone)]
pub struct Estimator {
    chain: ChainSide,
    limits: PackLimits,
}

impl Estimator {
    /// `max_readings` and `max_base_units` as the Minter has them.
    pub fn new(chain: ChainSide, max_readings: usize, max_base_units: BaseUnits) -> Estimator {
        Estimator {
            chain,
            limits: PackLimits {
                max_readings,
                max_base_units,
                max_bytes: TRANSACTION_BYTES_MAX,
                max_compute_units: COMPUTE_UNITS_MAX,
                // Both are known when an estimate begins.
                separate_fee_payer: true,
                priced: false,
            },
        }
    }

    /// Begins with nothing.
    pub fn begin(&self) -> Estimating<'_> {
        let price = self.chain.priority_fees.price();
        Estimating {
            estimator: self,
            limits: PackLimits {
                separate_fee_payer: self.chain.has_separate_fee_payer(),
                priced: !price.is_zero(),
                ..self.limits
            },
            price,
            estimate: Estimate::default(),
            remainder: Vec::new(),
            new_wallets: HashSet::new(),
        }
    }
}

/// An estimate that grows reading by reading; its memory does not.
pub struct Estimating<'a> {
    estimator: &'a Estimator,
    limits: PackLimits,
    /// Of a compute unit when it began.
    price: ComputeUnitPrice,
    estimate: Estimate,
    /// Did not fill a transaction: as in the Minter it waits for the next ones, once.
    remainder: Vec<PackItem>,
    new_wallets: HashSet<Wallet>,
}

impl Estimating<'_> {
    /// Takes some more readings, in the order in which they would be minted.
    pub async fn add(&mut self, readings: &[Unminted]) -> Result<(), ChainError> {
        let mut wallets: Vec<Wallet> = readings.iter().map(|reading| reading.wallet).collect();
        wallets.sort_unstable();
        wallets.dedup();
        let chain = &self.estimator.chain;
        let endpoint = chain.endpoints.preferred();
        let mint = &chain.accounts.mint;
        let looked = inspect_token_accounts(endpoint, mint, &wallets, AsOf::Confirmed).await;
        if let Err(ChainError::Unreachable { .. }) = &looked {
            chain.endpoints.turn_away_from(endpoint);
        }
        let accounts = looked?;
        self.estimate.readings += readings.len() as u64;
        let mut payable = Vec::with_capacity(readings.len());
        for reading in readings {
            let state = accounts.state_of(reading.wallet);
            match state.needs_account(reading.account_was_there) {
                Err(_) => self.estimate.refused += 1,
                Ok(needs_account) => payable.push(PackItem {
                    reading_id: reading.id,
                    wallet: reading.wallet,
                    base_units: reading.base_units,
                    needs_account: needs_account && !self.new_wallets.contains(&reading.wallet),
                    alone: reading.pack_alone,
                }),
            }
        }
        for batch in payable.chunks(self.limits.max_readings.max(1)) {
            self.pack(batch);
        }
        Ok(())
    }

    /// One batch of the Minter.
    fn pack(&mut self, batch: &[PackItem]) {
        let carried: HashSet<Uuid> = self.remainder.iter().map(|item| item.reading_id).collect();
        let mut items = std::mem::take(&mut self.remainder);
        items.extend(batch);
        for item in &mut items {
            item.needs_account &= !self.new_wallets.contains(&item.wallet);
        }
        let packed = pack(items.clone(), &self.limits);
        let under_load = packed.iter().any(|transaction| transaction.full);
        for transaction in packed {
            if transaction.oversized {
                self.estimate.refused += transaction.readings.len() as u64;
                continue;
            }
            let is_fresh = transaction.readings.iter().all(|id| !carried.contains(id));
            if under_load && is_fresh && !transaction.full {
                self.remainder = items
                    .iter()
                    .filter(|item| transaction.readings.contains(&item.reading_id))
                    .copied()
                    .collect();
                continue;
            }
            self.estimate.transactions += 1;
            self.estimate.priority_fee_lamports += self
                .price
                .lamports_for(transaction.compute_units.min(COMPUTE_UNITS_MAX));
            for payment in transaction.payments {
                if payment.create_account && self.new_wallets.insert(payment.wallet) {
                    self.estimate.account_creations += 1;
                }
            }
        }
        if self.new_wallets.len() > NEW_WALLETS_MAX {
            self.new_wallets.clear();
        }
    }

    /// What it came to.
    pub fn end(mut self) -> Estimate {
        if !self.remainder.is_empty() {
            self.pack(&[]);
        }
        let signatures = 1 + u64::from(self.limits.separate_fee_payer);
        let base_fees = self.estimate.transactions * signatures * LAMPORTS_PER_SIGNATURE;
        Estimate {
            fee_lamports: base_fees + self.estimate.priority_fee_lamports,
            rent_lamports: self.estimate.account_creations * TOKEN_ACCOUNT_RENT_LAMPORTS,
            ..self.estimate
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use solana_sdk::pubkey::Pubkey;

    use super::*;
    use crate::chain::{Endpoints, MintAccounts, PriorityFees};
    use crate::domain::PriorityFeePolicy;
    use crate::mint::Payer;

    fn estimator(max_base_units: u64) -> Estimator {
        priced_estimator(max_base_units, 0)
    }

    fn priced_estimator(max_base_units: u64, micro_lamports: u64) -> Estimator {
        let authority = Pubkey::new_unique();
        estimator_paid_by(
            Payer::Ours(authority),
            authority,
            max_base_units,
            micro_lamports,
        )
    }

    fn estimator_paid_by(
        payer: Payer,
        authority: Pubkey,
        max_base_units: u64,
        micro_lamports: u64,
    ) -> Estimator {
        let nowhere = Endpoints::new(&["http://127.0.0.1:9".to_owned()], Duration::from_secs(1));
        let accounts = MintAccounts {
            genesis_hash: Default::default(),
            mint: Pubkey::new_unique(),
            authority,
            decimals: 9,
        };
        let price = ComputeUnitPrice::from_micro_lamports(micro_lamports);
        let fees = PriorityFees::new(PriorityFeePolicy::Fixed(price), ComputeUnitPrice::MAX);
        let chain = ChainSide::new(nowhere, accounts, payer, fees);
        Estimator::new(chain, 50, BaseUnits::new(max_base_units))
    }

    fn items(wallets: u8, rounds: u8, base_units: u64) -> Vec<PackItem> {
        (0..rounds)
            .flat_map(|_| 0..wallets)
            .map(|wallet| PackItem {
                reading_id: Uuid::now_v7(),
                wallet: Wallet::from_stored([wallet + 1; 32]),
                base_units: BaseUnits::new(base_units),
                needs_account: true,
                alone: false,
            })
            .collect()
    }

    fn estimate(estimator: &Estimator, items: &[PackItem]) -> Estimate {
        let mut estimating = estimator.begin();
        for batch in items.chunks(50) {
            estimating.pack(batch);
        }
        estimating.end()
    }

    #[test]
    fn an_account_is_created_once_however_often_its_wallet_is_paid() {
        let estimator = estimator(u64::MAX);
        let estimate = estimate(&estimator, &items(5, 100, 1));
        assert_eq!(estimate.account_creations, 5);
        assert_eq!(estimate.transactions, 10, "50 readings each");
        assert_eq!(estimate.fee_lamports, 50_000);
        assert_eq!(estimate.rent_lamports, 5 * TOKEN_ACCOUNT_RENT_LAMPORTS);
    }

    #[test]
    fn a_fee_payer_of_its_own_signs_too_and_one_that_is_not_known_is_taken_for_such() {
        let (authority, other) = (Pubkey::new_unique(), Pubkey::new_unique());
        let fee = |payer| {
            let estimator = estimator_paid_by(payer, authority, u64::MAX, 0);
            estimate(&estimator, &items(1, 1, 1)).fee_lamports
        };
        assert_eq!(fee(Payer::Ours(authority)), 5_000);
        assert_eq!(fee(Payer::Ours(other)), 10_000);
        assert_eq!(fee(Payer::Theirs(Some(authority))), 5_000);
        assert_eq!(fee(Payer::Theirs(Some(other))), 10_000);
        assert_eq!(fee(Payer::Theirs(None)), 10_000);
        // It is told while the process runs.
        let estimator = estimator_paid_by(Payer::Theirs(None), authority, u64::MAX, 0);
        estimator.chain.fee_budget.set_payer(authority);
        assert_eq!(estimate(&estimator, &items(1, 1, 1)).fee_lamports, 5_000);
    }

    #[test]
    fn the_priority_fee_counts_with_what_may_be_asked_for() {
        let estimator = priced_estimator(u64::MAX, 1_000_000);
        let estimate = estimate(&estimator, &items(1, 2, 1));
        // One payment and one creation, a lamport for each unit.
        assert_eq!(estimate.priority_fee_lamports, 25_000 + 6_000 + 99_000);
        assert_eq!(estimate.fee_lamports, 5_000 + 130_000);
    }

    #[test]
    fn what_does_not_fill_a_transaction_waits_for_more() {
        let estimator = estimator(u64::MAX);
        let with_creations = estimate(&estimator, &items(100, 1, 1));
        assert_eq!(with_creations.account_creations, 100);
        let full = pack(items(50, 1, 1), &estimator.limits)[0].readings.len() as u64;
        assert_eq!(with_creations.transactions, 100_u64.div_ceil(full));
    }

    #[test]
    fn a_reading_above_the_limit_of_a_transaction_is_refused() {
        let estimator = estimator(10);
        let estimate = estimate(&estimator, &items(1, 2, 11));
        assert_eq!((estimate.refused, estimate.transactions), (2, 0));
    }
}
