//! Estimates what minting readings would take, without minting any: the same account query and the same packing.

use std::collections::HashSet;

use uuid::Uuid;

use super::chain_handle::ChainHandle;
use super::costs::TransactionCosts;
use super::pack::pack;
use super::token_accounts;
use crate::chain::{AsOf, ChainError, RpcClass};
use crate::domain::{
    BaseUnits, COMPUTE_UNITS_MAX, PackItem, PackLimits, TransactionFormat, Wallet,
};

/// Wallets remembered as needing an account, so that each is counted once: 32 bytes each. Past this number all are forgotten,
/// and one that comes again counts again, so the figure is a ceiling.
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

/// Transactions and lamports that minting would take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Estimate {
    /// All that were added.
    pub readings: u64,
    /// Of those, the readings that would be refused before anything is signed: their token account is closed, frozen or given
    /// away, or their amount is above the limit of a transaction.
    pub refused: u64,
    pub transactions: u64,
    /// Token accounts that would be created.
    pub account_creations: u64,
    /// Fees of the transactions, with the priority fee.
    pub fee_lamports: u64,
    /// The priority fee's part of it, at most: the compute units that a transaction requests are known once it was simulated.
    pub priority_fee_lamports: u64,
    /// Rent of the token accounts, in addition to the fees.
    pub rent_lamports: u64,
}

/// Estimates with the minter's settings. Clones share the chain handle.
#[derive(Clone)]
pub struct Estimator {
    chain: ChainHandle,
    limits: PackLimits,
}

impl Estimator {
    /// `max_readings` and `max_base_units` as the minter has them.
    pub fn new(chain: ChainHandle, max_readings: usize, max_base_units: BaseUnits) -> Estimator {
        Estimator {
            chain,
            limits: PackLimits {
                // The format and the last two are known when an estimate begins.
                format: TransactionFormat::Legacy,
                max_readings,
                max_base_units,
                max_bytes: TransactionFormat::Legacy.bytes_max(),
                max_compute_units: COMPUTE_UNITS_MAX,
                separate_fee_payer: true,
                priced: false,
            },
        }
    }

    /// Of the next transaction, by what the preferred endpoint takes.
    pub fn transaction_format(&self) -> TransactionFormat {
        let endpoint = self.chain.endpoints.preferred();
        self.chain.transaction_formats.known(endpoint)
    }

    /// Begins an empty estimate, at the present prices and charges.
    pub fn begin(&self) -> Result<Estimating<'_>, ChainError> {
        let price = self.chain.priority_fees.price();
        let format = self.transaction_format();
        Ok(Estimating {
            estimator: self,
            limits: PackLimits {
                format,
                max_bytes: format.bytes_max(),
                separate_fee_payer: self.chain.has_separate_fee_payer(),
                priced: !price.is_zero(),
                ..self.limits
            },
            costs: self.chain.costs_at(price)?,
            estimate: Estimate::default(),
            remainder: Vec::new(),
            new_wallets: HashSet::new(),
        })
    }
}

/// An estimate that grows reading by reading; its memory does not.
pub struct Estimating<'a> {
    estimator: &'a Estimator,
    limits: PackLimits,
    /// At the prices of when it began.
    costs: TransactionCosts,
    estimate: Estimate,
    /// Readings that did not fill a transaction. As in the minter they wait for the next ones, once.
    remainder: Vec<PackItem>,
    new_wallets: HashSet<Wallet>,
}

impl Estimating<'_> {
    /// Adds readings, in the order in which they would be minted.
    pub async fn add(&mut self, readings: &[Unminted]) -> Result<(), ChainError> {
        let chain = &self.estimator.chain;
        let endpoint = chain.endpoints.preferred();
        let wallets = readings.iter().map(|reading| reading.wallet);
        let inspected = token_accounts::inspect(
            chain,
            endpoint,
            RpcClass::Background,
            wallets,
            AsOf::Confirmed,
        )
        .await;
        if let Err(error @ ChainError::Unreachable { .. }) = &inspected {
            chain.endpoints.fail_over_from(endpoint, error);
        }
        let accounts = inspected?;
        self.estimate.readings += count(readings.iter());
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

    /// Packs like one batch of the minter.
    fn pack(&mut self, batch: &[PackItem]) {
        let carried: HashSet<Uuid> = self.remainder.iter().map(|item| item.reading_id).collect();
        let mut items = std::mem::take(&mut self.remainder);
        items.extend(batch);
        for item in &mut items {
            item.needs_account &= !self.new_wallets.contains(&item.wallet);
        }
        let packing = pack(items.clone(), &self.limits, |reading| {
            !carried.contains(&reading)
        });
        let waits: HashSet<Uuid> = packing.carried.into_iter().collect();
        items.retain(|item| waits.contains(&item.reading_id));
        self.remainder = items;
        self.estimate.refused +=
            count(packing.oversized.iter().flat_map(|packed| &packed.readings));
        for packed in packing.leaving {
            self.estimate.transactions += 1;
            self.estimate.priority_fee_lamports += self.costs.priority_fee(&packed);
            for payment in packed.payments {
                if payment.create_account && self.new_wallets.insert(payment.wallet) {
                    self.estimate.account_creations += 1;
                }
            }
        }
        if self.new_wallets.len() > NEW_WALLETS_MAX {
            self.new_wallets.clear();
        }
    }

    /// Ends the estimate: readings that still wait for more leave in their own transaction.
    pub fn end(mut self) -> Estimate {
        if !self.remainder.is_empty() {
            self.pack(&[]);
        }
        let base_fees = self.estimate.transactions * self.costs.base_fee;
        Estimate {
            fee_lamports: base_fees + self.estimate.priority_fee_lamports,
            rent_lamports: self.estimate.account_creations * self.costs.account_rent,
            ..self.estimate
        }
    }
}

