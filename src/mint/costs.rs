//! Computes the cost of a mint transaction, in lamports: pure.

use crate::domain::{
    COMPUTE_UNITS_MAX, CREATE_COMPUTE_UNITS_MAX, ComputeUnitPrice, PAYMENT_COMPUTE_UNITS_MAX,
    Packed,
};

/// Transactions whose fees must stay when a token account is bought: readings of wallets that have one are paid from them until an
/// operator tops up. Cheap beside the account's rent.
const FEES_KEPT: u64 = 50;

/// The prices that hold for one packing.
#[derive(Clone, Copy, Debug)]
pub(super) struct TransactionCosts {
    /// For the signatures of one mint transaction, lamports.
    pub base_fee: u64,
    /// Of a new token account, lamports.
    pub account_rent: u64,
    /// Of each compute unit that a transaction requests.
    pub price: ComputeUnitPrice,
}

impl TransactionCosts {
    /// The priority fee at most: the compute units that a transaction requests are known once it was simulated.
    pub fn priority_fee(&self, packed: &Packed) -> u64 {
        self.price
            .lamports_for(packed.compute_units.min(COMPUTE_UNITS_MAX))
    }

    /// Fees and rent at most.
    pub fn ceiling(&self, packed: &Packed) -> u64 {
        self.base_fee + self.priority_fee(packed) + self.rent(packed)
    }

    /// The fee without the part that pays for creating token accounts.
    pub fn fee_without_creations(&self, packed: &Packed) -> u64 {
        let compute_units = packed.compute_units - packed.creation_compute_units;
        self.base_fee + self.price.lamports_for(compute_units)
    }

    /// Cost of the first reading of a wallet without a token account, at most.
    pub fn of_new_wallet(&self) -> u64 {
        self.of_cheapest() + self.of_creation()
    }

    /// Lamports that must stay spendable when a token account is bought.
    pub fn fees_kept(&self) -> u64 {
        FEES_KEPT * self.of_cheapest()
    }

    /// Cost of the cheapest transaction, at most: one payment to a token account that exists.
    pub fn of_cheapest(&self) -> u64 {
        self.base_fee + self.price.lamports_for(PAYMENT_COMPUTE_UNITS_MAX)
    }

    /// A token account and the compute units of its creation.
    pub fn of_creation(&self) -> u64 {
        self.account_rent + self.price.lamports_for(CREATE_COMPUTE_UNITS_MAX)
    }

    /// For the token accounts that the transaction creates.
    pub fn rent(&self, packed: &Packed) -> u64 {
        u64::from(packed.account_creations()) * self.account_rent
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{BaseUnits, Payment, Wallet};

    const RENT: u64 = 1_488_440;

    fn packed(compute_units: u32, creation_compute_units: u32, creations: usize) -> Packed {
        let payment = Payment {
            wallet: Wallet::from_stored([1; 32]),
            base_units: BaseUnits::new(1),
            create_account: true,
        };
        Packed {
            readings: Vec::new(),
            payments: vec![payment; creations],
            base_units: BaseUnits::new(1),
            compute_units,
            creation_compute_units,
            bytes: 500,
            full: false,
            oversized: false,
        }
    }

    #[test]
    fn the_ceiling_includes_the_priority_fee_and_the_rent() {
        let costs = |micro_lamports| TransactionCosts {
            base_fee: 10_000,
            account_rent: RENT,
            price: ComputeUnitPrice::from_micro_lamports(micro_lamports),
        };
        let two = packed(31_000 + 200_000, 200_000, 2);
        assert_eq!(costs(0).ceiling(&two), 10_000 + 2 * RENT);
        assert_eq!(costs(1_000_000).ceiling(&two), 10_000 + 231_000 + 2 * RENT);
        assert_eq!(
            costs(1_000_000).fee_without_creations(&two),
            10_000 + 31_000
        );
        assert_eq!(costs(1).ceiling(&two), 10_000 + 1 + 2 * RENT, "rounded up");
        let past_the_limit = packed(u32::MAX, 0, 0);
        assert_eq!(
            costs(1_000_000).ceiling(&past_the_limit),
            10_000 + 1_400_000
        );
        // The first reading of a new wallet: what packing plans for it.
        assert_eq!(
            costs(1_000_000).of_new_wallet(),
            10_000 + 31_000 + 99_000 + RENT
        );
    }
}