fn count<T>(items: impl Iterator<Item = T>) -> u64 {
    items.map(|_| 1).sum()
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use solana_sdk::pubkey::Pubkey;

    use super::*;
    use crate::chain::{ChainCharges, Endpoints, MintAccounts, PriorityFees};
    use crate::domain::{self, ComputeUnitPrice, PriorityFeePolicy};
    use crate::mint::FeePayerSource;

    const RENT: u64 = 1_488_440;

    fn estimator(max_base_units: u64) -> Estimator {
        priced_estimator(max_base_units, 0)
    }

    fn priced_estimator(max_base_units: u64, micro_lamports: u64) -> Estimator {
        let authority = Pubkey::new_unique();
        estimator_paid_by(
            FeePayerSource::OwnKey(authority),
            authority,
            max_base_units,
            micro_lamports,
        )
    }

    fn estimator_paid_by(
        payer: FeePayerSource,
        authority: Pubkey,
        max_base_units: u64,
        micro_lamports: u64,
    ) -> Estimator {
        let nowhere = Endpoints::new(&["http://127.0.0.1:9".to_owned()], Duration::from_secs(1));
        let charges = ChainCharges {
            token_account_rent: RENT,
            fee_payer_minimum: 650_240,
            per_signature: 5_000,
        };
        nowhere.parameters().set_charges(charges, Instant::now());
        let accounts = MintAccounts {
            genesis_hash: Default::default(),
            mint: Pubkey::new_unique(),
            authority,
            decimals: 9,
        };
        let price = ComputeUnitPrice::from_micro_lamports(micro_lamports);
        let fees = PriorityFees::new(PriorityFeePolicy::Fixed(price), ComputeUnitPrice::MAX);
        let chain = ChainHandle::new(nowhere, accounts, payer, fees);
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
        let mut estimating = estimator.begin().unwrap();
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
        assert_eq!(estimate.rent_lamports, 5 * RENT);
    }

    #[test]
    fn a_separate_fee_payer_signs_too_and_an_unknown_one_counts_as_separate() {
        let (authority, other) = (Pubkey::new_unique(), Pubkey::new_unique());
        let fee = |payer| {
            let estimator = estimator_paid_by(payer, authority, u64::MAX, 0);
            estimate(&estimator, &items(1, 1, 1)).fee_lamports
        };
        assert_eq!(fee(FeePayerSource::OwnKey(authority)), 5_000);
        assert_eq!(fee(FeePayerSource::OwnKey(other)), 10_000);
        assert_eq!(fee(FeePayerSource::Ledger(Some(authority))), 5_000);
        assert_eq!(fee(FeePayerSource::Ledger(Some(other))), 10_000);
        assert_eq!(fee(FeePayerSource::Ledger(None)), 10_000);
        // It becomes known while the process runs.
        let estimator = estimator_paid_by(FeePayerSource::Ledger(None), authority, u64::MAX, 0);
        estimator.chain.fee_budget.set_payer(authority);
        assert_eq!(estimate(&estimator, &items(1, 1, 1)).fee_lamports, 5_000);
    }

    #[test]
    fn the_priority_fee_is_estimated_for_the_most_units_that_may_be_requested() {
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
        let full = domain::pack(items(50, 1, 1), &estimator.limits)[0]
            .readings
            .len() as u64;
        assert_eq!(with_creations.transactions, 100_u64.div_ceil(full));
    }

    #[test]
    fn a_reading_above_the_limit_of_a_transaction_is_refused() {
        let estimator = estimator(10);
        let estimate = estimate(&estimator, &items(1, 2, 11));
        assert_eq!((estimate.refused, estimate.transactions), (2, 0));
    }
}
